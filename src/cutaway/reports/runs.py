"""The folder of runs, `cutaway-runs/`: one dated folder for each run, and a page that lists them all.

Every run says in its own `run.json` what was asked and what came out. The page is made from these files alone, so that
it is right after folders were deleted, and several commands may finish at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cutaway.claims import VERDICTS
from cutaway.errors import SaveFailed
from cutaway.figures import theme
from cutaway.reports.render import template
from cutaway.results import MANIFEST, atomic_write, to_json

RUNS, INDEX, REPORT = "cutaway-runs", "index.html", "report.html"
_RECORD, _FORMAT = "run.json", "cutaway-run-1"
#: Of what a file says, at most so much is read [bytes], and so much of a text shown [characters].
_LARGEST, _LONGEST = 200_000, 400


@dataclass(frozen=True)
class RunRecord:
    """What a run was asked and what came out, in words.

    Attributes:
        when: when it was saved, as ISO 8601 with the time zone.
        verb: the command.
        model: the network, as it was named.
        question: what was asked of it: a behaviour, a text, a site.
        headline: the result in one line.
        verdict: of its claim; "" where it makes none.
        complete: False where it was stopped before the end.
    """

    when: str
    verb: str
    model: str
    question: str = ""
    headline: str = ""
    verdict: str = ""
    complete: bool = True


def note_run(folder: Path, record: RunRecord) -> Path:
    """Write what a run was into its folder, as `run.json`. Raises `SaveFailed` when the disk refuses."""
    return atomic_write(folder / _RECORD, to_json({"format": _FORMAT, **asdict(record)}))


def runs_in(folder: Path) -> list[tuple[str, RunRecord]]:
    """The runs of a folder by the name of theirs, newest first; what is no run, or cannot be read, is passed over."""
    try:
        places = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        return []
    found = [(place.name, record) for place in places if (record := _record(place)) is not None]
    return sorted(found, key=lambda run: (run[1].when, run[0]), reverse=True)


def write_index(folder: Path) -> Path:
    """Write `index.html`, which lists the runs of a folder, from what lies there now. Raises `SaveFailed`.

    Of several commands that end at once, each looks again after it has written: whoever writes last has seen all.
    """
    shown = runs_in(folder)
    while True:
        page = atomic_write(folder / INDEX, index_html(folder, shown))
        now = runs_in(folder)
        if now == shown:
            return page
        shown = now


def index_html(folder: Path, runs: Sequence[tuple[str, RunRecord]]) -> str:
    """The page over these runs: static, without a script, every string escaped, every link to a file inside the folder.

    A run whose folder has no report is linked by its folder.
    """
    rows = [
        {
            "when": record.when[:16].replace("T", " "),
            "verb": record.verb,
            "model": record.model,
            "question": record.question,
            "verdict": record.verdict if record.verdict in VERDICTS else "",
            "headline": record.headline or name,
            "complete": record.complete,
            "link": quote(f"{name}/{REPORT if (folder / name / REPORT).is_file() else ''}"),
        }
        for name, record in runs
    ]
    looks = {name.lower(): getattr(theme, name) for name in ("FONT", "INK", "MUTED", "FAINT", "ACCENT")}
    return template("runs.html.j2").render(rows=rows, theme=looks | {"line": theme.GRID_LINE})


def claimed(folder: Path) -> Path:
    """Make a folder of this name that nobody else has, numbered where there is one. Raises `SaveFailed`."""
    for number in range(1, 1000):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir()
            return place
        except FileExistsError:
            if not place.parent.is_dir():
                break
        except OSError as error:
            raise SaveFailed(f"{place} could not be made: {error.strerror}.", "Use -o FOLDER.") from error
    raise SaveFailed(f"{folder} could not be made: there is one of every number.", "Use -o FOLDER.")


def now() -> datetime:
    """The time here, with its zone."""
    return datetime.now().astimezone()


def _record(place: Path) -> RunRecord | None:
    """What a folder says of its run; of a result that was saved there otherwise, what its manifest says."""
    said = _read(place / _RECORD)
    if said.get("format") == _FORMAT:
        known = {f.name: said.get(f.name, f.default) for f in fields(RunRecord)}
        texts = {name: _short(value) for name, value in known.items() if name != "complete"}
        return RunRecord(**texts, complete=said.get("complete") is not False)
    said = _read(place / MANIFEST)
    origin = said.get("provenance")
    if not isinstance(origin, dict):
        return None
    when, network = (_short(origin.get(name, "")) for name in ("created", "network"))
    return RunRecord(when, _short(said.get("kind", "")), network)


def _short(value: object) -> str:
    """Its text; of a long one the beginning, up to a word's end, and a mark that there is more.

    >>> _short("word " * 200)[-7:]
    ' word …'
    """
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2].rsplit(' ', 1)[0]} …"


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST:
            return {}
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
