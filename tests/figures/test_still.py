"""The still drawing: the same description as Plotly's, as SVG, PDF and PNG."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

from cutaway.errors import BadInput, SaveFailed
from cutaway.figures import (
    Bar,
    Comparison,
    Grid,
    Panel,
    Picture,
    against_random,
    bars,
    faithfulness_curve,
    groups_of_bars,
    heatmap,
    node_grids,
    show_token,
)
from cutaway.figures.circuit import Dot, EdgeLine, circuit_figure
from cutaway.figures.lens import LensGrid, Line, lens_table, lines
from cutaway.figures.probes import MapPanel, against_tokens, curves, maps, projections
from cutaway.figures.still import widths

NASTY = "</svg><script>alert(1)</script> & $x^2$ \x07 \ud800 <b>"
FIXED = np.random.default_rng(0).random((2, 3))
PANEL = MapPanel(FIXED, ["0", "1"], ["a", "b", "c"], "r", "c")


def grid(rows: int = 2, columns: int = 3, **more: object) -> Grid:
    values = np.random.default_rng(1).normal(size=(rows, columns))
    return Grid(
        values, list(map(str, range(rows))), [show_token(NASTY), *map(str, range(1, columns))], **more
    )  # type: ignore[arg-type]


def circuit(n: int = 60) -> Picture:
    dots = [Dot(f"d{i}", f"head {i // 4}.{i % 4}", i % 4, i // 4) for i in range(40)]
    edges = [EdgeLine(i % 20, 20 + i % 19, (i + 1) * (-1) ** i, "qkv"[i % 3]) for i in range(n)]
    return circuit_figure(dots, edges, ["0", "1", "2", "3"], [(i, f"layer {i}") for i in range(10)])


def lens(values: np.ndarray, unit: str) -> Picture:
    tokens = np.array([[NASTY] * values.shape[1]] * values.shape[0], dtype=object)
    notes = [["note"] * values.shape[1]] * values.shape[0]
    return lens_table(LensGrid(values, tokens, list("ab"), [NASTY, "x"], notes, unit))


def lined() -> Picture:
    return lines([Line(NASTY, [0, 1], [1.0, 2.0], [0.5, 1.5], [1.5, 2.5])], "layer", "nats")


FIGURES: dict[str, Callable[[], Picture]] = {
    "heat map": lambda: heatmap(grid(), title=NASTY),
    "bars": lambda: bars([Bar(NASTY, 0.5, 0.4, 0.7), Bar("b", -0.1, -0.2, 0.1, significant=False)]),
    "groups of bars": lambda: groups_of_bars({NASTY: [Bar.of("a", 1.0)], "y": [Bar.of("a", 2.0)]}, title="t"),
    "random sets": lambda: against_random([Comparison(NASTY, 0.9, 0.8, 1.0, [0.1, 0.2], 0.7, True)]),
    "curve": lambda: faithfulness_curve([0.001, 0.1, 1], [0, 0.5, 1], (0.1, 0.5), [0.1, 0.2]),
    "small maps": lambda: node_grids([Panel(NASTY, FIXED, np.eye(2, 3) > 0), Panel("b", FIXED[:1], FIXED[:1] > 2)]),
    "circuit": circuit,
    "lens": lambda: lens(np.array([[1e-4, 0.01], [1.0, 10.0]]), "KL (nats)"),
    "lines": lined,
    "probes": lambda: maps({NASTY: PANEL, "u": PANEL}, 0.2, "AUROC"),
    "curves": lambda: curves(["0", "1"], np.ones(2), (np.zeros(2), np.ones(2) * 2), {NASTY: np.ones(2)}, "x", "y", 0.5),
    "histograms": lambda: projections({NASTY: np.linspace(0, 1, 9), "b": np.linspace(0, 2, 9)}),
    "tokens": lambda: against_tokens([NASTY, "b", "c", "d"], np.array([0.1, -0.2, 0.3, 0.0])),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_drawing_is_xml_that_nothing_can_break_out_of_and_the_same_each_time(name: str) -> None:
    figure = FIGURES[name]()
    assert isinstance(figure, Picture)
    assert isinstance(figure, go.Figure)
    drawn = figure.svg()
    assert drawn == FIGURES[name]().svg()
    root = ElementTree.fromstring(drawn)
    assert not [item for item in root.iter() if "script" in item.tag]
    assert not any(
        ref.startswith(("http", "//")) for item in root.iter() for k, ref in item.items() if "href" in k
    )
    said = " ".join(root.itertext())
    assert ("</svg><script>" in said) == (name not in ("curve", "circuit"))


def mentioned(drawn: str, ending: str) -> list[ElementTree.Element]:
    return [item for item in ElementTree.fromstring(drawn).iter() if item.tag.endswith(ending)]


def test_every_cell_has_its_colour_and_its_words() -> None:
    figure = heatmap(Grid(np.array([[1.0, -1.0, np.nan]]), ["0"], ["a", "b", "c"]), limit=1.0)
    cells = [path for path in mentioned(figure.svg(), "path") if len(path)]
    assert [cell.get("fill") for cell in cells] == ["#7f2d06", "#0f3f78"]
    assert "+1.000" in "".join(cells[0].itertext())
    small = mentioned(heatmap(grid(60, 60)).svg(), "image")
    assert len(small) == 1, "a map of many cells is one image"


def test_letters_are_as_high_as_described() -> None:
    figure = heatmap(Grid(np.ones((1, 20)), ["0"], ["a"] * 20))
    said = letters(figure.svg(), "font-size")
    assert (said["1.0"], said["layer"], said["a"]) == ("8", "12", "11")
    assert "monospace" in letters(lens(np.array([[1.0, 2.0]]), "nats").svg(), "font-family").values()


def test_words_of_cells_fit_into_them() -> None:
    drawn = heatmap(Grid(np.full((3, 9), -0.25), list("abc"), list("abcdefghi"))).svg(343)
    assert 4 * 0.6 * float(letters(drawn, "font-size")["−.25"]) < (343 - 100) / 9


def letters(drawn: str, attribute: str) -> dict[str, str]:
    """Of each word the attribute, its own or that of the group it stands in."""
    root = ElementTree.fromstring(drawn)
    above = {id(child): parent for parent in root.iter() for child in parent}
    found = {}
    for word in (item for item in root.iter() if item.tag.endswith("text")):
        item = word
        while attribute not in item.attrib:
            item = above[id(item)]
        found[word.text or ""] = item.attrib[attribute]
    return found


def test_whiskers_reach_from_end_to_end() -> None:
    figure = bars([Bar("a", 0.5, 0.25, 1.0)])
    figure.update_xaxes(range=[0, 1])
    drawn = [p.get("d", "") for p in mentioned(figure.svg(), "path")]
    horizontal = [
        d
        for d in drawn
        if len(d.split("L")) == 2 and d.split("L")[0].split()[1] == d.split("L")[1].split()[1]
    ]
    ends = [sorted(float(end.split()[0].lstrip("M")) for end in d.split("L")) for d in horizontal]
    body = next(d for d in drawn if "h" in d)
    start, long = float(body[1:].split()[0]), float(body.split("h")[1].split("v")[0])
    assert [pytest.approx(start + 2 * long * share, abs=0.3) for share in (0.25, 1.0)] in ends


def test_a_log_axis_is_drawn_as_one() -> None:
    root = FIGURES["curve"]().svg()
    ticks = [
        float(t.get("x", 0)) for t in mentioned(root, "text") if (t.text or "") in ("0.1", "1", "10", "100")
    ][:4]
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], atol=0.2)


@pytest.mark.parametrize("ending", ["svg", "pdf", "png"])
def test_a_figure_is_written_for_a_paper(ending: str, tmp_path: Path) -> None:
    path = FIGURES["bars"]().save(tmp_path / "deep" / f"figure.{ending}")
    data = path.read_bytes()
    assert data == FIGURES["bars"]().save(tmp_path / f"again.{ending}").read_bytes()
    assert len(data) < 200_000
    if ending == "pdf":
        assert data.startswith(b"%PDF")
        assert b"/Type3" not in data
        assert b"/FontFile2" in data
        assert b"CreationDate" not in data
    elif ending == "png":
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20], "big") == 990  # 3.3 inches at 300 dots
    else:
        root = ElementTree.fromstring(data)
        assert float((root.get("width") or "0").removesuffix("pt")) == pytest.approx(3.3 * 72)
        assert mentioned(data.decode(), "text"), "letters stay letters"


def test_a_page_is_wider_than_a_column_and_a_paper_has_no_title(tmp_path: Path) -> None:
    figure = heatmap(grid(), title="A title of its own")
    wide = figure.save(tmp_path / "a.svg", width="page").read_text()
    assert "A title of its own" not in wide
    assert float((ElementTree.fromstring(wide).get("width") or "").removesuffix("pt")) == pytest.approx(
        6.9 * 72
    )
    assert "A title of its own" in figure.save(tmp_path / "b.svg", style="screen").read_text()


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("a.jpg", {}, "End it in"),
        ("a", {}, "End it in"),
        ("a.svg", {"style": "papr"}, "Did you mean paper"),
        ("a.svg", {"width": "colum"}, "Did you mean column"),
        ("a.svg", {"width": float("nan")}, "inches"),
        ("a.svg", {"width": 0}, "inches"),
        ("a.png", {"dpi": 2.5}, "whole number"),
        ("a.png", {"dpi": True}, "whole number"),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, more: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said):
        FIGURES["bars"]().save(tmp_path / name, **more)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveFailed):
        FIGURES["bars"]().save(tmp_path / "file" / "a.svg")


def test_marks_without_a_still_drawing_are_refused_by_name() -> None:
    figure = Picture.of(go.Figure(go.Violin(y=[1, 2, 3])))
    with pytest.raises(BadInput, match="'violin' has no still drawing"):
        figure.svg()


def test_a_notebook_shows_the_still_drawing_offline() -> None:
    figure = FIGURES["heat map"]()
    shown = figure._repr_mimebundle_()
    assert list(shown) == ["text/html"]
    assert "<svg" in shown["text/html"]
    assert "http" not in shown["text/html"]
    assert "<script" not in shown["text/html"]
    assert not callable(figure._ipython_display_)
    heavy = Picture.of(go.Figure(go.Scatter(x=np.arange(9000), y=np.arange(9000) % 7, mode="markers")))
    assert "data:image/png" in heavy._repr_html_()


def test_nothing_of_matplotlib_is_loaded_or_left_changed() -> None:
    said = "import sys, cutaway.figures; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", said], check=True, env=dict(os.environ))
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "lines.linewidth": 9}):
        FIGURES["lines"]().svg()
        assert matplotlib.rcParams["svg.fonttype"] == "path"
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_a_wide_map_is_scrolled_on_a_narrow_screen_and_a_small_one_drawn_again() -> None:
    assert widths(heatmap(grid(2, 4)))[1] is not None
    assert widths(heatmap(grid(2, 30)))[1] is None
    assert widths(heatmap(grid(2, 3)))[0] < widths(heatmap(grid(2, 30)))[0]
    short, long = (
        bars([Bar.of(name, 1.0)])
        for name in ("head 0.1", "position embedding → head 0.1 → head 1.1 → head 2.1 → logits")
    )
    assert (widths(short)[1] is None, widths(long)[1] is None) == (False, True)


def test_long_names_are_broken_where_the_drawing_is_narrow() -> None:
    axis, label = (
        "logit of the right answer minus that of the wrong one",
        "position embedding → head 0.1 → logits",
    )
    figure = bars([Bar.of(label, 1.0)], unit=axis)
    wide, narrow = (letters(figure.svg(width), "font-size") for width in (816, 343))
    assert {axis, label} <= set(wide)
    assert not {axis, label} & set(narrow)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_mark_and_breaks_nothing(value: float) -> None:
    cells = mentioned(heatmap(Grid(np.array([[value, 1.0]]), ["0"], ["a", "b"])).svg(), "path")
    assert sum(len(path) for path in cells) == 1
    for figure in (
        bars([Bar.of("a", value), Bar.of("b", 1.0)]),
        lines([Line("l", [0, 1], [1.0, value], [1.0, value], [1.0, value])], "x", "y"),
        lens(np.array([[value, 1.0]]), "KL (nats)"),
    ):
        places = " ".join(path.get("d", "") for path in mentioned(figure.svg(), "path"))
        assert not set(places) & set("nif")


def test_a_map_of_nothing_is_an_empty_drawing() -> None:
    assert heatmap(Grid(np.ones((1, 0)), ["0"], [])).svg()


def test_a_picture_stays_one_when_it_is_copied_or_kept() -> None:
    figure = FIGURES["bars"]()
    for again in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure)), Picture(figure)):
        assert isinstance(again, Picture)
        assert again.svg() == figure.svg()


def test_an_empty_figure_is_an_empty_drawing() -> None:
    assert ElementTree.fromstring(Picture().svg()) is not None
