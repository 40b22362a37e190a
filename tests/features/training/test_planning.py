"""What a training takes, against counts; and that what is charged for firing is steered to what was asked."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from tests.features.training.test_steps import ACTIVATIONS, KINDS, recipe_of
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.training import DictionaryRecipe, Trainee, memory_of, parameters_of, products_of
from cutaway.features.training.loop import CALIBRATED_ON, Assignment
from cutaway.features.training.objectives import FIRST, steered
from cutaway.features.training.planning import bytes_at_peak
from cutaway.features.training.rows import HELD_ROWS, ChunkSizes
from cutaway.features.training.wiring import wire


@pytest.mark.parametrize(("activation", "kind"), list(itertools.product(ACTIVATIONS, KINDS)))
def test_parameters_are_counted(activation: str, kind: str) -> None:
    recipe, widths = recipe_of(activation, kind), KINDS[kind][2:4]
    trainee = Trainee(recipe, *widths)
    counted = sum(value.numel() for value in trainee.parameters.values())
    assert parameters_of(recipe, *widths) == counted
    assert memory_of(recipe, *widths) > 4 * 4 * counted


def test_memory_holds_what_a_step_allocates() -> None:
    """A step's largest moment, as torch's own profiler counts it, is within what was said, and not far below it."""
    recipe = DictionaryRecipe(("a",), ("a",), activation="topk", latents=2048, k=8, batch=2048)
    trainee = Trainee(recipe, (64,), (64,))
    rows = torch.randn(2048, 64, generator=torch.Generator().manual_seed(0))
    trainee.step([rows], [rows], 0.5)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        trainee.step([rows], [rows], 0.5)
    held, most = 0, 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    lasting = 3 * 4 * parameters_of(recipe, (64,), (64,))  # parameters and moments were there before
    said = memory_of(recipe, (64,), (64,))
    assert most + lasting < said < 3 * (most + lasting)


def test_memory_grows_with_everything_it_depends_on() -> None:
    base = {"reads": ("a",), "writes": ("a",), "activation": "topk", "latents": 4096, "k": 16, "batch": 4096}
    said = memory_of(DictionaryRecipe(**base), (64,), (64,))  # type: ignore[arg-type]
    for more in (
        {"latents": 8192},
        {"k": 32},
        {"batch": 8192},
        {"activation": "relu"},
        {"prefixes": (512, 4096)},
    ):
        assert memory_of(DictionaryRecipe(**(base | more)), (64,), (64,)) > said  # type: ignore[arg-type]
    assert memory_of(DictionaryRecipe(**base), (128,), (128,)) > said  # type: ignore[arg-type]
    assert memory_of(DictionaryRecipe(**base), (64,), (64,), itemsize=8) > said  # type: ignore[arg-type]


def test_products_are_counted() -> None:
    recipe = DictionaryRecipe(("a",), ("a",), activation="topk", latents=2048, k=16, batch=4096)
    found = products_of(recipe, (128,), (128,))
    assert found["encoder"] == 2 * 128 * 2048
    assert found["sparse"] == 4 * 2 * 16 * 128
    assert found["encoder"] / sum(found.values()) > 0.8
    two = DictionaryRecipe(
        ("a", "b"), ("c", "d"), "cross-layer transcoder", "topk", latents=64, k=4, skip=True, revive=0
    )
    found = products_of(two, (8, 8), (8, 8))
    assert found["encoder"] == 2 * 2 * 8 * 64
    assert found["sparse"] == 2 * 4 * (8 + 3 * 16) + 2 * 4 * (8 + 3 * 8) + 2 * 4 * 64
    assert found["revival"] == 0


def test_what_reads_and_writes_what() -> None:
    across = wire(
        DictionaryRecipe(("a", "b", "c"), ("d", "e", "f"), "cross-layer transcoder", latents=8, k=2),
        (3, 4, 5),
        (6, 7, 8),
    )
    assert across.reads == ((0,), (1,), (2,))
    assert across.writes == ((0, 1, 2), (1, 2), (2,))
    assert across.width_out(1) == 15
    side = wire(DictionaryRecipe(("a", "b"), ("a", "b"), "crosscoder", latents=8, k=2), (3, 4), (3, 4))
    assert (side.reads, side.writes, side.width_in(0)) == (((0, 1),), ((0, 1),), 7)
    alone = wire(DictionaryRecipe(("a", "b"), ("a", "b"), latents=8, k=2), (3, 4), (3, 4))
    assert alone.writes == ((0,), (1,))
    with pytest.raises(BadInput):
        wire(DictionaryRecipe((), (), latents=8, k=2), (), ())


def planted(n: int, generator: torch.Generator) -> Tensor:
    fixed = torch.randn(60, 16, generator=torch.Generator().manual_seed(1))
    on = (torch.rand(n, 60, generator=generator) < 3 / 60) * (0.5 + torch.rand(n, 60, generator=generator))
    rows = on @ (fixed / fixed.norm(dim=1, keepdim=True))
    return (rows - 0.35) / rows.std()


@pytest.mark.parametrize(
    ("activation", "penalty"), [("relu", "l1"), ("relu", "tanh"), ("gated", "l1"), ("jumprelu", "l1")]
)
def test_what_is_charged_is_steered_to_k(activation: str, penalty: str) -> None:
    recipe = DictionaryRecipe(
        ("a",), ("a",), activation=activation, penalty=penalty, latents=64, k=6, batch=128, lr=3e-3,  # type: ignore[arg-type]
    )  # fmt: skip
    trainee, generator = Trainee(recipe, (16,), (16,)), torch.Generator().manual_seed(2)
    counts, errors = [], []
    for number in range(600):
        rows = planted(128, generator)
        report = trainee.step([rows], [rows], number / 600)
        counts.append(report.l0)
        errors.append(report.fvu)
    assert sum(counts[-50:]) / 50 == pytest.approx(recipe.k, rel=0.12)
    assert sum(errors[-50:]) / 50 < 0.6


def test_steering_goes_the_right_way() -> None:
    for activation in ("relu", "gated", "jumprelu"):
        recipe = recipe_of(activation, "autoencoder")
        more, fewer = steered(recipe, FIRST, 9.0, math.log(9)), steered(recipe, FIRST, 1.0, 0.0)
        assert fewer < FIRST < more
        assert steered(recipe, FIRST, 3.0, math.log(3)) == pytest.approx(FIRST)
    assert steered(recipe_of("relu", "autoencoder"), FIRST, 0.0, 0.0) > 0


def test_few_texts_are_not_charged_for_chunks_that_they_do_not_fill() -> None:
    recipe = DictionaryRecipe(("a",), ("a",), activation="topk", latents=64, k=4, batch=256)
    tasks, widths, sizes = [Assignment("a", recipe)], {"a": 16}, ChunkSizes(chunk=8192, batch=8, length=32)

    def said(held: int, counted: int) -> int:
        source = SimpleNamespace(held_rows=held, counted=counted)
        return bytes_at_peak(tasks, widths, sizes, None, source)  # type: ignore[arg-type]

    whole = bytes_at_peak(tasks, widths, sizes)
    assert said(HELD_ROWS, 100) == whole  # counting ended early: more texts follow
    assert said(500, 100_000) == whole - 2 * (HELD_ROWS - 500) * 4 * 16
    fewer = (8192 - 1000) + (CALIBRATED_ON - 1000) + (HELD_ROWS - 500)
    assert said(500, 1000) == whole - 2 * fewer * 4 * 16
