"""Commands made from the table of verbs: the question, up to eight options of its own, and what all commands share."""

from __future__ import annotations

import importlib
import inspect
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cutaway.cli import question, saving, shown
from cutaway.cli.common import STOPPED, WRONG, Common, command
from cutaway.cli.question import BehaviourName, Force, Model, Text
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput, require_known
from cutaway.verbs import REQUIRED, VERBS, Parameter, Verb

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work

CircuitFile = Annotated[
    Path,
    typer.Argument(
        help="A circuit: a folder that trace saved, a .json or a .pt graph file.", show_default=False
    ),
]
Plan = Annotated[bool, typer.Option("--plan", help="Say what it will cost, and do not run it.")]
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def register(app: typer.Typer) -> None:
    """Add a command for every verb that has one and whose question is a behaviour, a circuit or a text."""
    for row in VERBS.values():
        if row.command and row.takes[:1] == ("net",):
            works = any(p.name == "work" for p in _all(row))
            command(app, row.command, without=() if works else ("resume",))(_function(row))


def _function(row: Verb) -> Callable[..., None]:
    """A function with the signature of the command; `command` adds the options that all share."""

    def run(common: Common, screen: Screen, **given: Any) -> None:
        call(row, common, screen, given)

    head = [inspect.Parameter(n, _KEYWORD, annotation=a) for n, a in (("common", Common), ("screen", Screen))]
    parameters = [
        *head,
        *question_of(row),
        *(option(row, p) for p in row.options() if p.name in row.shown),
    ]
    if row.plan:
        parameters.append(inspect.Parameter("plan", _KEYWORD, annotation=Plan, default=False))
    run.__name__, run.__doc__ = row.command, row.says
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def question_of(row: Verb) -> list[inspect.Parameter]:
    """The command's arguments and options that say what is asked."""
    known = [
        ("behaviour", question.MaybeBehaviour, None),
        ("table", question.PromptTable, None),
        ("n", Annotated[int, typer.Option("--n", min=2, help="How many prompts.")], row.n),
        ("force", Force, False),
    ]
    kinds: dict[str, list[tuple[str, Any, Any]]] = {
        "net": [("model", Model, REQUIRED)],
        "text": [("text", Text, REQUIRED)],
        "other": [("other", Text, REQUIRED)],
        "texts": [("text", question.MaybeText, None), ("file", question.TextFile, None)],
        "circuit": [("circuit", CircuitFile, REQUIRED)],
        "cases": known,
        "question": known,
        "behaviour": [
            *_behaviour(row),
            ("n", Annotated[int, typer.Option("--n", min=2, help="How many pairs.")], row.n),
            ("force", Force, False),
        ],
    }
    return [
        inspect.Parameter(
            name, _KEYWORD, annotation=annotation, **({} if default is REQUIRED else {"default": default})
        )
        for taken in row.takes
        for name, annotation, default in kinds.get(taken, ())
    ]


def _behaviour(row: Verb) -> list[tuple[str, Any, Any]]:
    """The options that name a behaviour; for a verb that can do with two prompts also those of the prompts."""
    if not any(p.name == "clean" for p in row.parameters()):
        return [("behaviour", BehaviourName, REQUIRED)]
    prompts = (("clean", question.Clean), ("corrupted", question.Corrupted), ("answers", question.TheAnswers))
    return [("behaviour", question.MaybeBehaviour, None), *((name, kind, None) for name, kind in prompts)]


def option(row: Verb, p: Parameter) -> inspect.Parameter:
    """A keyword of a verb as an option: its type by its annotation, its help by the verb's docstring."""
    name = f"--{p.name.replace('_', '-')}"
    spelled = dict(row.spelled).get(p.name, name)
    flags = [spelled] if spelled.startswith("--") else [name, spelled]
    if "bool" in p.annotation:
        flags = [f"{name}/--no-{name[2:]}"]
    kind, default = _cli_type(p), p.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    settings: dict[str, Any] = {"help": p.says or None, "show_default": default not in (REQUIRED, None)}
    annotation = Annotated[kind, typer.Option(*flags, **settings)]
    return inspect.Parameter(
        p.name, _KEYWORD, annotation=annotation, **({} if default is REQUIRED else {"default": default})
    )


def _several(p: Parameter) -> bool:
    """Does a keyword take several values? A file of them is one."""
    return "Path" not in p.annotation and (
        isinstance(p.default, tuple) or any(word in p.annotation for word in ("Sequence", "tuple[", "list["))
    )


def _cli_type(p: Parameter) -> Any:
    """The type of an option: what typer can read of the keyword's own type."""
    optional = p.default is None
    if "Path" in p.annotation:
        return Path | None
    if _several(p):
        if p.default is not None or "int" in p.annotation:
            return str | None if optional else str
        return list[str] | None
    for kind in (bool, float, int):
        if kind.__name__ in p.annotation.split(" | ") or type(p.default) is kind:
            return kind | None if optional else kind
    return str | None if optional else str


def keywords(row: Verb, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the verb's keywords: lists with commas taken apart, ranges of layers, whole numbers."""
    taken: dict[str, Any] = {}
    for p in row.options():
        if p.name not in given or given[p.name] is None or p.name in question.ASKING:
            continue
        value = given[p.name]
        if _several(p) and isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            value = question.layers(value) if "int" in p.annotation else parts
        elif isinstance(value, float) and value >= 1 and value == int(value) and "int" in p.annotation:
            value = int(value)
        taken[p.name] = value
    return taken


def further(row: Verb, common: Common) -> dict[str, Any]:
    """What `--set` gives, fields of an options dataclass gathered into it.

    Raises `UnknownOption` for a keyword or field that is not there, with the nearest one.
    """
    given = question.settings(common)
    row.check(given)
    for name, where in row.more:
        if isinstance(given.get(name), dict):
            module, _, cls = where.partition(":")
            kind = getattr(importlib.import_module(module), cls)
            require_known(given[name], [f.name for f in fields(kind)], f"{row.name}'s {name}")
            given[name] = kind(**given[name])
    for name, value in given.items():
        if isinstance(value, dict) and name not in dict(row.more):
            raise BadInput(f"{row.name}'s {name} has no fields.", f"Write --set {name}=VALUE.")
        wanted = next((p for p in row.parameters() if p.name == name), None)
        if wanted is not None and _several(wanted) and isinstance(value, str | int):
            ranged = "int" in wanted.annotation
            given[name] = question.layers(value) if isinstance(value, str) and ranged else [value]
    return given


@dataclass(frozen=True)
class Asked:
    """A command's question, opened: the network, and what comes after it.

    Attributes:
        net: the network, opened.
        subjects: what comes after it, opened: a behaviour, a circuit, a text.
    """

    net: Network
    subjects: tuple[Any, ...]


def asked(row: Verb, common: Common, screen: Screen, given: Mapping[str, Any], by: str) -> Asked:
    """Open the network and read the question."""
    net = question.network(common, given["model"])
    subjects: list[Any] = []
    for taken in row.takes[1:]:
        if taken == "behaviour":
            aligned = row.name != "patch" or any(word in by for word in ("position", "span"))
            subjects.append(question.behaviour_of(screen, net, common, given, row.command, aligned))
        elif taken == "circuit":
            from cutaway.circuits import read

            circuit = read(given["circuit"])
            subjects.append(circuit if circuit.graph.network else circuit.on(net))
        elif taken == "texts":
            subjects.append(question.texts_of(given))
        elif taken in ("cases", "question"):
            subjects.append(question.cases_of_given(screen, net, common, given, row.command))
        elif taken in given and taken not in row.shown:
            subjects.append(given[taken])
    return Asked(net, tuple(subjects))


def call(row: Verb, common: Common, screen: Screen, given: dict[str, Any]) -> None:
    """Ask, run, save with its page, show; what was stopped is saved too, and the exit code says so."""
    planning = given.pop("plan", False)
    options = keywords(row, given) | further(row, common)
    names = [p.name for p in row.parameters()]
    if common.resume is not None and (common.resume / "sweep.json").exists():
        options["folder"] = common.resume  # begun by a version before, or in Python
    if "force" in names:
        options["force"] = given["force"]
    if "command" in names:
        options["command"] = command_line(row, common, given)
    asked_of = given.get("behaviour") or " or ".join(str(a).strip() for a in given.get("answers") or ())
    asks = (str(asked_of), *(str(given.get(name) or "") for name in ("text", "at")))
    place = saving.target(common, row.command, given["model"], *asks)
    if any(p.name == "folder" and p.default is REQUIRED for p in row.parameters()):
        place = saving.claim(place, common.resume)
        options["folder"] = place.path
    by = str(given.get("by") or "")
    if planning:
        with screen.work(common.limits(), f"opening {given['model']}"):
            question_ = asked(row, common, screen, given, by)
        planned(row, common, screen, question_, options)
        return
    keeps = "folder" in options
    with saving.working(screen, common, place, keeps) as work:
        question_ = asked(row, common, screen, given, by)
        result = run_verb(row, question_, options, common.seed, work)
    paths = saving.save(screen, result, place)
    screen.result(result.to_dict() | {"saved": [str(path) for path in paths]}, *shown.terminal(result))
    screen.saved(*paths)
    if row.name == "trace":
        if not len(result):
            screen.say(f"[yellow]The circuit is empty.[/] {result.notes[-1]}")
            raise typer.Exit(WRONG)
        screen.say(
            f"Test it: cutaway test {given['model']} {paths[0]} --behaviour {given['behaviour']} --n {given['n']} "
            f"--seed {common.seed}"
        )
    if not getattr(result, "complete", True):
        going_on = ""
        if (stages := screen.stages) is not None and stages.begun:
            going_on = f" Go on with the same command and --resume {stages.folder}."
        screen.say(
            f"[yellow]Stopped.[/] What was finished is saved, and marked as partial.{escape(going_on)}"
        )
        raise typer.Exit(STOPPED)


def run_verb(row: Verb, question_: Asked, options: dict[str, Any], seed: int, work: Work) -> Any:
    """Call a verb; the library's remark about a stopped sweep is left out, because the command says it itself."""
    import warnings

    names = [p.name for p in _all(row)]
    shared = {name: value for name, value in (("seed", seed), ("work", work)) if name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stopped: .* cells are finished")
        return row.find()(question_.net, *question_.subjects, **shared, **options)


def _all(row: Verb) -> tuple[Parameter, ...]:
    from cutaway.verbs import signature

    return signature(row.where)


def planned(row: Verb, common: Common, screen: Screen, question_: Asked, options: dict[str, Any]) -> None:
    """Show what the call would cost."""
    from rich.table import Table

    module, _, name = row.plan.partition(":")
    planning = getattr(importlib.import_module(module), name)
    options.pop("folder", None)
    sweep = planning(question_.net, *question_.subjects, seed=common.seed, **options)
    plan = sweep.plan
    table = Table(show_header=False, title="Planned, not run")
    for label, value in plan.rows():
        table.add_row(escape(label), escape(value))
    if sweep.first_look:
        table.add_row("first look", escape(sweep.first_look))
    rules = {"on": plan.rules.names, "off": dict(plan.rules.reasons)}
    screen.result(asdict(plan.cost) | {"rules": rules, "notes": list(plan.warnings)}, table)


def command_line(row: Verb, common: Common, given: Mapping[str, Any]) -> str:
    """The command that repeats a result: what was asked, and every option that differs from its default."""
    words = [
        "cutaway",
        row.command,
        *(str(given[k]) for k in ("model", "circuit", "text", "other") if given.get(k) is not None),
    ]
    words += ["--file", str(given["file"])] if given.get("file") is not None else []
    words += ["--table", str(given["table"])] if given.get("table") is not None else []
    if given.get("clean") is not None:
        words += [
            "--clean",
            given["clean"],
            "--corrupted",
            given["corrupted"],
            "--answers",
            *given["answers"],
        ]
    elif given.get("behaviour") is not None:
        words += ["--behaviour", str(given["behaviour"]), "--n", str(given["n"])]
    words += ["--seed", str(common.seed)]
    words += ["--force"] if given.get("force") else []
    for p in row.options():
        value = given.get(p.name)
        default = ",".join(map(str, p.default)) if isinstance(p.default, tuple) else p.default
        if p.name not in row.shown or value is None or value == default:
            continue
        flag = dict(row.spelled).get(p.name, "")
        flag = flag if flag.startswith("--") else f"--{p.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [flag, str(one)]
    for item in common.sets or ():
        words += ["--set", item]
    for flag, chosen in (("--device", common.device), ("--dtype", common.dtype), ("--budget", common.budget)):
        words += [flag, chosen] if chosen else []
    return shlex.join([*words, *(["--trust-remote-code"] if common.trust_remote_code else [])])
