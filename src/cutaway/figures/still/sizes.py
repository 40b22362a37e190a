"""How wide a still drawing should be: as wide as its content needs, and once more for a narrow screen where that can be."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from cutaway.figures.still.words import plain

#: Widths in pixels: of a page's column, of a narrow screen's.
PAGE, NARROW = 816, 343
_LEAST = 400
#: Pixels beside the cells of a map, and for each of its columns; a narrow screen has room for fewer columns.
_BESIDE, _CELL, _NARROW_COLUMNS, _NARROW_LABELS = 170, 84, 9, 12
#: On a narrow screen: letters of the longest label at the side, which leave room in two lines; columns of named nodes.
_NARROW_LETTERS, _NARROW_NODES = 52, 6


def widths(figure: go.Figure) -> tuple[int, int | None]:
    """(pixels on a page, pixels on a narrow screen or None where it would not be readable there and is to be scrolled)."""
    traces: list[Any] = [trace.to_plotly_json() for trace in figure.data]  # pyright: ignore[reportAttributeAccessIssue]
    maps = [trace for trace in traces if trace.get("type") == "heatmap"]
    if maps:
        panels: dict[tuple[float, ...], int] = {}
        for trace in maps:
            axis: Any = figure.layout[f"xaxis{str(trace.get('xaxis') or 'x')[1:]}"]
            domain = tuple(axis.domain or (0.0, 1.0))
            panels[domain] = max(panels.get(domain, 0), len(trace["z"][0]) if len(trace["z"]) else 0)
        columns = sum(panels.values())
        narrow = NARROW if len(panels) == 1 and columns <= _NARROW_COLUMNS else None
        return max(_LEAST, min(PAGE, _BESIDE + _CELL * columns)), narrow
    ticks = figure.layout.xaxis.ticktext  # pyright: ignore[reportAttributeAccessIssue]
    at_the_side = figure.layout.yaxis.ticktext or ()  # pyright: ignore[reportAttributeAccessIssue]
    named = any(trace.get("type") == "scatter" and trace.get("mode") == "markers+text" for trace in traces)
    crowded = (
        len(ticks if ticks is not None else ()) > (_NARROW_NODES if named else _NARROW_LABELS)
        or max((len(plain(label)) for label in at_the_side), default=0) > _NARROW_LETTERS
    )
    return PAGE, None if crowded else NARROW
