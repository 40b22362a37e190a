"""A sparse step is the dense step: loss, gradients, parameters after several, for everything that a recipe allows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.features.training.dense import Dense
from torch import Tensor

from cutaway.errors import BadInput, NotFinite
from cutaway.features.training import DictionaryRecipe, Trainee

ACTIVATIONS = ("topk", "batchtopk", "relu", "jumprelu", "gated", "groupmax")
#: For each kind: places read and written, their widths, a skip connection.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], tuple[int, ...], bool]] = {
    "autoencoder": (("a",), ("a",), (6,), (6,), False),
    "transcoder": (("a",), ("b",), (6,), (5,), False),
    "skip transcoder": (("a",), ("b",), (6,), (5,), True),
    "cross-layer transcoder": (("a", "b", "c"), ("d", "e", "f"), (6, 5, 6), (4, 6, 5), False),
    "skip cross-layer transcoder": (("a", "b"), ("d", "e"), (6, 5), (4, 6), True),
    "crosscoder": (("a", "b"), ("a", "b"), (6, 5), (6, 5), False),
}
PREFIXES = ((), (5, 12, 24))
CASES = list(itertools.product(ACTIVATIONS, KINDS, PREFIXES))


def recipe_of(activation: str, kind: str, prefixes: tuple[int, ...] = (), **more: Any) -> DictionaryRecipe:
    reads, writes, _, _, skip = KINDS[kind]
    settings = {"latents": 24, "k": 3, "batch": 40, "lr": 0.01, "warmup": 0.0, "decay": 0.0}
    settings |= {"dead_after": 80, "revive": 0.3, "seed": 3}
    return DictionaryRecipe(
        reads, writes, kind.removeprefix("skip "), activation, prefixes=prefixes, skip=skip, **(settings | more)  # type: ignore[arg-type]
    )  # fmt: skip


def trainee_of(recipe: DictionaryRecipe, kind: str, dtype: torch.dtype = torch.float64) -> Trainee:
    trainee = Trainee(recipe, KINDS[kind][2], KINDS[kind][3], dtype)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():  # not the first values, of which many are zero
        for name, value in trainee.parameters.items():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(dtype)
            value += 0.1 * noise if name.split(".")[-1] != "threshold" else 0.0
            if name.startswith("decoders"):
                value /= value.norm(dim=1, keepdim=True)
    return trainee


def rows_of(
    kind: str, seed: int, dtype: torch.dtype = torch.float64, n: int = 40
) -> tuple[list[Tensor], list[Tensor]]:
    """Rows with few directions in them, so that some latents never fire."""
    generator = torch.Generator().manual_seed(seed)
    _, writes, widths_in, widths_out, _ = KINDS[kind]
    hidden = torch.rand(n, 4, generator=generator, dtype=torch.float64)
    fixed = torch.Generator().manual_seed(77)

    def place(width: int) -> Tensor:
        mix = torch.randn(4, width, generator=fixed, dtype=torch.float64)
        noise = torch.randn(n, width, generator=generator, dtype=torch.float64)
        return (hidden @ mix + 0.1 * noise - (0.5 * mix.sum(0))).to(dtype)

    reads = [place(w) for w in widths_in]
    same = kind in ("autoencoder", "crosscoder")
    return reads, reads if same else [place(w) for w in widths_out]


def close(mine: Tensor, theirs: Tensor, tolerance: float) -> bool:
    scale = max(1.0, float(theirs.detach().abs().max())) if theirs.numel() else 1.0
    return mine.shape == theirs.shape and bool(((mine - theirs).abs() <= tolerance * scale).all())


def begun(trainee: Trainee, kind: str) -> Dense:
    """The dense trainer with the first values that the first rows decide."""
    trainee.run(rows_of(kind, 0, trainee.parameters["biases.0"].dtype)[0])
    return Dense(trainee, trainee.state()["bandwidths"].tolist())


def gradients(trainee: Trainee, loss: Tensor) -> dict[str, Tensor]:
    names = [n for n, v in trainee.parameters.items() if v.requires_grad]
    found = torch.autograd.grad(loss, [trainee.parameters[n] for n in names], allow_unused=True)
    return {
        n: torch.zeros_like(trainee.parameters[n]) if g is None else g
        for n, g in zip(names, found, strict=True)
    }


@pytest.mark.parametrize(("activation", "kind", "prefixes"), CASES)
def test_a_sparse_step_is_the_dense_step(activation: str, kind: str, prefixes: tuple[int, ...]) -> None:
    same_as_dense(activation, kind, prefixes, 1.0)


@pytest.mark.parametrize(("activation", "kind"), list(itertools.product(ACTIVATIONS, KINDS)))
def test_so_is_one_by_ordinary_products(activation: str, kind: str) -> None:
    same_as_dense(activation, kind, PREFIXES[1], 0.0)


def same_as_dense(activation: str, kind: str, prefixes: tuple[int, ...], dense_from: float) -> None:
    recipe = recipe_of(activation, kind, prefixes)
    trainee = trainee_of(recipe, kind)
    trainee.dense_from = dense_from
    reference = begun(trainee, kind)
    revived = False
    for number in range(5):
        reads, writes = rows_of(kind, number)
        done = trainee.run(reads)
        mine, fvu = trainee.terms(done, writes)
        theirs = reference.terms(reads, writes)
        assert set(mine) == set(theirs)
        for name, term in theirs.items():
            assert close(mine[name], term, 1e-10), name
        g, h = gradients(trainee, sum(mine.values())), reference.gradients(sum(theirs.values()))
        for name in h:
            assert close(g[name], h[name], 1e-10), name
        revived |= "revival" in mine
        report = trainee.step(reads, writes, 0.5)
        reference.step(reads, writes, recipe.rate)
        assert report.fvu == pytest.approx(fvu)
        for name, value in reference.p.items():
            assert close(trainee.parameters[name].detach(), value.detach(), 1e-9), (number, name)
        state = trainee.state()
        assert torch.equal(state["since"], torch.stack(reference.since))
        assert state["coefficients"].tolist() == pytest.approx(reference.coefficients, abs=1e-12)
    assert revived or activation in ("relu", "gated")


@pytest.mark.parametrize(("activation", "kind"), list(itertools.product(ACTIVATIONS, KINDS)))
def test_in_single_precision_too(activation: str, kind: str) -> None:
    recipe = recipe_of(activation, kind, (5, 12, 24))
    trainee = trainee_of(recipe, kind, torch.float32)
    reference = begun(trainee, kind)
    for number in range(5):
        reads, writes = rows_of(kind, number, torch.float32)
        mine, _ = trainee.terms(trainee.run(reads), writes)
        theirs = reference.terms(reads, writes)
        for name, term in theirs.items():
            assert close(mine[name], term, 1e-5), name
        g, h = gradients(trainee, sum(mine.values())), reference.gradients(sum(theirs.values()))
        for name in h:
            assert close(g[name], h[name], 1e-5), name
        trainee.step(reads, writes, 0.5)
        reference.step(reads, writes, recipe.rate)
        # Adam divides by the gradient's own size, so that a number's rounding is not the parameter's
        trainee_now = {n: v.detach() for n, v in trainee.parameters.items()}
        assert all(close(trainee_now[n], v.detach(), 1e-3) for n, v in reference.p.items())
        with torch.no_grad():
            for name, value in reference.p.items():
                value.copy_(trainee_now[name])


@pytest.mark.parametrize("penalty", ["l1", "tanh"])
@pytest.mark.parametrize("activation", ["relu", "gated"])
@pytest.mark.parametrize("kind", ["autoencoder", "crosscoder"])
def test_both_penalties(penalty: str, activation: str, kind: str) -> None:
    trainee = trainee_of(recipe_of(activation, kind, penalty=penalty), kind)
    reference = begun(trainee, kind)
    reads, writes = rows_of(kind, 1)
    mine, theirs = trainee.terms(trainee.run(reads), writes)[0], reference.terms(reads, writes)
    assert close(mine["sparsity"], theirs["sparsity"], 1e-12)
    g, h = gradients(trainee, mine["sparsity"]), reference.gradients(theirs["sparsity"])
    assert all(close(g[name], h[name], 1e-10) for name in h)
    assert float(mine["sparsity"].detach()) > 0


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_frozen_half_stays_as_it_was_drawn(half: str, activation: str) -> None:
    trainee = Trainee(recipe_of(activation, "autoencoder", frozen=half), (6,), (6,), torch.float64)
    first = {n: v.detach().clone() for n, v in trainee.parameters.items()}
    for number in range(5):
        reads, writes = rows_of("autoencoder", number)
        trainee.step(reads, writes, 0.5)
    moved = {n for n, v in trainee.parameters.items() if not torch.equal(v.detach(), first[n])}
    other = "decoder" if half == "encoder" else "encoder"
    assert f"{half}s.0.weight" not in moved
    assert {f"{other}s.0.weight", "encoders.0.bias", "biases.0"} <= moved


@pytest.mark.parametrize("lengths", [None, "unit", "free"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_decoders_keep_length_one_where_that_is_asked_for(
    kind: str, activation: str, lengths: str | None
) -> None:
    if lengths == "unit" and activation == "relu":
        with pytest.raises(BadInput, match="length one"):
            recipe_of(activation, kind, lengths=lengths)
        return
    recipe = recipe_of(activation, kind, lengths=lengths)
    unit = activation in ("jumprelu", "gated") if lengths is None else lengths == "unit"
    trainee = Trainee(recipe, *KINDS[kind][2:4], torch.float64)
    for number in range(4):
        trainee.step(*rows_of(kind, number), 0.5)
    for s in range(len(trainee.wiring.reads)):
        found = trainee.parameters[f"decoders.{s}.weight"].detach().norm(dim=1)
        assert bool(((found - 1).abs() < 1e-12).all()) == unit


def test_an_encoder_that_does_not_learn_is_refused_as_a_rate() -> None:
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="encoder_rate"):
            recipe_of("topk", "autoencoder", encoder_rate=rate)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["skip transcoder", "cross-layer transcoder", "crosscoder"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_training_goes_on_bit_for_bit(activation: str, kind: str, dtype: torch.dtype) -> None:
    def some(trainee: Trainee, numbers: range) -> None:
        for number in numbers:
            trainee.step(*rows_of(kind, number, dtype), number / 10)

    whole = Trainee(recipe_of(activation, kind), *KINDS[kind][2:4], dtype)
    some(whole, range(4))
    saved = whole.state()
    some(whole, range(4, 9))
    again = Trainee(recipe_of(activation, kind, seed=3), *KINDS[kind][2:4], dtype)
    again.load(saved)
    some(again, range(4, 9))
    mine, theirs = whole.state(), again.state()
    assert set(mine) == set(theirs)
    assert all(torch.equal(mine[n].nan_to_num(), theirs[n].nan_to_num()) for n in mine)
    assert not torch.equal(saved["parameters.decoders.0.weight"], mine["parameters.decoders.0.weight"])


def test_a_state_of_another_recipe_is_refused_and_changes_nothing() -> None:
    trainee = Trainee(recipe_of("topk", "autoencoder"), (6,), (6,))
    before = trainee.state()
    other = Trainee(recipe_of("topk", "autoencoder", latents=48), (6,), (6,)).state()
    with pytest.raises(BadInput, match="not of this recipe"):
        trainee.load(other)
    assert all(torch.equal(before[n].nan_to_num(), t.nan_to_num()) for n, t in trainee.state().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("where", ["read", "written"])
def test_rows_that_are_not_finite_are_refused_and_change_nothing(
    bad: float, activation: str, begun: bool, where: str
) -> None:
    trainee = Trainee(recipe_of(activation, "transcoder"), (6,), (5,), torch.float64)
    if begun:
        trainee.step(*rows_of("transcoder", 0), 0.5)
    else:
        trainee.run(rows_of("transcoder", 0)[0])
    before = trainee.state()
    reads, writes = rows_of("transcoder", 1)
    (reads if where == "read" else writes)[0][3, 2] = bad
    with pytest.raises(NotFinite):
        trainee.step(reads, writes, 0.5)
    assert all(torch.equal(before[n].nan_to_num(), t.nan_to_num()) for n, t in trainee.state().items())


def test_rows_that_do_not_fit_are_refused() -> None:
    trainee = Trainee(recipe_of("topk", "transcoder"), (6,), (5,))
    reads, writes = rows_of("transcoder", 0, torch.float32)
    for bad in (
        ([reads[0][:, :4]], writes), (reads, [writes[0][:7]]), (reads, writes * 2), ([reads[0].double()], writes),
        (reads, [torch.ones_like(writes[0])]), ([reads[0][:0]], [writes[0][:0]]), ([reads[0].half()], writes),
    ):  # fmt: skip
        with pytest.raises(BadInput):
            trainee.step(*bad, 0.5)


def test_recipes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="width"):
        Trainee(recipe_of("topk", "autoencoder"), (6, 6), (6,))
    with pytest.raises(BadInput, match="transcoder"):
        Trainee(recipe_of("topk", "autoencoder"), (6,), (5,))
    with pytest.raises(BadInput, match="target for each"):
        Trainee(DictionaryRecipe(("a", "b"), ("c",), "transcoder", latents=8, k=2), (4, 4), (4,))
    with pytest.raises(BadInput, match="float16"):
        Trainee(recipe_of("topk", "autoencoder"), (6,), (6,), torch.float16)
