"""`cutaway probe`: what a representation encodes, with controls, and whether the network uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli.options import Common, command
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput

if TYPE_CHECKING:
    from rich.table import Table

    from cutaway.network import Network
    from cutaway.probes import ProbeData, Probing, Use

Model = Annotated[
    str, typer.Argument(help="A Hugging Face id, a local folder, or zoo:NAME.", show_default=False)
]
Data = Annotated[
    Path, typer.Option("--data", help="Labelled texts: .csv, .json or .jsonl.", show_default=False)
]
Label = Annotated[str, typer.Option("--label", help="Column of the labels.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    command(app)(probe)


def probe(
    common: Common,
    screen: Screen,
    model: Model,
    data: Data,
    label: Label,
    text: Annotated[
        str, typer.Option("--text", help="Column of the texts. Default: text, prompt, sentence, ...")
    ] = "",
    group: Annotated[str, typer.Option("--group", help="Column of groups that a split must not part.")] = "",
    source: Annotated[str, typer.Option("--source", help="Column of sources, each left out in turn.")] = "",
    span: Annotated[str, typer.Option("--span", help="Column of the words that are labelled.")] = "",
    per_token: Annotated[
        bool, typer.Option("--per-token", help="Each label is a list, one for every token (null: none).")
    ] = False,
    label_kind: Annotated[
        str | None,
        typer.Option(
            "--label-kind",
            help="binary, multiclass, continuous or multilabel. Default: found from the labels.",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", help="Columns that the label may be confounded with; repeatable."),
    ] = None,
    at: Annotated[str, typer.Option("--at", help="Sites, with commas.")] = "resid_post",
    by: Annotated[str, typer.Option("--by", help="layer, position, head, with commas.")] = "layer",
    kind: Annotated[str, typer.Option("--kind", help="ridge, logistic, means, lda or mass-mean.")] = "ridge",
    n: Annotated[
        int | None, typer.Option("--n", min=2, help="At most so many rows, drawn at random.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Of the grouped cross-validation.")] = 5,
    permutations: Annotated[int, typer.Option("--permutations", min=0, help="Of the labels.")] = 100,
    answers: Annotated[
        list[str] | None,
        typer.Option(
            "--answer",
            help='What follows a class, as CLASS=" word"; repeatable. The metric of the causal tests.',
        ),
    ] = None,
    use: Annotated[
        bool, typer.Option("--use/--no-use", help="Test by intervening whether it is used.")
    ] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to save.")] = None,
) -> None:
    """Probe a network for a label: where it is encoded beyond the controls, and whether the network uses it."""
    from cutaway.cli import work
    from cutaway.probes import Columns, ProbeOptions, probe_data
    from cutaway.probes import probe as probe_it
    from cutaway.probes import use as use_it
    from cutaway.results import Work

    columns = Columns(label, text, span, group, source, also=tuple(also or ()))
    net = work.network(common, model)
    given: Any = label_kind
    labelled = probe_data(data, columns, kind=given, net=net, per_token=per_token, n=n, seed=common.seed)
    follow = _answers(answers)
    if follow is not None:
        _check_answers(net, labelled, follow)
    options = ProbeOptions(kind=kind, folds=folds, permutations=permutations)
    with screen.progress() as report:
        ear = Work(lambda p: report(p.label, p.done, p.total))
        probing = probe_it(
            net, labelled, at=_list(at), by=_list(by), options=options, seed=common.seed, work=ear
        )
        used = None
        if use and labelled.kind in ("binary", "continuous") and probing.finding.word == "encoded":
            used = use_it(net, probing, labelled, answers=follow, seed=common.seed, work=ear)
    if used is not None:
        probing = probing.with_finding(used.finding)
    target = out or Path(f"cutaway-probe-{work.slug(model)}-{work.slug(label)}")
    path = work.or_elsewhere(screen, lambda place: _save(place, probing, used), target)
    data_out = probing.to_dict() | {"use": None if used is None else used.to_dict(), "saved": str(path)}
    words = [_verdict(probing)] + ([_untested(labelled, use)] if probing.finding.word == "encoded" else [])
    screen.result(data_out, *words, _table(probing), *probing.finding.claims)
    screen.saved(path)


def _check_answers(net: Network, data: ProbeData, answers: dict[str, list[str]]) -> None:
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


def _untested(data: ProbeData, wanted: bool) -> str:
    """Why it was not tested whether the network uses it."""
    why = (
        "--no-use was given"
        if not wanted
        else f"that needs two classes or values, and the label is {data.kind}"
    )
    return f"Whether the network uses it was not tested: {why}."


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _answers(given: list[str] | None) -> dict[str, list[str]] | None:
    if not given:
        return None
    out: dict[str, list[str]] = {}
    for item in given:
        name, equals, word = item.partition("=")
        if not equals or not word:
            raise BadInput(
                f"The answer {item!r} is not of the form CLASS=word.", 'Write --answer plural=" are".'
            )
        out.setdefault(name, []).append(word)
    return out


def _verdict(probing: Probing) -> str:
    from rich.markup import escape

    colour = {"encoded": "green", "encoded and used": "green"}.get(probing.finding.word, "yellow")
    return f"[bold {colour}]{escape(probing.headline())}[/]"


def _table(probing: Probing, top: int = 8) -> Table:
    from rich.table import Table

    frame = probing.top(top)
    dims = [str(d) for d in probing.data["score"].dims]
    names = {
        "score": probing.what,
        "control": "control task",
        "untrained": "random weights",
        "tokens": "tokens alone",
    }
    names |= {"null_high": "permuted, 95 %", "q": "q"}
    table = Table(
        *dims,
        *names.values(),
        box=None,
        title=f"best {len(frame)} of {len(probing.probes)} places",
        title_justify="left",
    )
    for row in frame.astype(object).to_dict("records"):
        cells = ["" if row[k] != row[k] else f"{row[k]:.3f}" for k in names]
        table.add_row(*(str(row[d]) for d in dims), *cells)
    return table


def _save(place: Path, probing: Probing, used: Use | None) -> Path:
    """The figures, the probes, the verdict and a page."""
    from cutaway.reports import write

    probing.save(place / "probing")
    probing.probe().save(place / "probe")
    if used is not None:
        used.save(place / "use")
    return write(probing.page(used), place / "report.html")
