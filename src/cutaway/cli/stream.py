"""`cutaway lens` and `cutaway stream`: what the stream holds between the layers, and who wrote the answer into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli.options import Common
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work
    from cutaway.stream.lenses import Lens, LensReport, Rows

Model = Annotated[
    str, typer.Argument(help="A Hugging Face id, a local folder, or zoo:NAME.", show_default=False)
]
Text = Annotated[str, typer.Argument(help="The text that is read.", show_default=False)]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Where to save the figure. Default: a folder named after the model."),
]
Target = Annotated[
    str | None, typer.Option("--target", "-t", help='A token, with its space: " Paris".', show_default=False)
]


def lens(
    common: Common,
    screen: Screen,
    model: Model,
    text: Text,
    kind: Annotated[str, typer.Option("--lens", help="logit, tuned, jacobian or future.")] = "logit",
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", help="Which streams to read: 0-5 or 0,2,4. Default: all.", show_default=False
        ),
    ] = None,
    target: Target = None,
    fit_on: Annotated[
        Path | None,
        typer.Option(
            "--fit-on",
            help="A text file to fit a tuned, jacobian or future lens on; a fifth of it is held out.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of a tuned lens.")] = 300,
    ahead: Annotated[
        int, typer.Option("--ahead", min=1, help="How far beyond the next token a future lens reads.")
    ] = 1,
    load: Annotated[Path | None, typer.Option("--load", help="A folder that a lens was saved to.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", help="Save the fitted lens to this folder; a tuned lens goes on there after Ctrl-C."
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Read the stream between the layers as predictions: for each layer and token the likeliest next token."""
    from cutaway.cli import work
    from cutaway.reports import write
    from cutaway.stream.lenses import read_lens

    chosen = None if layers is None else numbers(layers)
    net = work.network(common, model)
    if chosen is not None:
        from cutaway.stream.lenses.protocol import chosen_layers

        chosen_layers(net, chosen, last=True)
    net.encode(text)
    made, report = _lens(screen, net, common, kind, _Fitting(fit_on, steps, ahead, load, keep))
    reading = read_lens(net, made, text, layers=chosen, target=target)
    place = out or Path(f"cutaway-lens-{work.slug(model)}")
    path = work.or_elsewhere(screen, lambda where: write(reading.page(report), where / "lens.html"), place)
    data = reading.to_dict() | {"saved": str(path)}
    shown: list[Any] = _lens_table(reading, screen.out.width)
    if report is not None:
        data["report"] = report.to_dict()
        shown.append(_report_table(report))
    screen.result(data, *shown)
    screen.saved(path, *([keep] if keep is not None and fit_on is not None else []))


@dataclass(frozen=True)
class _Fitting:
    """How a lens comes about: from a folder that it was saved to, or fitted on text."""

    fit_on: Path | None
    steps: int
    ahead: int
    load: Path | None
    keep: Path | None


def numbers(text: str) -> list[int]:
    """Layers as a user writes them.

    >>> numbers("0-2"), numbers("1,3"), numbers("-1")
    ([0, 1, 2], [1, 3], [-1])
    """
    found: list[int] = []
    for part in (p.strip() for p in text.split(",")):
        first, dash, last = part[1:].partition("-")
        try:
            begin = int(part[:1] + first)
            found += range(begin, int(last) + 1) if dash else [begin]
        except ValueError as error:
            raise BadInput(f"{text!r} is no range of layers.", "Write 0-5 or 0,2,4.") from error
    if not found:
        raise BadInput(f"The range of layers {text!r} is empty.", "Write 0-5 or 0,2,4.")
    return found


def _lens(
    screen: Screen, net: Network, common: Common, kind: str, how: _Fitting
) -> tuple[Lens, LensReport | None]:
    from cutaway.results import Work
    from cutaway.stream.lenses import ConstantLens, LogitLens, compare_lenses, load_lens, rows_of

    if how.load is not None:
        return load_lens(net, how.load), None
    if kind == "logit":
        return LogitLens.of(net), None
    if kind not in ("tuned", "jacobian", "future"):
        raise BadInput(f"There is no lens {kind!r}.", "Use logit, tuned, jacobian or future.")
    if how.fit_on is None:
        raise BadInput(
            f"A {kind} lens is fitted on text.",
            "Give a text file with --fit-on, or a saved lens with --load.",
        )
    try:
        text = how.fit_on.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{how.fit_on} cannot be read: {error}.", "Give a UTF-8 text file.") from error
    rows = rows_of(net, text, length=min(64, net.n_ctx or 64), most=2000)
    fit, held = rows.split(0.2, common.seed)
    with screen.progress() as report:
        work = Work(lambda step: report(step.label, step.done, step.total))
        made = _fitted(net, common, kind, how, fit, work)
        lenses = [made, LogitLens.of(net), ConstantLens.of(net, fit)]
        compared = compare_lenses(net, lenses, held.first(64), work=work)
    if how.keep is not None:
        made.save(how.keep)
    return made, compared


def _fitted(net: Network, common: Common, kind: str, how: _Fitting, fit: Rows, work: Work) -> Any:
    from cutaway.stream.lenses import LensTraining, future_lens, jacobian_lens, train_tuned_lens

    if kind == "tuned":
        checkpoint = None if how.keep is None else how.keep.with_name(how.keep.name + ".training")
        training = LensTraining(steps=how.steps, length=int(fit.ids.shape[1]))
        return train_tuned_lens(
            net, fit, training=training, checkpoint=checkpoint, seed=common.seed, work=work
        )
    if kind == "jacobian":
        return jacobian_lens(net, fit, seed=common.seed, work=work)
    return future_lens(net, fit, ahead=how.ahead, work=work)


def _lens_table(reading: Any, width: int) -> list[Any]:
    """The reading, and where not all tokens fit the screen a word on which are shown."""
    from rich.table import Table

    from cutaway.figures import show_token

    fit = max(3, (width - 7) // 13)
    start = max(0, len(reading.tokens) - fit)
    heads = [show_token(t, escape=False) for t in reading.tokens[start:]]
    table = Table("layer", *heads, box=None)
    for i in reversed(range(len(reading.layers))):
        cells = [
            f"{show_token(str(t), escape=False)} {p:.2f}"
            for t, p in zip(reading.top[i, start:, 0], reading.probability[i, start:, 0], strict=True)
        ]
        table.add_row(str(reading.layers[i]), *cells)
    part = f", the last {len(heads)} of {len(reading.tokens)} tokens" if start else ""
    return [f"{reading.lens} lens of {reading.network}{part}", table]


def _report_table(report: Any) -> Any:
    from rich.table import Table

    title = f"KL from the output in nats, on {report.rows} held-out rows"
    table = Table("layer", *report.lenses, box=None, title=title, title_justify="left")
    for layer, row in report.wide().iterrows():
        table.add_row(str(layer), *(("" if v != v else f"{v:.3f}") for v in row))
    return table


def stream(
    common: Common,
    screen: Screen,
    model: Model,
    text: Text,
    target: Annotated[str, typer.Option("--target", "-t", help='The token: " Paris".', show_default=False)],
    foil: Annotated[
        str | None,
        typer.Option("--foil", "-f", help='The token it is set against: " Rome".', show_default=False),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="layer, sublayer, head, neuron or source.")] = "head",
    pos: Annotated[int, typer.Option("--pos", help="At which position (-1: the last).")] = -1,
    first_token: Annotated[
        bool, typer.Option("--first-token", help="Of a word of several tokens take the first.")
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option("--paths", min=0, help="Also expand paths through this many heads.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many contributions to show.")] = 12,
    out: Out = None,
) -> None:
    """Who wrote the answer: what each part adds to a logit, or to the difference of two, and that it all adds up."""
    from rich.markup import escape
    from rich.table import Table

    from cutaway.cli import work
    from cutaway.reports import write
    from cutaway.stream import logit_attribution
    from cutaway.stream.paths import expand_paths

    net = work.network(common, model)
    found = logit_attribution(net, text, target=target, foil=foil, by=by, pos=pos, first_token=first_token)
    table = Table("writer", "adds", box=None)
    words = dict(zip(found.labels, found.words, strict=True))
    for name, adds in found.top(top)[["writer", "contribution"]].itertuples(index=False):
        table.add_row(words[name], f"{adds:+.4f}")
    data: dict[str, Any] = found.to_dict()
    shown: list[Any] = [escape(found.headline), table]
    if depth is not None:
        paths = expand_paths(
            net, text, target=target, foil=foil, depth=depth, pos=pos, first_token=first_token
        )
        data["paths"] = paths.to_dict()
        shown.append(escape(paths.headline))
        listing = Table("path", "adds", box=None)
        for path in paths.largest(top):
            listing.add_row(path.words, f"{path.value:+.4f}")
        shown.append(listing)
    place = out or Path(f"cutaway-stream-{work.slug(model)}")
    page = work.or_elsewhere(screen, lambda where: write(found.page(), where / "stream.html"), place)
    screen.result(data | {"saved": str(page)}, *shown)
    screen.saved(page)
