"""`cutaway features`: dictionaries of features, read from any format, bound to a network, measured, written in another."""

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
    help="Dictionaries of features: trained, read, bound to a site, measured, indexed, labelled, shown, converted.",
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
Reads = Annotated[str | None, typer.Option("--reads", help="The site that it encodes, e.g. resid_post.5.")]
Writes = Annotated[str | None, typer.Option("--writes", help="The site that it reconstructs.")]
Layer = Annotated[int | None, typer.Option("--layer", help="Which source of a dictionary of several layers.")]


@command(features_app, "open")
def open_(
    common: Common,
    screen: Screen,
    model: Model,
    dictionary: Where,
    file: TextFile = None,
    reads: Reads = None,
    writes: Writes = None,
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


Beside = Annotated[
    list[str] | None,
    typer.Option("--beside", metavar="NAME=FOLDER", help="A dictionary of the same place to stand beside it; repeatable."),
]  # fmt: skip
Frozen = Annotated[
    list[str] | None,
    typer.Option("--frozen", metavar="NAME=FOLDER", help="A twin of which one half was never trained; repeatable."),
]  # fmt: skip
Siblings = Annotated[
    list[str] | None,
    typer.Option("--sibling", metavar="NAME=FOLDER", help="The same, trained with another seed; repeatable."),
]  # fmt: skip


@command(features_app, "measure")
def measure_(
    common: Common,
    screen: Screen,
    model: Model,
    dictionary: Where,
    file: TextFile = None,
    beside: Beside = None,
    frozen: Frozen = None,
    siblings: Siblings = None,
    reads: Reads = None,
    writes: Writes = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="Tokens that are read, half of them for controls.")] = None,
    layer: Layer = None,
) -> None:  # fmt: skip
    """Measure a dictionary: reconstruction and predictions beside components, neurons, random directions, and others given.

    --set takes what a format cannot say by itself, such as k=32, and format=NAME where it is not told.
    """
    from cutaway.features.dictionaries import Dictionary
    from cutaway.features.formats import read
    from cutaway.features.measures import measure

    if file is None:
        raise BadInput("There are no texts to measure on.", "Give --file texts.txt, one text a line.")

    def one(where: Path) -> Dictionary:
        made = read(where, **question.settings(common))
        chosen = made if layer is None else made.layer(layer)
        if not chosen.single:
            raise BadInput(f"{made!r} has {len(made.encoders)} sources.", "Name one: --layer 0.")
        return chosen

    def several(words: list[str] | None, option: str) -> dict[str, Dictionary]:
        return {name: one(where) for name, where in _named(words, option)}

    given: dict[str, Any] = {
        "beside": several(beside, "--beside"), "frozen": several(frozen, "--frozen"),
        "siblings": several(siblings, "--sibling"),
    } | ({} if tokens is None else {"tokens": tokens})  # fmt: skip
    place = saving.target(common, "features measure", model, dictionary.name)
    with saving.working(screen, common, place) as work:
        net = question.network(common, model)
        found = measure(
            net, one(dictionary), file, reads=reads, writes=writes, seed=common.seed, work=work, **given,
        )  # fmt: skip
    paths = saving.save(screen, found, place)
    screen.result(found.to_dict() | {"saved": [str(path) for path in paths]}, *shown.terminal(found))
    screen.saved(*paths)


def _named(words: list[str] | None, option: str) -> list[tuple[str, Path]]:
    """NAME=FOLDER, several times; a folder alone is named by its last part."""
    pairs = [(name, where) if (name := word.partition("=")[0]) and (where := word.partition("=")[2])
             else (Path(word).name, word) for word in words or ()]  # fmt: skip
    if len({name for name, _ in pairs}) < len(pairs):
        raise BadInput(f"Two dictionaries of {option} have one name.", f"Name them: {option} NAME=FOLDER.")
    return [(name, Path(where)) for name, where in pairs]


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
