"""Backups: against networks that were built with one and without, and against removing by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import cutaway
from cutaway import zoo
from cutaway.algorithms.backups import BackupLimits, Backups, SharedLimits, SharedParts
from cutaway.algorithms.backups.removing import RemovalBench
from cutaway.behaviours import Behaviour
from cutaway.behaviours.cases import cases_of
from cutaway.errors import BadBehaviour, BadInput, NotFound, NotPerformed, Stopped
from cutaway.interventions import Patch
from cutaway.network import Network
from cutaway.network.parts import Part, parts_of
from cutaway.results import Budget, Progress, Work
from cutaway.trials.spread import spread


@cache
def opened(name: str) -> tuple[Network, Behaviour]:
    net = cutaway.open(f"zoo:{name}")
    return net, cutaway.behaviour(f"zoo:{name.partition('~')[0]}", net, n=64, force=True)


@cache
def found(name: str, **more: Any) -> Backups:
    net, pairs = opened(name)
    return cutaway.backups(net, pairs, n=16, **more)


def members(result: Backups) -> set[frozenset[str]]:
    return {frozenset((*removed.split(" + "), part)) for removed, part in result.found()}


@pytest.mark.parametrize("name", ["backup-gpt2", "backup-neox"])
def test_the_backup_is_named_and_what_wakes_it(name: str) -> None:
    """A head backs up the first one; the neurons that tell it to sleep make up for the first one, too: they are dormant."""
    result, truth = found(name), zoo.truth(name)
    (primary,) = [node for node in truth.nodes if str(node) not in truth.facts["dormant"]]
    dormant = [str(node) for node in truth.facts["dormant"]]
    assert members(result) == {frozenset((str(primary), one)) for one in dormant}
    table = result.to_pandas().set_index("part")
    head = next(one for one in dormant if one.startswith("a"))
    assert table.loc[head, "removed"] == str(primary)
    assert table.loc[head, "verdict"] == "wakes"
    assert abs(table.loc[head, "direct_before"]) < 0.05
    assert table.loc[head, "direct_after"] > 0.9
    assert table.loc[next(one for one in dormant if one != head), "verdict"] == "make up for each other"
    assert all(claim.supported for claim in result.claims)
    assert f"{Part.parse(head).words} backs up {primary.words}" in result.headline


@pytest.mark.parametrize("name", ["redundant-gpt2", "redundant-llama", "redundant-neox"])
def test_two_paths_of_which_either_is_enough(name: str) -> None:
    result = found(name)
    assert members(result) == {frozenset(map(str, zoo.truth(name).facts["redundant"]))}
    assert result.verdict == ("make up for each other",)
    assert result.claims[0].supported


@pytest.mark.parametrize(
    "name",
    [
        "induction-llama",
        "duplicate-gpt2",
        "copy-suppression-gpt2",
        "backup-llama~without",
        "redundant-gpt2~without",
    ],
)
def test_where_there_is_no_backup_none_is_found(name: str) -> None:
    result = found(name)
    assert not result.found()
    assert not any(claim.supported for claim in result.claims)
    assert "no part" in result.headline


def test_what_does_not_perform_is_refused_and_nothing_is_supported_by_force() -> None:
    net, pairs = opened("redundant-gpt2~random")
    with pytest.raises(NotPerformed):
        cutaway.backups(net, pairs, n=16)
    result = found("redundant-gpt2~random", force=True)
    assert not any(claim.supported for claim in result.claims)


ODD: Any = 3


def by_hand(
    net: Network, pairs: Behaviour, how: str, sets: list[list[str]], frozen: Any = None
) -> np.ndarray:
    """Metric [sets n] with parts replaced one prompt at a time: by means over all prompts, or by the other prompt."""
    sites = sorted({p.site for p in parts_of(net) if p.site is not None}, key=lambda s: s.rank)
    clean = [net.run([list(ids)], keep=sites, logits=False) for ids in pairs.clean_ids]
    other = [net.run([list(ids)], keep=sites, logits=False) for ids in pairs.corrupted_ids]
    means = {site: torch.cat([run[site][0] for run in clean]).mean(0) for site in sites}
    values = np.zeros((len(sets), pairs.n))
    for i, some in enumerate(sets):
        for row, ids in enumerate(pairs.clean_ids):
            edits = []
            for name in some:
                part = Part.parse(name)
                assert part.site is not None
                shape = clean[row][part.site]
                value = means[part.site].expand_as(shape) if how == "mean" else other[row][part.site]
                more = {} if part.index is None else {"head": part.index}
                edits.append(Patch(part.site, value, **more))
            logits = net.run([list(ids)], edits=edits, logits="last").logits
            assert logits is not None
            right, wrong = (logits[0, -1, list(side[row])].mean() for side in (pairs.right, pairs.wrong))
            values[i, row] = float(right - wrong)
    return values


@pytest.mark.parametrize("how", ["mean", "resample"])
def test_removals_are_what_removing_by_hand_gives(how: Any) -> None:
    net, whole = opened("backup-gpt2")
    pairs = whole.discovery.take(range(8))
    bench = RemovalBench.of(net, pairs, parts_of(net), how, Work())
    sets = [
        ["a0.h1"],
        ["a1.h1"],
        ["a0.h1", "a1.h1"],
        ["a0.h1", "m0", "a1.h1"],
        [str(p) for p in parts_of(net)],
    ]
    measured = bench.without([[Part.parse(name) for name in some] for some in sets], Work(), "")
    plain = by_hand(net, pairs, how, [[]])
    np.testing.assert_allclose(bench.ends.clean.metric, plain[0], atol=2e-3)
    np.testing.assert_allclose(measured, by_hand(net, pairs, how, sets), atol=2e-3)
    np.testing.assert_allclose(bench.empty, measured[-1], atol=2e-3)


def test_what_a_part_does_directly_is_its_share_of_the_stream_with_all_else_held() -> None:
    net, whole = opened("backup-gpt2")
    pairs = whole.discovery.take(range(8))
    every = parts_of(net)
    bench = RemovalBench.of(net, pairs, every, "mean", Work())
    first, second = Part.parse("a0.h1"), Part.parse("a1.h1")
    # what the first does directly leaves out that the second wakes
    alone = bench.ends.clean.metric - bench.without([[first]], Work(), "")[0]
    direct = bench.directly((), first, Work())
    assert abs(alone.mean() / bench.scale.gap) < 0.05
    assert direct.mean() / bench.scale.gap == pytest.approx(1.0, abs=0.05)
    # of the last layer's head nothing comes after it but its layer's MLP
    after = bench.directly((first,), second, Work())
    total = bench.without([[first]], Work(), "")[0] - bench.without([[first, second]], Work(), "")[0]
    np.testing.assert_allclose(after.mean(), total.mean(), atol=0.05 * abs(bench.scale.gap))


def test_removals_go_on_until_the_behaviour_is_lost() -> None:
    steps = found("redundant-gpt2").chains()
    chain = steps.loc[steps["removed"].str.contains("+", regex=False)]
    assert len(chain)
    assert (chain["left"] < 0.1).all()
    few = cutaway.backups(
        *opened("redundant-gpt2"), n=16, limits=BackupLimits(depth=1), how=["resample"], controls=False
    )
    assert not few.chains()["removed"].str.contains("+", regex=False).any()
    assert few.claims[0].verdict == "inconclusive"
    assert members(few) == members(found("redundant-gpt2"))


def test_cases_give_pairs_of_a_variable() -> None:
    net = cutaway.open("zoo:tales")
    cases = cases_of("pronoun", net, 64)
    result = cutaway.backups(net, cases, ["m0", "m2", "a2.h3"], n=8, controls=False, how=["resample"])
    assert result.behaviour == "pronoun: gender"
    assert result.parts == ("m0", "m2", "a2.h3")
    with pytest.raises(BadBehaviour, match="never changes the answer"):
        cutaway.backups(net, cases, variable="place", n=8)


def test_it_is_saved_loaded_and_shown(tmp_path: Path, shows_itself: Any) -> None:
    for number, name in enumerate(("redundant-gpt2", "duplicate-gpt2")):
        result = found(name)
        again = cutaway.load(result.save(tmp_path / str(number)))
        assert isinstance(again, Backups)
        assert (again.claims, again.headline, again.found()) == (
            result.claims,
            result.headline,
            result.found(),
        )
        np.testing.assert_array_equal(again.left, result.left)
        shows_itself(result)
        assert result.plot().data


def test_the_price_holds_and_what_is_stopped_comes_back_in_part() -> None:
    net, pairs = opened("duplicate-gpt2")
    net.forget()
    heard: list[Progress] = []
    result = cutaway.backups(net, pairs, n=16, work=Work(heard.append))
    priced = [report for report in heard if report.price is not None]
    assert len(priced) == 1
    assert heard[0] is priced[0]
    price = priced[0].price
    assert price is not None
    assert priced[0].forwards + price.forwards == pytest.approx(result.provenance.forwards, rel=0.3)
    net.forget()
    part = cutaway.backups(
        net, pairs, n=16, work=Work(budget=Budget(forwards=0.8 * result.provenance.forwards))
    )
    assert not part.complete
    assert not any(claim.supported for claim in part.claims)
    part.page()
    net.forget()
    with pytest.raises(Stopped):
        cutaway.backups(net, pairs, n=16, work=Work(budget=Budget(forwards=1)))


def test_bad_questions_are_refused() -> None:
    net, pairs = opened("redundant-gpt2")
    with pytest.raises(BadInput, match="no way of removing"):
        cutaway.backups(net, pairs, how=cast(Any, ["zro"]))
    with pytest.raises(BadInput, match="Name two parts"):
        cutaway.backups(net, pairs, ["m0"])
    with pytest.raises(NotFound, match="no part 'a7.h7'"):
        cutaway.backups(net, pairs, ["m0", "a7.h7"])
    with pytest.raises(BadInput, match="Only cases have variables"):
        cutaway.backups(net, pairs, variable="x")
    with pytest.raises(BadInput, match="at least 6"):
        cutaway.backups(net, pairs, n=2)
    with pytest.raises(BadInput, match="is no behaviour"):
        cutaway.backups(net, ODD)
    with pytest.raises(BadInput, match="grows"):
        BackupLimits(grows=2.0)


# --------------------------------------------------------------------------------------------------------- shared parts


@cache
def tales() -> Network:
    return cutaway.open("zoo:tales")


@cache
def shared(one: str, other: str) -> SharedParts:
    net = tales()
    return cutaway.shared_parts(net, *(cutaway.behaviour(name, net, n=64) for name in (one, other)), n=16)


def test_what_each_behaviour_loses_is_what_patching_gives() -> None:
    result, net = shared("pronoun", "ioi"), tales()
    for which, name in enumerate(result.behaviours):
        half = cutaway.behaviour(name, net, n=64).discovery
        half = half.take(spread(list(half.template), 16))
        effects = cutaway.pair_effects(net, half, which="all")
        alone = effects.data["mean"].values.diagonal()
        assert list(effects.data["first"].values) == list(result.parts)
        np.testing.assert_allclose(result.effect[which], -alone, atol=1e-4)
    r = np.corrcoef(result.effect)[0, 1]
    assert result.correlation[0] == pytest.approx(r, abs=1e-9)
    assert result.correlation[1] <= r <= result.correlation[2]


def test_what_both_use_is_named_and_lost_across() -> None:
    result = shared("pronoun", "ioi")
    assert {"a0.h0", "m0"} <= set(result.shared)
    assert "m1" not in result.shared  # the pronoun alone
    assert result.claims[0].supported
    assert result.left[0, 0] < 0.1
    assert len(result.sentences) == 4
    assert {claim.verdict for claim in result.claims[1:]} == {"refuted"}


def test_a_behaviour_shares_all_with_itself() -> None:
    result = shared("pronoun", "pronoun")
    assert result.correlation[0] == pytest.approx(1.0)
    assert (result.matter[0] == result.matter[1]).all()


def test_shared_parts_are_saved_loaded_and_shown(tmp_path: Path, shows_itself: Any) -> None:
    result = shared("pronoun", "ioi")
    again = cutaway.load(result.save(tmp_path / "shared"))
    assert isinstance(again, SharedParts)
    np.testing.assert_array_equal(again.held, result.held)
    assert (again.claims, again.headline, again.shared) == (result.claims, result.headline, result.shared)
    shows_itself(result)


def test_shared_parts_tell_their_price_and_refuse_what_they_do_not_know() -> None:
    net = tales()
    one, other = (cutaway.behaviour(name, net, n=64) for name in ("pronoun", "ioi"))
    net.forget()
    heard: list[Progress] = []
    result = cutaway.shared_parts(net, one, other, n=16, work=Work(heard.append))
    priced = [report for report in heard if report.price is not None]
    assert len(priced) == 1
    price = priced[0].price
    assert price is not None
    assert priced[0].forwards + price.forwards == pytest.approx(result.provenance.forwards, rel=0.3)
    none = cutaway.shared_parts(net, one, other, parts=["a1.h0", "a1.h1"], n=8, controls=False)
    assert not none.shared
    assert none.headline.startswith("No part")
    assert none.claims[0].verdict == "inconclusive"
    with pytest.raises(BadInput, match="is no behaviour"):
        cutaway.shared_parts(net, one, ODD)
    with pytest.raises(NotFound):
        cutaway.shared_parts(net, one, other, parts=["a9.h9"])
    with pytest.raises(BadInput, match="matters"):
        SharedLimits(matters=2.0)
