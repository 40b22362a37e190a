"""Which input tokens an answer rests on: against sums written out in float64, and against networks whose truth is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cutaway
from cutaway.algorithms.inputs import InputAttribution, InputLimits, input_attribution
from cutaway.algorithms.inputs.agreeing import elsewhere, merged, rank_correlations, shares_at
from cutaway.algorithms.inputs.telling import TOO_LITTLE, TOO_MUCH, misleading
from cutaway.behaviours.cases import Cases, cases_of
from cutaway.effects.inputs.methods import windows
from cutaway.errors import BadBehaviour, BadInput, CutawayError, SiteUnavailable, Stopped, UnknownOption
from cutaway.network import Network
from cutaway.reports import render
from cutaway.results import Progress, Work
from cutaway.statistics import Estimate, Interval
from cutaway.zoo.tiny import tiny

NAMES = ["Mary", "John", "Anna", "Tom", "Lucy", "James", "Emma", "Peter"]
FRAMES = [
    "When {A} and {B} went to park , {S} gave the ball to",
    "Then {A} and {B} went to school , {S} sold the cup to",
]


@cache
def tales(dtype: str = "float64") -> Network:
    return cutaway.open("zoo:tales", dtype=dtype)


@cache
def pronouns(n: int = 24) -> Cases:
    return cases_of("pronoun", tales(), n)


@cache
def giving() -> tuple[Network, Cases]:
    net = cutaway.open("zoo:indirect-object-gpt2")
    made = cutaway.cases(
        net, FRAMES, {"A": NAMES, "B": NAMES, "first": [True, False], "S": lambda A, B, first: A if first else B},
        lambda A, B, first: f" {B if first else A}", differ=["A", "B"], name="who gets it", n=120,
    )  # fmt: skip
    return net, made


def by_hand(net: Network, ids: Any, right: int, wrong: int) -> tuple[Any, torch.Tensor]:
    """The metric of embeddings in the bare model, and the embeddings of a prompt."""
    model: Any = net.model
    values = model.get_input_embeddings()(torch.tensor([list(ids)])).detach()

    def metric(given: torch.Tensor) -> torch.Tensor:
        last = model(inputs_embeds=given).logits[:, -1]
        return last[:, right] - last[:, wrong]

    return metric, values


@pytest.mark.parametrize("baseline", ["zero", " the", "corrupted"])
@pytest.mark.parametrize("seed", [1, 2])
def test_both_ways_are_what_is_written_out_in_float64(baseline: str, seed: int) -> None:
    net = tales()
    pairs = (
        pronouns().behaviour(net, "gender", n=40, seed=seed).take([3, 11])
    )  # of different lengths, perhaps
    found = input_attribution(
        net, pairs, method=("integrated_gradients", "occlusion"), baseline=baseline, steps=7, window=2
    )
    nodes, weights = np.polynomial.legendre.leggauss(7)
    bos = net.tokenizer.bos_token_id
    for row, (ids, other) in enumerate(zip(pairs.clean_ids, pairs.corrupted_ids, strict=True)):
        metric, values = by_hand(net, ids, pairs.right[row][0], pairs.wrong[row][0])
        swap = {"corrupted": other, " the": [net.to_single_token(" the")] * len(ids)}.get(baseline)
        base = torch.zeros_like(values) if swap is None else by_hand(net, swap, 0, 1)[1]
        base[:, 0] = values[:, 0] if ids[0] == bos else base[:, 0]
        total = torch.zeros_like(values)
        for node, weight in zip(nodes, weights, strict=True):
            at = (base + (1 + node) / 2 * (values - base)).requires_grad_(True)
            total += weight / 2 * torch.autograd.grad(metric(at).sum(), at)[0]
        wanted = ((values - base) * total).sum(-1)[0].numpy()
        assert found.values["integrated_gradients"][row, : len(ids)] == pytest.approx(
            wanted, rel=1e-8, abs=1e-10
        )
        whole = float(metric(values).detach())
        assert found.metric_values[row] == pytest.approx(whole, rel=1e-9)
        change = whole - float(metric(base).detach())
        assert found.missed[row] == pytest.approx(
            abs(wanted.sum() - change) / abs(change), rel=1e-6, abs=1e-9
        )
        lost: list[list[float]] = [[] for _ in ids]
        for start in range(len(ids) - 1):
            held = values.clone()
            held[:, start : start + 2] = base[:, start : start + 2]
            for place in (start, start + 1):
                lost[place].append(whole - float(metric(held).detach()))
        means = np.array([np.mean(each) for each in lost])
        assert found.values["occlusion"][row, : len(ids)] == pytest.approx(means, rel=1e-8, abs=1e-10)
        assert np.isnan(found.values["occlusion"][row, len(ids) :]).all()


def test_rollout_is_the_attention_multiplied_through() -> None:
    net = tales()
    text = "Lily went to the park because"
    found = input_attribution(net, text, method="rollout")
    tokens = net.encode([text])
    run = net.run(tokens, keep=["pattern.*"], logits=False)
    table = torch.eye(tokens.width, dtype=torch.float64)
    for layer in range(net.n_layers):
        mixed = 0.5 * run[f"pattern.{layer}"][0].double().mean(0) + 0.5 * torch.eye(
            tokens.width, dtype=torch.float64
        )
        table = mixed @ table
    assert found.values["rollout"][0] == pytest.approx(table[-1].numpy(), abs=1e-9)
    assert found.values["rollout"].sum() == pytest.approx(1.0)


def test_more_steps_miss_less_and_too_few_are_said() -> None:
    net = tales()
    pairs = pronouns().behaviour(net, "gender", n=6)
    few, many = (input_attribution(net, pairs, method="integrated_gradients", steps=s) for s in (2, 60))
    assert np.median(many.missed) < 0.001 < np.median(few.missed)
    assert any("take more steps than 2" in note for note in few.notes)


def test_a_token_that_nothing_reads_gets_nothing_and_one_that_decides_is_told_as_the_exchange_tells() -> None:
    net, known = giving()
    found = input_attribution(net, known, n=12, steps=6, controls=False)
    assert found.variables == ("A", "B", "first")
    # the exchange of a variable, by hand: the metric on the other prompt, with the same answers
    assert np.isfinite(found.changes).all()
    assert found.effects["first"] is not None
    assert max(found.effects, key=lambda v: found.effects[v].value) in ("A", "first", "B")  # type: ignore[union-attr]
    for one in found.agreements:
        assert set(one.shares) == set(found.effects)
        assert one.claim.verdict != "supported"  # no controls
        assert "random weights" in " ".join(one.claim.notes)
    named = found.agreement({"A": 1.0, "S": 2.0, "last": 0.0}, "occlusion")
    assert named is not None
    assert -1 <= named.value <= 1
    assert sorted(found.strongest("occlusion")) == sorted(found.spans["occlusion"])


def test_changes_are_those_of_the_exchanged_prompts() -> None:
    net, known = giving()
    found = input_attribution(net, known, method="occlusion", n=5, controls=False, seed=3)
    for v in range(len(found.variables)):
        for row in range(5):
            assert found.changed[v, row].any()
            assert not found.changed[v, row, -1]


def test_random_weights_support_nothing() -> None:
    _, known = giving()
    fresh = giving()[0].randomized(5)
    found = input_attribution(fresh, known, n=8, steps=6)
    assert all(claim.verdict != "supported" for claim in found.claims)


def test_what_is_stated_of_shares_and_ranks() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(size=(3, 6))
    where = rng.random((4, 3, 6)) < 0.5
    by_loop = np.array([[np.abs(values[n][w[n]]).sum() / np.abs(values[n]).sum() if w[n].any() else np.nan
                         for n in range(3)] for w in where])  # fmt: skip
    assert shares_at(values, where) == pytest.approx(by_loop, nan_ok=True)
    from scipy.stats import spearmanr

    a, b = rng.random((5, 7)), rng.random((5, 7))
    wanted = [spearmanr(a[:, i], b[:, i])[0] for i in range(7)]
    assert rank_correlations(a, b) == pytest.approx(np.array(wanted))
    assert rank_correlations(np.ones((4, 1)), b[:4, :1]).tolist() == [0.0]
    assert np.isnan(rank_correlations(a[:2], b[:2])).all()
    moved = elsewhere(where, [6, 6, 6], rng)
    assert (moved.sum(2) == where.sum(2)).all()
    names, at, most = merged(
        ["a", "b", "c"], where[[0, 0, 1]], np.array([[1.0, 2, 3], [2.0, 1, np.nan], [5.0, 5, 5]])
    )
    assert names == ["a and b", "c"]
    assert most.tolist() == [[2.0, 2.0, 3.0], [5.0, 5.0, 5.0]]
    assert (at[0] == where[0]).all()
    assert windows(5, 3) == [(0, 3), (1, 4), (2, 5)]


def _estimate(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, Interval(low, high, 0.95, "t"), 20)


def test_a_variable_misleads_only_where_both_intervals_are_clear() -> None:
    shares = {"a": _estimate(0.3, 0.4), "b": _estimate(0.0, 0.02), "c": _estimate(0.1, 0.4), "d": None}
    effects = {
        "a": _estimate(0.0, 0.05),
        "b": _estimate(0.6, 0.9),
        "c": _estimate(0.0, 0.02),
        "d": _estimate(0.5, 0.6),
    }
    assert misleading(shares, effects, InputLimits()) == {"a": TOO_MUCH, "b": TOO_LITTLE}
    assert misleading({"a": _estimate(0.3, 0.4)}, {"a": _estimate(0.05, 0.3)}, InputLimits()) == {}


def test_a_text_by_default_explains_the_likeliest_token_and_a_foil_is_taken_off() -> None:
    net = tales()
    plain = input_attribution(net, "Lily went to the park and", method="occlusion")
    likeliest = net.run(["Lily went to the park and"]).logits[0, -1]  # type: ignore[index]
    assert plain.metric_values[0] == pytest.approx(float(likeliest.max()))
    against = input_attribution(
        net, "Lily went to the park because", target=" she", foil=" he", method="occlusion"
    )
    last = net.run(["Lily went to the park because"]).logits[0, -1]  # type: ignore[index]
    she, he = (net.to_single_token(w) for w in (" she", " he"))
    assert against.metric_values[0] == pytest.approx(float(last[she] - last[he]))
    assert against.agreements == ()
    assert against.claims == ()


def test_it_is_saved_loaded_drawn_and_told(tmp_path: Path) -> None:
    net, known = giving()
    found = input_attribution(
        net, known, n=6, method=("occlusion", "rollout"), limits=InputLimits(prompts=2, control=2)
    )
    again = cutaway.load(found.save(tmp_path / "inputs"))
    assert isinstance(again, InputAttribution)
    assert again.to_dict() == found.to_dict()
    assert again.headline == found.headline
    assert len(again.to_pandas()) == 2 * sum(map(len, found.tokens))
    assert {"span", "variable"} == set(found.summary()["of"])
    for figure in (found.plot(), found.plot(0)):
        assert figure.data
    assert "rank correlation" in render(found.page())
    assert "occlusion" in repr(found)


def test_a_stop_keeps_the_methods_that_are_finished() -> None:
    net, known = giving()

    def listen(progress: Progress) -> None:
        if progress.label == "attention rollout":
            work.ends.set()

    work = Work(listen)
    found = input_attribution(net, known, n=6, work=work, steps=4)
    assert not found.complete
    assert found.methods == ("integrated_gradients", "occlusion")
    assert found.claims == ()
    assert found.headline.startswith("Partial")
    early = Work(lambda p: early.ends.set() if p.price is None else None)
    with pytest.raises(Stopped):
        input_attribution(net, known, n=6, work=early)


@pytest.mark.parametrize(
    ("asked", "wrong", "error"),
    [
        ("cases", {"method": "saliency"}, BadInput), ("cases", {"method": ()}, BadInput), ("cases", {"steps": 0}, BadInput),
        ("cases", {"window": 0}, BadInput), ("cases", {"n": 0}, BadInput), ("cases", {"baseline": "no such one"}, BadInput),
        ("cases", {"baseline": 3}, BadInput), ("cases", {"target": " Mary"}, BadInput), ("cases", {"limits": 3}, BadInput),
        ("cases", {"baseline": "corrupted"}, BadBehaviour), ("cases", {"metod": "occlusion"}, UnknownOption),
        ("text", {"foil": " Mary"}, BadInput), ("text", {"target": " Mary", "foil": " Mary"}, BadInput),
        ("empty", {}, BadInput), ("number", {}, BadInput), ("accuracy", {}, BadBehaviour),
        ("kl", {}, BadBehaviour),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said(asked: str, wrong: dict[str, Any], error: type[CutawayError]) -> None:
    net, known = giving()
    text = "When Mary and John went to park , Mary gave the ball to"
    questions: dict[str, Any] = {"cases": known, "text": text, "empty": " ", "number": 3}
    if asked not in questions:
        questions[asked] = known.behaviour(net, "first", n=6).with_metric(asked)
    with pytest.raises(error):
        input_attribution(net, questions[asked], **wrong)


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadInput, match="small"):
        InputLimits(small=0.3, large=0.2)
    with pytest.raises(BadInput):
        InputLimits(agrees=3.0)


def test_a_network_without_attention_has_no_rollout() -> None:
    net = cutaway.open(tiny("mamba"))
    with pytest.raises(SiteUnavailable, match="attention rollout"):
        input_attribution(net, [[1, 2, 3, 4]], method="rollout")
    found = input_attribution(net, [[1, 2, 3, 4]], steps=3)
    assert found.methods == ("integrated_gradients", "occlusion")
    assert any("attention rollout" in note for note in found.notes)
