"""How results look in a terminal: a verdict, a headline, the strongest rows; the rest is on the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cutaway.claims import Claim
from cutaway.cli.summaries import Strongest, summary

_ROWS, _COLUMNS, _WIDEST = 12, 10, 18
#: Columns that name parts of a network, where they hold text.
_PARTS = (
    "writer", "reader", "part", "sender", "receiver", "node", "first", "second", "head", "who", "query", "key", "path",
)  # fmt: skip
#: Columns that are read before all others, in this order.
_FIRST = {n: i for i, n in enumerate(("form", "layer", "head", "position", "token", "span"))}
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
        every, ordered = len(result.to_pandas()), callable(getattr(result, "top", None))
        frame = result.top(_ROWS) if ordered else result.to_pandas().head(_ROWS)
        which = "the strongest first" if ordered else ""
        if every > len(frame):
            which = (
                f"the {len(frame)} strongest of {every}" if ordered else f"the first {len(frame)} of {every}"
            )
        shown.append(frame_table(frame, which))
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
    frame = frame.dropna(axis=1, how="all")
    named = any(isinstance(value, str) for name in _PARTS if name in frame for value in frame[name])
    never = [c for c in frame if frame[c].dtype == bool and not frame[c].any()]
    said = [c for c in frame if not (named and c in _SAID_BY_NAME) and c not in never]
    frame = frame[said]
    names = [str(c) for c in frame.columns]
    interval = {"low", "high"} <= set(names)
    twice = ({"high"} if interval else set()) | ({"p"} if "q" in names else set())
    shown = sorted((n for n in names if n not in twice), key=lambda n: (n not in _FIRST, _FIRST.get(n, 0)))[
        :_COLUMNS
    ]
    columns = {n: _column(frame, n, interval) for n in shown}
    least = {n: min(_WIDEST, max([len(cell) for cell in columns[n]], default=0)) for n in shown}
    room = shutil.get_terminal_size().columns - 4
    while len(shown) > 2 and sum(least[n] + 2 for n in shown) > room:
        shown.pop()
    if len(shown) < len(columns):
        title = f"{title}; {len(columns) - len(shown)} more columns in a wider window, or with --json".removeprefix(
            "; "
        )
    table = Table(box=None, title=escape(title), title_justify="left")
    for n in shown:
        # what is in the cells is shown whole: where room is short, headings and long texts are broken
        head = "95 % interval" if interval and n == "low" else escape(n)
        table.add_column(head, min_width=least[n], overflow="fold")
    for row in zip(*(columns[n] for n in shown), strict=True):
        table.add_row(*map(escape, row))
    return table


def _column(frame: Any, name: str, interval: bool) -> list[str]:
    """The cells of one column as text; of an interval's low end, both ends."""
    values = frame[name].astype(object)
    if not (interval and name == "low"):
        return [_cell(value, name) for value in values]
    ends = zip(values, frame["high"].astype(object), strict=True)
    return ["" if low != low else f"{_cell(low)} to {_cell(high)}" for low, high in ends]


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
