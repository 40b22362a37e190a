"""`cutaway zoo`: the networks whose mechanism is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text as Words

from cutaway.cli import saving
from cutaway.cli.common import STOPPED, Common, command
from cutaway.cli.helping import HelpedGroup
from cutaway.cli.screen import Screen
from cutaway.cli.shown import grid
from cutaway.errors import Stopped

if TYPE_CHECKING:
    from cutaway.calibration import Verification
    from cutaway.zoo.truth import Variable

zoo_app = typer.Typer(
    cls=HelpedGroup,
    help="Networks whose mechanism is known, and their twins that lack it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FAILED = 1
#: Shared options that mean nothing where a card or a text is shown.
_PLAIN = ("out", "resume", "budget", "sets", "device", "dtype", "trust_remote_code")

Name = Annotated[str, typer.Argument(help="A specimen: see `cutaway zoo list`.", show_default=False)]


@command(zoo_app, "list", without=_PLAIN)
def list_(_common: Common, screen: Screen) -> None:
    """List the shipped networks, each in a line: what it does. `zoo show NAME` says what is known about one."""
    from cutaway import zoo

    cards: list[dict[str, Any]] = [{"name": name} | zoo.card(name) for name in zoo.names()]
    width = max(len(card["name"]) for card in cards) + len("zoo:")
    cut: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"} if screen.out.is_terminal else {}
    lines = (
        Words.assemble((f"zoo:{card['name']}".ljust(width), "bold"), f"  {card.get('task', '')}", **cut)
        for card in cards
    )
    screen.result({"networks": cards}, *lines)
    screen.say("What is known about one: cutaway zoo show NAME")


@command(zoo_app, without=_PLAIN)
def show(_common: Common, screen: Screen, name: Name) -> None:
    """Show a specimen's card: task, mechanism, ground truth, twins, accuracy, recipe."""
    from cutaway import zoo
    from cutaway.network.listing import listing

    card = zoo.card(name)
    truth = zoo.truth(name)
    rows: list[tuple[str, Any]] = [
        ("task", card.get("task")), ("mechanism", card.get("mechanism")), ("architecture", card.get("architecture")),
        ("accuracy", card.get("accuracy")), ("nodes", listing(truth.nodes)),
        ("edges", "\n".join(edge.words for edge in truth.edges)),
        ("variables", "\n".join(map(_variable, truth.variables))),
        ("features", "\n".join(f"{f.name}: {f.says}; {f.site}" for f in truth.features)),
        ("facts", _said(truth.facts)), ("established", truth.established),
        ("twins", "\n".join(f"~{t['kind']}: {t['says']}" for t in card.get("twins", []))),
        ("checkpoints", "  ".join(f"@{r}" for r in card.get("revisions", []))),
        ("recipe", card.get("recipe")), ("made by", card.get("made_by")), ("minutes", card.get("minutes")),
        ("sources", "\n".join(card.get("sources", []))), ("licence", card.get("licence")),
    ]  # fmt: skip
    told = (
        (f"[bold]{label}[/]", value if isinstance(value, str) else json.dumps(value))
        for label, value in rows
        if value not in (None, "", {}, [])
    )
    screen.result(card, grid(("", ""), told, show_header=False, title=f"zoo:{card['name']}"))


def _said(facts: Any) -> Any:
    """Facts with the parts that they name in words."""
    from cutaway.network.parts import in_words

    if isinstance(facts, dict):
        return {in_words(key): _said(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return list(map(_said, facts))
    return in_words(facts) if isinstance(facts, str) else facts


def _variable(v: Variable) -> str:
    return f"{v.name}: {v.says}; {v.site}, at {v.pos}{'' if v.read else '; never read'}"


@command(zoo_app, without=("out", "resume", "sets"))
def verify(
    common: Common,
    screen: Screen,
    names: Annotated[list[str] | None, typer.Argument(help="Specimens, twins or folders; default: all.")] = None,
    twins: Annotated[bool, typer.Option("--twins", help="Check, too, that every twin fails.")] = False,
    n: Annotated[int, typer.Option("--n", min=8, help="How many pairs.")] = 64,
    full: Annotated[bool, typer.Option("--full", help="Show every check, not only those that fail.")] = False,
) -> None:  # fmt: skip
    """Prove the ground truth of specimens by intervention on their weights; exit code 1 where it does not hold."""
    from cutaway import zoo
    from cutaway.calibration import verify as prove
    from cutaway.calibration import verify_twins
    from cutaway.zoo.registry import all_specimens

    chosen = names or [name for name in zoo.names() if name in all_specimens()]
    rows: list[tuple[str, ...]] = []
    results: list[dict[str, Any]] = []
    wrong, complete = 0, True
    with screen.work(common.limits()) as quiet, quiet.interruptible() as work:
        try:
            for i, name in enumerate(chosen):
                work.step(f"verifying {name}", i, len(chosen))
                verified = [(prove(None, name, n=n, seed=common.seed, work=work), "~" not in name)]
                if twins and "~" not in name:
                    verified += [(v, False) for v in verify_twins(name, n=n, seed=common.seed, work=work)]
                for v, holds in verified:
                    expected = holds or not twins
                    wrong += v.holds != expected
                    results.append(v.to_dict() | {"expected": expected})
                    rows += _verification_rows(v, full)
        except Stopped:
            complete = False
    data = {"specimens": results, "all as expected": complete and not wrong, "complete": complete}
    screen.result(data, grid(("", "specimen", "checks", "seconds", "what failed"), rows))
    if not complete:
        screen.say(f"[yellow]Stopped.[/] {len(results)} were finished.")
        raise typer.Exit(STOPPED)
    if wrong:
        raise typer.Exit(FAILED)


def _verification_rows(v: Verification, full: bool) -> list[tuple[str, ...]]:
    """One row for a specimen, and with `full` one for each of its checks."""
    failed = ", ".join(e.name for e in v.failures)
    first = ("✓" if v.holds else "✗", v.name, str(len(v.evidence)), f"{v.seconds:.1f}", failed)
    checks = [("", f"  {'✓' if e.passed else '✗'} {e.name}", e.figure(), "", e.sentence) for e in v.evidence]
    return [first, *(checks if full else ())]


@command(zoo_app, without=("sets", "device", "dtype", "seed", "trust_remote_code"))
def make(common: Common, screen: Screen, name: Name) -> None:
    """Make a specimen from nothing, in --out (default: zoo-NAME), its checkpoints in --resume (default: beside it).

    Stopped or killed, it goes on from its last checkpoint when run again.
    """
    from cutaway.recipes.making import make as build

    target = saving.free(common.out or Path(f"zoo-{name.removeprefix('zoo:')}"), common.overwrite)
    try:
        with screen.work(common.limits()) as work:
            path = build(name, target, checkpoints=common.resume, work=work)
    except Stopped:
        screen.problem(
            "Stopped", f"{name} is not finished.", "Run it again: it goes on from its last checkpoint."
        )
        raise typer.Exit(STOPPED) from None
    card = json.loads((path / "card.json").read_text(encoding="utf-8"))
    data = {"name": name, "path": str(path), "accuracy": card["accuracy"]}
    screen.result(data, f"{name}: {card['accuracy']}")
    screen.saved(path)
    screen.say(f"Prove it with: cutaway zoo verify {path}")


@command(zoo_app, without=_PLAIN)
def text(
    common: Common,
    screen: Screen,
    name: Name,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="At least so many tokens, in whole passages.")] = 200,
    labels: Annotated[bool, typer.Option(
        "--labels", help="One JSON object a line: tokens, and each variable's value at each token.")] = False,
) -> None:  # fmt: skip
    """Stream text of a specimen's language, with the variables that determine it."""
    from cutaway.errors import NotFound
    from cutaway.zoo import specimen
    from cutaway.zoo.tasks import Speaks

    task = specimen(name).task
    if not isinstance(task, Speaks):
        raise NotFound(f"{name} has no text to stream.", "Its task gives pairs only: task.pairs(n, seed).")
    count = 0
    passages: list[dict[str, Any]] = []
    for passage in task.passages(common.seed):
        row = {"tokens": passage.tokens, "labels": passage.labels}
        if common.as_json:
            passages.append(row)
        else:
            typer.echo(json.dumps(row, ensure_ascii=False) if labels else joined(passage.tokens))
        count += len(passage.tokens)
        if count >= tokens:
            break
    if common.as_json:
        screen.result({"name": name, "tokens": count, "passages": passages})


def joined(tokens: tuple[str, ...]) -> str:
    """Tokens as a line: those that bring their own blanks as they are, words with blanks between them.

    >>> joined(("a", "b")), joined(("Once", " upon"))
    ('a b', 'Once upon')
    """
    return "".join(tokens) if any(t.startswith(" ") for t in tokens) else " ".join(tokens)
