"""Reports: one self-contained HTML file that needs no network, reads well on a screen and on paper.

A report is plain content (`Page`, made of sections and blocks) and one template. What a technique has to say it puts
into blocks; how that looks is decided here.
"""

from cutaway.reports.catalogue import Catalogue, render_catalogue
from cutaway.reports.content import (
    Block,
    ClaimTests,
    Facts,
    Figure,
    Heading,
    KeyFigure,
    Listing,
    Page,
    Pair,
    Pairs,
    Points,
    Said,
    Section,
    Table,
    Text,
    Token,
    TokenPassage,
    TokenPassages,
    Told,
)  # fmt: skip
from cutaway.reports.display import display, display_result, facts_of, page_of, publish, result_page, table_of
from cutaway.reports.render import check_interactive, render, write
from cutaway.reports.runs import REPORT, RUNS, RunRecord, claimed, note_run, now, runs_in, write_index

__all__ = [
    "REPORT", "RUNS", "Block", "Catalogue", "ClaimTests", "Facts", "Figure", "Heading", "KeyFigure", "Listing", "Page",
    "Pair", "Pairs", "Points", "RunRecord", "Said", "Section", "Table", "Text", "Token", "TokenPassage", "TokenPassages",
    "Told", "check_interactive", "claimed", "display", "display_result", "facts_of", "note_run", "now", "page_of", "publish",
    "render", "render_catalogue", "result_page", "runs_in", "table_of", "write", "write_index",
]  # fmt: skip
