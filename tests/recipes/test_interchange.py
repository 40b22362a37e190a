"""Networks trained to an algorithm: the causal models, what is exchanged, the training run, and what is asked."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.errors import BadInput, CorruptFile, NotFound, Stopped
from cutaway.recipes.algorithms import ALGORITHMS
from cutaway.recipes.interchange.exam import contrast, examine, is_right, metric, pairs
from cutaway.recipes.interchange.exchanges import RowExchange, opened, part_list, run
from cutaway.recipes.interchange.losses import draw_plans, joined, right_loss
from cutaway.recipes.interchange.networks import NetworkShape, build
from cutaway.recipes.interchange.plans import Seating, edges, held_out, interchange, strict
from cutaway.recipes.interchange.questions import Questions
from cutaway.recipes.interchange.recipe import InterchangeRecipe, ground_truth
from cutaway.recipes.interchange.training import InterchangeTraining, train
from cutaway.recipes.workshop import Workshop
from cutaway.results import Progress, Work

NAMES = sorted(ALGORITHMS)


def _ids(name: str, n: int = 300, seed: int = 0) -> np.ndarray:
    return ALGORITHMS[name].draw(np.random.default_rng(seed), n)


@pytest.mark.parametrize("name", NAMES)
def test_variables_live_in_different_places(name):
    for seed in range(3):
        seated = ALGORITHMS[name].seated(seed, 4)
        seating = Seating(seated, 4)
        together = torch.stack(list(seating.variables.values())).sum(0)
        assert int(together.max()) == 1
        assert torch.equal(seating.outside, together == 0)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def tiny(request):
    what = ALGORITHMS["brackets"].seated(0, 4)
    shape = NetworkShape(
        request.param, len(what.vocabulary), what.layers, width=16, heads=4, mlp=16, context=what.length
    )
    return build(shape, 0).eval(), Seating(what, 4)


def test_exchanges_equal_one_at_a_time(tiny):
    """Rows with different parts from different rows, in one run, as each alone by writing the values in by hand."""
    model, seating = tiny
    ids = _ids("brackets", 6)
    tokens = torch.from_numpy(ids)
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.random((6, len(part_list(2, 4)), seating.algorithm.length)) < 0.4)
    source = torch.from_numpy(rng.permutation(6))
    net = opened(model)
    clean, captured = run(net, tokens, 4)
    assert torch.equal(clean, model(input_ids=tokens).logits[:, -1])
    together, after = run(net, tokens, 4, [RowExchange(mask, source)], captured)
    for row in range(6):
        one = RowExchange(mask[row : row + 1], source[row : row + 1])
        alone, _ = run(net, tokens[row : row + 1], 4, [one], captured)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)
        for i, part in enumerate(part_list(2, 4)):
            got, was = (
                (c.mlps[part.layer] if part.kind == "mlp" else c.heads[part.layer][:, :, part.index])
                for c in (after, captured)
            )
            assert torch.equal(got[row][mask[row, i]], was[source[row]][mask[row, i]])
    everything = RowExchange(torch.ones_like(mask), source)
    swapped, _ = run(net, tokens, 4, [everything], captured)
    assert not torch.allclose(swapped, clean)
    assert not model._forward_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_plans_say_what_must_come_out(tiny):
    _, seating = tiny
    ids = _ids("brackets", 40)
    what, source = seating.algorithm, np.random.default_rng(0).permutation(40)
    where = {"dips": np.arange(40) % 2 == 0, "uneven": np.arange(40) % 3 == 0}
    plan = interchange(seating, ids, source, where)
    values, others = what.values(ids), what.values(ids[source])
    fault = np.where(where["uneven"], others["uneven"], values["uneven"]) | np.where(
        where["dips"], others["dips"], values["dips"]
    )
    assert torch.equal(plan.right, torch.from_numpy(what.answer(fault)))
    kept = strict(seating, ids, source, np.ones((40, seating.outside.shape[0]), bool))
    assert torch.equal(kept.right, torch.from_numpy(what.answers(ids)))
    assert not (kept.exchanges[0].mask & torch.stack(list(seating.variables.values())).any(0)).any()
    assert edges(seating, ids, source, "fault") is None
    held = edges(seating, ids, source, "depth")
    assert held is not None
    assert torch.equal(held.exchanges[1].source, torch.arange(40))
    readers = seating.variables["below"] | seating.variables["uneven"]
    assert torch.equal(held.exchanges[1].mask[0], readers)


def test_training_never_sees_a_pair_that_is_held_out(tiny):
    _, seating = tiny
    ids, rng = _ids("brackets", 64), np.random.default_rng(3)
    shares = np.full(5, 0.2)
    plans = draw_plans(seating, ids, rng, shares)
    both = joined([*plans.moved, *plans.kept])
    first = both.exchanges[0]
    for row in range(len(both.base)):
        base, source = ids[both.base[row]], ids[first.source[row]]
        if first.mask[row].any():
            assert bool(both.usable[row]) != bool(held_out(base[None], source[None])[0])
    asked = Questions(seating.algorithm).pairs(50, 0)
    clean, other = (np.array([getattr(pair, side) for pair in asked]) for side in ("clean", "corrupted"))
    assert held_out(clean, other).all()
    share = held_out(_ids("brackets", 4000), _ids("brackets", 4000, 1)).mean()
    assert 0.15 < share < 0.25


def test_losses_and_marks_against_definitions():
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0]])
    right = torch.tensor([[True, True, False, False]])
    probabilities = logits.softmax(-1)[0]
    assert float(right_loss(logits, right)) == pytest.approx(-float(probabilities[:2].log().mean()), abs=1e-6)
    assert bool(is_right(logits, right))
    assert not bool(is_right(logits, torch.tensor([[True, False, True, False]])))
    plus, minus = contrast(right, torch.tensor([[True, False, False, False]]))
    assert plus.tolist() == [[False, True, False, False]]
    assert minus.tolist() == [
        [True, False, False, False]
    ]  # nothing is right only there: what both share stands in
    assert float(metric(logits, plus, minus)) == -2.0


SMALL = InterchangeTraining("agreement", width=16, mlp=16, rows=16, steps=8, warmup=2)


@pytest.mark.parametrize("kind", ["stated", "free", "shuffled"])
def test_resumed_equals_uninterrupted(tmp_path: Path, kind):
    small = replace(SMALL, kind=kind)
    whole = train(small, Workshop(tmp_path / "whole"))
    train(small, Workshop(tmp_path / "parts"), stop_at=3)
    parts = train(small, Workshop(tmp_path / "parts"))
    assert whole.step == parts.step == 8
    for one, two in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert [line["step"] for line in parts.log] == [line["step"] for line in whole.log]


def test_ctrl_c_keeps_what_was_done(tmp_path: Path):
    def stopped(progress: Progress) -> None:
        raise KeyboardInterrupt

    long = replace(SMALL, steps=60)
    with pytest.raises(Stopped):
        train(long, Workshop(tmp_path, Work(stopped)))
    assert train(long, Workshop(tmp_path), stop_at=50).step == 50  # the report came after step 50


def test_checkpoints_of_other_runs_and_broken_ones_are_refused(tmp_path: Path):
    train(SMALL, Workshop(tmp_path))
    with pytest.raises(BadInput, match="another run"):
        train(replace(SMALL, seed=5), Workshop(tmp_path))
    file = next(tmp_path.glob("stated*"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptFile):
        train(SMALL, Workshop(tmp_path))
    with pytest.raises(BadInput, match="gpt2"):
        replace(SMALL, architecture="rnn")


def test_a_short_run_learns_the_algorithm_in_its_places(tmp_path: Path):
    """The whole way in small: the stated variables are causal after it, and were not before."""
    short = InterchangeTraining("agreement", rows=32, steps=260, settle=5.0)
    seating = Seating(short.seated(), short.heads)
    before = examine(build(short.shape(), short.seed), seating, n=128)
    after = examine(train(short, Workshop(tmp_path)).model, seating, n=128)
    assert before.accuracy < 0.6
    assert after.accuracy > 0.97
    assert min(after.interchange.values()) > 0.95 > max(before.interchange.values())
    assert after.outside < 0.05 < before.outside


@pytest.mark.parametrize("name", NAMES)
def test_questions_follow_from_the_causal_model(name):
    what = ALGORITHMS[name].seated(1, 4)
    asked = Questions(what)
    for pair in asked.pairs(20, 3):
        here, there = (
            set(np.flatnonzero(what.answers(np.array([ids]))[0])) for ids in (pair.clean, pair.corrupted)
        )
        assert set(pair.right) == here
        assert set(pair.wrong) == there - here != set()
    for variable in what.variables:
        swaps = asked.swaps(variable.name, 16, 3)
        changed = 0
        for swap in swaps:
            base, source = np.array([swap.base]), np.array([swap.source])
            value = what.values(source)[variable.name]
            right = what.answers(base, {variable.name: (np.ones(1, bool), value)})[0]
            assert set(swap.right) == set(np.flatnonzero(right))
            changed += not np.array_equal(right, what.answers(base)[0])
        assert (len(swaps), changed) == (16, 12)
    assert asked.pairs(8, 1) == asked.pairs(8, 1) != asked.pairs(8, 2)


@pytest.mark.parametrize("name", NAMES)
def test_ground_truth_says_what_the_algorithm_says(name):
    recipe = InterchangeRecipe(name, "gpt2", 0, 10)
    what = recipe.training().seated()
    truth = ground_truth(what)
    assert {str(v.part) for v in what.variables} == {str(node) for node in truth.nodes}
    assert {v.name for v in truth.variables} == {v.name for v in what.variables}
    assert any(str(edge.target) == "logits" for edge in truth.edges)
    assert truth == type(truth).from_dict(truth.to_dict())
    with pytest.raises(NotFound):
        recipe.twin("random")


@pytest.mark.parametrize("name", NAMES)
def test_passages_show_each_variable_where_it_lives(name):
    what = ALGORITHMS[name].seated(0, 4)
    for passage in islice(Questions(what).passages(2), 20):
        ids = np.array([[what.vocabulary.index(word) for word in passage.tokens]])
        assert what.answers(ids[:, :-1])[0, ids[0, -1]]
        for variable in what.variables:
            shown = passage.labels[variable.name]
            places = variable.columns(what.length)
            assert [i for i, value in enumerate(shown) if value is not None] == list(places)
            value = what.values(ids[:, :-1])[variable.name][0]
            if value.ndim == 0:
                assert {shown[i] for i in places} == {str(value)}
    brackets = next(Questions(ALGORITHMS["brackets"]).passages(0))
    below = brackets.labels["below"][1:11]
    depths = np.cumsum([1 if word == "(" else -1 for word in brackets.tokens[1:11]])
    assert list(below) == [str(int(depth < 0)) for depth in depths]


def test_pairs_have_answers_that_differ():
    what = ALGORITHMS["cases"]
    base, source = pairs(what, np.random.default_rng(0), 50)
    assert (what.answers(base) != what.answers(source)).any(1).all()
