from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.effects import Effects
from cutaway.errors import BadFormat, BadInput, CorruptFile, SaveFailed
from cutaway.network import Network


@pytest.fixture
def effects(net: Network, pairs: Behaviour) -> Effects:
    return cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"])


def test_table_and_selection(effects: Effects) -> None:
    frame = effects.to_pandas()
    assert len(frame) == 3 * 8
    assert {"layer", "position", "token", "mean", "low", "high", "p", "q", "n", "known_zero"} <= set(
        frame.columns
    )
    one = effects.sel(layer=1)
    assert one.dims == ("position",)
    assert len(one.to_pandas()) == 8
    assert (effects.top(3)["mean"].abs().diff().dropna() <= 0).all()


def test_interval_holds_the_mean_and_q_is_not_below_p(effects: Effects) -> None:
    run = effects.data["mean"].notnull()
    assert (effects.low.where(run) <= effects.mean.where(run) + 1e-9).where(run, True).all()
    assert (effects.high.where(run) >= effects.mean.where(run) - 1e-9).where(run, True).all()
    assert (effects.q.where(run, 1) >= effects.data["p"].where(run, 1) - 1e-12).all()


def test_it_shows_itself(effects: Effects) -> None:
    assert isinstance(effects.plot(), go.Figure)
    assert isinstance(effects.sel(layer=1).plot(), go.Figure)
    assert "<table" in effects._repr_html_()
    assert "resid_pre" in repr(effects)
    with pytest.raises(BadInput, match="One cell"):
        effects.sel(layer=1, position=2).plot()


@pytest.mark.parametrize("name", ["folder", "effects.nc"])
def test_saved_and_loaded_are_the_same(effects: Effects, tmp_path: Path, name: str) -> None:
    if name.endswith(".nc"):
        pytest.importorskip("netCDF4", reason="netCDF is written where netCDF4 is installed")
    again = Effects.load(effects.save(tmp_path / name))
    assert again.provenance == effects.provenance
    assert again.data.attrs == effects.data.attrs
    for variable in effects.data.data_vars:
        assert again.data[variable].dims == effects.data[variable].dims
        np.testing.assert_array_equal(again.data[variable].values, effects.data[variable].values)
    assert list(again.data["token"].values) == list(effects.data["token"].values)
    assert again.groups()[0][1].mean.equals(effects.groups()[0][1].mean)


def test_damaged_and_foreign_files_are_refused(effects: Effects, tmp_path: Path) -> None:
    folder = effects.save(tmp_path / "folder")
    (folder / "tensors.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptFile):
        Effects.load(folder)
    with pytest.raises(BadFormat):
        Effects.load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(effects: Effects, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SaveFailed):
        effects.save(tmp_path / "folder")


def test_a_failed_save_leaves_the_effects_usable(effects: Effects, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveFailed):
        effects.save(tmp_path / "file" / "folder")
    assert effects.top(1) is not None


def test_selecting_what_is_not_there_says_what_there_is(effects: Effects) -> None:
    with pytest.raises(BadInput, match=r"no dimension 'head'.*layer, position"):
        effects.sel(head=1)
    with pytest.raises(BadInput, match=r"no layer 9.*0, 1, 2"):
        effects.sel(layer=9)
    assert effects.sel(layer=[0, 2], position=slice(1, 3)).data.sizes["position"] == 3
