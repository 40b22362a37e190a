from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from loops import id_behaviour, metric_of, patched_metric

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import BadAddress, BadBehaviour, BadInput, NotFinite, NotFound, SiteUnavailable
from cutaway.network import Network
from cutaway.results import Progress, Work
from cutaway.sweeps import CellState


@pytest.mark.parametrize("direction", ["restore", "corrupt"])
@pytest.mark.parametrize(
    ("at", "by"),
    [
        ("resid_pre", ("layer", "position")),
        ("z", ("layer", "head")),
        ("z", ("layer", "head", "position")),
        ("mlp_write", ("layer",)),
    ],
)
def test_every_cell_equals_a_bare_loop(
    net: Network, pairs: Behaviour, at: str, by: tuple[str, ...], direction: str
) -> None:
    found = cutaway.patch(net, pairs, at=at, by=by, direction=direction)
    gap = np.mean(
        [
            metric_of(net.model, pairs, r, "clean") - metric_of(net.model, pairs, r, "corrupted")
            for r in range(pairs.n)
        ]
    )
    assert found.data.attrs["gap"] == pytest.approx(gap, rel=1e-5)
    for index in np.ndindex(found.values.shape[:-1]):
        place = dict(
            zip(by, (int(found.data[d].values[i]) for d, i in zip(by, index, strict=True)), strict=True)
        )
        for row in range(pairs.n):
            got = float(found.data["metric"].values[(*index, row)])
            if place.get("position", 0) >= len(pairs.clean_ids[row]):
                assert np.isnan(got)
                continue
            wanted = patched_metric(net.model, pairs, row, at, direction, **place)
            assert got == pytest.approx(wanted, abs=2e-5)


def test_effect_is_the_change_in_shares_of_the_gap(net: Network, pairs: Behaviour) -> None:
    restored = cutaway.patch(net, pairs, at="resid_pre", by=["layer"])
    assert restored.mean.values == pytest.approx(1.0, abs=1e-4)
    assert restored.normalised.values == pytest.approx(1.0, abs=1e-4)
    broken = cutaway.patch(net, pairs, at="resid_pre", by=["layer"], direction="corrupt")
    assert broken.mean.values == pytest.approx(-1.0, abs=1e-4)
    assert broken.normalised.values == pytest.approx(0.0, abs=1e-4)


def test_known_zeros_are_not_run_but_shown(net: Network, pairs: Behaviour) -> None:
    found = cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"])
    zeros = found.data["known_zero"]
    assert zeros.sel(position=[0, 1]).all()
    assert zeros.sel(layer=0, position=[3, 4, 5]).all()
    assert not zeros.sel(position=2).any()
    assert (found.mean.where(zeros, 0.0) == 0).all()
    assert (found.data["state"].sel(position=0) == CellState.KNOWN_ZERO).all()
    assert (found.q.where(zeros, 1.0) == 1).all()


def test_places_that_some_prompts_lack_are_counted(net: Network, pairs: Behaviour) -> None:
    found = cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"])
    assert found.data["n"].sel(layer=1, position=7).values.tolist() == [0, 4]
    groups = found.groups()
    assert [effects.data.sizes["example"] for _, effects in groups] == [4, 4]
    assert {effects.data.sizes["position"] for _, effects in groups} == {6, 8}
    part = groups[0][1]
    gap = float((part.data["clean"] - part.data["corrupted"]).mean())
    assert part.data.attrs["gap"] == pytest.approx(gap)
    change = part.data["metric"].sel(layer=0, position=2) - part.data["corrupted"]
    assert part.values.sel(layer=0, position=2).values == pytest.approx(change.values / gap)
    assert part.mean.sel(layer=1, position=2).item() == pytest.approx(
        part.values.sel(layer=1, position=2).mean().item()
    )


def test_pairs_of_unequal_length(net: Network) -> None:
    odd = id_behaviour(shorter=1)
    with pytest.raises(BadBehaviour, match="equal length"):
        cutaway.patch(net, odd, at="resid_pre", by=["layer", "position"])
    found = cutaway.patch(net, odd, at="resid_pre", by=["layer"])
    assert "answer position" in found.data.attrs["where"]
    last = net.n_layers - 1
    assert found.mean.sel(layer=0).item() != pytest.approx(1.0, abs=1e-3)
    for row in range(odd.n):
        wanted = patched_metric(net.model, odd, row, "resid_pre", "restore", layer=last, position=-1)
        assert float(found.data["metric"].sel(layer=last, example=row)) == pytest.approx(wanted, abs=2e-5)


def test_ctrl_c_keeps_what_is_finished(net: Network, pairs: Behaviour) -> None:
    whole = cutaway.patch(net, pairs, at="z", by=["layer", "head", "position"])
    calls = 0

    def stop(progress: Progress) -> None:
        nonlocal calls
        calls += 1
        if progress.done < progress.total:
            raise KeyboardInterrupt

    big = pairs.take(list(range(pairs.n)) * 12)
    with pytest.warns(UserWarning, match="Stopped: .* kept"):
        part = cutaway.patch(net, big, at="z", by=["layer", "head", "position"], work=Work(stop))
    assert calls == 1
    assert not part.complete
    assert "partial" in part.headline()
    done = (part.data["state"] != CellState.NOT_RUN).all("example").values
    assert 0 < done.sum() < done.size
    for label, form in part.groups():
        done = (form.data["state"] != CellState.NOT_RUN).all("example").values
        assert np.isnan(form.mean.values[~done]).all()
        assert form.mean.values[done] == pytest.approx(whole.sel(form=label).mean.values[done], abs=1e-5)


def test_errors_name_what_is_wrong(net: Network, pairs: Behaviour) -> None:
    with pytest.raises(NotFound, match="resid_pre"):
        cutaway.patch(net, pairs, at="resid_pree")
    with pytest.raises(BadInput, match="no heads"):
        cutaway.patch(net, pairs, at="resid_pre", by=["layer", "head"])
    with pytest.raises(BadInput, match="cannot run over"):
        cutaway.patch(net, pairs, by=["token"])
    with pytest.raises(BadInput, match="direction"):
        cutaway.patch(net, pairs, direction="sideways")  # type: ignore[arg-type]
    with pytest.raises((SiteUnavailable, BadAddress), match="layer 9"):
        cutaway.patch(net, pairs, layers=[9])


def test_no_gap_is_refused_with_both_figures(net: Network, pairs: Behaviour) -> None:
    flat = pairs.with_metric(lambda logits, answers: torch.full((len(logits),), 0.25))
    with pytest.raises(BadBehaviour, match=r"0\.25 on the clean prompts and 0\.25 on the corrupted"):
        cutaway.patch(net, flat)


def test_nan_is_located_not_averaged(net: Network, pairs: Behaviour) -> None:
    with torch.no_grad():
        net.model.transformer.h[1].mlp.c_proj.bias[3] = float("nan")
    with pytest.raises(NotFinite, match=r"mlp_write\.1, prompt 0, position 0"):
        cutaway.patch(net, pairs)


def test_kl_is_measured_against_the_clean_run(net: Network, pairs: Behaviour) -> None:
    found = cutaway.patch(net, pairs.with_metric("kl"), at="resid_pre", by=["layer"])
    assert found.data.attrs["clean_metric"] == pytest.approx(0, abs=1e-6)
    assert found.mean.values == pytest.approx(1.0, abs=1e-3)


def test_a_finished_sweep_does_not_warn(net: Network, pairs: Behaviour) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cutaway.patch(net, pairs, at="z", by=["layer", "head"]).complete


def test_a_behaviour_by_name_and_a_pattern() -> None:
    net = cutaway.open("zoo:tales")
    by_name = cutaway.patch(net, "agreement", at="mlp_write", by="layer")
    assert by_name.data.attrs["behaviour"] == "agreement"
    with pytest.raises(BadInput, match="pattern"):
        cutaway.patch(net, "agreement", at="resid_*")
