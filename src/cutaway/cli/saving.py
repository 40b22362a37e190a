"""Where results go: a folder with the numbers and the page, or, where the disk refuses, another."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cutaway.cli.question import FILES
from cutaway.errors import SaveFailed

if TYPE_CHECKING:
    from cutaway.cli.common import Common
    from cutaway.cli.screen import Screen

T = TypeVar("T")


def slug(name: str) -> str:
    """A name fit for a folder.

    >>> slug("/models/stories260K"), slug("zoo:tales")
    ('stories260K', 'tales')
    """
    last = Path(name).stem if name.endswith(FILES) else name.rstrip("/").split("/")[-1].split(":")[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last) or "network"


def target(common: Common, *names: str) -> Path:
    """The folder that was asked for, or one named after command, model and question."""
    return common.out or Path("-".join(["cutaway", *(slug(name) for name in names if name)]))


def save(screen: Screen, result: Any, place: Path) -> list[Path]:
    """Save a result with its page, report.html in the folder, or beside the file where `place` ends in .nc."""
    from cutaway.reports import publish, write

    def into(where: Path) -> list[Path]:
        if where.suffix == ".nc":
            return [result.save(where), write(result.page(), where.with_suffix(".html"))]
        return list(publish(result, where))

    return or_elsewhere(screen, into, place)


def or_elsewhere(screen: Screen, into: Callable[[Path], T], place: Path) -> T:
    """Save to the place, or, when the disk refuses, to a temporary folder, saying so: the work is not lost."""
    try:
        return into(place)
    except SaveFailed as error:
        other = Path(tempfile.mkdtemp(prefix="cutaway-")) / place.name
        saved = into(other)
        screen.warn(error.problem, "Saved in a temporary folder instead.")
        return saved
