"""`cutaway features index` and `label`: where latents are active in many texts, and what predicts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cutaway.cli import question, saving, shown
from cutaway.cli.common import STOPPED, Common, command
from cutaway.cli.features import Format, Layer, Reads, Where, Writes
from cutaway.cli.question import Model, TextFile
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the commands to a program."""
    command(app, "index")(index_)
    command(app, "label")(label_)


def index_(
    common: Common,
    screen: Screen,
    model: Model,
    dictionary: Where,
    file: TextFile = None,
    reads: Reads = None,
    writes: Writes = None,
    format: Format = None,
    layer: Layer = None,
    length: Annotated[int | None, typer.Option("--length", help="Tokens that are run at once.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Keep activations in half precision: 6 bytes each.")] = False,
) -> None:  # fmt: skip
    """Index a dictionary's latents over many texts: where each is active, how often, how strongly, and with which others."""
    from cutaway.features.index import index_features

    if file is None:
        raise BadInput("There are no texts to read.", "Give --file texts.txt, one text a line.")
    place = saving.claim(saving.target(common, "features index", model, dictionary.name), common.resume)
    with saving.working(screen, common, place, keeps=True) as work:
        net = question.network(common, model)
        features = _latents(net, common, dictionary, format, layer, reads, writes)
        found = index_features(
            net, features, file, folder=place.path, dtype="float16" if half else "float32", length=length,
            seed=common.seed, work=work,
        )  # fmt: skip
    paths = saving.save(screen, found, place)
    screen.result(found.to_dict() | {"saved": [str(path) for path in paths]}, *shown.terminal(found))
    screen.saved(*paths)
    if not found.complete:
        screen.say(
            "[yellow]Stopped.[/] What was read is saved. Go on with the same command and "
            f"--resume {escape(str(place.path))}."
        )
        raise typer.Exit(STOPPED)


def label_(
    common: Common,
    screen: Screen,
    model: Model,
    index: Annotated[Path, typer.Argument(help="A folder that `features index` wrote.", show_default=False)],
    dictionary: Annotated[
        Path | None, typer.Option("--of", help="The dictionary that was indexed, for labels that say a word.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Only so many of the most frequent latents.")] = None,
    marks: Annotated[
        Path | None, typer.Option("--marks", help="JSON: by name, for each text a label (or null) for each token.")
    ] = None,
    control: Annotated[
        Path | None, typer.Option("--control", help="An index of a dictionary that means nothing, over the same texts.")
    ] = None,
    reads: Reads = None,
    writes: Writes = None,
    format: Format = None,
    layer: Layer = None,
) -> None:  # fmt: skip
    """Name latents by what predicts them (tokens, letters, positions, marks, "say X"), scored on texts not seen."""
    from cutaway.features.index import FeatureIndex
    from cutaway.features.labels import label_features

    place = saving.target(common, "features label", model, index.name)
    made = FeatureIndex.load(index)
    beside = None if control is None else FeatureIndex.load(control)
    given = None if marks is None else _marks(marks)
    with saving.working(screen, common, place) as work:
        net = question.network(common, model)
        of = None if dictionary is None else _latents(net, common, dictionary, format, layer, reads, writes)
        found = label_features(
            net, made, features=n, marks=given, control=beside, of=of, seed=common.seed, work=work
        )
    paths = saving.save(screen, found, place)
    screen.result(found.to_dict() | {"saved": [str(path) for path in paths]}, *shown.terminal(found))
    screen.saved(*paths)


def _latents(
    net: Any,
    common: Common,
    where: Path,
    format: str | None,
    layer: int | None,
    reads: str | None,
    writes: str | None,
) -> Any:
    """The latents of a dictionary in a file, at the sites that it names or that are given."""
    from cutaway.features.formats import read
    from cutaway.features.sets import latents

    made = read(where, format=format, **question.settings(common))
    if layer is None and len(made.encoders) > 1:
        raise BadInput(f"{made!r} has {len(made.encoders)} sources.", "Name one: --layer 0.")
    return latents(net, made, reads, writes, layer or 0)


def _marks(path: Path) -> Any:
    """Marks of tokens from a file of JSON."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} holds no marks: {error}.", "Give JSON: {name: [[label of each token] of each text]}."
        ) from error
    if not isinstance(said, dict) or not all(
        isinstance(texts, list) and all(isinstance(row, list) for row in texts) for texts in said.values()
    ):
        raise BadInput(f"{path} holds no marks.", "Give JSON: {name: [[label of each token] of each text]}.")
    return said
