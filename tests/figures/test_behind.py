"""The table behind a figure has the numbers that were plotted; what the figure leaves out is added up and said."""

from __future__ import annotations

import numpy as np
import pytest

from cutaway.figures import (
    Bar,
    Comparison,
    Grid,
    against_random,
    bars,
    first_and_rest,
    groups_of_bars,
    heatmap,
)
from cutaway.figures.behind import sheets_of
from cutaway.figures.circuit import Dot, EdgeLine, circuit_figure
from cutaway.figures.lens import LensGrid, Line, lens_table, lines
from cutaway.figures.probes import MapPanel, maps, projections

VALUES = np.array([[0.25, np.nan], [-0.5, 1.0]])


def test_a_map_is_told_cell_by_cell_with_its_intervals() -> None:
    grid = Grid(
        VALUES, ["0", "1"], ["a", "&lt;s&gt;"], low=VALUES - 0.1, high=VALUES + 0.2, q=np.full((2, 2), 0.04)
    )
    table = heatmap(grid).table()
    assert list(table["row"]) == ["0", "0", "1", "1"]
    assert list(table["column"]) == ["a", "<s>"] * 2
    for name, wanted in (("value", VALUES), ("low", VALUES - 0.1), ("high", VALUES + 0.2)):
        assert np.allclose(table[name].to_numpy().reshape(2, 2), wanted, equal_nan=True)
    (sheet,) = sheets_of(heatmap(grid))
    assert sheet.head == ("", "a", "<s>")
    assert sheet.rows[0] == ("1", "−0.5 (−0.6 to −0.3)", "1 (0.9 to 1.2)")
    assert sheet.rows[1] == ("0", "0.25 (0.15 to 0.45)", "")


def test_a_large_map_is_told_by_its_largest_cells_and_says_how_many_more() -> None:
    values = np.random.default_rng(0).normal(size=(50, 60))
    figure = heatmap(Grid(values, list(map(str, range(50))), list(map(str, range(60)))))
    (sheet,) = sheets_of(figure)
    assert len(sheet.rows) + sheet.more == values.size
    assert sheet.rows[0][-1] == f"{values.flat[np.abs(values).argmax()]:.3g}".replace("-", "−")
    assert np.allclose(figure.table()["value"].to_numpy().reshape(50, 60), values)


def test_labels_that_have_no_room_on_an_axis_are_in_the_table() -> None:
    names = [f"t{i}" for i in range(100)]
    table = heatmap(Grid(np.ones((1, 100)), ["0"], names)).table()
    assert table["column"].tolist() == names
    panel = MapPanel(np.ones((1, 20)), ["0"], names[:20], "layer", "position")
    table = maps({"probe": panel, "random": panel}, 0.5, "AUROC").table()
    assert table["column"].tolist() == names[:20] * 2
    assert table["panel"].tolist() == ["probe"] * 20 + ["random"] * 20


def test_bars_are_told_with_their_labels_and_ends() -> None:
    table = groups_of_bars(
        {"x": [Bar("a", 1.0, 0.5, 2.0), Bar("b", -1.0, -1.5, 0.5)], "y": [Bar.of("a", 3.0), Bar.of("b", 4.0)]}
    ).table()
    assert table[["name", "label", "value"]].to_numpy().tolist() == [
        ["x", "a", 1.0],
        ["x", "b", -1.0],
        ["y", "a", 3.0],
        ["y", "b", 4.0],
    ]
    assert table["low"].tolist()[:2] == [0.5, -1.5]
    assert table["high"].tolist()[:2] == [2.0, 0.5]


def test_lines_are_told_once_with_their_bands() -> None:
    table = lines([Line("l", [0, 1], [1.0, 2.0], [0.5, 1.5], [1.5, 2.5])], "layer", "nats").table()
    assert table["x"].tolist() == [0.0, 1.0]
    assert table["value"].tolist() == [1.0, 2.0]
    assert table["low"].tolist() == [0.5, 1.5]


def test_histograms_are_told_by_their_bins_and_add_up() -> None:
    table = projections({"a": np.linspace(0, 1, 50), "b": np.linspace(1, 2, 30)}).table()
    assert table.groupby("name")["value"].sum().to_numpy() == pytest.approx([100, 100])


def test_random_sets_are_told_with_the_threshold() -> None:
    table = against_random([Comparison("kept", 0.9, 0.8, 1.0, [0.1, 0.2], 0.7, True)]).table()
    assert table["value"].tolist() == [0.9, 0.7, 0.1, 0.2]
    assert table["what"].tolist()[1] == "must be above"


@pytest.mark.parametrize("most", [1, 5, 18, 19, 20, 40])
def test_what_is_not_drawn_is_added_up(most: int) -> None:
    values = np.random.default_rng(most).normal(size=20)
    kept = first_and_rest([Bar.of(str(i), float(v)) for i, v in enumerate(values)], most)
    assert sum(bar.value for bar in kept) == pytest.approx(values.sum())
    figure = bars(kept, unit="logits")
    assert figure.table()["value"].sum() == pytest.approx(values.sum())
    said = " ".join(a.text for a in figure.layout.annotations)
    assert ("grey:" in said) == any(bar.rest for bar in kept) == (most < 19)


def test_signs_are_explained_where_they_occur_and_only_there() -> None:
    def said(grid: Grid) -> str:
        return " ".join(a.text for a in heatmap(grid).layout.annotations).replace("\u00a0", " ")

    plain = Grid(np.ones((1, 2)), ["0"], ["a", "b"])
    assert said(plain) == "no colour: 0"
    marked = Grid(np.array([[1.0, 0.5, np.nan]]), ["0"], list("abc"), q=np.array([[0.9, 0.01, 0.5]]),
                  known_zero=np.array([[False, True, False]]))  # fmt: skip
    for sign in ("· cannot be told from 0 (q > 0.05)", "– nothing can change here", "grey: no value"):
        assert sign in said(marked)
        assert sign not in said(plain)
    shares = heatmap(plain, span=(0.0, 1.0))
    assert (shares.data[0].zmin, shares.data[0].zmax) == (0.0, 1.0)
    assert not shares.layout.annotations
    whiskers = (
        bars([Bar("a", 1.0, 0.5, 2.0, significant=False)]).layout.annotations[0].text.replace("\u00a0", " ")
    )
    assert "whiskers: 95 % interval" in whiskers
    assert "faint: cannot be told from 0" in whiskers
    assert not bars([Bar.of("a", 1.0)]).layout.annotations


def lens(values: np.ndarray, unit: str):
    tokens, notes = np.full(values.shape, "t", dtype=object), [["n"] * values.shape[1]] * values.shape[0]
    return lens_table(LensGrid(values, tokens, list("abc")[: len(values)], list("xy"), notes, unit))


def test_a_divergence_that_spans_decades_is_coloured_by_its_logarithm() -> None:
    values = np.array([[30.0, 12.0], [0.3, 0.02], [0.0, 1e-9]])
    figure = lens(values, "KL (nats)")
    shown = np.array(figure.data[0].z)
    assert np.allclose(shown[:2], np.log10(values[:2]))
    assert (shown[2] == figure.data[0].zmin).all()
    assert figure.data[0].colorbar.ticktext[0].startswith("≤")
    assert "logarithmic" in figure.layout.annotations[0].text
    assert np.allclose(figure.table()["value"].to_numpy().reshape(3, 2), values)
    level = lens(np.array([[1.0, 2.0], [3.0, 2.5]]), "entropy (nats)")
    assert np.allclose(level.data[0].z, [[1.0, 2.0], [3.0, 2.5]])
    assert lens(values / 30, "probability").data[0].zmax == 1.0


def circuit(n: int):
    rng = np.random.default_rng(0)
    dots = [Dot(f"head {i}", f"head {i // 8}.{i % 8}", i % 8, i // 8) for i in range(64)]
    edges = [EdgeLine(int(rng.integers(0, 32)), int(rng.integers(32, 64)), float(s), "qkv"[i % 3])
             for i, s in enumerate(rng.normal(size=n))]  # fmt: skip
    return edges, circuit_figure(dots, edges, list("01234567"), [(i, f"layer {i}") for i in range(8)])


def strokes(figure) -> int:
    lines_ = [t for t in figure.data if t.mode == "lines" and t.visible is not False]
    return sum(sum(v is None for v in t.x) for t in lines_)


def test_a_circuit_of_250_edges_draws_the_strongest_and_tells_all() -> None:
    edges, figure = circuit(250)
    assert strokes(figure) == 50
    said = figure.layout.annotations[0].text.replace("\u00a0", " ")
    assert "the 50 strongest of 250 edges" in said
    table = figure.table()
    wanted = sorted((edge.score for edge in edges), key=lambda s: -abs(s))
    assert table["score"].tolist() == pytest.approx(wanted)
    assert set(table["into"]) == {"queries", "keys", "values"}
    assert len(figure.svg()) < 60_000


def test_a_circuit_says_how_many_edges_it_has_beyond_those_that_it_was_given() -> None:
    dots = [Dot("a", "a", 0, 0), Dot("b", "b", 0, 1)]
    figure = circuit_figure(dots, [EdgeLine(0, 1, 1.0)] * 3, ["x"], [(0, "input")], first=2, of=10)
    assert "the 2 strongest of 10 edges" in figure.layout.annotations[0].text.replace("\u00a0", " ")
    (sheet,) = sheets_of(figure)
    assert (len(sheet.rows), sheet.more) == (3, 7)


def test_the_slider_says_how_many_edges_are_drawn() -> None:
    _, figure = circuit(250)
    (slider,) = figure.layout.sliders
    drawn = []
    for step in slider.steps:
        shown = step.args[0]["visible"]
        assert len(shown) == len(figure.data)
        assert shown[-1], "the nodes stay"
        lines_ = [t for t, seen in zip(figure.data, shown, strict=True) if seen and t.mode == "lines"]
        drawn.append(sum(sum(v is None for v in t.x) for t in lines_))
    assert drawn == [int(step.label) for step in slider.steps] == [10, 25, 50, 100, 200, 250]
    assert slider.steps[slider.active].label == "50"


def test_queries_keys_and_values_are_told_apart() -> None:
    _, figure = circuit(30)
    assert {t.line.dash for t in figure.data if t.mode == "lines"} == {"dash", "dot", "solid"}
    said = figure.layout.annotations[0].text.replace("\u00a0", " ")
    assert "dashed: into queries" in said
    assert "dotted: into keys" in said
