"""From content to one HTML file: everything inlined, nothing fetched, every string escaped."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cutaway.figures import theme
from cutaway.reports.content import Figure, Page
from cutaway.results import atomic_write

_THEME = ("FONT", "MONO", "INK", "MUTED", "FAINT", "ACCENT", "NEGATIVE", "POSITIVE")
_MARKS = {True: "passed", False: "failed", None: "undecided"}


def render(page: Page) -> str:
    """The report as HTML text.

    It holds Plotly's script once, has no reference to any other file or host, and forbids itself the network by a
    content security policy.
    """
    figures = [block for section in page.sections for block in section.blocks if isinstance(block, Figure)]
    names = {id(block): f"figure-{number}" for number, block in enumerate(figures, 1)}
    return template("page.html.j2").render(
        page=page,
        figure_name=lambda block: names[id(block)],
        figure_number=lambda block: names[id(block)].removeprefix("figure-"),
        figure_json=lambda block: embed_json(json.loads(block.figure.to_json())),
        mark=lambda passed: _MARKS[passed],
        plotly=_script(get_plotlyjs()) if figures else "",
        theme={name.lower(): getattr(theme, name) for name in _THEME} | {"line": theme.GRID_LINE},
    )


def write(page: Page, path: str | Path) -> Path:
    """Render and write atomically. Raises `SaveFailed` when the disk refuses; the page stays usable."""
    return atomic_write(Path(path), render(page))


def embed_json(value: Any) -> Markup:
    """JSON that may stand inside a `<script>` element whatever strings it holds.

    Every character by which a script or a comment could be ended or begun, and the two line ends that JavaScript does
    not allow in strings, are written as escapes; a JSON parser reads them back as they were.

    >>> str(embed_json("</script>"))
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _script(source: str) -> Markup:
    """A script's own source, safe inside a `<script>` element (`</script` and `<!--` cannot stand there)."""
    return Markup(source.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def template(name: str) -> Template:
    """A template of this folder, which escapes all that it is given and knows no default for what it is not given."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    loader = PackageLoader("cutaway.reports", "templates")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
