"""Options that nothing reads, of the wrong type or misspelt: refused, with the nearest name."""

from __future__ import annotations

from typing import Any

import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import BadInput, CutawayError, NotFound
from cutaway.network import Network
from cutaway.results import Budget, Work


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"by": ["layer", "positon"]}, "Did you mean position"),
        ({"by": "laeyr"}, "Did you mean layer"),
        ({"by": 3}, "takes text or a list of texts as by, not 3"),
        ({"direction": "restor"}, "Did you mean 'restore'"),
        ({"direction": 1}, "no direction 1"),
        ({"layers": 2}, "takes a list of whole numbers as layers, not 2"),
        ({"layers": "all"}, "takes a list of whole numbers as layers"),
        ({"rules": ["suffix"]}, "are no rules"),
        ({"at": 5}, "text as at, not 5"),
    ],
)
def test_patch(net: Network, pairs: Behaviour, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        cutaway.patch(net, pairs, **options)
    with pytest.raises(BadInput, match=says):
        cutaway.plan(net, pairs, **options)


def test_the_other_verbs(net: Network, pairs: Behaviour) -> None:
    for call, says in (
        (lambda: cutaway.ablate(net, pairs, how="meen"), "Did you mean 'mean'"),  # type: ignore[arg-type]
        (lambda: cutaway.plan(net, pairs, how="zeros"), "Did you mean 'zero'"),  # type: ignore[arg-type]
        (lambda: cutaway.plan(net, pairs, how="zero", direction="corrupt"), "has no direction"),
        (lambda: cutaway.pair_effects(net, pairs, which="head"), "Did you mean 'heads'"),  # type: ignore[arg-type]
        (lambda: cutaway.path_patch(net, pairs, direction="corupt"), "Did you mean 'corrupt'"),  # type: ignore[arg-type]
        (lambda: cutaway.path_patch(net, pairs, senders="a0.h1"), "not a list"),
        (lambda: cutaway.path_patch(net, pairs, rules=True), "no rules"),  # type: ignore[arg-type]
        (lambda: cutaway.plan_interventions(net, pairs, "z"), "no list of interventions"),  # type: ignore[arg-type]
        (lambda: cutaway.plan_interventions(net, pairs, [3]), "3 is no intervention"),  # type: ignore[list-item]
        (lambda: cutaway.plan_interventions(net, pairs, [cutaway.Ablate("z")], on="claen"), "'clean'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadInput, match=says):
            call()
    with pytest.raises(NotFound, match=r"Nearest: a0\.h"):
        cutaway.path_patch(net, pairs, senders=["a0.h9"])
    with pytest.raises(CutawayError, match="resid_pre"):
        cutaway.patch(net, pairs, at="resid_per")


def test_plans_of_patches_and_ablations_give_what_the_verbs_give(net: Network, pairs: Behaviour) -> None:
    same = [pairs.take([0, 1, 4, 6])]
    for options, verb in (({"by": "layer"}, cutaway.patch), ({"how": "resample", "seed": 3}, cutaway.ablate)):
        for behaviour in same:
            planned = cutaway.plan(net, behaviour, **options).run()  # type: ignore[arg-type]
            called = verb(net, behaviour, **options)  # type: ignore[arg-type]
            assert planned.headline() == called.headline()
            assert planned.mean.values == pytest.approx(called.mean.values, abs=1e-6)


def test_a_budget_of_memory_is_kept_to(net: Network, pairs: Behaviour) -> None:
    with pytest.raises(CutawayError, match="Give a budget of memory="):
        cutaway.plan(net, pairs, work=Work(budget=Budget(memory=1000)))


def test_a_named_behaviour_is_made_with_the_seed_of_the_verb() -> None:
    net = cutaway.open("zoo:tales")
    first, second = (cutaway.patch(net, "pronoun", by="layer", layers=[0], seed=seed) for seed in (0, 1))
    assert first.provenance.behaviour_hash == cutaway.behaviour("pronoun", net, seed=0).hash
    assert second.provenance.behaviour_hash == cutaway.behaviour("pronoun", net, seed=1).hash
    pairs = cutaway.pair_effects(net, "pronoun", which=["a0.h0", "head 3.1"], seed=1)
    assert pairs.provenance.behaviour_hash == second.provenance.behaviour_hash
