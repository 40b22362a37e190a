"""`cutaway features`: dictionaries of features, read from any format, bound to a network, written in another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cutaway.cli import question, saving, shown
from cutaway.cli.common import Common, command
from cutaway.cli.helping import HelpedGroup
from cutaway.cli.question import Model, TextFile
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput

features_app = typer.Typer(
    cls=HelpedGroup,
    help="Dictionaries of features: read, bound to a site by measurement, converted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
#: Shared options that mean nothing where no network is opened.
_PLAIN = ("resume", "budget", "device", "dtype", "trust_remote_code", "interactive", "seed")
Where = Annotated[
    Path, typer.Argument(help="A dictionary: its folder, or its file of tensors.", show_default=False)
]
Format = Annotated[
    str | None,
    typer.Option("--format", help="Which format it is of, where that is not told; see `cutaway features formats`."),
]  # fmt: skip
Layer = Annotated[int | None, typer.Option("--layer", help="Which source of a dictionary of several layers.")]


@command(features_app, "open")
def open_(
    common: Common,
    screen: Screen,
    model: Model,
    dictionary: Where,
    file: TextFile = None,
    reads: Annotated[str | None, typer.Option("--reads", help="The site that it encodes, e.g. resid_post.5.")] = None,
    writes: Annotated[str | None, typer.Option("--writes", help="The site that it reconstructs.")] = None,
    format: Format = None,
    layer: Layer = None,
) -> None:  # fmt: skip
    """Does a dictionary belong to this network, where its file says? Measured on texts, beside every other reading.

    --set takes what a format cannot say by itself, such as k=32.
    """
    from cutaway.features import bind
    from cutaway.features.formats import read

    if file is None:
        raise BadInput("There are no texts to measure on.", "Give --file texts.txt, one text a line.")
    made = read(dictionary, format=format, **question.settings(common))
    chosen = made if layer is None else made.layer(layer)
    if not chosen.single:
        raise BadInput(f"{made!r} has {len(made.encoders)} sources.", "Name one: --layer 0.")
    place = saving.target(common, "features open", model, dictionary.name)
    with saving.working(screen, common, place) as work:
        net = question.network(common, model)
        found = bind(net, chosen, file, reads=reads, writes=writes, seed=common.seed, work=work)
    paths = saving.save(screen, found, place)
    screen.result(found.to_dict() | {"saved": [str(path) for path in paths]}, *shown.terminal(found))
    screen.saved(*paths)


@command(features_app, "formats", without=(*_PLAIN, "out", "overwrite", "sets"))
def formats_(_common: Common, screen: Screen) -> None:
    """List the formats that are read, and those that are written."""
    from cutaway.features.formats import formats

    rows = [
        {"name": row.name, "says": row.says, "written": row.write is not None, "refused": row.refuses}
        for row in formats().values()
    ]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{row['name'].ljust(width)}  {escape(_said(row))}" for row in rows]
    screen.result({"formats": rows}, *lines)


def _said(row: dict[str, Any]) -> str:
    if row["refused"]:
        return f"{row['says']}: recognised, not read. {row['refused']}"
    return row["says"] + (" (read and written)" if row["written"] else "")


@command(features_app, "convert", without=_PLAIN)
def convert(
    common: Common,
    screen: Screen,
    dictionary: Where,
    to: Annotated[str, typer.Option("--to", help="The format that is written.")] = "saelens",
    format: Format = None,
    layer: Layer = None,
) -> None:
    """Write a dictionary in another format, for the program that reads that one."""
    from cutaway.features.formats import read, write

    if common.out is None:
        raise BadInput("Where it is to be written is not said.", "Give --out FOLDER.")
    saving.free(common.out, common.overwrite)
    made = read(dictionary, format=format, **question.settings(common))
    where = write(made if layer is None else made.layer(layer), common.out, format=to)
    notes = [f"[dim]{escape(note)}[/]" for note in made.notes]
    screen.result({"dictionary": repr(made), "format": to, "saved": str(where)}, escape(repr(made)), *notes)
    screen.saved(where)
