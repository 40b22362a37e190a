"""A page on which one feature of very many is looked up: data once, compact, shown by a small script that runs nothing else.

What the data say is decided by who makes them (`features/dashboards`); how that looks, here. All text is data: the script
puts it into the page as text, never as markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from cutaway.figures import theme
from cutaway.reports.render import page_policy, script_safe, template
from cutaway.results import brief

_THEME = ("FONT", "MONO", "ACCENT", "NEGATIVE", "POSITIVE")


@dataclass(frozen=True)
class Catalogue:
    """What a page of very many features says.

    Attributes:
        kicker: a few words above the headline.
        headline: what there is, in a sentence.
        lead: what they are of.
        notes: sentences below the list of features: what was measured how, and what was left out.
        facts: names and values: how it was made.
        head: what the list and the search need, for all features: plain data.
        records: of each feature all else, as JSON without line breaks.
    """

    kicker: str
    headline: str
    lead: str
    notes: Sequence[str]
    facts: Sequence[tuple[str, str]]
    head: Mapping[str, Any]
    records: Sequence[str]

    __repr__ = brief


def render_catalogue(page: Catalogue) -> str:
    """The page as HTML text: nothing is fetched, and no script may run but its own.

    The element `head` holds JSON; `records` holds a JSON list with one feature a line, read where it is looked at.
    """
    script = files("cutaway.reports").joinpath("templates", "catalogue.js").read_text(encoding="utf-8")
    safe = Markup(script_safe(script))
    return template("catalogue.html.j2").render(
        page=page,
        policy=page_policy("inline", [safe]),
        script=safe,
        head=Markup(
            _inside(json.dumps(page.head, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
        ),
        records=Markup(_inside("[\n" + ",\n".join(page.records) + "\n]")),
        theme={name.lower(): getattr(theme, name) for name in _THEME},
    )


def _inside(text: str) -> str:
    """JSON that may stand in an element: no tag can begin or end in it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
