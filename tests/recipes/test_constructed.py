"""Constructed specimens: written weights do what their algorithm says, on prompts never seen, in every architecture."""

import numpy as np
import pytest
import torch

from cutaway.recipes.constructed.architectures import ARCHITECTURES
from cutaway.recipes.constructed.build import rotation, weights
from cutaway.recipes.constructed.catalogue import DESIGNS
from cutaway.recipes.constructed.mechanisms.brackets import DEEP, THRESHOLD, depth
from cutaway.recipes.constructed.mechanisms.modular import P
from cutaway.recipes.measures import accuracy, last_logits
from cutaway.recipes.workshop import Workshop
from cutaway.zoo.registry import all_specimens, specimen
from cutaway.zoo.specimens import Specimen

CONSTRUCTED = [s for s in all_specimens().values() if s.family == "constructed"]


def test_every_mechanism_is_there_in_every_architecture() -> None:
    assert len(CONSTRUCTED) == len(DESIGNS) * len(ARCHITECTURES)
    assert {d.name for d in DESIGNS} == {
        "induction", "duplicate", "copy-suppression", "bracket-depth", "fourier-addition", "lookup", "superposition",
        "unread", "redundant", "backup", "counted-duplicate", "table-addition",
    }  # fmt: skip


@pytest.mark.parametrize("what", CONSTRUCTED, ids=lambda s: s.name)
def test_it_is_right_on_fresh_prompts_and_its_twins_are_not(what: Specimen, tmp_path) -> None:
    seed = int(np.random.default_rng().integers(1 << 30))
    made = what.recipe.make(Workshop(tmp_path))
    pairs = what.task.pairs(200, seed)
    assert accuracy(made.model, pairs)["top1"] == 1.0, seed
    assert accuracy(what.recipe.twin("shuffled"), pairs)["top1"] < 0.2, seed


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.name)
def test_pairs_and_swaps_are_what_they_say(design) -> None:
    """Pairs of equal length with different answers; swaps whose prediction differs from the base's own answer."""
    model = specimen(f"{design.name}-gpt2").recipe.make(Workshop(None)).model  # type: ignore[arg-type]
    for pair in design.task.pairs(50, 3):
        assert len(pair.clean) == len(pair.corrupted)
        assert not set(pair.right) & set(pair.wrong)
    corrupted = [p.corrupted for p in design.task.pairs(50, 3)]
    best = last_logits(model, corrupted, [-1] * 50).argmax(-1).tolist()
    assert all(b in p.wrong for b, p in zip(best, design.task.pairs(50, 3), strict=True))
    for held in design.holds:
        swaps = design.task.swaps(held.name, 50, 3)
        before = last_logits(model, [s.base for s in swaps], [-1] * 50).argmax(-1).tolist()
        told = [b in s.right for b, s in zip(before, swaps, strict=True)]
        assert all(told) if not held.read else not any(told), held.name
        values = {label.value for label in design.task.labels(held.name, 200, 3)}
        assert held.classes is None or values <= set(range(held.classes))


def test_all_sums_are_right() -> None:
    model = specimen("fourier-addition-llama").recipe.make(Workshop(None)).model  # type: ignore[arg-type]
    rows = [(0, 1 + a, 1 + b, P + 1) for a in range(P) for b in range(P)]
    best = last_logits(model, rows, [-1] * len(rows)).argmax(-1).tolist()
    assert best == [1 + (a + b) % P for a in range(P) for b in range(P)]


def test_depth_is_counted_as_python_counts_it() -> None:
    task = specimen("bracket-depth-neox").task
    for pair in task.pairs(100, 5):
        assert (depth(pair.clean) > THRESHOLD) == (pair.right == (DEEP,))


def test_drawn_again_from_the_same_seed() -> None:
    for what in CONSTRUCTED[::3]:
        assert what.task.pairs(5, 7) == what.task.pairs(5, 7)
        assert what.task.pairs(5, 7) != what.task.pairs(5, 8)


def test_rotation_is_orthogonal_and_keeps_sums_at_zero() -> None:
    turn = rotation(3).double()
    assert torch.allclose(turn @ turn.T, torch.eye(len(turn), dtype=torch.float64), atol=1e-6)
    assert turn[:, 2:-1].sum(0).abs().max() < 1e-5


@pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_named_heads_do_not_share_keys(arch) -> None:
    for design in DESIGNS:
        w = weights(design.plan(), arch)
        assert w.q.shape[1] == 4
        assert w.k.shape[1] == arch.kv_heads
