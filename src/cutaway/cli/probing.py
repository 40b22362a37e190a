"""`cutaway probe`: what a representation encodes, with controls, and whether the network uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli import question, saving, shown
from cutaway.cli.common import STOPPED, Common, command
from cutaway.cli.question import Model
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput, require_known

if TYPE_CHECKING:
    from rich.table import Table

    from cutaway.network import Network
    from cutaway.probes import ProbeData, Probing, Use

Data = Annotated[
    Path, typer.Option("--data", help="Labelled texts: .csv, .json or .jsonl.", show_default=False)
]
Label = Annotated[str, typer.Option("--label", help="Column of the labels.", show_default=False)]
#: Keywords of `--set`, by what takes them.
_COLUMNS = ("source", "span", "also")
_DATA = ("per_token", "label_kind", "n")
_OPTIONS = ("folds", "permutations")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    command(app)(probe)


def probe(
    common: Common,
    screen: Screen,
    model: Model,
    data: Data,
    label: Label,
    text: Annotated[str, typer.Option("--text", help="Column of the texts. Default: text, prompt, sentence, ...")] = "",
    group: Annotated[str, typer.Option("--group", help="Column of groups that a split must not part.")] = "",
    at: Annotated[str, typer.Option("--at", help="Sites, with commas.")] = "resid_post",
    by: Annotated[str, typer.Option("--by", help="layer, position, head, with commas.")] = "layer",
    kind: Annotated[str, typer.Option("--kind", help="ridge, logistic, means, lda or mass-mean.")] = "ridge",
    answers: Annotated[list[str] | None, typer.Option(
        "--answer", help='What follows a class, as CLASS=" word"; repeatable. The metric of the causal tests.')] = None,
) -> None:  # fmt: skip
    """Probe a network for a label: where it is encoded beyond the controls, and whether the network uses it.

    --set takes source=COLUMN (each left out in turn), span=COLUMN (the words that are labelled), also=COLUMN,COLUMN (what
    the label may be confounded with), per_token=true (each label is a list, one for every token), label_kind=continuous,
    n=500 (rows drawn at random), folds=5, permutations=100, use=false (do not test whether it is used).
    """
    from cutaway.probes import Columns, ProbeOptions, probe_data
    from cutaway.probes import probe as probe_it
    from cutaway.probes import use as use_of

    place = saving.target(common, "probe", model, label)
    given = question.settings(common)
    require_known(given, (*_COLUMNS, *_DATA, *_OPTIONS, "use"), "probe")
    use = given.get("use", True)
    if not isinstance(use, bool):
        raise BadInput(f"use={use!r} is neither true nor false.", "Write --set use=false.")
    if answers and not use:
        what = "Answers are for the tests whether the network uses it, and use=false leaves these out."
        raise BadInput(what, "Leave one of the two out.")
    also = given.get("also", [])
    columns = Columns(
        label, text, str(given.get("span", "")), group, str(given.get("source", "")),
        also=tuple(map(str, also if isinstance(also, list) else [also])),
    )  # fmt: skip
    with saving.working(screen, common, place) as work:
        net = question.network(common, model)
        how: dict[str, Any] = {"kind": given.get("label_kind")} | {
            k: given[k] for k in ("per_token", "n") if k in given
        }
        labelled = probe_data(data, columns=columns, net=net, seed=common.seed, **how)
        follow = answers_of(answers)
        if follow is not None:
            check_answers(net, labelled, follow)
        options = ProbeOptions(kind=kind, **{name: given[name] for name in _OPTIONS if name in given})
        options_of = {"at": names(at), "by": names(by), "options": options}
        probing = probe_it(net, labelled, seed=common.seed, work=work, **options_of)
        used = None
        if use and labelled.kind in ("binary", "continuous") and probing.finding.word == "encoded":
            inner = work.within("is it used?")
            used = use_of(net, probing, labelled, answers=follow, seed=common.seed, work=inner)
    if used is not None:
        probing = probing.with_finding(used.finding)
    paths = saving.keep(screen, lambda where: write(where, probing, used), place, probing)
    data_of_use = {"use": None if used is None else used.to_dict(), "saved": [str(p) for p in paths]}
    screen.result(
        probing.to_dict() | data_of_use,
        *([untested(labelled, use)] if probing.finding.word == "encoded" else []),
        f"[bold]{shown.headline(probing)}[/]",
        table(probing),
        *probing.finding.claims,
    )
    screen.saved(paths[-1].parent, paths[-1])
    if not getattr(probing, "complete", True):
        raise typer.Exit(STOPPED)


def table(probing: Probing, top: int = 8) -> Table:
    """The best places, each beside its controls."""
    from cutaway.probes.map.probing import CONTROLS

    frame = probing.top(top)
    places = [str(d) for d in probing.data["score"].dims]
    names = {"score": probing.what, **CONTROLS, "q": "q"}
    title = f"best {len(frame)} of {len(probing.probes)} places"
    chosen: Any = frame[[*places, *names]]
    return shown.frame_table(chosen.rename(columns=names), title)


def write(place: Path, probing: Probing, used: Use | None) -> list[Path]:
    """The map, the best place's probe, the causal tests, and the page over them."""
    from cutaway import reports
    from cutaway.results import remove_saved

    (place / "report.html").unlink(missing_ok=True)  # an older page would speak of other results
    if used is None:
        remove_saved(place / "use")
    folders = [probing.save(place / "probing"), probing.probe().save(place / "probe")]
    if used is not None:
        folders.append(used.save(place / "use"))
    return [*folders, reports.write(probing.page(used), place / "report.html")]


def check_answers(net: Network, data: ProbeData, answers: dict[str, list[str]]) -> None:
    """Before anything is run: do the answers name the two classes, by words that are one token?"""
    from cutaway.probes.reading.beds import answer_score

    if data.kind != "binary":
        raise BadInput(
            f"Answers are for two classes, and {data.name!r} is {data.kind}.",
            "Leave --answer out, or label two classes.",
        )
    for name in answers:
        if name not in data.classes:
            raise BadInput(
                f"There is no class {name!r}.", f"There are {' and '.join(map(repr, data.classes))}."
            )
    answer_score(net, answers, data.classes)


def untested(data: ProbeData, wanted: bool) -> str:
    """Why it was not tested whether the network uses it."""
    needs = f"that needs two classes or values, and the label is {data.kind}"
    return f"Whether the network uses it was not tested: {needs if wanted else 'use=false was given'}."


def names(text: str) -> list[str]:
    """Names with commas between them.

    >>> names("layer, head")
    ['layer', 'head']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def answers_of(given: list[str] | None) -> dict[str, list[str]] | None:
    """The words that follow each class, from `CLASS= word` options; BadInput for another form.

    >>> answers_of(["plural= are", "plural= were"])
    {'plural': [' are', ' were']}
    """
    if not given:
        return None
    words: dict[str, list[str]] = {}
    for item in given:
        name, equals, word = item.partition("=")
        if not equals or not word:
            raise BadInput(
                f"The answer {item!r} is not of the form CLASS=word.", 'Write --answer plural=" are".'
            )
        words.setdefault(name, []).append(word)
    return words
