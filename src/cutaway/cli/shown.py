"""How results look in a terminal: a verdict, a headline, the strongest rows; the rest is on the page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cutaway.claims import Claim
from cutaway.cli.summaries import Strongest, summary

_ROWS, _COLUMNS = 12, 10
#: Columns that name parts of a network, where they hold text.
_PARTS = (
    "writer", "reader", "part", "sender", "receiver", "node", "first", "second", "head", "who", "query", "key", "path",
)  # fmt: skip
#: What the name of a part says already.
_SAID_BY_NAME = ("kind", "layer", "index")
_COLOUR = {"supported": "green", "refuted": "red", "inconclusive": "yellow"}
_MARKS = {"✓": "[green]✓[/]", "✗": "[red]✗[/]", "?": "[yellow]?[/]"}


def terminal(result: Any) -> list[Any]:
    """What a terminal shows of a result: its verdict and headline, its claims, its strongest rows."""
    claims = claims_of(result)
    head = headline(result)
    if len(claims) == 1 and claims[0].verdict in _COLOUR:
        head = f"[bold {_COLOUR[claims[0].verdict]}]{claims[0].verdict}[/] {head}"
    shown: list[Any] = [head, *(tests(c) for c in claims if c.rows())]
    if not claims and (lines := summary(result, Console().width)) is not None:
        shown += [frame_table(x.frame, x.title) if isinstance(x, Strongest) else x for x in lines]
    elif not claims:
        frame = (
            result.top(_ROWS) if callable(getattr(result, "top", None)) else result.to_pandas().head(_ROWS)
        )
        shown.append(frame_table(frame, f"the {len(frame)} strongest of {len(result.to_pandas())}"))
    return shown


def claims_of(result: Any) -> list[Claim]:
    """The claims that a result makes."""
    found = (getattr(result, "claim", None), *getattr(result, "claims", ()))
    return [claim for claim in found if isinstance(claim, Claim)]


def grid(heads: Iterable[str | Column], rows: Iterable[Iterable[Any]], **looks: Any) -> Table:
    """A table without lines."""
    table = Table(*heads, box=None, **looks)
    for row in rows:
        table.add_row(*row)
    return table


def headline(result: Any) -> str:
    """The result in one line, for rich."""
    return escape(plain_headline(result))


def plain_headline(result: Any) -> str:
    """The result in one line."""
    said = getattr(result, "headline", None)
    return str(said() if callable(said) else said or str(result).partition("\n")[0])


def tests(claim: Any) -> Table:
    """Every test and control in one line; the words are on the page."""
    kinds = {"control": "control: "}
    rows = (
        (_MARKS[mark], kinds.get(kind, "") + name.lower(), figure)
        for kind, name, figure, mark, _ in claim.rows()
    )
    return grid(("", "test", "figure"), rows)


def frame_table(frame: Any, title: str = "") -> Table:
    """Rows of a pandas frame; an interval's two ends in one column."""
    table = Table(box=None, title=escape(title), title_justify="left")
    frame = frame.dropna(axis=1, how="all")
    named = any(isinstance(value, str) for name in _PARTS if name in frame for value in frame[name])
    never = [c for c in frame if frame[c].dtype == bool and not frame[c].any()]
    said = [c for c in frame if not (named and c in _SAID_BY_NAME) and c not in never]
    frame = frame[said]
    names = [str(c) for c in frame.columns]
    interval = {"low", "high"} <= set(names)
    shown = [n for n in names if not (interval and n == "high")][:_COLUMNS]
    for name in shown:
        table.add_column("95 % interval" if interval and name == "low" else escape(name), no_wrap=True)
    for row in frame.astype(object).to_dict("records"):
        cells = [
            f"{_cell(row['low'])} to {_cell(row['high'])}" if interval and n == "low" else _cell(row[n], n)
            for n in shown
        ]
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _cell(value: Any, name: str = "") -> str:
    if name == "token":
        from cutaway.figures import show_token

        return show_token(str(value), escape=False)
    if name in _PARTS and isinstance(value, str):
        from cutaway.network.parts import in_words

        return in_words(value)
    if value is None or value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
