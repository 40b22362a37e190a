"""Where results go: a folder with the numbers and the page, or, where the disk refuses, another.

Without `--out` every run has a new folder under `cutaway-runs/`, whose `index.html` lists them. What `--out` names must be
new, unless `--overwrite` is given: this is looked at before anything runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cutaway.cli.question import FILES
from cutaway.errors import BadInput, SaveFailed

if TYPE_CHECKING:
    from cutaway.cli.common import Common
    from cutaway.cli.screen import Screen
    from cutaway.results import Work

T = TypeVar("T")
_RUNS, _UNFINISHED = "cutaway-runs", "unfinished"
#: A stage that took fewer seconds is made again rather than kept unasked.
_PATIENCE = 0.25
#: Of a text, so much goes into the name of a folder [characters].
_NAME = 40
#: Files of which a folder that may be overwritten holds one, itself or in a folder inside.
_OURS = ("manifest.json", "card.json", "bench.json")


@dataclass(frozen=True)
class Target:
    """Where a command saves, and the words by which the run is listed.

    Attributes:
        path: the folder (or file) that was asked for; None for a new one under `cutaway-runs/`.
        verb: the command.
        model: the network, as it was named.
        question: what was asked of it.
        interactive: how the page's figures are made so, if at all.
    """

    path: Path | None
    verb: str
    model: str = ""
    question: tuple[str, ...] = ()
    interactive: str | None = None


def slug(name: str) -> str:
    """A name fit for a folder.

    >>> slug("/models/stories260K"), slug("zoo:tales"), slug("Mary was sad because")
    ('stories260K', 'tales', 'Mary-was-sad-because')
    """
    last = Path(name).stem if name.endswith(FILES) else name.rstrip("/").split("/")[-1].split(":")[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)[:_NAME].strip("-.") or "network"


def target(common: Common, verb: str, model: str = "", *question: str) -> Target:
    """Where a command is going to save. Call it before anything runs: `BadInput` where `--out` names what exists."""
    if common.out is not None:
        free(common.out, common.overwrite)
    if common.interactive is not None:
        from cutaway.reports import check_interactive

        check_interactive(common.interactive)
    return Target(common.out, verb, model, tuple(words for words in question if words), common.interactive)


def claim(place: Target, resumed: Path | None) -> Target:
    """The target of a command that writes into its folder while it runs: one that it goes on with, or one of its own."""
    if resumed is not None or place.path is not None:
        return replace(place, path=resumed or place.path)
    from cutaway.reports import claimed, now

    return replace(place, path=claimed(Path(_RUNS) / _name(place, now())))


def _name(place: Target, began: datetime) -> str:
    names = [began.strftime("%Y-%m-%d-%H%M%S"), *map(slug, (place.verb, place.model, *place.question))]
    return "-".join(name for name in names if name)


@contextmanager
def working(screen: Screen, common: Common, place: Target, keeps: bool = False) -> Iterator[Work]:
    """Work for a command that saves a result: within its budget, shown on the screen, its finished stages kept.

    They are kept where --resume says; without it in a folder of their own from the first that took long, so that a stop or a
    kill loses little, and removed once the work has come to its end. keeps: the command keeps what it does by itself.
    """
    from cutaway.reports import now
    from cutaway.results import Stages

    asked = common.resume is not None
    folder = common.resume or Path(_RUNS) / _UNFINISHED / f"{_name(place, now())}-{os.getpid()}"
    stages = None if keeps else Stages(folder, patience=0.0 if asked else _PATIENCE)
    with screen.work(common.limits(), f"opening {place.model}", stages) as work:
        yield work
    if not asked and not work.stopped:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def free(path: Path, overwrite: bool) -> Path:
    """The path, which must not be taken unless it may be overwritten; an empty folder is free. BadInput where it is not."""
    taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if taken and not overwrite:
        raise BadInput(f"{path} exists already.", "Name another, or add --overwrite to replace it.")
    if (
        taken
        and path.is_dir()
        and not any((p / name).is_file() for p in (path, *path.iterdir()) for name in _OURS)
    ):
        raise BadInput(
            f"{path} is a folder of something else.", "--overwrite replaces results only: name a new one."
        )
    return path


def save(screen: Screen, result: Any, place: Target) -> list[Path]:
    """Save a result with its page, report.html in the folder, or beside the file where it ends in .nc."""
    from cutaway.reports import publish, write

    def into(where: Path) -> list[Path]:
        if where.suffix == ".nc":
            return [result.save(where), write(result.page(), where.with_suffix(".html"), place.interactive)]
        return list(publish(result, where, interactive=place.interactive))

    return keep(screen, into, place, result)


def keep(screen: Screen, into: Callable[[Path], list[Path]], place: Target, result: Any) -> list[Path]:
    """Save by `into` where the target says, list the run by its result, and say what was saved and how to open it.

    Where the disk refuses, all goes to a temporary folder.
    """
    from cutaway.reports import now

    if place.path is not None:
        paths = or_elsewhere(screen, into, place.path)
        where = place.path.parent
        if where.name == _RUNS:
            _noted(place.path, place, now(), result)
            _listed(screen, where)
    else:
        paths = or_elsewhere(screen, lambda runs: _new_run(screen, into, runs, place, result), Path(_RUNS))
    return paths


def or_elsewhere(screen: Screen, into: Callable[[Path], T], place: Path) -> T:
    """Save to the place, or, when the disk refuses, to a temporary folder, saying so: the work is not lost."""
    try:
        return into(place)
    except SaveFailed as error:
        other = Path(tempfile.mkdtemp(prefix="cutaway-")) / place.name
        saved = into(other)
        screen.warn(error.problem, "Saved in a temporary folder instead.")
        return saved


def _new_run(
    screen: Screen, into: Callable[[Path], list[Path]], runs: Path, place: Target, result: Any
) -> list[Path]:
    """A folder of this run's own, filled; removed again where that fails."""
    from cutaway.reports import claimed, now

    began = now()
    folder = claimed(runs / _name(place, began))
    try:
        paths = into(folder)
        _noted(folder, place, began, result)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _listed(screen, runs)
    return paths


def _noted(folder: Path, place: Target, began: datetime, result: Any) -> None:
    """Write beside a result what its run was."""
    from cutaway.reports import RunRecord, note_run

    if folder.is_dir():
        note_run(folder, RunRecord(began.isoformat(timespec="seconds"), place.verb, place.model,
            ", ".join(place.question), *_outcome(result)))  # fmt: skip


def _outcome(result: Any) -> tuple[str, str, bool]:
    """Headline, verdict, and whether it is complete."""
    from cutaway.cli.shown import claims_of, plain_headline

    verdicts = {claim.verdict for claim in claims_of(result)}
    verdict = verdicts.pop() if len(verdicts) == 1 else ""
    said = plain_headline(result)
    return said, verdict, bool(getattr(result, "complete", True))


def _listed(screen: Screen, runs: Path) -> None:
    """Make the page over all runs anew; the run itself is safe where that fails."""
    from cutaway.reports import write_index

    try:
        write_index(runs)
    except SaveFailed as error:
        screen.warn(error.problem, "The run itself is saved.")
