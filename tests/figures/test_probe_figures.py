"""The pictures of probes: what is drawn, where, and that labels cannot break out."""

from __future__ import annotations

import numpy as np

from cutaway.figures.probes import MapPanel, against_tokens, curves, maps, projections


def test_maps_share_one_scale_that_begins_at_chance() -> None:
    rng = np.random.default_rng(0)
    panels = {
        name: MapPanel(rng.uniform(0.5, top, (4, 6)), list("0123"), list("abcdef"), "layer", "position")
        for name, top in (("probe", 0.97), ("random weights", 0.6))
    }
    figure = maps(panels, 0.5, "AUROC", "a title")
    assert [t.zmin for t in figure.data] == [0.5, 0.5]
    assert figure.data[0].zmax == figure.data[1].zmax == max(p.values.max() for p in panels.values())
    assert [a.text for a in figure.layout.annotations] == ["probe", "random weights"]
    assert np.array_equal(figure.data[0].z, panels["probe"].values)
    assert figure.data[1].showscale is False


def test_curves_show_the_band_and_every_control() -> None:
    score = np.array([0.6, 0.8, 0.9])
    figure = curves(
        ["0", "1", "2"], score, (score - 0.1, score + 0.05), {"<b>": score / 2}, "layer", "AUROC", 0.5, "t"
    )
    names = [t.name for t in figure.data]
    assert names == ["95 % interval", "probe", "&lt;b&gt;"]
    assert np.allclose(figure.data[1].y, score)
    band = figure.data[0].y
    assert np.allclose(band[:3], score + 0.05)
    assert np.allclose(band[3:], (score - 0.1)[::-1])
    alone = curves(["0"], score[:1], (score[:1] - 0.1, score[:1] + 0.05), {}, "layer", "AUROC", 0.5)
    assert np.isclose(alone.data[0].error_y.arrayminus[0], 0.1)
    nothing = np.full(3, np.nan)
    assert [
        t.name for t in curves(["0", "1", "2"], score, (nothing, nothing), {}, "layer", "R²", 0.0).data
    ] == ["probe"]


def test_projections_have_one_histogram_per_class_on_common_bins() -> None:
    groups = {"a": np.linspace(-1, 0, 50), "<i>": np.linspace(0, 2, 30)}
    figure = projections(groups)
    assert [t.name for t in figure.data] == ["a", "&lt;i&gt;"]
    assert figure.data[0].xbins == figure.data[1].xbins


def test_the_tokens_at_both_ends_of_a_direction() -> None:
    cosines = np.linspace(-1, 1, 50)
    figure = against_tokens([f"<{i}>" for i in range(50)], cosines, most=3)
    assert list(figure.data[0].x) == [cosines[i] for i in (49, 48, 47, 2, 1, 0)]
    assert figure.layout.yaxis.ticktext[0] == "&lt;49&gt;"
