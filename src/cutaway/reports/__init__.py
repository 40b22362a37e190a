"""Reports: one self-contained HTML file that needs no network, reads well on a screen and on paper.

A report is plain content (`Page`, made of sections and blocks) and one template. What a technique has to say it puts
into blocks; how that looks is decided here.
"""

from cutaway.reports.content import (
    Block,
    ClaimTests,
    Facts,
    Figure,
    KeyFigure,
    Listing,
    Page,
    Pair,
    Pairs,
    Points,
    Section,
    Table,
    Text,
    Token,
)
from cutaway.reports.display import display, facts_of, publish, result_page, source_line
from cutaway.reports.render import render, write

__all__ = [
    "Block",
    "Facts",
    "Figure",
    "KeyFigure",
    "Listing",
    "Page",
    "Pair",
    "Pairs",
    "Points",
    "Section",
    "Table",
    "ClaimTests",
    "display",
    "facts_of",
    "publish",
    "result_page",
    "source_line",
    "Text",
    "Token",
    "render",
    "write",
]
