"""From content to one HTML file: figures drawn still, nothing fetched, every string escaped; the script only on request."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from cutaway.errors import UnknownOption, did_you_mean
from cutaway.figures import theme
from cutaway.reports.content import Figure, Page
from cutaway.reports.drawn import Exhibit, drawn, lighter, said, weight
from cutaway.results import atomic_write

#: Where the script that makes figures movable may stand: nowhere, in a file beside the page, in the page.
INTERACTIVE = (None, "beside", "inline")
#: The name of that file.
SCRIPT = "figures.js"

#: Bytes that the figures of a page may take in full.
_HEAVY = 380_000
#: A figure and its sign, which stay on one line.
_PER_CENT = re.compile(r"(\d) %")
_THEME = ("FONT", "MONO", "ACCENT", "NEGATIVE", "POSITIVE")
_MARKS = {True: "passed", False: "failed", None: "undecided"}


def render(page: Page, interactive: str | None = None) -> str:
    """The report as HTML text, with its figures drawn still and the numbers behind each of them in a table.

    It has no reference to another file or host, and forbids itself the network by a content security policy.

    Args:
        page: what it says.
        interactive: "inline" puts Plotly's script into the page (4.8 MB), so that figures can be hovered over, zoomed and
            filtered; "beside" expects it in the file `SCRIPT` beside the page, which `publish` and `write` put there.

    Raises:
        UnknownOption: for another value of `interactive`.
        BadInput: for a figure with marks that have no still drawing.
    """
    check_interactive(interactive)
    figures = _figures(page, interactive is not None)
    mode = interactive if figures else None
    scripts = [Markup(script_safe(script_text()))] if mode == "inline" else []
    return template("page.html.j2").render(
        page=page,
        figure=lambda block: figures[id(block)],
        mark=lambda passed: _MARKS[passed],
        policy=page_policy(mode, scripts),
        scripts=scripts,
        beside=SCRIPT if mode == "beside" else "",
        theme={name.lower(): getattr(theme, name) for name in _THEME},
        finding=_PER_CENT.sub("\\1\u00a0%", page.headline or page.title),
        about=page.title if page.headline and not said(page.title, page.headline) else "",
    )


def write(page: Page, path: str | Path, interactive: str | None = None) -> Path:
    """Render and write atomically, with the script beside it where that was asked for.

    Raises `SaveFailed` when the disk refuses; the page stays usable.
    """
    place = Path(path)
    text = render(page, interactive)
    if interactive == "beside":
        atomic_write(place.with_name(SCRIPT), script_text())
    return atomic_write(place, text)


def check_interactive(interactive: object) -> None:
    """Raise `UnknownOption` for what is no way to make figures interactive."""
    if interactive not in INTERACTIVE:
        remedy = did_you_mean(interactive, [name for name in INTERACTIVE if name])
        raise UnknownOption(f"interactive={interactive!r} is not known.", remedy)


def script_text() -> str:
    """The script of interactive figures: Plotly, and what puts its figures in the place of the still ones."""
    from plotly.offline import get_plotlyjs

    ours = files("cutaway.reports").joinpath("templates", "page.js").read_text(encoding="utf-8")
    return f"{get_plotlyjs()}\n{ours}"


def _figures(page: Page, interactive: bool) -> dict[int, Exhibit]:
    """The figures of a page, by the identity of their blocks; lighter ones where they would make the page heavy."""
    placed = [(b, s.title) for s in page.sections for b in s.blocks if isinstance(b, Figure)]
    ready = {id(b): drawn(b, n, page, heading, interactive) for n, (b, heading) in enumerate(placed, 1)}
    blocks = {id(b): b for b, _ in placed}
    for name in sorted(ready, key=lambda name: -weight(ready[name])):
        if sum(map(weight, ready.values())) <= _HEAVY:
            break
        ready[name] = lighter(ready[name], blocks[name])
    return ready


def page_policy(mode: str | None, scripts: list[Markup]) -> str:
    """What the page may load: nothing from anywhere, and no script but the one that it was made with."""
    allowed = {"beside": "'self'", "inline": " ".join(map(_hash, scripts))}.get(mode or "", "'none'")
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"


def script_safe(source: str) -> str:
    """A script's own source, safe inside a `<script>` element (`</script` and `<!--` cannot stand there)."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def template(name: str) -> Template:
    """A template of this folder, which escapes all that it is given and knows no default for what it is not given."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    loader = PackageLoader("cutaway.reports", "templates")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
