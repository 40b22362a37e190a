"""What goes where: results to stdout, progress and remarks to stderr; with --json only JSON to stdout."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.style import Style
from rich.text import Text

from cutaway.errors import CutawayError, Stopped

if TYPE_CHECKING:
    from cutaway.cli.progress import Telling
    from cutaway.results import Stages, Work


class Screen:
    """One command's output."""

    def __init__(self, as_json: bool, events: bool = False) -> None:
        self.as_json, self.events = as_json, events
        self.stages: Stages | None = None
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
        self._remark(Text.from_markup(text))

    def saved(self, *paths: object) -> None:
        """Say where something was saved, and of a page how to open it; on a terminal that follows links, as one."""
        for path in map(Path, map(str, paths)):
            linked = (str(path), Style(bold=True, link=path.absolute().as_uri()))
            if path.suffix != ".html":
                self._remark(Text.assemble("saved ", linked))
            elif command := opening(path):
                self._remark(Text.assemble("open it: ", (command, linked[1])))
            else:
                self._remark(Text.assemble("open it in a browser: ", linked))

    def error(self, error: CutawayError) -> None:
        """Two lines: what is wrong, what to do."""
        self.problem(type(error).__name__, error.problem, for_terminal(error.remedy))

    def problem(self, kind: str, problem: str, remedy: str) -> None:
        """What is wrong and what to do, one line each, taken literally; with --json also as JSON."""
        if self.as_json:
            self._write_json({"error": {"kind": kind, "problem": problem, "remedy": remedy}})
        for style, head, text in (("bold red", kind, problem), ("bold", "What to do", remedy)):
            if text:
                self._remark(Text.assemble((head, style), " ", " ".join(text.split())))

    def unfinished(self, ended: BaseException) -> tuple[str, str]:
        """What to say where work ended with nothing to show: why, and how to go on."""
        why, remedy = "Nothing was finished, so nothing was saved.", "Run it again."
        if isinstance(ended, Stopped):
            why = ended.problem if "nothing was run" in ended.problem else f"{ended.problem} {why}"
            remedy = for_terminal(ended.remedy) if "budget" in ended.problem else remedy
        if self.stages is not None and self.stages.begun:
            why = why.replace("Nothing was finished, so nothing was saved.", "Its finished stages are kept.")
            remedy = (
                f"Run it again with --resume {shlex.quote(str(self.stages.folder))} to go on from there. "
                + (remedy if "budget" in why else "")
            )
        return why, remedy.strip()

    def warn(self, problem: str, rest: str) -> None:
        """Something that went wrong and was got round."""
        self._remark(Text.assemble((problem, "yellow"), " ", rest))

    def _write_json(self, data: dict[str, Any]) -> None:
        self.out.file.write(_json(data) + "\n")

    def _remark(self, line: Text) -> None:
        """A line on stderr; an event where programs read there."""
        if self.events:
            from cutaway.cli.progress import JsonEvents

            JsonEvents(self.remarks).event("remark", text=line.plain)
        else:
            self.remarks.print(line, soft_wrap=True)

    def telling(self) -> Telling:
        """Whoever tells of progress on stderr: events, a live display on a terminal, or lines."""
        from cutaway.cli.progress import JsonEvents, LiveBar, PipedLines

        if self.events:
            return JsonEvents(self.remarks)
        return LiveBar(self.remarks) if self.remarks.is_terminal else PipedLines(self.remarks)

    @contextmanager
    def work(self, limits: dict[str, Any], what: str = "", stages: Stages | None = None) -> Iterator[Work]:
        """Work within these limits (fields of a `Budget`), whose progress is shown here.

        what: is being done until the first report. stages: where finished ones are kept.
        """
        from cutaway.results import Budget, Work

        listener = self.telling()
        listener.course.label = what
        self.stages = stages
        if stages is not None:
            listener.kept = str(stages.folder)
        work = Work(listener, Budget(**limits), stages=stages)
        listener.meter = work.meter
        with listener:
            yield work


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
