"""What an explanation takes: its price, sizes within a budget, screening, forms that are set aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.behaviours.standing import FormPerformance, by_form, set_aside
from cutaway.claims import Evidence
from cutaway.errors import Stopped
from cutaway.explanations import SearchLimits
from cutaway.explanations.identify import identify
from cutaway.explanations.singles import PartScreening, estimated, single_effects
from cutaway.explanations.sizes import CHOICES, WHOLE, Sizes, priced, within
from cutaway.explanations.verdict import left_open
from cutaway.network import Network
from cutaway.results import Budget, Progress, Work
from cutaway.statistics import proportion
from cutaway.trials import Bench
from cutaway.trials.trial import PERFORMS


@pytest.fixture(scope="module")
def tales() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def pronoun(tales: Network) -> Behaviour:
    return cutaway.behaviour("pronoun", tales, n=48)


def test_the_price_is_announced_first_and_is_near_what_is_used(tales: Network) -> None:
    heard: list[Progress] = []
    found = cutaway.explain(tales, cutaway.behaviour("agreement", tales, n=64), work=Work(heard.append))
    prices = [p.price for p in heard if p.price is not None]
    assert len(prices) == 1
    assert prices[0].forwards == pytest.approx(sum(f for _, f in prices[0].parts))
    assert found.provenance.forwards is not None
    assert 0.6 < prices[0].forwards / found.provenance.forwards < 1.6
    assert sum(found.forwards.values()) == pytest.approx(found.provenance.forwards, rel=0.15)


def test_choices_become_cheaper_and_a_budget_takes_the_largest_that_fits(
    tales: Network, pronoun: Behaviour
) -> None:
    limits = SearchLimits()
    prices = [priced(tales, pronoun, sizes, limits, True).forwards for sizes in CHOICES]
    assert prices == sorted(prices, reverse=True)
    for sizes, price in zip(CHOICES, prices, strict=True):
        assert within(tales, pronoun, limits, True, Budget(forwards=price / 0.79))[0] == sizes
    with pytest.raises(Stopped, match="too small for anything: nothing was run") as error:
        cutaway.explain(tales, pronoun, work=Work(budget=Budget(forwards=100)))
    enough = float(error.value.remedy.split()[0].replace(",", ""))
    assert enough == pytest.approx(prices[-1], rel=0.2)


def test_a_thin_run_keeps_within_its_budget_and_refutes_nothing_that_depends_on_the_search(
    tales: Network, pronoun: Behaviour
) -> None:
    least = priced(tales, pronoun, CHOICES[-1], SearchLimits(), True).forwards
    budget = least / 0.79
    found = cutaway.explain(tales, pronoun, work=Work(budget=Budget(forwards=budget)))
    assert found.sizes == CHOICES[-1]
    assert found.circuit is None
    assert found.provenance.forwards is not None
    assert found.provenance.forwards < 1.1 * budget
    assert found.verdict in ("supported", "inconclusive")


def test_only_what_depends_on_the_search_is_left_open() -> None:
    tests = [
        Evidence(PERFORMS, passed=False),
        Evidence("Kept alone", passed=False),
        Evidence("Removed", passed=True),
    ]
    assert [test.passed for test in left_open(tests)] == [False, None, True]
    assert replace(WHOLE, search=8).thin
    assert not WHOLE.thin


def test_single_effects_are_those_of_patching(tales: Network, pronoun: Behaviour) -> None:
    half = pronoun.discovery
    maps: dict[str, cutaway.Effects] = {}
    assert single_effects(Bench.of(tales, half), WHOLE, 0, maps) is None
    patched = cutaway.patch(tales, half, at="z", by=("layer", "head"), direction="corrupt")
    np.testing.assert_allclose(maps["z, corrupt"].mean.values, patched.mean.values, atol=1e-4)
    restored = cutaway.patch(tales, half, at="mlp_write", by="layer")
    np.testing.assert_allclose(
        maps["mlp_write, restore"].data["low"].values, restored.data["low"].values, atol=1e-4
    )


def test_screening_patches_what_stands_out_and_says_what_it_missed(
    tales: Network, pronoun: Behaviour
) -> None:
    bench = Bench.of(tales, pronoun.discovery)
    maps: dict[str, cutaway.Effects] = {}
    every: dict[str, cutaway.Effects] = {}
    screening = single_effects(bench, Sizes(tried=8, sampled=5), 3, maps)
    assert screening is not None
    assert (len(screening.passed), len(screening.sampled)) == (8, 5)
    assert screening.dropped + len(screening.rescued) == 7
    estimates = estimated(bench.first(WHOLE.single))
    assert estimates is not None
    strongest = sorted(estimates, key=lambda part: -estimates[part])[:8]
    assert set(strongest) == set(screening.passed)
    single_effects(bench, WHOLE, 3, every)
    run = np.isfinite(maps["z, restore"].mean.values)
    np.testing.assert_allclose(
        maps["z, restore"].mean.values[run], every["z, restore"].mean.values[run], atol=1e-5
    )
    known = {p: i for i, p in enumerate(bench.parts)}
    values = {way: [float("nan")] * len(known) for way in ("restore", "corrupt")}
    for way in values:
        for part in screening.sampled:
            site = "z" if part.kind == "head" else "mlp_write"
            at = (part.layer, part.index) if part.kind == "head" else (part.layer,)
            values[way][known[part]] = abs(float(every[f"{site}, {way}"].mean.values[at]))
    largest = np.nanmax([values["restore"], values["corrupt"]])
    assert screening.largest == pytest.approx(largest, rel=0.2, abs=5e-3)
    assert "drawn at random" in screening.sentence
    assert PartScreening.from_dict(screening.to_dict()).to_dict() == screening.to_dict()


def test_frames_that_are_not_done_are_set_aside(tales: Network, pronoun: Behaviour) -> None:
    """On one frame right and wrong are exchanged: there the network answers the other way round."""
    frames = list(dict.fromkeys(pronoun.template))
    often = max(frames, key=pronoun.template.count)
    rows = [i for i, t in enumerate(pronoun.template) if t == often]
    right, wrong = list(pronoun.right), list(pronoun.wrong)
    for i in rows:
        right[i], wrong[i] = wrong[i], right[i]
    turned = replace(pronoun, right=tuple(right), wrong=tuple(wrong))
    forms = by_form(tales, turned)
    assert [form.form for form in forms if not form.stands] == [often]
    assert forms[0].contrast.value < 0
    assert FormPerformance.from_dict(forms[0].to_dict()) == forms[0]
    left = set_aside(turned, forms)
    assert often not in left.template
    assert left.n == turned.n - len(rows)
    assert set_aside(pronoun, by_form(tales, pronoun)) is pronoun


def test_more_than_half_is_never_set_aside(pronoun: Behaviour) -> None:
    none = proportion(0, 20)
    forms = tuple(FormPerformance(t, 20, none, none, False) for t in dict.fromkeys(pronoun.template))
    assert set_aside(pronoun, forms) is pronoun


def test_what_was_set_aside_is_told_in_claim_page_and_file(
    tales: Network, pronoun: Behaviour, tmp_path: Path
) -> None:
    often = max(dict.fromkeys(pronoun.template), key=pronoun.template.count)
    rows = [i for i, t in enumerate(pronoun.template) if t == often]
    right, wrong = list(pronoun.right), list(pronoun.wrong)
    for i in rows:
        right[i], wrong[i] = wrong[i], right[i]
    turned = replace(pronoun, right=tuple(right), wrong=tuple(wrong))
    found = cutaway.explain(tales, turned, controls=False)
    assert any(often in note and "set aside" in note for note in found.claim.notes)
    again = cutaway.load(found.save(tmp_path / "found"))
    assert again.to_dict() == found.to_dict()
    assert "set aside" in (tmp_path / "found" / "report.html").read_text()


def test_a_set_that_few_pairs_took_for_enough_is_grown_on_all(tales: Network, pronoun: Behaviour) -> None:
    bench, limits = Bench.of(tales, pronoun.discovery), SearchLimits()
    scores = estimated(bench)
    assert scores is not None
    for few in (2, 4, 8):
        found = identify(bench, scores, limits, few)
        kept = float(bench.scale.shares(bench.keep_only([found.members]))[0])
        left = float(bench.scale.shares(bench.remove([found.members]))[0])
        assert abs(1 - kept) <= 1 - limits.target + 1e-6 or len(found.members) == len(bench.parts)
        assert left <= limits.left_target + 1e-6 or found.left > limits.left_target
