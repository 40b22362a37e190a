"""Variables on their way: a prompt's words below, above them the parts that carry a variable, and where it moves on."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from cutaway.figures.colours import ACCENT, FAINT, INK, MUTED, NEGATIVE, PAPER, POSITIVE
from cutaway.figures.showing import Picture
from cutaway.figures.theme import FONT, HOVER, dress, legend_of_signs

#: Of each variable its colour and its sign, told apart also without colours.
_LOOKS = (
    (ACCENT, "circle"), (POSITIVE, "square"), (NEGATIVE, "diamond"), (MUTED, "triangle-up"), (INK, "cross"),
    ("#7a4fa3", "x"),
)  # fmt: skip
#: Letters in a line of a word below, and lines.
_WIDE, _DEEP = 15, 4
#: Of the height of a row: how far the parts in one place stand above each other.
_ABOVE = 0.42
_THINNEST, _WIDEST = 1.0, 4.5


@dataclass(frozen=True)
class VariableStop:
    """A part that carries a variable at a word.

    Attributes:
        label: what stands beside it.
        words: the whole of it, under the pointer.
        variable: which one it carries.
        column: the word.
        level: its height in the network: any number that grows from the tokens up.
        row: what the row of its level is called.
        sure: is it shown that it carries it?
    """

    label: str
    words: str
    variable: str
    column: int
    level: float
    row: str
    sure: bool = True


@dataclass(frozen=True)
class VariableMove:
    """A variable that passes from one stop to another, to the answer, or from a word.

    Attributes:
        start: the stop, by number; None for the word below the end.
        end: the stop, by number; None for the answer.
        variable: which one.
        share: how much of its effect passes there; NaN where that was not measured.
    """

    start: int | None
    end: int | None
    variable: str
    share: float = float("nan")


def movement_figure(
    words: Sequence[str],
    stops: Sequence[VariableStop],
    moves: Sequence[VariableMove],
    answer: str,
    at: int,
    title: str = "",
) -> Picture:
    """The drawing of how variables move through a prompt.

    Args:
        words: of the prompt, from left to right; what is not of interest may be one of them.
        stops: what carries a variable, and where.
        moves: from where to where, as wide as what passes; dashed where that was not measured.
        answer: what is answered.
        at: the word whose logits are read, by number; the answer stands above it.
        title: above it.
    """
    heights, rows = _rows(stops)
    top = (rows[-1][0] + rows[-1][1] if rows else 0.0) + 1.0
    places = _places(stops, heights)
    variables = list(dict.fromkeys([stop.variable for stop in stops] + [move.variable for move in moves]))
    looks = {name: _LOOKS[i % len(_LOOKS)] for i, name in enumerate(variables)}
    figure = go.Figure()
    for move in moves:
        _draw_move(figure, move, stops, places, (float(at), top), looks[move.variable][0])
    for name in variables:
        mine = [i for i, stop in enumerate(stops) if stop.variable == name]
        if mine:
            _draw_stops(figure, name, [(stops[i], places[i]) for i in mine], looks[name])
    figure.add_scatter(
        x=[at], y=[top], mode="markers+text", text=[html.escape(answer)], textposition="top center", showlegend=False,
        textfont={"size": 12, "color": INK, "family": FONT}, customdata=[f"the answer: {html.escape(answer)}"],
        hovertemplate=HOVER, marker={"size": 9, "color": INK, "symbol": "circle"},
    )  # fmt: skip
    below = [_wrapped(word) for word in words]
    deep = max((word.count("<br>") for word in below), default=0)
    dressed = dress(figure, int(130 + 16 * deep + 62 * (top + 0.4)), title)
    figure.update_layout(showlegend=False, hovermode="closest")
    figure.update_xaxes(
        tickvals=list(range(len(words))), ticktext=below, range=[-0.6, len(words) - 0.4], showgrid=False, zeroline=False,
        tickfont={"size": 11, "color": INK}, tickangle=-50,
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=[*(height for height, _, _ in rows), top], ticktext=[*(html.escape(name) for _, _, name in rows), "answer"],
        range=[0.1, top + 0.6], showgrid=False, zeroline=False, tickfont={"size": 10, "color": MUTED},
    )  # fmt: skip
    legend_of_signs(figure, _signs(variables, looks, stops, moves))
    _keep_rows(figure, words, stops, moves, answer)
    return dressed


def _rows(stops: Sequence[VariableStop]) -> tuple[dict[float, float], list[tuple[float, float, str]]]:
    """The height of every level, and of every row (height, how far up it reaches, name): only those with stops are drawn."""
    named = {stop.level: stop.row for stop in stops}
    heights: dict[float, float] = {}
    rows: list[tuple[float, float, str]] = []
    height = 1.0
    for level in sorted(named):
        most = max(
            sum(s.level == level and s.column == column for s in stops)
            for column in {s.column for s in stops}
        )
        heights[level] = height
        rows.append((height, _ABOVE * (most - 1), named[level]))
        height += 1.0 + _ABOVE * (most - 1)
    return heights, rows


def _places(stops: Sequence[VariableStop], heights: dict[float, float]) -> list[tuple[float, float]]:
    """Where each stop stands: over its word, those of one word and row above each other and a little aside."""
    seen: dict[tuple[int, float], int] = {}
    places = []
    for stop in stops:
        number = seen[stop.column, stop.level] = seen.get((stop.column, stop.level), -1) + 1
        places.append((stop.column + 0.1 * number, heights[stop.level] + _ABOVE * number))
    return places


def _draw_move(
    figure: go.Figure, move: VariableMove, stops: Sequence[VariableStop], places: Sequence[tuple[float, float]],
    end: tuple[float, float], colour: str,
) -> None:  # fmt: skip
    x1, y1 = end if move.end is None else places[move.end]
    if move.start is None:
        x0, y0 = (end[0] if move.end is None else float(stops[move.end].column)), 0.15
    else:
        x0, y0 = places[move.start]
    bend = 0.18 if abs(x1 - x0) < 0.25 and y1 - y0 > 1.2 else 0.0
    shares = [i / 8 for i in range(9)] if bend else [0.0, 1.0]
    x = [x0 + (x1 - x0) * t - bend * 4 * t * (1 - t) for t in shares]
    y = [y0 + (y1 - y0) * t for t in shares]
    measured = move.share == move.share
    wide = _THINNEST + (_WIDEST - _THINNEST) * min(max(move.share, 0.0), 1.0) if measured else _THINNEST
    figure.add_scatter(
        x=x, y=y, mode="lines", hoverinfo="skip", showlegend=False, opacity=0.75 if measured else 0.5,
        line={"color": colour, "width": wide, "dash": "solid" if measured else "dot"},
    )  # fmt: skip


def _draw_stops(
    figure: go.Figure,
    name: str,
    those: Sequence[tuple[VariableStop, tuple[float, float]]],
    look: tuple[str, str],
) -> None:
    colour, symbol = look
    figure.add_scatter(
        x=[place[0] for _, place in those], y=[place[1] for _, place in those], mode="markers+text",
        text=[f"\u2002{html.escape(stop.label)}" for stop, _ in those], textposition="middle right",
        textfont={"size": 10, "family": FONT, "color": INK}, name=html.escape(name),
        customdata=[html.escape(stop.words) for stop, _ in those], hovertemplate=HOVER,
        marker={"size": 11, "symbol": symbol, "color": [colour if stop.sure else PAPER for stop, _ in those],
                "line": {"color": [colour if stop.sure else FAINT for stop, _ in those], "width": 1.6}},
    )  # fmt: skip


#: Signs in letters, for the line that says what they mean.
_LETTERS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "cross": "✚", "x": "✕"}


def _signs(
    variables: Sequence[str],
    looks: dict[str, tuple[str, str]],
    stops: Sequence[VariableStop],
    moves: Sequence[VariableMove],
) -> list[str]:
    signs = [f"{_LETTERS[looks[name][1]]} {html.escape(name)}" for name in variables]
    signs += ["hollow: not shown"] if any(not stop.sure for stop in stops) else []
    signs += ["width: how much passes"] if any(move.share == move.share for move in moves) else []
    return signs + (["dotted: not measured"] if any(move.share != move.share for move in moves) else [])


def _wrapped(word: str) -> str:
    """A word below in short lines, its middle left out where it is long."""
    lines = textwrap.wrap(word, _WIDE) or [word]
    if len(lines) > _DEEP:
        lines = [*lines[: _DEEP - 2], "…", lines[-1]]
    return "<br>".join(map(html.escape, lines))


def _keep_rows(
    figure: go.Figure,
    words: Sequence[str],
    stops: Sequence[VariableStop],
    moves: Sequence[VariableMove],
    answer: str,
) -> None:
    """What is drawn as rows in the description itself: strokes do not say what they were drawn from."""

    def name(number: int | None, other: str) -> str:
        return other if number is None else f"{stops[number].label} at {words[stops[number].column]}"

    rows = [
        [move.variable, name(move.start, "the words"), name(move.end, f"the answer {answer}"),
         move.share if move.share == move.share else None]
        for move in moves
    ]  # fmt: skip
    moved = {number for move in moves for number in (move.start, move.end)}
    rows += [[stop.variable, name(i, ""), "", None] for i, stop in enumerate(stops) if i not in moved]
    rows = rows or [["none", word, "", None] for word in words]
    figure.update_layout(meta={"head": ["variable", "from", "to", "share"], "rows": rows, "more": 0})
