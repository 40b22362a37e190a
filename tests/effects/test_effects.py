from __future__ import annotations

import json
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
from cutaway.network.parts import Input, Part
from cutaway.reports import render
from cutaway.results import Result, load


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


def test_it_is_a_result_and_opens_by_its_kind(effects: Effects, tmp_path: Path) -> None:
    assert isinstance(effects, Result)
    again = load(effects.save(tmp_path / "folder"))
    assert isinstance(again, Effects)
    assert again.to_dict() == effects.to_dict()
    assert json.loads(json.dumps(effects.to_dict(), allow_nan=False))["cells"][0]["layer"] == 0
    assert effects.provenance.forwards > 1
    manifest = json.loads((tmp_path / "folder" / "manifest.json").read_text())
    assert (manifest["kind"], manifest["version"]) == ("effects", 2)


def test_its_page_holds_the_map_and_where_it_comes_from(effects: Effects) -> None:
    html = render(effects.page())
    assert "Strongest cells" in html
    assert effects.provenance.network_hash[:16] in html
    assert render(effects.sel(layer=1, position=2).page())
    assert effects.sel(layer=1, position=2).to_dict()["cells"][0]["n"] == 8


def test_parts_are_selected_by_either_spelling_and_read_in_words(net: Network, pairs: Behaviour) -> None:
    found = cutaway.path_patch(
        net, pairs.take([0, 1]), senders=["a0.h1", "MLP 1"], to=["head 2.3 <k>", "logits"]
    )
    assert list(found.data["sender"].values) == ["a0.h1", "m1"]
    assert list(found.data["receiver"].values) == ["a2.h3<k>", "logits"]
    assert found.grid().rows == ["head 0.1", "MLP 1"]
    by_words = found.sel(sender="head 0.1", receiver=Input(Part("logits"))).to_pandas()
    assert by_words["mean"].item() == found.mean.sel(sender="a0.h1", receiver="logits").item()


def test_effects_of_the_version_before_still_open(effects: Effects, tmp_path: Path) -> None:
    folder = effects.save(tmp_path / "folder")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["version"], manifest["provenance"]["forwards"], manifest["sha256"]["manifest.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"kind": "cutaway effects"}))
    assert Effects.load(folder).mean.equals(effects.mean)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(BadFormat, match="newer version"):
        Effects.load(folder)
