"""How a result shows itself: one helper for every notebook display, one for every page, one to save both."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cutaway.claims import COLOURS, Claim, Verdict
from cutaway.reports.content import Block, ClaimTests, Facts, KeyFigure, Page, Section, Table
from cutaway.reports.render import SCRIPT, check_interactive, render, script_text
from cutaway.results import Provenance, Result, add_page

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 12


def display(
    headline: str,
    lines: Sequence[str] = (),
    table: Any = None,
    picture: str = "",
    verdict: Verdict | None = None,
    provenance: Provenance | None = None,
) -> str:
    """The HTML of a notebook display: a headline, a few lines, a small picture or table, where it came from.

    It needs no file and no network. table: a DataFrame, of which the first rows are shown. picture: HTML made by
    `cutaway.figures` (a heat map's table, an SVG).
    """
    badge = f"<b style='color:{COLOURS[verdict]}'>{verdict}</b> " if verdict else ""
    parts = [f"<div>{badge}<b>{html.escape(headline)}</b></div>"]
    parts += [f"<div>{html.escape(line)}</div>" for line in lines if line]
    parts += [picture] if picture else []
    if table is not None and len(table):
        parts.append(table.head(_ROWS).to_html(index=False, float_format="%.3f", border=0, escape=True))
        if len(table) > _ROWS:
            parts.append(f"<div><small>{len(table) - _ROWS} more rows: to_pandas()</small></div>")
    if provenance is not None:
        parts.append(f"<div><small>{html.escape(source_line(provenance))}</small></div>")
    return f"<div style='max-width:70em'>{''.join(parts)}</div>"


class Headed(Result, Protocol):
    """A result that says in a sentence, without its full stop, what came out."""

    @property
    def headline(self) -> str: ...  # noqa: D102


def display_result(
    result: Headed, lines: Sequence[str] = (), table: Any = None, picture: str = "", headline: str = ""
) -> str:
    """The notebook display of a result that has a `headline`: see `display`. headline: another one in its place."""
    return display(headline or result.headline, lines, table, picture, provenance=result.provenance)


def page_of(
    result: Headed, kicker: str, title: str, blocks: Sequence[Block | Section], *, claims: Sequence[Claim] = (),
    lead: str = "",
) -> Page:  # fmt: skip
    """The page of a result that has a `headline`: see `result_page`."""
    said = result.headline.removesuffix(".") + "."
    return result_page(title, kicker, said, blocks, result.provenance, claims=claims, lead=lead)


def table_of(
    frame: pd.DataFrame, caption: str = "", digits: str = ".3f", numeric: Sequence[int] = ()
) -> Table:
    """A DataFrame as a block of a page: numbers that are not whole with so many digits, all else as it reads.

    numeric: the columns (by index) that are set flush right.
    """

    def cell(value: Any) -> str:
        return f"{value:{digits}}" if isinstance(value, float) else str(value)

    rows = (tuple(map(cell, row)) for row in frame.astype(object).to_numpy())
    return Table(tuple(map(str, frame.columns)), tuple(rows), caption, frozenset(numeric))


def source_line(provenance: Provenance) -> str:
    """Where a result came from, on one line."""
    pieces = [provenance.network, f"{provenance.dtype} on {provenance.device}", f"seed {provenance.seed}"]
    if provenance.seconds:
        pieces.append(f"{provenance.seconds:.1f} s")
    return " · ".join(piece for piece in pieces if piece)


def result_page(
    title: str,
    kicker: str,
    headline: str,
    blocks: Sequence[Block | Section],
    provenance: Provenance,
    *,
    claims: Sequence[Claim] = (),
    verdict: Verdict | None = None,
    lead: str = "",
    key_figures: Sequence[KeyFigure] = (),
) -> Page:
    """The page of a result: its blocks, its claims with their tests, and how it was made."""
    sections = [b if isinstance(b, Section) else Section(f"part-{i}", "", [b]) for i, b in enumerate(blocks)]
    if claims:
        sections.append(Section("claims", "Claims and their tests", [ClaimTests(claim) for claim in claims]))
    sections.append(Section("source", "How this was made", [Facts(facts_of(provenance))]))
    return Page(title, kicker, verdict, headline, lead, key_figures, sections, source_line(provenance))


def facts_of(provenance: Provenance) -> tuple[tuple[str, str], ...]:
    """What is needed to repeat a result, as names and values."""
    facts = {
        "network": provenance.network,
        "weights and configuration": provenance.network_hash[:16],
        "behaviour or data": provenance.behaviour_hash[:16],
        "seed": str(provenance.seed),
        "ran on": f"{provenance.device}, {provenance.dtype}",
        "rounding": "" if provenance.rounding is None else provenance.rounding.sentence,
        "took": f"{provenance.seconds:.1f} s",
        "forward-equivalents": f"{provenance.forwards:.1f}" if provenance.forwards else "",
        "versions": ", ".join(f"{name} {number}" for name, number in provenance.versions.items()),
        "made": provenance.created,
    }
    return tuple((name, value) for name, value in facts.items() if value)


def publish(
    result: Result, path: str | os.PathLike[str], page: str = "report.html", interactive: str | None = None
) -> tuple[Path, Path]:
    """Save a result and write its page into the same folder: the folder, and the page.

    interactive: see `render`; "beside" writes the script into the folder once.

    Raises `SaveFailed` when the disk refuses.
    """
    check_interactive(interactive)
    folder = result.save(path)
    written = add_page(folder, render(result.page(), interactive), page)
    if interactive == "beside":
        add_page(folder, script_text(), SCRIPT)
    return folder, written
