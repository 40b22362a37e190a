"""What goes where: results to stdout, progress and remarks to stderr; with --json only JSON to stdout."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.style import Style
from rich.text import Text

from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from cutaway.results import Listener, Progress, Work

_PATIENCE, _EVERY = 1.0, 5.0


class Screen:
    """One command's output."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False)
        self.remarks = Console(stderr=True, highlight=False)

    def result(self, data: dict[str, Any], *human: Any) -> None:
        """The command's result: `data` as JSON, or the human form. In a pipe, lines of text keep their whole length."""
        if self.as_json:
            self._write_json(data)
            return
        for item in human:
            self.out.print(item, soft_wrap=isinstance(item, Text) and not self.out.is_terminal)

    def say(self, text: str) -> None:
        """A remark for the person who waits."""
        self.remarks.print(text, soft_wrap=True)

    def saved(self, *paths: object) -> None:
        """Say where something was saved, and of a page how to open it; on a terminal that follows links, as one."""
        for path in map(Path, map(str, paths)):
            linked = (str(path), Style(bold=True, link=path.absolute().as_uri()))
            if path.suffix != ".html":
                self.remarks.print(Text.assemble("saved ", linked), soft_wrap=True)
            elif command := opening(path):
                self.remarks.print(Text.assemble("open it: ", (command, linked[1])), soft_wrap=True)
            else:
                self.remarks.print(Text.assemble("open it in a browser: ", linked), soft_wrap=True)

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

    def warn(self, problem: str, rest: str) -> None:
        """Something that went wrong and was got round."""
        self.remarks.print(Text.assemble((problem, "yellow"), " ", rest), soft_wrap=True)

    def _write_json(self, data: dict[str, Any]) -> None:
        self.out.file.write(_json(data) + "\n")

    @contextmanager
    def progress(self) -> Iterator[Listener]:
        """Progress on stderr once something takes more than a second: a bar on a terminal, a line now and then where not."""
        listener = _Bar(self.remarks) if self.remarks.is_terminal else _Lines(self.remarks)
        try:
            yield listener
        finally:
            listener.close()

    @contextmanager
    def work(self, limits: dict[str, Any]) -> Iterator[Work]:
        """Work within these limits (fields of a `Budget`) whose progress is shown here."""
        from cutaway.results import Budget, Work

        with self.progress() as listener:
            yield Work(listener, Budget(**limits))


class _Bar:
    """A live display for a person."""

    def __init__(self, console: Console) -> None:
        from rich import progress as p

        self.bar: Any = p.Progress(
            p.SpinnerColumn(), p.TextColumn("{task.description}"), p.BarColumn(), p.MofNCompleteColumn(),
            p.TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self.task, self.began, self.shown = self.bar.add_task("", total=None), time.monotonic(), False

    def __call__(self, progress: Progress) -> None:
        if not self.shown and time.monotonic() - self.began > _PATIENCE:
            self.bar.start()
            self.shown = True
        label = escape(progress.label)
        self.bar.update(self.task, description=label, completed=progress.done, total=progress.total)

    def close(self) -> None:
        """Take the bar away."""
        if self.shown:
            self.bar.stop()


class _Lines:
    """A line every few seconds, for a file or a pipe."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last < _EVERY:
            return
        self.last = now
        line = f"{progress.seconds:.0f} s: {progress.label} ({progress.done} of {progress.total})"
        self.console.print(escape(line), soft_wrap=True)

    def close(self) -> None:
        """Nothing is left to take away."""


def _json(data: Any) -> str:
    """JSON by the one rule for it (`results.to_json`), for plain data without loading what results need."""
    try:
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        from cutaway.results import to_json

        return to_json(data)


#: A keyword with text, or several texts, for its value; a text in it.
_KEYWORD = re.compile(r"\b([a-z_]+)=(\(?\[?'[\w ]+'(?:, '[\w ]+')*\]?\)?)")
_QUOTED = re.compile(r"'([\w ]+)'")


def for_terminal(remedy: str) -> str:
    """A remedy in the words of the command line: keywords with a value are options with one.

    >>> for_terminal("Pass force=True to go on.")
    'Pass --force to go on.'
    >>> for_terminal("Sweep by='layer', or by=('layer', 'head').")
    'Sweep --by layer, or --by layer,head.'
    """
    said = remedy.replace("(force=True, --force)", "(--force)").replace("force=True", "--force")
    if "(..." in said:  # a call that is written out stays one
        return said
    return _KEYWORD.sub(lambda m: f"--{m[1].replace('_', '-')} {','.join(_QUOTED.findall(m[2]))}", said)


def opening(page: Path) -> str:
    """The command that opens a page on this system; "" where there is none.

    >>> opening(Path("a b.html")).endswith("'a b.html'") or not opening(Path("a b.html")) or sys.platform == "win32"
    True
    """
    if sys.platform == "win32":
        return f'start "" "{page}"'
    opener = "open" if sys.platform == "darwin" else next(filter(shutil.which, ("xdg-open", "wslview")), "")
    return f"{opener} {shlex.quote(str(page))}" if opener else ""
