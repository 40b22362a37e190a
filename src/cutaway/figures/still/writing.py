"""A still drawing as a file: SVG, PDF, PNG."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from cutaway.errors import BadInput, did_you_mean
from cutaway.figures.still.drawing import FONTS, SETTINGS, draw
from cutaway.figures.still.sheet import Sheet
from cutaway.figures.still.tidying import tidy
from cutaway.results import atomic_write

#: What a width is called, in inches: the column and the type area of a paper in two columns.
WIDTHS = {"column": 3.3, "page": 6.9}
ENDINGS = (".svg", ".pdf", ".png")
STYLES = ("paper", "screen")
#: Points to a pixel of the description on paper: letters of 11 pixels become 7 points.
_PAPER = 0.64
_SCREEN = 720
#: A drawing of more marks that have words goes without them: the table behind it says it all.
_MOST_TITLES = 150


@contextmanager
def settings(quiet: bool = True) -> Iterator[None]:
    """Matplotlib as the drawings need it, whatever the reader has set. quiet: characters without a shape are no matter."""
    import matplotlib
    from matplotlib import font_manager

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        known = set(font_manager.fontManager.get_font_names())
        matplotlib.rcParams.update(SETTINGS | {"font.family": [name for name in FONTS if name in known]})  # pyright: ignore[reportCallIssue, reportArgumentType]
        if quiet:
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def svg(
    figure: go.Figure, width: int = _SCREEN, title: bool = True, prefix: str = "f", words: bool = True
) -> str:
    """A small SVG, `width` pixels wide, with its letters as text.

    prefix: begins the names inside it, so that several can stand in one page. words: give each mark that has words a
    `<title>` with them.
    """
    with settings():
        sheet = draw(figure, width, title=title)
        few = sum(map(len, sheet.titles.values())) <= _MOST_TITLES
        return tidy(_written(sheet, "svg").decode("utf-8"), sheet.titles if words and few else {}, prefix)


def png_uri(figure: go.Figure, width: int = _SCREEN) -> str:
    """The drawing as the data URI of a PNG."""
    with settings():
        return "data:image/png;base64," + base64.b64encode(_written(draw(figure, width), "png", 144)).decode()


def save(
    figure: go.Figure,
    path: str | os.PathLike[str],
    style: str = "paper",
    width: str | float = "column",
    dpi: int = 300,
) -> Path:
    """Write it as SVG, PDF or PNG, by the ending; see `Picture.save`."""
    where = Path(path)
    if where.suffix.lower() not in ENDINGS:
        raise BadInput(
            f"{where.name!r} is no picture that can be written.", f"End it in {', '.join(ENDINGS)}."
        )
    if style not in STYLES:
        raise BadInput(f"There is no style {style!r}.", did_you_mean(style, STYLES))
    if isinstance(dpi, bool) or not isinstance(dpi, int) or not 20 <= dpi <= 2400:
        raise BadInput(f"dpi={dpi!r} cannot be drawn.", "Give a whole number from 20 to 2400, such as 300.")
    inches = _inches(width)
    kind = where.suffix.lower()[1:]
    with settings(quiet=kind == "svg"):
        paper = style == "paper"
        size = (inches * 72 / _PAPER, _PAPER) if paper else (_SCREEN, 1.0)
        sheet = draw(figure, *size, title=not paper)
        data = _written(sheet, kind, dpi)
    return atomic_write(where, data)


def _inches(width: Any) -> float:
    if isinstance(width, str):
        if width not in WIDTHS:
            raise BadInput(f"There is no width {width!r}.", did_you_mean(width, WIDTHS))
        return WIDTHS[width]
    if isinstance(width, bool) or not isinstance(width, int | float) or not 1 <= width <= 40:
        raise BadInput(
            f"A figure cannot be {width!r} inches wide.", 'Give "column", "page", or 1 to 40 inches.'
        )
    return float(width)


def _written(sheet: Sheet, kind: str, dpi: float = 72) -> bytes:
    """The bytes of a drawing, the same each time: no date, no version."""
    dates: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
        "png": {"Software": None},
    }
    buffer = io.BytesIO()
    sheet.figure.savefig(
        buffer, format=kind, dpi=dpi, metadata=dates[kind], facecolor="none" if kind == "svg" else "white"
    )
    return buffer.getvalue()
