"""What every command has: the options that all share, and what happens to errors and Ctrl-C."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from cutaway.cli.helping import HelpedCommand, HelpedGroup
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput, CutawayError, Stopped, nearest

WRONG, STOPPED = 2, 130
#: What the program is called, however it was started.
PROGRAM = "cutaway"

Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random; recorded in the result.")]
Device = Annotated[
    str | None, typer.Option("--device", help="Where to run: cpu, cuda, cuda:1, mps. Default: as loaded.")
]
DType = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Type: float32, bfloat16, ...; mixed (products in bfloat16). Default: as stored.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let the model's own repository run its code. Off by default."),
]
Attached = Annotated[
    list[str] | None,
    typer.Option(
        "--dictionary",
        help="Attach a dictionary of features: [NAME=]FOLDER[@READS[:WRITES]], e.g. sae=my-sae@resid_post.5; repeatable.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder to save to. Default: a new one under cutaway-runs/."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the result that --out names.")]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", help="Keep finished work in this folder, and go on from what is there."),
]
Spend = Annotated[
    str | None,
    typer.Option(
        "--budget", help="What it may take: time, forwards or memory, e.g. 90s, 500forwards, 5m,2GiB."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="A further keyword of the verb as NAME=VALUE; repeatable."),
]
Interactive = Annotated[
    str | None,
    typer.Option(
        "--interactive",
        help="Let figures be hovered over and zoomed: beside (a script in a file beside the page) or inline (in it).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout, and nothing else there.")]
Events = Annotated[
    bool, typer.Option("--json-progress", help="Write progress to stderr as JSON, one event a line.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


_LONGEST = 500
_SIZES = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_TIMES = {"S": 1, "M": 60, "H": 3600}
_FORWARDS = {"FORWARD": 1, "FORWARDS": 1}
_UNITS = {u: (what, size) for what, sizes in (("seconds", _TIMES), ("memory", _SIZES), ("forwards", _FORWARDS))
          for u, size in sizes.items()}  # fmt: skip
_SPELLED = ("s", "m", "h", "forwards", "KiB", "MiB", "GiB", "KB", "MB", "GB")
#: Click's UsageError, which typer does not name (and of which it may ship a copy of its own).
_USAGE: type[Exception] = typer.BadParameter.__mro__[1]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


class Group(HelpedGroup):
    """The commands; a word that is wrong is told in two lines, with the nearest one, and as JSON where --json is given."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **settings: Any) -> Any:
        """As click's, but usage errors are told as all errors of this program are."""
        words = list(sys.argv[1:] if args is None else args)
        settings = {"prog_name": PROGRAM} | settings
        if not settings.get("standalone_mode", True):
            return super().main(words, *more, **settings)
        try:
            ended = super().main(words, *more, **(settings | {"standalone_mode": False}))
        except _USAGE as error:
            self._misused("--json" in words, error)
            sys.exit(WRONG)
        except typer.Abort:
            Screen("--json" in words, "--json-progress" in words).problem(
                "Stopped", "Nothing was finished, so nothing was saved.", "Run it again."
            )
            sys.exit(STOPPED)
        sys.exit(ended if isinstance(ended, int) else 0)

    @staticmethod
    def _misused(as_json: bool, error: Any) -> None:
        where = error.ctx.command_path if getattr(error, "ctx", None) is not None else PROGRAM
        if type(error).__name__ == "NoArgsIsHelpError":
            if not as_json:
                typer.echo(error.format_message())
                sys.exit(0 if where == PROGRAM else WRONG)
            said = "A command is missing."
        else:
            said = " ".join(error.format_message().split()) or "A command is missing."
        said = re.sub(r" \(Possible options?: (.*)\)\.?$", r" Did you mean \1?", said)
        problem, meant, near = said.partition(" Did you mean ")
        remedy = f"{meant.strip()} {near}" if meant else f"See {where} --help for what can be given."
        Screen(as_json).problem("UsageError", problem.rstrip(".") + ".", remedy)


@dataclass(frozen=True)
class Common:
    """The options that travel together through every command.

    Attributes:
        out: where the result is saved.
        overwrite: may what is saved there be replaced?
        seed: of everything random.
        device, dtype: where the network runs, and in which type of number.
        budget: how much may be spent.
        resume: a folder of finished parts to go on from.
        sets: further keywords, as `NAME=VALUE`.
        trust_remote_code: may a model's own code be run?
        attached: dictionaries whose latents are sites of the network.
        interactive: how the page's figures are made so, if at all.
        as_json: print data in place of text.
        json_progress: write progress as events for other programs.
        debug: show where an error was raised.
    """

    out: Out = None
    overwrite: Overwrite = False
    seed: Seed = 0
    device: Device = None
    dtype: DType = None
    budget: Spend = None
    resume: Resume = None
    sets: Sets = None
    trust_remote_code: Trust = False
    attached: Attached = None
    interactive: Interactive = None
    as_json: AsJson = False
    json_progress: Events = False
    debug: Debug = False

    def limits(self) -> dict[str, Any]:
        """What `--budget` allows, as the fields of a `Budget`.

        Raises BadInput for what is no positive number of a known unit, and for two figures of one kind.

        >>> Common(budget="5m,2GiB").limits(), Common(budget="500forwards").limits()
        ({'seconds': 300.0, 'memory': 2147483648}, {'forwards': 500.0})
        """
        allowed: dict[str, Any] = {}
        for part in (self.budget or "").replace(" ", "").split(",") if self.budget is not None else ():
            match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", part)
            if match is None or not float(match[1]):
                remedy = "Write time (90s, 5m, 1h), forwards (500forwards) or memory (500MiB, 2GiB)."
                raise BadInput(f"{part!r} is no budget: a positive number and its unit are.", remedy)
            if (match[2].upper() or "S") not in _UNITS:
                near = nearest(match[2], _SPELLED, 1)
                remedy = f"Did you mean {match[1]}{near[0]}?" if near else f"Units: {', '.join(_SPELLED)}."
                raise BadInput(f"{part!r} is no budget: there is no unit {match[2]!r}.", remedy)
            what, size = _UNITS[match[2].upper() or "S"]
            if what in allowed:
                raise BadInput(f"{self.budget!r} names {what} twice.", "Give one figure of each kind.")
            allowed[what] = int(float(match[1]) * size) if what == "memory" else float(match[1]) * size
        return allowed


def command(
    app: typer.Typer, name: str | None = None, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(common, screen, ...)` as a command that also takes the options that all share.

    without: fields of `Common` that mean nothing to this command, and which it therefore does not take.

    An error of Cutaway is shown in two lines, what is wrong and what to do, and ends with exit code 2; Ctrl-C ends with
    130. With `--json` the error is JSON, too.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        mine = list(inspect.signature(function).parameters.values())[2:]
        hints = get_type_hints(function, include_extras=True)
        shared = get_type_hints(Common, include_extras=True)
        left = {*without, *(("overwrite", "interactive") if "out" in without else ())}
        left |= {"json_progress"} if "budget" in without else set()
        left |= {"attached"} if "trust_remote_code" in without else set()
        taken = [f.name for f in fields(Common) if f.name not in left]

        def run(**values: Any) -> None:
            common = Common(**{name: values.pop(name) for name in taken})
            screen = Screen(common.as_json, common.json_progress)
            try:
                function(common, screen, **values)
            except (KeyboardInterrupt, Stopped) as ended:
                screen.problem("Stopped", *screen.unfinished(ended))
                raise typer.Exit(STOPPED) from None
            except CutawayError as error:
                if common.debug:
                    raise
                screen.error(error)
                raise typer.Exit(WRONG) from None
            except (typer.Exit, typer.Abort, _USAGE):
                raise
            except Exception as error:
                if common.debug:
                    raise
                said = str(error).strip() or "no message"
                screen.problem(type(error).__name__, _short(said), "Run again with --debug to see where.")
                raise typer.Exit(WRONG) from None

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [p.replace(annotation=hints[p.name], kind=keyword) for p in mine]
        parameters += [
            inspect.Parameter(name, keyword, default=getattr(Common, name), annotation=shared[name])
            for name in taken
        ]
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command(name or function.__name__, cls=HelpedCommand)(run)
        return function

    return register
