"""`cutaway lens`: what each layer's stream says about the next token, through a lens that is read, fitted or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli import question, saving
from cutaway.cli.common import Common, command
from cutaway.cli.question import Model, Text
from cutaway.cli.screen import Screen
from cutaway.cli.summaries import reading_table, report_table
from cutaway.errors import BadInput, require_known

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work
    from cutaway.stream.lenses import Lens, LensReport, Rows


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(lens)


def lens(
    common: Common,
    screen: Screen,
    model: Model,
    text: Text,
    kind: Annotated[str, typer.Option("--lens", help="logit, tuned, jacobian or future.")] = "logit",
    layers: Annotated[str | None, typer.Option(
        "--layers", help="Which streams to read: 0-5 or 0,2,4. Default: all.", show_default=False)] = None,
    target: Annotated[str | None, typer.Option(
        "--target", "-t", help='A token, with its space: " Paris".', show_default=False)] = None,
    fit_on: Annotated[Path | None, typer.Option(
        "--fit-on", help="A text file to fit a tuned, jacobian or future lens on; a fifth of it is held out.")] = None,
    load: Annotated[Path | None, typer.Option("--load", help="A folder that a lens was saved to.")] = None,
    keep: Annotated[Path | None, typer.Option(
        "--keep", help="Save the fitted lens to this folder; a tuned lens goes on there after Ctrl-C.")] = None,
) -> None:  # fmt: skip
    """Read the stream between the layers as predictions: for each layer and token the likeliest next token.

    --set steps=300 sets the training steps of a tuned lens, --set ahead=1 how far beyond the next token a future lens reads.
    """
    from cutaway.stream.lenses import read_lens
    from cutaway.stream.lenses.protocol import chosen_layers

    place = saving.target(common, "lens", model, text)
    fitting = LensFitting.of(common, kind, fit_on, load, keep)
    chosen = None if layers is None else question.layers(layers)
    with saving.working(screen, common, place) as work:
        net = question.network(common, model)
        if chosen is not None:
            chosen_layers(net, chosen, last=True)
        net.encode(text)
        chosen_lens, report = lens_of(net, common, kind, fitting, work)
        reading = read_lens(net, chosen_lens, text, layers=chosen, target=target)
    paths = saving.keep(screen, lambda where: write(reading, report, where), place, reading)
    data = reading.to_dict() | {"saved": [str(path) for path in paths]}
    tables: list[Any] = reading_table(reading, screen.out.width)
    if report is not None:
        data["report"] = report.to_dict()
        tables.append(report_table(report))
    screen.result(data, *tables)
    screen.saved(*paths[:2], *([keep] if keep is not None and fit_on is not None else []))


@dataclass(frozen=True)
class LensFitting:
    """How a lens comes about: from a folder that it was saved to, or fitted on text.

    Attributes:
        fit_on: the text.
        load: the folder.
        keep: where a fitted lens is saved.
        steps: training steps of a tuned lens.
        ahead: how far beyond the next token a future lens reads.
    """

    fit_on: Path | None
    load: Path | None
    keep: Path | None
    steps: int = 300
    ahead: int = 1

    @classmethod
    def of(
        cls, common: Common, kind: str, fit_on: Path | None, load: Path | None, keep: Path | None
    ) -> LensFitting:
        """From the options; BadInput where one is given that this kind of lens, or a saved one, would not look at."""
        given = question.settings(common)
        require_known(given, ("steps", "ahead"), "lens")
        for name, number in given.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise BadInput(
                    f"{name}={number!r} is not a whole number above zero.", f"Write --set {name}=1 or more."
                )
        reads = {"tuned": ("steps",), "future": ("ahead",)}.get(kind, ())
        unread = [f"--set {name}" for name in given if load is not None or name not in reads]
        unread += ["--keep"] if keep is not None and (load is not None or fit_on is None) else []
        unread += ["--fit-on"] if fit_on is not None and (load is not None or kind == "logit") else []
        if unread:
            what = "A lens that is loaded" if load is not None else f"A {kind} lens that is not fitted"
            what = f"A {kind} lens" if load is None and (fit_on is not None or unread != ["--keep"]) else what
            raise BadInput(
                f"{what} takes no {' and no '.join(unread)}.", "Leave it out, or ask for another lens."
            )
        return cls(fit_on, load, keep, **given)


def lens_of(
    net: Network, common: Common, kind: str, fitting: LensFitting, work: Work
) -> tuple[Lens, LensReport | None]:
    """The lens that was asked for, and, where it was fitted, how well it reads held-out text."""
    from cutaway.stream.lenses import ConstantLens, LogitLens, compare_lenses, load_lens, rows_of

    if fitting.load is not None:
        return load_lens(net, fitting.load), None
    if kind == "logit":
        return LogitLens.of(net), None
    if kind not in ("tuned", "jacobian", "future"):
        raise BadInput(f"There is no lens {kind!r}.", "Use logit, tuned, jacobian or future.")
    if fitting.fit_on is None:
        raise BadInput(
            f"A {kind} lens is fitted on text.",
            "Give a text file with --fit-on, or a saved lens with --load.",
        )
    try:
        text = fitting.fit_on.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{fitting.fit_on} cannot be read: {error}.", "Give a UTF-8 text file.") from error
    rows = rows_of(net, text, length=min(64, net.n_ctx or 64), most=2000)
    fit, held = rows.split(0.2, common.seed)
    fitted_lens = fitted(net, common, kind, fitting, fit, work)
    lenses = [fitted_lens, LogitLens.of(net), ConstantLens.of(net, fit)]
    compared = compare_lenses(net, lenses, held.first(64), work=work.within("reading held-out text"))
    if fitting.keep is not None:
        fitted_lens.save(fitting.keep)
    return fitted_lens, compared


def fitted(net: Network, common: Common, kind: str, fitting: LensFitting, fit: Rows, work: Work) -> Any:
    """A lens fitted on rows of text."""
    from cutaway.stream.lenses import LensTraining, future_lens, jacobian_lens, train_tuned_lens

    if kind == "tuned":
        checkpoint = None if common.resume is None else common.resume / "training"
        if fitting.keep is not None:
            checkpoint = fitting.keep.with_name(fitting.keep.name + ".training")
        training = LensTraining(steps=fitting.steps, length=int(fit.ids.shape[1]))
        how: dict[str, Any] = {"training": training, "checkpoint": checkpoint}
        return train_tuned_lens(net, fit, seed=common.seed, work=work, **how)
    if kind == "jacobian":
        return jacobian_lens(net, fit, seed=common.seed, work=work)
    return future_lens(net, fit, ahead=fitting.ahead, work=work)


def write(reading: Any, report: LensReport | None, place: Path) -> list[Path]:
    """The reading with its page, and the report on held-out text with its own."""
    from cutaway.reports import publish
    from cutaway.results import remove_saved

    if report is None:
        remove_saved(place / "held-out")
    paths = list(publish(reading, place))
    return paths if report is None else [*paths, *publish(report, place / "held-out")]
