"""How a result shows itself: one helper for every notebook display, one for every page, one to save both."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cutaway.claims import COLOURS, Claim, Verdict
from cutaway.reports.content import Block, ClaimTests, Facts, KeyFigure, Page, Section
from cutaway.reports.render import write
from cutaway.results import Provenance, Result

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
    sections.append(Section("source", "How this was made", [Facts(tuple(facts_of(provenance)))]))
    return Page(title, kicker, verdict, headline, lead, key_figures, sections, source_line(provenance))


def facts_of(provenance: Provenance) -> list[tuple[str, str]]:
    """What is needed to repeat a result, as names and values."""
    versions = ", ".join(f"{name} {number}" for name, number in provenance.versions.items())
    facts = [
        ("network", provenance.network),
        ("weights and configuration", provenance.network_hash[:16]),
        ("behaviour or data", provenance.behaviour_hash[:16]),
        ("seed", str(provenance.seed)),
        ("ran on", f"{provenance.device}, {provenance.dtype}"),
        ("took", f"{provenance.seconds:.1f} s"),
        ("forward-equivalents", f"{provenance.forwards:.1f}" if provenance.forwards else ""),
        ("versions", versions),
        ("made", provenance.created),
    ]
    return [(name, value) for name, value in facts if value]


def publish(result: Result, path: str | os.PathLike[str], page: str = "report.html") -> tuple[Path, Path]:
    """Save a result and write its page into the same folder: the folder, and the page.

    Raises `SaveFailed` when the disk refuses.
    """
    folder = result.save(path)
    return folder, write(result.page(), folder / page)
