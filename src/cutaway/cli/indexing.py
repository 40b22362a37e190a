"""`cutaway features index`, `label` and `dashboard`: where features are active, what predicts them, all on one page."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cutaway.cli import question, saving, shown
from cutaway.cli.common import STOPPED, Common, command
from cutaway.cli.features import Format, Layer, Reads, Where, Writes
from cutaway.cli.question import Model, TextFile
from cutaway.cli.screen import Screen
from cutaway.errors import BadInput, did_you_mean, require_known


def register(app: typer.Typer) -> None:
    """Add the commands to a program."""
    command(app, "index")(index_)
    command(app, "label")(label_)
    command(app, "dashboard", without=("resume", "interactive"))(dashboard_)


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
        features = _latents(net, question.settings(common), dictionary, format, layer, reads, writes)
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
    """Name latents by what predicts them (tokens, letters, positions, marks, "say X"), scored on texts not seen.

    --set takes forms (say, token, ...) and causal (of how many labels "say X" it is measured what they do).
    """
    from cutaway.features.index import FeatureIndex
    from cutaway.features.labels import label_features

    place = saving.target(common, "features label", model, index.name)
    made = FeatureIndex.load(index)
    beside = None if control is None else FeatureIndex.load(control)
    given = None if marks is None else _marks(marks)
    chosen = question.settings(common)
    if dictionary is None:  # else what is left is for its reader
        require_known(chosen, ["forms", "causal"], "features label")
    own = {name: chosen.pop(name) for name in ("forms", "causal") if name in chosen}
    with saving.working(screen, common, place) as work:
        net = question.network(common, model)
        of = None
        if dictionary is not None:
            of = _latents(net, chosen, dictionary, format, layer, reads, writes)
        found = label_features(
            net, made, features=n, marks=given, control=beside, of=of, seed=common.seed, work=work, **own
        )
    paths = saving.save(screen, found, place)
    screen.result(found.to_dict() | {"saved": [str(path) for path in paths]}, *shown.terminal(found))
    screen.saved(*paths)


def _latents(
    net: Any,
    given: dict[str, Any],
    where: Path,
    format: str | None,
    layer: int | None,
    reads: str | None,
    writes: str | None,
) -> Any:
    """The latents of a dictionary in a file, at the sites that it names or that are given.

    given: what the file cannot say by itself (`formats.read`).
    """
    from cutaway.features.formats import read
    from cutaway.features.sets import latents

    made = read(where, format=format, **given)
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


def dashboard_(
    common: Common,
    screen: Screen,
    model: Model,
    features: Annotated[
        str,
        typer.Argument(help="A saved index; a dictionary; or neurons.L, heads.L of the network.", show_default=False),
    ],
    file: TextFile = None,
    dictionary: Annotated[
        Path | None, typer.Option("--of", help="The dictionary that was indexed, for all that needs directions.")
    ] = None,
    reads: Reads = None,
    writes: Writes = None,
    format: Format = None,
    layer: Layer = None,
    labels: Annotated[str, typer.Option("--labels", help="now, none, or a folder that `features label` wrote.")] = "now",
    export: Annotated[
        str | None, typer.Option("--export", help="Write files for delphi or neuronpedia instead of the page.")
    ] = None,
) -> None:  # fmt: skip
    """All features on one page: examples, logits, neighbours, labels with their controls, found by search.

    --out names the page (features.html) or, with --export, the folder. Where no saved index is named, one is made of --file.
    --set takes k, quantiles, each and context of the page, or what an export takes.
    """
    from cutaway.features import dashboard, export_delphi, export_neuronpedia, label_features
    from cutaway.results import load

    ways = {"page": dashboard, "delphi": export_delphi, "neuronpedia": export_neuronpedia}
    if (export or "page") not in ways:
        raise BadInput(f"--export {export} is not known.", did_you_mean(export, ["delphi", "neuronpedia"]))
    chosen = question.settings(common)
    require_known(chosen, [*inspect.signature(ways[export or "page"]).parameters][2:], "features dashboard")
    out = Path(f"features-{export}" if export else "features.html") if common.out is None else common.out
    place = saving.target(replace(common, out=out), "features dashboard", model, features)
    plain = replace(common, sets=None)
    with saving.working(screen, common, place, keeps=True) as work:
        net = question.network(common, model)
        index, source = _indexed(net, plain, features, file, dictionary, (format, layer, reads, writes), work)
        more: dict[str, Any] = {"of": source, "seed": common.seed, "work": work}
        made = None
        if labels == "now" and export != "delphi":
            made = label_features(net, index, **more)
        elif labels not in ("now", "none"):
            made = load(labels)
        if export == "delphi":
            written = export_delphi(index, out, **chosen)
        elif export == "neuronpedia":
            written = export_neuronpedia(net, index, out, labels=made, **more | chosen)
        else:
            written = dashboard(net, index, labels=made, **more | chosen).save(out)
    said = [index.headline] if made is None else [index.headline, made.headline]
    screen.result({"headline": ". ".join(said), "saved": [str(written)]}, *map(escape, said))
    screen.saved(written)


def _indexed(
    net: Any, common: Common, named: str, file: Path | None, dictionary: Path | None, how: tuple[Any, Any, Any, Any],
    work: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """An index, saved or made now, and the set that it is of, where that is known."""
    from cutaway.features import FeatureIndex, index_features
    from cutaway.features.sets import heads, neurons
    from cutaway.results import MANIFEST

    if (Path(named) / MANIFEST).is_file():
        of = None if dictionary is None else _latents(net, {}, dictionary, *how)
        return FeatureIndex.load(named), of
    kind, _, number = named.partition(".")
    ours = {"neurons": neurons, "heads": heads}.get(kind)
    if ours is not None and number.isdigit() and not Path(named).exists():
        source = ours(net, int(number))
    else:
        source = _latents(net, {}, Path(named), *how)
    if file is None:
        raise BadInput(
            "There are no texts to read.", "Give --file texts.txt, one text a line, or a saved index."
        )
    return index_features(net, source, file, seed=common.seed, work=work), source
