"""Both ends of a behaviour are run once, and what is no gap is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from loops import id_behaviour

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.effects import baselines
from cutaway.effects.baselines import measure, require_gap
from cutaway.errors import BadBehaviour, NotFinite, Stopped
from cutaway.network import Network
from cutaway.network.sites import Site
from cutaway.results import Work


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The layers' sites kept in each run of a side's prompts, whole or from where they differ, one entry for each."""
    seen: list[tuple[str, ...]] = []
    real = Network.run

    def run(self: Network, inputs: Any, keep: Any = (), *args: Any, **options: Any) -> Any:
        if getattr(inputs, "n", 0) != 2:  # so many prompts are run where a rule is tried
            seen.append(tuple(sorted({Site(s.name, None).name for s in keep})))
        return real(self, inputs, keep, *args, **options)

    monkeypatch.setattr(Network, "run", run)
    beside = baselines.run_beside

    def from_where_they_differ(*args: Any, **options: Any) -> Any:
        found = beside(*args, **options)
        if found is not None:
            seen.append(tuple(sorted({Site(s.name, None).name for s in args[-1]})))
        return found

    monkeypatch.setattr(baselines, "run_beside", from_where_they_differ)
    return seen


def test_each_end_is_run_once_and_again_only_for_new_sites(
    net: Network, pairs: Behaviour, runs: list[tuple[str, ...]]
) -> None:
    cutaway.patch(net, pairs, at="resid_pre", by=["layer"])
    # the corrupted side, from which the sweep starts, is run as its base run
    assert [keep for keep in runs if keep == ("resid_pre",)] == [("resid_pre",)]
    runs.clear()
    cutaway.patch(net, pairs, at="resid_pre", by=["layer"], direction="corrupt")
    assert runs == []
    cutaway.patch(net, pairs, at="z", by=["layer", "head"])
    assert runs == [("z",)]
    runs.clear()
    cutaway.ablate(net, pairs, at="z")
    cutaway.performance(net, pairs)
    measure(net, pairs)
    assert runs == []


def test_the_side_that_a_sweep_starts_from_is_run_once(
    net: Network, pairs: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutaway.sweeps import base_runs

    cutaway.patch(net, pairs, at="z", by=["layer", "head"])  # the trial of the rules is made once
    taken, real = [], base_runs.take
    monkeypatch.setattr(base_runs, "take", lambda *a: taken.append(a[0].tokens.n) or real(*a))
    for direction in ("restore", "corrupt"):
        found = cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"], direction=direction)
        assert taken == [pairs.n]
        taken.clear()
        with net.edit(cutaway.Scale("mlp_out", 1.0, layer=0)):  # whole forwards, nothing handed over
            plain = cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"], direction=direction)
        assert taken == []
        np.testing.assert_allclose(found.data["mean"], plain.data["mean"], atol=1e-5)


def test_performance_and_ends_share_their_logits(net: Network, pairs: Behaviour, runs: list[Any]) -> None:
    cutaway.performance(net, pairs)
    assert len(runs) == 2
    measure(net, pairs)
    assert len(runs) == 2


def test_kept_sites_are_those_of_a_fresh_network(net: Network, pairs: Behaviour) -> None:
    site = Site("z", 1)
    measure(net, pairs)
    later = measure(net, pairs, [site])
    fresh = measure(cutaway.open(net.model), pairs, [site])
    torch.testing.assert_close(later.clean.kept[site], fresh.clean.kept[site], rtol=0, atol=0)
    np.testing.assert_array_equal(later.corrupted.metric, fresh.corrupted.metric)


def test_weights_changed_in_place_and_standing_edits_are_measured_anew(
    net: Network, pairs: Behaviour
) -> None:
    before = measure(net, pairs)
    with net.edit(cutaway.Ablate("mlp_out", layer=0)):
        assert np.abs(measure(net, pairs).clean.metric - before.clean.metric).max() > 1e-6
    np.testing.assert_array_equal(measure(net, pairs).clean.metric, before.clean.metric)
    with torch.no_grad():
        net.model.transformer.h[0].mlp.c_proj.weight.mul_(2)
    assert np.abs(measure(net, pairs).clean.metric - before.clean.metric).max() > 1e-6


def test_what_performance_saw_is_still_looked_at_for_nan(net: Network, pairs: Behaviour) -> None:
    with torch.no_grad():
        net.model.transformer.h[1].mlp.c_proj.bias[3] = float("nan")
    cutaway.behaviours.answer_logits(net, pairs)
    with pytest.raises(NotFinite, match=r"mlp_write\.1, prompt 0"):
        measure(net, pairs)


@pytest.mark.parametrize(
    ("clean", "corrupted", "there"),
    [([1.0, 1.0], [1.0, 1.0], False), ([1.0, 1.0], [1.0, 1.0 - 1e-5], False), ([1.0, 1.0], [1.0, 1.0 - 1e-4], True),
     ([1e-9, 0.0], [0.0, 0.0], False), ([2e-7, 0.0], [0.0, 0.0], True)],
)  # fmt: skip
def test_no_gap_has_one_meaning(clean: list[float], corrupted: list[float], there: bool) -> None:
    if there:
        assert require_gap(np.array(clean), np.array(corrupted)) > 0
    else:
        with pytest.raises(BadBehaviour, match="no difference to explain"):
            require_gap(np.array(clean), np.array(corrupted))


def test_a_stopped_work_measures_nothing(net: Network) -> None:
    work = Work()
    work.stop()
    with pytest.raises(Stopped):
        cutaway.patch(net, id_behaviour(), work=work)
