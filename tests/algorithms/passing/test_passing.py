"""How variables pass: against networks whose algorithm is stated, against doing it by hand, beside twins."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.algorithms.carried.specimens import cases_of_specimen, stated

import cutaway
from cutaway.algorithms.passing import PassingLimits, VariablePassing
from cutaway.algorithms.passing.judging import NOTHING, PASSES
from cutaway.algorithms.passing.routes import ANSWER, PassingBench, may_pass
from cutaway.algorithms.places import VariablePlace
from cutaway.behaviours.cases import Cases, cases_of
from cutaway.errors import BadBehaviour, BadInput, NotPerformed, Stopped
from cutaway.interventions import Patch
from cutaway.network import Network
from cutaway.results import Budget, Progress, Work

#: By specimen and variable the stated variables through which it goes, in order.
CHAINS: dict[str, dict[str, tuple[str, ...]]] = {
    "agreement-gpt2": {"number": ("number", "verb"), "tense": ("tense", "verb")},
    "greater-than-llama": {"year": ("year", "possible"), "direction": ("direction", "possible")},
    "cases-gpt2-seed1": {"left": ("left", "result"), "right": ("right", "result")},
    "indirect-object-gpt2": {"first": ("duplicate", "inhibited", "receiver")},
    "indirect-object-llama": {"first": ("duplicate", "inhibited", "receiver")},
}


ODD: Any = "pronoun"


@cache
def opened(name: str) -> tuple[Network, Cases]:
    net = cutaway.open(f"zoo:{name}")
    return net, cases_of_specimen(name, net)


def places(name: str) -> dict[str, list[str]]:
    """Where the stated variables live; those that a variable does not go through stand beside, for each variable."""
    where, chains = stated(name), CHAINS[name]
    every = {at for chain in chains.values() for v in chain for at in [where[v]]}
    return {variable: sorted(every) for variable in chains}


@cache
def found(name: str, **more: Any) -> VariablePassing:
    net, cases = opened(name)
    return cutaway.passing(net, cases, places=places(name.partition("~")[0]), n=16, **more)


@pytest.mark.parametrize("name", CHAINS)
def test_edges_between_successive_stated_places_are_found_and_no_others(name: str) -> None:
    result, where = found(name), stated(name)
    table = result.to_pandas()
    for variable, chain in CHAINS[name].items():
        at = [where[v] for v in chain]
        wanted = {*zip(at, [*at[1:], ANSWER], strict=True)}
        assert set(result.edges(variable)) == wanted
        assert result.claim(variable).supported
        rows = table.loc[table["variable"] == variable]
        for row in rows.to_dict("records"):
            if (str(row["sender"]), str(row["receiver"])) in wanted:
                assert row["held"] > 0.8
            else:
                assert row["verdict"] == NOTHING


@pytest.mark.parametrize("twin", ["random", "shuffled"])
def test_twins_are_refused_and_nothing_is_supported_of_them_by_force(twin: str) -> None:
    net, cases = opened(f"agreement-gpt2~{twin}")
    with pytest.raises(NotPerformed):
        cutaway.passing(net, cases, places=places("agreement-gpt2"), n=16)
    try:
        result = found(f"agreement-gpt2~{twin}", force=True)
    except BadBehaviour:
        return  # it answers both prompts alike
    assert not any(claim.supported for claim in result.claims)
    assert "no variable" in result.headline


@cache
def tales() -> tuple[Network, Cases]:
    net = cutaway.open("zoo:tales")
    return net, cases_of("pronoun", net, 128)


def test_gender_passes_from_the_name_to_the_answer_over_frames_in_which_words_stand_elsewhere() -> None:
    net, cases = tales()
    result = cutaway.passing(net, cases, places=["a0.h0@name", "m0@name", "a2.h3@last", "m2@last"])
    assert result.claim("gender").supported
    assert result.edges() == [
        ("m2@last", ANSWER), ("a0.h0@name", "m0@name"), ("a2.h3@last", "m2@last"), ("m0@name", "a2.h3@last"),
    ]  # fmt: skip
    table = result.to_pandas()
    assert min(table["frames"]) >= 3
    passing = table.loc[table["verdict"] == PASSES]
    assert list(passing["agree"]) == list(passing["frames"])
    starts = {case.spans["name"][0] for case in cases}
    assert len(starts) > 1
    assert "Head 2.3 at the last token reads gender from MLP 0 at name" in " ".join(result.reading())


def test_every_figure_is_what_exchanging_by_hand_gives() -> None:
    net, cases = tales()
    named = [VariablePlace.parse(at) for at in ("m0@name", "m1@name", "a2.h3@last", "m3@last")]
    bench = PassingBench.of(net, cases.halves()[0], "gender", named, [], 12, 0, Work())
    edges = [(s, r) for s in bench.places for r in bench.places if may_pass(net, list(cases), s, r)]
    routes = bench.run(edges, Work(), "by hand")
    pairs = bench.behaviour
    clean, base = pairs.clean_tokens(net), pairs.corrupted_tokens(net)
    sites = [place.site(net) for place in named]
    source, own = (net.run(tokens, keep=sites, logits=False) for tokens in (clean, base))
    right, wrong = (torch.tensor([one[0] for one in side]) for side in (pairs.right, pairs.wrong))
    rows = torch.arange(pairs.n)

    def edit(place: VariablePlace, run: Any) -> Patch:
        pos = torch.tensor([place.tokens(case) for case in bench.bases])
        part = place.named
        assert part is not None
        more = {} if part.index is None else {"head": part.index}
        return Patch(place.site(net), run, pos=pos, **more)

    def metric(edits: list[Patch], tokens: Any = base) -> np.ndarray:
        logits = net.run(tokens, edits=edits, logits="last").logits
        assert logits is not None
        return (logits[rows, -1, right] - logits[rows, -1, wrong]).double().numpy()

    plain = metric([])
    gap = (metric([], clean) - plain).mean()
    order = {str(place): i for i, place in enumerate(named)}
    assert len(edges) == 6
    for s, r in edges:
        held = [edit(named[i], own) for i in range(order[str(s)] + 1, order[str(r)])]
        changed = net.run(base, keep=sites, edits=[edit(s, source), *held], logits=False)
        share = (metric([edit(r, changed)]) - plain).mean() / gap
        assert routes.share(str(s), str(r)).value == pytest.approx(share, abs=1e-4)
        alone, stopped = metric([edit(s, source)]), metric([edit(s, source), edit(r, own)])
        lost = routes.lost(str(s), str(r))
        assert lost is not None
        assert lost.value == pytest.approx((alone - stopped).mean() / gap, abs=1e-4)
        assert routes.alone(str(s)).value == pytest.approx((alone - plain).mean() / gap, abs=1e-4)
    for s in named:
        later = [edit(place, own) for place in named[order[str(s)] + 1 :]]
        direct = metric([edit(s, source), *later])
        assert routes.share(str(s), ANSWER).value == pytest.approx((direct - plain).mean() / gap, abs=1e-4)


def test_what_cannot_pass_is_not_tried() -> None:
    net, cases = tales()
    at = {
        text: VariablePlace.parse(text)
        for text in ("a0.h0@name", "m0@name", "m0@last", "a1.h0@name", "a2.h1@last")
    }
    some = list(cases)
    assert may_pass(net, some, at["a0.h0@name"], at["m0@name"])
    assert not may_pass(net, some, at["a0.h0@name"], at["m0@last"])  # of the same layer, and other tokens
    assert not may_pass(net, some, at["m0@last"], at["a1.h0@name"])  # backwards
    assert not may_pass(net, some, at["a2.h1@last"], at["m0@name"])  # computed before


def test_places_are_found_first_where_none_are_given() -> None:
    net, cases = opened("agreement-gpt2")
    heard: list[Progress] = []
    result = cutaway.passing(net, cases, n=16, work=Work(heard.append))
    where = stated("agreement-gpt2")
    assert (where["number"], where["verb"]) in result.edges("number")
    assert [h.label for h in heard if h.price is not None] == ["what each part carries", "how variables pass"]
    again = cutaway.passing(net, cases, cutaway.carried(net, cases, n=16, controls=False), n=16)
    assert again.edges() == result.edges()


def test_places_of_a_derived_variable_are_looked_at_for_what_it_follows() -> None:
    net = cutaway.open("zoo:tales")
    cases = cases_of("pronoun", net, 64)
    result = cutaway.passing(net, cases, places={"name": ["m0@name"]}, n=8, controls=False)
    assert result.variables == ("gender",)
    assert result.claim("gender").verdict == "inconclusive"


def test_it_is_saved_loaded_and_shown(tmp_path: Path, shows_itself: Any) -> None:
    result = found("agreement-gpt2")
    again = cutaway.load(result.save(tmp_path / "passing"))
    assert isinstance(again, VariablePassing)
    for name in ("share", "held", "lost", "alone", "elsewhere"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert (again.claims, again.headline, again.edges()) == (result.claims, result.headline, result.edges())
    shows_itself(result)
    assert result.plot("tense").data
    with pytest.raises(BadInput, match="Did you mean tense"):
        result.plot("tens")


def test_the_price_holds_and_what_is_stopped_comes_back_in_part() -> None:
    net, cases = opened("greater-than-llama")
    net.forget()
    heard: list[Progress] = []
    where = places("greater-than-llama")
    result = cutaway.passing(net, cases, places=where, n=16, work=Work(heard.append))
    priced = [report for report in heard if report.price is not None]
    assert heard[0] is priced[0]
    price = priced[0].price
    assert price is not None
    assert priced[0].forwards + price.forwards == pytest.approx(result.provenance.forwards, rel=0.3)
    net.forget()
    part = cutaway.passing(
        net, cases, places=where, n=16, work=Work(budget=Budget(forwards=0.75 * result.provenance.forwards))
    )
    assert not part.complete
    assert part.headline.startswith("Partial")
    assert not any(claim.supported for claim in part.claims)
    part.page()
    net.forget()
    with pytest.raises(Stopped):
        cutaway.passing(net, cases, places=where, n=16, work=Work(budget=Budget(forwards=1)))


def test_bad_questions_are_refused() -> None:
    net, cases = opened("agreement-gpt2")
    with pytest.raises(BadInput, match="are no cases"):
        cutaway.passing(net, ODD)
    with pytest.raises(BadInput, match="at least 6"):
        cutaway.passing(net, cases, places=["m1@last"], n=3)
    with pytest.raises(BadInput, match="Give one of them"):
        cutaway.passing(net, cases, cutaway.carried(net, cases, n=6, controls=False), places=["m1@last"])
    with pytest.raises(BadInput, match="Did you mean noun"):
        cutaway.passing(net, cases, places=["m1@nuon"])
    with pytest.raises(BadInput, match="no variable 'nmber'"):
        cutaway.passing(net, cases, places={"nmber": ["m1@last"]})
    with pytest.raises(BadInput, match="subspace"):
        cutaway.passing(net, cases, places=[VariablePlace("m1", "last", torch.eye(1, 64))])
    with pytest.raises(BadInput, match="are none"):
        cutaway.passing(net, cases, places=[])
    with pytest.raises(BadInput, match="passes"):
        PassingLimits(passes=3.0)
