from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from loops import id_behaviour

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.effects import Effects
from cutaway.effects.summary import summarise
from cutaway.errors import BadFormat, BadInput, CorruptFile, SaveFailed
from cutaway.figures import heatmap_table
from cutaway.network import Network
from cutaway.network.parts import Input, Part
from cutaway.reports import Figure, render
from cutaway.results import Result, load
from cutaway.statistics import benjamini_hochberg, sign_flip_p
from cutaway.sweeps import CellState


@pytest.fixture
def effects(net: Network, pairs: Behaviour) -> Effects:
    return cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"])


def test_table_and_selection(effects: Effects) -> None:
    frame = effects.to_pandas()
    assert len(frame) == 3 * (6 + 8)  # layers; positions of either form
    assert {"form", "layer", "position", "token", "mean", "low", "high", "p", "q", "n", "known_zero"} <= set(
        frame.columns
    )
    one = effects.sel(layer=1)
    assert one.dims == ("position",)
    assert len(one.to_pandas()) == 6 + 8
    assert (effects.top(3)["mean"].abs().diff().dropna() <= 0).all()


def test_interval_holds_the_mean_and_q_is_not_below_p(net: Network, pairs: Behaviour) -> None:
    effects = cutaway.patch(net, pairs, at="resid_pre", by=["layer"])
    assert np.isfinite(effects.q).all()
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
    assert again.data["token"].values.tolist() == effects.data["token"].values.tolist()
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
    assert [cell["n"] for cell in effects.sel(layer=1, position=2).to_dict()["cells"]] == [4, 4]


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


def test_unlike_forms_of_prompt_are_never_averaged(net: Network, pairs: Behaviour, tmp_path: Path) -> None:
    effects = cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"])
    assert effects.mean.dims == ("form", "layer", "position")
    assert list(effects.data["form"].values) == ["length 6", "length 8"]
    for number, length in enumerate((6, 8)):
        rows = [i for i, ids in enumerate(pairs.clean_ids) if len(ids) == length]
        alone = cutaway.patch(net, pairs.take(rows), at="resid_pre", by=["layer", "position"])
        mine = effects.sel(form=f"length {length}")
        assert mine.dims == alone.dims == ("layer", "position")
        np.testing.assert_allclose(mine.mean.values, alone.mean.values, atol=1e-5)
        np.testing.assert_allclose(effects.mean.values[number, :, :length], alone.mean.values, atol=1e-5)
        assert not effects.data["n"].values[number, :, length:].any()
        assert list(mine.data["token"].values) == list(alone.data["token"].values)
    again = load(effects.save(tmp_path / "folder"))
    assert isinstance(again, Effects)
    assert again.mean.equals(effects.mean)
    assert again.sel(form="length 8", layer=1).mean.equals(effects.sel(form="length 8", layer=1).mean)
    with pytest.raises(BadInput, match="no form 'length 7'.*'length"):
        effects.sel(form="length 7")
    # by span or head the places of all prompts correspond, and one form needs no dimension of its own
    assert cutaway.patch(net, pairs, at="z", by=["layer", "head"]).mean.dims == ("layer", "head")
    assert cutaway.patch(net, pairs.take([0, 1]), by=["layer", "position"]).mean.dims == ("layer", "position")


def test_every_form_is_drawn_with_its_own_number_of_pairs(net: Network) -> None:
    lengths = (6,) * 7 + (8,) * 6 + (4,) * 3 + (5,) * 2 + (7, 9, 10, 11)
    effects = cutaway.patch(net, id_behaviour(lengths), at="resid_pre", by=["layer", "position"])
    page = effects.page()
    drawn = [block for block in page.sections[0].blocks if isinstance(block, Figure)]
    assert [block.caption.split(".")[0] for block in drawn] == [
        f"{n} of 22 pairs, those of the form “length {length}”"
        for n, length in ((7, 6), (6, 8), (3, 4), (2, 5), (1, 7), (1, 9))
    ]
    assert "Not drawn, with their number of pairs: “length 10” (1); “length 11” (1)." in str(
        page.sections[0].blocks
    )
    assert "22 pairs have 8 forms" in page.sections[0].lead
    title = str(effects.plot().layout.title.text)
    assert "7 of 22 pairs" in title
    assert "length 6" in title
    shown = effects._repr_html_()
    assert shown.count("<table") == 3
    assert "3 pairs: length 4" in shown
    assert "“length 5” (2)" in shown
    assert "8 forms of prompt" in repr(effects)


def test_effects_saved_with_unlike_forms_averaged_are_told_apart_when_opened(
    effects: Effects, tmp_path: Path
) -> None:
    pooled = effects.data.drop_dims("form").drop_vars("form_of")
    cells = {
        name: effects.data[name].isel(form=0, drop=True)
        for name in effects.data
        if "form" in effects.data[name].dims
    }
    pooled = pooled.assign(cells).assign_coords(token=effects.data["token"].isel(form=0, drop=True))
    older = Effects(pooled, effects.provenance).save(tmp_path / "older")
    assert Effects.load(older).mean.equals(effects.mean)


def test_with_few_pairs_nothing_is_called_not_significant(net: Network) -> None:
    few, some, enough = (
        cutaway.patch(net, id_behaviour((6,) * n), at="resid_pre", by=["layer", "position"])
        for n in (5, 6, 12)
    )
    ran = ~few.data["known_zero"].values
    assert np.isfinite(few.mean.values).all()
    assert np.isnan(few.q.values[ran]).all()
    assert np.isnan(few.low.values).all()
    assert (
        "With 5 pairs no effect can be told from zero, however large it is (at least 6 are needed)"
        in few.caption
    )
    assert "·" not in heatmap_table(few.grid())
    assert "·" not in few.caption
    assert "with 5 pairs" in repr(few)
    assert "With 5 pairs" in render(few.page())
    bars = few.sel(position=2).plot().data[0].marker.opacity
    assert set(bars) == {1.0}
    # six could, if a cell were alone: of nine that are corrected for, none can
    assert np.isnan(some.q.values[ran]).all()
    assert np.isfinite(some.low.values[ran]).all()
    assert f"With 6 pairs and {ran.sum()} cells" in some.caption
    assert "·" not in heatmap_table(some.grid())
    assert np.isfinite(enough.q.values).all()
    assert not enough.undecided


def test_a_cell_is_undecided_only_where_no_effect_could_be_told_from_zero() -> None:
    """Against the definition: put one more cell in whose signs all agree, and correct anew."""
    rng = np.random.default_rng(0)
    for n, cells in ((5, 1), (6, 1), (6, 2), (7, 9), (8, 6), (9, 12), (10, 30), (64, 40)):
        effect = rng.normal(size=(cells, n)) - rng.normal(size=(cells, 1))
        states = np.full(effect.shape, CellState.RUN)
        found = summarise(effect, states, [""] * n, 0)
        one_more = effect.copy()
        one_more[int(np.argmax(found["p"]))] = 1.0 + rng.random(
            n
        )  # in place of the one that is furthest from it
        p = sign_flip_p(one_more.T, None)
        attainable = bool((benjamini_hochberg(p) <= 0.05).any())
        assert np.isfinite(found["q"]).all() == (attainable and n > 5), (n, cells)
