"""Small pictures for notebooks: inline SVG of a few kilobytes, whatever the size of what is shown, without any script."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from cutaway.figures import theme
from cutaway.figures.attention import in_blocks
from cutaway.figures.bars import Bar
from cutaway.figures.heatmap import Grid, heatmap_table, scale_limit

#: A map has at most so many rows and columns of cells, and so many labels on a side.
_ROWS, _COLUMNS, _LABELS = 60, 160, 16
#: So many patterns stand in a row.
_ABREAST = 4
#: A grid of at most so many cells is shown by its numbers.
_NUMBERED = 100
#: Colours of the scale; odd, so that the middle one is exactly white.
_STEPS = 129
_FONT = f'font-family="{html.escape(theme.FONT)}" font-size="11"'
_LETTER, _LINE = 6.2, 13


def grid_picture(grid: Grid, limit: float | None = None) -> str:
    """A grid for a notebook: a table with its numbers where that is small, else a picture."""
    return heatmap_table(grid, limit) if np.size(grid.values) <= _NUMBERED else small_map(grid, limit)


def small_map(grid: Grid, limit: float | None = None) -> str:
    """A heat map as an inline SVG of at most some 12 kB: the colours of `heatmap`, labels on the axes, no numbers.

    Of a large grid, cells that fall together show the one of the largest magnitude. limit: the scale runs from -limit to
    limit; default the largest magnitude.
    """
    limit = scale_limit(grid.values) if limit is None else limit
    values = _fewer(_fewer(np.asarray(grid.values, dtype=float), _ROWS, 0), _COLUMNS, 1)
    rows, columns = values.shape
    height = int(np.clip(220 / max(1, rows), 4, 18)) * rows
    width = int(np.clip(520 / max(1, columns), 3, 26)) * columns
    left = 8 + _LETTER * max((len(_plain(grid.rows[i])) for i in _ticks(len(grid.rows))), default=1)
    most = max(1, int(width // 30))
    labels = _ticks(len(grid.columns), min(_LABELS, most))
    longest = max((len(_plain(grid.columns[i])) for i in labels), default=1)
    slanted = longest * _LETTER * len(labels) > width
    if labels and slanted:
        left = max(
            left, 8 + 0.65 * _LETTER * len(_plain(grid.columns[labels[0]])) - width / len(grid.columns) / 2
        )
    below = 12 + (longest * _LETTER * 0.75 if slanted else _LINE) + _LINE
    drawn = [
        f'<image x="{left}" y="4" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{_picture(values[::-1], limit)}"/>'
    ]
    for i in _ticks(len(grid.rows)):
        y = 4 + height * (1 - (i + 0.5) / len(grid.rows)) + 4
        drawn.append(_text(left - 4, y, _plain(grid.rows[i]), "end"))
    for i in labels:
        x, y = left + width * (i + 0.5) / len(grid.columns), height + 4 + _LINE
        turn = f' transform="rotate(-50 {x:.0f} {y:.0f})"' if slanted else ""
        drawn.append(
            _text(x + (3 if slanted else 0), y, _plain(grid.columns[i]), "end" if slanted else "middle", turn)
        )
    said = f"{_plain(grid.row_title)} by {_plain(grid.column_title)}, {_plain(grid.unit)}; ±{limit:.2g}"
    drawn.append(_text(left, height + below, f"{said}: blue below zero, orange above" if limit else said))
    right = left + max(width, _LETTER * (len(said) + 30))
    return _svg(right + 20, height + below + 6, drawn, said)


def small_heads(tables: Sequence[np.ndarray], names: Sequence[str]) -> str:
    """Attention patterns side by side as an inline SVG of about half a kilobyte each: white is 0, dark 1, grey what a token
    cannot look at; rows look, columns are looked at, the first token on top.

    Args:
        tables: for each head [looking looked_at], from 0 to 1, NaN where a token cannot look.
        names: what is written below each.
    """
    wide, high = 124, 122
    drawn = []
    for i, (table, name) in enumerate(zip(tables, names, strict=True)):
        x, y = 4 + i % _ABREAST * wide, 4 + i // _ABREAST * high
        drawn.append(
            f'<image x="{x}" y="{y}" width="{wide - 24}" height="{high - 22}" preserveAspectRatio="none" '
            f'style="image-rendering:pixelated" href="{_picture(in_blocks(table), 1.0)}"/>'
        )
        drawn.append(_text(x, y + high - 9, _plain(name)))
    said = "rows look, columns are looked at, the first token on top; dark is 1"
    bottom = 4 + -(-len(tables) // _ABREAST) * high + _LINE
    drawn.append(_text(4, bottom, said))
    width = max(min(len(tables), _ABREAST) * wide, _LETTER * len(said) + 8)
    return _svg(width, bottom + 6, drawn, f"attention patterns: {', '.join(map(_plain, names))}")


def small_bars(items: Sequence[Bar], unit: str = "", most: int = 12) -> str:
    """Bars from zero, the `most` of the largest magnitude in the order given, with their intervals, as an inline SVG."""
    able = [item for item in items if np.isfinite(item.value)]
    kept = sorted(sorted(range(len(able)), key=lambda i: -abs(able[i].value))[:most])
    chosen = [able[i] for i in kept]
    if not chosen:
        return ""
    ends = [v for b in chosen for v in (b.value, b.low, b.high, 0.0) if np.isfinite(v)]
    low, high = min(ends), max(ends)
    left = 10 + _LETTER * min(40, max(len(_plain(b.label)) for b in chosen))
    scale = 300 / (high - low or 1.0)

    def at(value: float) -> float:
        return left + (value - low) * scale

    drawn = []
    for i, bar in enumerate(chosen):
        y = 4 + 18 * i
        name = _plain(bar.label)
        drawn.append(_text(left - 6, y + 11, name if len(name) <= 40 else f"{name[:39]}…", "end"))
        begin, end = sorted((at(0.0), at(bar.value)))
        colour = theme.POSITIVE if bar.value >= 0 else theme.NEGATIVE
        drawn.append(
            f'<rect x="{begin:.1f}" y="{y + 2}" width="{end - begin:.1f}" height="10" fill="{colour}"/>'
        )
        if np.isfinite([bar.low, bar.high]).all() and bar.low < bar.high:
            drawn.append(f'<path d="M{at(bar.low):.1f} {y + 7}H{at(bar.high):.1f}" stroke="currentColor"/>')
        drawn.append(_text(left + 308, y + 11, f"{bar.value:.3g}"))
    zero, bottom = at(0.0), 4 + 18 * len(chosen)
    drawn.append(f'<path d="M{zero:.1f} 2V{bottom}" stroke="currentColor" stroke-opacity=".4"/>')
    rest = len(able) - len(chosen)
    said = ", ".join(
        words for words in (_plain(unit), f"{rest} smaller ones not drawn" if rest else "") if words
    )
    drawn.append(_text(left, bottom + _LINE, said))
    return _svg(left + 370, bottom + 18, drawn, said or "bars")


def _svg(width: float, height: float, drawn: Sequence[str], said: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto" role="img" '
        f'aria-label="{html.escape(said)}" fill="currentColor" {_FONT}>{"".join(drawn)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{more}>{html.escape(text)}</text>'


def _plain(label: str) -> str:
    """A label as text: labels of grids are escaped already."""
    return html.unescape(str(label))


def _ticks(n: int, most: int = _LABELS) -> list[int]:
    """Which of n labels are written."""
    return list(range(0, n, max(1, -(-n // most))))


def _fewer(values: np.ndarray, most: int, axis: int) -> np.ndarray:
    """At most so many entries along an axis: of those that fall together the one of the largest magnitude."""
    n = values.shape[axis]
    if n <= most:
        return values
    parts = []
    for part in np.array_split(values, most, axis):
        best = np.argmax(np.where(np.isfinite(part), np.abs(part), -1.0), axis, keepdims=True)
        parts.append(np.take_along_axis(part, best, axis))
    return np.concatenate(parts, axis)


def _picture(values: np.ndarray, limit: float) -> str:
    """A PNG of one pixel for each cell [rows columns], the first row on top, as a data URI.

    It has a palette of so many steps of the scale, and the colour of what is absent.
    """
    shares = np.clip(values / limit if limit > 0 else values * 0, -1, 1)
    indices = np.where(np.isfinite(values), np.rint((np.nan_to_num(shares) + 1) / 2 * (_STEPS - 1)), _STEPS)
    steps = [theme.blend(v, 1.0) for v in np.linspace(-1, 1, _STEPS)] + [theme.ABSENT]
    lines = b"".join(b"\0" + row.tobytes() for row in indices.astype(np.uint8))
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8, 3, 0, 0, 0)
    palette = b"".join(bytes.fromhex(colour[1:7]) for colour in steps)
    parts = ((b"IHDR", head), (b"PLTE", palette), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()
