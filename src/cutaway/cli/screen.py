"""What goes where: results to stdout, progress and remarks to stderr; with --json only JSON to stdout."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 1.0


class Screen:
    """One command's output."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False)
        self.remarks = Console(stderr=True, highlight=False)

    def result(self, data: dict[str, Any], *human: Any) -> None:
        """The command's result: `data` as JSON, or the human form."""
        if self.as_json:
            self._write_json(data)
            return
        for item in human:
            self.out.print(item)

    def say(self, text: str) -> None:
        """A remark for the person who waits."""
        self.remarks.print(text)

    def saved(self, *paths: object) -> None:
        """Say where something was saved."""
        for path in paths:
            self.remarks.print(f"saved [bold]{escape(str(path))}[/]", soft_wrap=True)

    def error(self, error: CutawayError) -> None:
        """Two lines: what is wrong, what to do."""
        self.problem(type(error).__name__, error.problem, for_terminal(error.remedy))

    def problem(self, kind: str, problem: str, remedy: str) -> None:
        """What is wrong and what to do, one line each, taken literally; with --json also as JSON."""
        if self.as_json:
            self._write_json({"error": {"kind": kind, "problem": problem, "remedy": remedy}})
        for style, head, text in (("bold red", kind, problem), ("bold", "What to do", remedy)):
            if text:
                line = Text.assemble((head, style), " ", " ".join(text.split()))
                self.remarks.print(line, soft_wrap=True)

    def _write_json(self, data: dict[str, Any]) -> None:
        self.out.file.write(
            json.dumps(finite(data), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
        )

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A progress bar on stderr that appears when something takes more than a second."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        bar: Progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=self.remarks, transient=True,
        )  # fmt: skip
        began, shown = time.monotonic(), False
        task = bar.add_task("", total=None)

        def report(label: str, done: int, total: int) -> None:
            nonlocal shown
            if not shown and time.monotonic() - began > _PATIENCE:
                bar.start()
                shown = True
            bar.update(task, description=label, completed=done, total=total)

        try:
            yield report
        finally:
            if shown:
                bar.stop()


def for_terminal(remedy: str) -> str:
    """A remedy in the words of the command line.

    >>> for_terminal("Pass force=True to go on.")
    'Pass --force to go on.'
    """
    return remedy.replace("(force=True, --force)", "(--force)").replace("force=True", "--force")


def finite(data: Any) -> Any:
    """The same data with None in place of NaN and infinity, which JSON does not have.

    >>> finite({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    if hasattr(data, "to_dict"):
        return finite(data.to_dict())
    if hasattr(data, "item") and getattr(data, "ndim", 0) == 0:
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data
