"""`make`: a specimen from nothing, in a folder that appears whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from cutaway.errors import SaveFailed
from cutaway.recipes.workshop import Workshop
from cutaway.results import Work, atomic_folder, to_json, versions, working
from cutaway.zoo.loaders import CARD, REVISIONS, TWINS, no_bars
from cutaway.zoo.registry import specimen
from cutaway.zoo.specimens import Product, Specimen

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LICENCE = "Apache-2.0"
#: Bytes that must be free before a recipe starts.
ROOM = 64_000_000


def make(name: str, out: Path, *, checkpoints: Path | None = None, work: Work | None = None) -> Path:
    """Make a specimen from nothing and write its folder; checkpoints lie in their own (default: OUT.work).

    A run that was stopped, or killed, goes on from its last checkpoint when called again.

    Raises:
        NotFound: for an unknown name.
        SaveFailed: when `out` is a folder of something else, or there is no room, before anything is computed; when
            the disk is full later (checkpoints stay, nothing half-written is left).
        Stopped: when `work` was asked to end; the last checkpoint stays.
    """
    what = specimen(name)
    if out.exists() and not (out / CARD).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise SaveFailed(
            f"{out} exists and is no specimen.", "Choose a new folder, or remove that one yourself."
        )
    _room_for(out)
    with working(work).interruptible() as work:
        shop = Workshop(checkpoints or out.with_name(f"{out.name}.work"), work)
        write(what, what.recipe.make(shop), out)
    shop.discard()
    return out


def _room_for(out: Path) -> None:
    """Raise SaveFailed when the disk of `out` is nearly full."""
    near = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(near).free
    if free < ROOM:
        raise SaveFailed(
            f"{near} has {free / 1e6:.0f} MB free; a recipe asks for {ROOM / 1e6:.0f} MB.",
            "Free some, or give another folder with --out.",
        )


def write(what: Specimen, product: Product, out: Path) -> Path:
    """Write the folder of a finished specimen: weights, configuration, tokenizer, card, stored twins, checkpoints.

    Raises SaveFailed when it cannot be written; an older specimen in its place is then as it was.
    """
    with atomic_folder(out, of_specimen) as folder:
        models = {folder: product.model}
        for shelf, others in ((TWINS, product.twins), (REVISIONS, product.revisions)):
            models |= {folder / shelf / label: model for label, model in others.items()}
        for place, model in models.items():
            save_model(model, place)
            if product.tokenizer is not None:
                product.tokenizer.save_pretrained(place)
        for label, content in product.files.items():
            (folder / label).write_bytes(content)
        listing = {str(f.relative_to(folder)): _digest(f) for f in sorted(folder.rglob("*.safetensors"))}
        text = to_json(card_of(what, product) | {"sha256": listing})
        (folder / CARD).write_text(_rows_on_lines(text) + "\n", encoding="utf-8")
    return out


def of_specimen(old: Path, new: Path) -> set[str]:
    """What in a folder belongs to the specimen there: the weights that its card lists, and what is written again."""
    try:
        listed = set(json.loads((old / CARD).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SaveFailed(
            f"{old} exists and is not a specimen.", "Choose a new folder, or remove that one yourself."
        ) from error
    return listed | {f.relative_to(new).as_posix() for f in new.rglob("*")}


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Weights and configuration of one model; SaveFailed when the disk does not take them."""
    try:
        with no_bars():
            model.save_pretrained(folder)
    except SafetensorError as error:
        raise SaveFailed(
            f"The weights could not be written to {folder}: {error}.", "Free some room, and run it again."
        ) from error
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone


def card_of(what: Specimen, product: Product) -> dict[str, Any]:
    """The card, without the hashes."""
    config: Any = product.model.config
    return {
        "name": what.name, "family": what.family, "task": what.says, "mechanism": what.mechanism,
        "architecture": {
            "class": type(product.model).__name__, "says": what.architecture, "layers": config.num_hidden_layers,
            "width": config.hidden_size, "heads": config.num_attention_heads, "vocabulary": config.vocab_size,
            "parameters": sum(p.numel() for p in product.model.parameters()),
        },
        "accuracy": dict(product.accuracy), "twins": [dataclasses.asdict(t) for t in what.twins],
        "revisions": sorted(product.revisions), "recipe": recipe_of(what), "made_by": f"cutaway zoo make {what.name}",
        "minutes": what.minutes, "seed": what.seed, "sources": list(what.sources), "licence": LICENCE,
        "versions": {k: v for k, v in versions().items() if k in ("torch", "transformers")},
        "truth": product.truth.to_dict(),
    }  # fmt: skip


def recipe_of(what: Specimen) -> dict[str, Any]:
    """The fields of a recipe as plain data; objects are given by their names."""
    fields = dataclasses.fields(what.recipe)  # type: ignore[arg-type]
    return {f.name: _described(getattr(what.recipe, f.name)) for f in fields}


def _described(value: Any) -> Any:
    if isinstance(value, int | float | str | bool | type(None)):
        return value
    if isinstance(value, dict):
        return {str(k): _described(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_described(v) for v in value]
    named = getattr(value, "name", None) or getattr(value, "__name__", None)
    if named or not dataclasses.is_dataclass(value):
        return named or type(value).__name__
    return {f.name: _described(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _rows_on_lines(text: str) -> str:
    """JSON with every list of numbers on one line, so that a person can read the rest.

    >>> print(_rows_on_lines(to_json({"a": [1.5, 2]})))
    {
      "a": [1.5, 2]
    }
    """
    rows = r"\[[\s\d.,e+-]+\]"
    return re.sub(rows, lambda row: f"[{', '.join(row[0][1:-1].replace(',', ' ').split())}]", text)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
