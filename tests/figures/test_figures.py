from __future__ import annotations

import numpy as np
import pytest

from cutaway.figures import (
    Bar,
    Comparison,
    Grid,
    VariableMove,
    VariableStop,
    against_random,
    bars,
    heatmap,
    heatmap_table,
    movement_figure,
    show_token,
)  # fmt: skip
from cutaway.figures.theme import DIVERGING, blend


@pytest.fixture
def grid() -> Grid:
    values = np.array([[0.8, 0.0, np.nan], [-0.4, 0.2, 0.0]])
    return Grid(
        values, ["0", "1"], ["a", "a", "b"], low=values - 0.1, high=values + 0.1,
        q=np.array([[0.001, 0.9, np.nan], [0.01, 0.2, 1.0]]),
        known_zero=np.array([[False, False, False], [False, False, True]]),
    )  # fmt: skip


def test_scale_is_symmetric_and_zero_is_white(grid: Grid) -> None:
    trace = heatmap(grid).data[0]
    assert trace.zmin == -trace.zmax
    assert DIVERGING[4] == (0.5, "#ffffff")
    assert "0" in trace.colorbar.ticktext
    assert trace.colorbar.title.text == "share of the gap"


def test_cells_say_what_they_are(grid: Grid) -> None:
    text = heatmap(grid).data[0].text
    assert [list(row) for row in text] == [[".80", "·", ""], ["−.40", "·", "–"]]


def test_equal_labels_stay_apart_and_hover_has_numbers(grid: Grid) -> None:
    figure = heatmap(grid)
    assert list(figure.data[0].x) == [0, 1, 2]
    assert list(figure.layout.xaxis.ticktext) == ["a", "a", "b"]
    hover = figure.data[0].customdata[0][0]
    assert "+0.800" in hover
    assert "+0.700 to +0.900" in hover
    assert "q = 0.001" in hover


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="2 rows and 1 columns"):
        Grid(np.zeros((1, 1)), ["a", "b"], ["c"])


def test_table_has_a_colour_for_every_cell(grid: Grid) -> None:
    assert heatmap_table(grid).count("background:") == 6


def test_blend_is_monotone_in_red_and_blue() -> None:
    assert blend(-1, 1) == DIVERGING[0][1]
    assert blend(float("0.5"), 1) == "#e59560"


def test_tokens_are_visible_and_escaped() -> None:
    assert show_token("\t") == "⇥"
    assert show_token("\x07") == "\\x07"
    assert show_token("a&b<") == "a&amp;b&lt;"
    assert show_token(" ") == "␣"
    assert show_token("Ġword") == "word"


def test_bars_and_random_sets_draw_what_they_are_given() -> None:
    figure = bars([Bar("MLP 0", 0.5, 0.4, 0.7), Bar("MLP 1", 0.1, -0.1, 0.2, significant=False)])
    assert list(figure.data[0].marker.opacity) == [1.0, 0.3]
    assert list(figure.data[0].error_x.array) == pytest.approx([0.2, 0.1])
    figure = against_random(
        [
            Comparison("kept", 0.9, 0.8, 1.0, [0.1, 0.2], 0.7, True),
            Comparison("left", 0.1, 0.0, 0.2, [0.5], 0.3, False),
        ]
    )
    assert sum(len(t.x) for t in figure.data if t.name == "random sets") == 3


def test_movement_draws_every_stop_and_keeps_every_move() -> None:
    stops = [
        VariableStop("MLP 0", "MLP 0 at <b>", "gender", 1, 0.5, "layer 0 · MLP"),
        VariableStop("head 2.1", "x", "gender", 2, 2.0, "layer 2 · attention"),
        VariableStop("head 2.3", "x", "place", 2, 2.0, "layer 2 · attention", sure=False),
    ]
    moves = [
        VariableMove(None, 0, "gender"),
        VariableMove(0, 1, "gender", 0.5),
        VariableMove(1, None, "gender", 0.25),
    ]
    words = [
        "Yesterday",
        "Lily",
        "was happy because of a very long tale that nobody would ever wish to read at all",
    ]
    figure = movement_figure(words, stops, moves, "<she>", 2)
    text = [t for trace in figure.data for t in (trace.text or ())]
    assert [t.strip() for t in text] == ["MLP 0", "head 2.1", "head 2.3", "&lt;she&gt;"]
    assert figure.layout.meta["rows"][1] == ["gender", "MLP 0 at Lily", "head 2.1 at " + words[2], 0.5]
    assert figure.layout.meta["rows"][0][3] is None
    signs = figure.layout.annotations[0].text.replace("\u00a0", " ")
    for sign in ("gender", "place", "hollow: not shown", "width: how much passes", "dotted: not measured"):
        assert sign in signs
    assert figure.data[-1].y[0] > max(
        y for trace in figure.data[3:-1] for y in trace.y
    )  # the answer stands above all parts
    assert "…" in figure.layout.xaxis.ticktext[2]
