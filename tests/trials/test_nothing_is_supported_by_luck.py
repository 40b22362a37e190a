"""Claims that were false: luck on random weights, the whole network, forced choice, pairs that vary little, few parts."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour, Performance, performance
from cutaway.behaviours.checks import performed
from cutaway.behaviours.decisions import decisions, differing, guessing, held_fixed, independent, margins
from cutaway.behaviours.metrics import Answers
from cutaway.circuits.evaluation.hypotheses import beats_random
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.statistics import Estimate, Interval
from cutaway.trials import (
    CONTROLS,
    Limits,
    Outcome,
    PartSet,
    Trial,
    beside_random_weights,
    evidence_of,
    from_other_prompts,
    must_fail,
)
from cutaway.zoo.tiny import tiny

VOCAB = 12


def _pairs(n: int = 24, one_class: bool = False, **changes: object) -> Behaviour:
    """Prompts of four tokens that differ in the second, which decides the answer; of one class, the answer is always 1."""
    rng = np.random.default_rng(0)
    clean, corrupted, right, wrong = [], [], [], []
    for _ in range(n):
        a, b = (int(t) for t in rng.choice(np.arange(2, VOCAB), 2, replace=False))
        rest = [int(t) for t in rng.integers(2, VOCAB, 3)]
        clean.append((rest[0], a, *rest[1:]))
        corrupted.append((rest[0], b, *rest[1:]))
        right.append((1,) if one_class else (a,))
        wrong.append((0,) if one_class else (b,))
    text = tuple(map(str, clean)), tuple(map(str, corrupted))
    columns = {
        "clean_ids": tuple(clean),
        "corrupted_ids": tuple(corrupted),
        "right": tuple(right),
        "wrong": tuple(wrong),
    }
    return Behaviour("made up", *text, **(columns | changes), from_text=False)  # type: ignore[arg-type]


def _logits(behaviour: Behaviour, size: float, bias: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise [n v], the right answer above the wrong one by `size` on clean prompts, below on corrupted; token 1 by bias."""
    noise = torch.randn(behaviour.n, VOCAB, generator=torch.Generator().manual_seed(0))
    sides = []
    for sign in (1, -1):
        logits = noise.clone()
        logits[:, 0] = logits[:, 1] = 0
        for row, (right, wrong) in enumerate(zip(behaviour.right, behaviour.wrong, strict=True)):
            logits[row, right[0]], logits[row, wrong[0]] = sign * size / 2, -sign * size / 2
        logits[:, 1] += bias
        sides.append(logits)
    return sides[0], sides[1]


def test_a1_who_always_guesses_one_class_does_not_perform() -> None:
    asked = _pairs(one_class=True)
    assert guessing(asked) == 1
    found = performed("constant", asked, *_logits(asked, 1e-4, bias=3.0))
    assert found.accuracy.value == 1
    assert found.contrast.above(0) is True
    assert found.told_apart is not None
    assert found.told_apart.value == 0.5
    assert not found.does_it
    assert "corrupted prompts are not answered otherwise" in found.sentence
    assert performed("sees it", asked, *_logits(asked, 6.0)).passed is True


def test_a1_a_contrast_has_some_size_beside_the_spread_of_the_logits() -> None:
    asked = _pairs()
    tiny, large = (performed("x", asked, *_logits(asked, size)) for size in (1e-3, 4.0))
    assert tiny.accuracy.value == large.accuracy.value == 1
    assert not tiny.does_it
    assert "spreads of the logits" in tiny.missed[0]
    assert large.passed is True
    x = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    answers = Answers.of([[3]] * 3, [[4]] * 3)
    torch.testing.assert_close(margins(x, answers), (x[:, 3] - x[:, 4]) / x.std(1, correction=0))
    torch.testing.assert_close(margins(100 * x + 7, answers), margins(x, answers), rtol=1e-4, atol=1e-5)


def test_a1_examples_of_one_decision_are_one() -> None:
    """Mirror images are one decision, and what adds up from others is none of its own."""
    same = _pairs(
        8, clean_ids=((5, 2), (6, 2), (7, 3), (8, 3)) * 2, corrupted_ids=((5, 3), (6, 3), (7, 2), (8, 2)) * 2,
        right=((0,), (0,), (1,), (1,)) * 2, wrong=((1,), (1,), (0,), (0,)) * 2,
    )  # fmt: skip
    assert len(set(decisions(same))) == 1
    assert independent(same) == 1
    square = [(a, b) for a in (2, 3, 4) for b in (5, 6, 7)]
    many = _pairs(
        9, clean_ids=tuple((1, a) for a, _ in square), corrupted_ids=tuple((1, b) for _, b in square),
        right=((0,),) * 9, wrong=((1,),) * 9,
    )  # fmt: skip
    assert len(set(decisions(many))) == 9
    assert independent(many) == 5  # six tokens in one piece: all differences follow from five
    assert differing((1, 2, 3), (1, 2, 3, 3)) == ((), (3,))
    lucky = performed("x", same, *_logits(same, 0.4))
    assert lucky.does_it
    assert lucky.passed is None
    assert "1 independent decisions" in lucky.doubts[-1]


def test_a1_an_accuracy_that_may_be_below_what_is_asked_supports_nothing() -> None:
    asked = _pairs(32)
    clean, corrupted = _logits(asked, 4.0)
    for row in range(6):
        clean[row, asked.right[row][0]] = -3.0
    found = performed("x", asked, clean, corrupted)
    assert found.accuracy.value == pytest.approx(26 / 32)
    assert found.does_it
    assert found.passed is None


def test_a1_random_weights_do_not_beat_random_weights() -> None:
    net = cutaway.open("zoo:duplicate-gpt2")
    asked = cutaway.behaviour("zoo:duplicate-gpt2", net, n=32)
    work, nothing = Work(), lambda *_: Outcome((), "")
    known = beside_random_weights(net, asked, nothing, 0, work)
    assert known.passed is True
    assert known.estimate is not None
    assert known.estimate.value > 4
    assert beside_random_weights(net.randomized(3), asked, nothing, 0, work).passed is False
    assert list(CONTROLS) == ["random weights", "contrast with random weights", "shuffled answers"]


def test_a1_a_control_that_performs_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from cutaway.trials import controls

    asked = _pairs()
    done = performed("x", asked, *_logits(asked, 4.0))
    monkeypatch.setattr(controls, "performance", lambda *_, **__: done)
    monkeypatch.setattr(controls, "ends_kept", lambda *_: nullcontext())
    control = must_fail(
        "Random weights", "Fresh weights", None, asked, lambda *_: Outcome((), "nothing"), Work()
    )  # type: ignore[arg-type]
    assert control.passed is None
    assert "A control that does the behaviour is none." in control.sentence


def test_a1_beside_random_circuits_is_not_decided_by_ties() -> None:
    tied = beats_random("Sufficiency", "", -1e-7, np.full(40, -2e-7), tie=1e-3)
    assert tied.passed is None
    assert tied.n == 0
    few = beats_random("Sufficiency", "", 0.0, np.array([-1.0] * 37 + [1e-9] * 3), tie=1e-3)
    assert few.passed is True
    assert few.n == 37


def test_a2_the_whole_network_is_not_refuted() -> None:
    net = cutaway.open("zoo:duplicate-gpt2")
    asked = cutaway.behaviour("zoo:duplicate-gpt2", net, n=32)
    circuit = cutaway.trace(net, asked, edges=1.0)
    assert circuit.share == 1
    found = cutaway.test(net, circuit, asked, controls=False)
    assert found.verdict == "inconclusive"
    assert all(e.passed is not False for e in found.claim.evidence)
    assert any("nothing to compare" in e.sentence for e in found.claim.evidence)


def test_a3_the_better_of_two_is_said_to_be_no_more() -> None:
    asked = _pairs()
    clean, corrupted = _logits(asked, 2.0)
    for logits in (clean, corrupted):
        logits[:, 0] = 9.0
    found = performed("x", asked, clean, corrupted)
    assert found.accuracy.value == 1
    assert found.next_token is not None
    assert found.next_token.value == 0
    assert found.rank is not None
    assert found.rank >= 2
    assert "It hardly ever says a right answer" in found.sentence
    data = found.to_dict()
    assert Performance.from_dict(data) == found
    later = {f.name for f in dataclasses.fields(Performance)} - {
        "accuracy",
        "metric_clean",
        "metric_corrupted",
        "contrast",
    }
    old = {name: v for name, v in data.items() if name not in later or name in ("does_it", "sentence")}
    assert Performance.from_dict(old).next_token is None
    assert "next token" not in Performance.from_dict(old).to_pandas()["figure"].tolist()


def test_a4_the_claim_says_what_the_pairs_hold_fixed() -> None:
    asked = _pairs()
    said = held_fixed(asked)
    assert said.startswith(
        "The prompts of a pair differ in 1 of 4 tokens (position 1) and are alike in all others"
    )
    named = dataclasses.replace(asked, spans={"name": ((1, 2),) * asked.n})
    assert "(“name”)" in held_fixed(named)


def test_a4_what_is_kept_with_other_prompts_values_counts() -> None:
    half = from_other_prompts(Estimate(0.05, Interval(0.0, 0.1), 30), Limits())
    assert half.passed is None
    assert "alike in both prompts of a pair" in half.sentence
    assert from_other_prompts(Estimate(1.0, Interval(0.9, 1.1), 30), Limits()).passed is True


def _trial(kept_random: tuple[float, ...], p: float, exhausted: bool) -> Trial:
    good, none = Estimate(1.0, Interval(0.95, 1.05), 30), Estimate(0.0, Interval(-0.1, 0.1), 30)
    gain = Estimate(0.9, Interval(0.8, 1.0), 30)
    return Trial(
        good,
        none,
        None,
        kept_random,
        (0.9,) * len(kept_random),
        gain,
        gain,
        p,
        p,
        None,
        None,
        30,
        exhausted=exhausted,
    )


@pytest.mark.parametrize(
    ("others", "p", "exhausted", "passed"),
    [
        (3, 0.25, True, True),
        (3, 0.25, False, None),
        (3, 0.5, True, None),
        (2, 1 / 3, True, None),
        (40, 1 / 41, False, True),
    ],
)
def test_a5_where_few_other_sets_exist_all_of_them_are_tried(
    others: int, p: float, exhausted: bool, passed: bool | None
) -> None:
    everything = (*(Part("head", 0, h) for h in range(4)), Part("mlp", 0))
    found = PartSet((Part("head", 0, 1), Part("mlp", 0)), everything)
    assert found.others == 3
    assert len(found.like_it(np.random.default_rng(0), 40)) == 3
    tests = evidence_of(_trial((0.1,) * others, p, exhausted), found, Limits())
    assert next(e for e in tests if e.name == "Kept alone, beside random sets").passed is passed


def test_a5_a_network_of_one_layer_can_be_explained_and_its_twin_not() -> None:
    net = cutaway.open("zoo:fourier-addition-gpt2")
    assert net.n_layers == 1
    asked = cutaway.behaviour("zoo:fourier-addition-gpt2", net, n=48)
    found = cutaway.explain(net, asked)
    assert found.verdict == "supported"
    assert "alike in all others" in found.claim.statement
    twin = cutaway.open("zoo:fourier-addition-gpt2~shuffled")
    assert cutaway.explain(twin, asked, force=True).verdict != "supported"


def test_must_show_3_no_luck_is_supported() -> None:
    """A short version of `benchmarks/null_verdicts.py`, on seeds that it does not count."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import null_verdicts
    finally:
        sys.path.pop(0)
    count = null_verdicts.random_weights(3, seed=50, drawn=4)
    assert count.tries == 3
    assert not count.supported
    for name in ("duplicate-gpt2~random", "fourier-addition-llama~shuffled"):
        net = cutaway.open(f"zoo:{name}")
        asked = cutaway.behaviour(f"zoo:{name.split('~')[0]}", net, n=48, force=True)
        assert null_verdicts.ends(net, asked) != "supported"
        assert not performance(net, asked.held_out).passed


def test_a4_what_an_interval_does_not_decide_is_not_said() -> None:
    """That something held fixed takes part is said where the whole interval is below the limit, and only there."""
    limits, takes_part = Limits(), "So components outside the set take part, too"
    below = from_other_prompts(Estimate(0.05, Interval(0.0, 0.1), 20), limits)
    assert below.passed is None
    assert takes_part in below.sentence
    for open_ in (Estimate(1.0, None, 12), Estimate(0.6, Interval(0.3, 0.9), 12)):
        found = from_other_prompts(open_, limits)
        assert found.passed is None
        assert takes_part not in found.sentence
        assert "leaves open whether" in found.sentence
    enough = from_other_prompts(Estimate(0.9, Interval(0.8, 1.0), 20), limits)
    assert enough.passed is True
    assert "take part" not in enough.sentence


def test_fresh_weights_that_are_not_examined_give_the_logits_of_those_that_are() -> None:
    net = cutaway.open(tiny("gpt2"))
    rows = torch.randint(5, 60, (2, 6))
    quick, whole = net.randomized(3, examine=False), net.randomized(3)
    assert torch.equal(quick.run(rows).logits, whole.run(rows).logits)
    assert quick.hash == whole.hash != net.hash
    assert not quick.opened.certify
