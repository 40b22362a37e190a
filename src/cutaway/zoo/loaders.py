"""Where the shipped networks lie, and the check that their weights are the ones that were made.

A name is that of a specimen (`induction-gpt2`), of one of its twins (`induction-gpt2~random`) or of a checkpoint that
was kept (`modular-addition@before`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import CorruptFile, NotFound, nearest
from cutaway.zoo.truth import GroundTruth

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CARD = "card.json"
TWINS, REVISIONS = "twins", "revisions"


def _shelf() -> Path:
    return Path(str(resources.files("cutaway.zoo"))) / "weights"


def names() -> list[str]:
    """The shipped networks, in alphabetical order."""
    shelf = _shelf()
    return sorted(folder.name for folder in shelf.glob("*") if (folder / CARD).is_file())


def split(name: str) -> tuple[str, str, str]:
    """The specimen, twin and checkpoint that a name means; the last two are empty where there is none.

    >>> split("zoo:induction-gpt2~random")
    ('induction-gpt2', 'random', '')
    """
    rest, _, revision = name.removeprefix("zoo:").partition("@")
    base, _, twin = rest.partition("~")
    return base, twin, revision


def path(name: str) -> Path:
    """The folder of a shipped network, its weights checked. transformers opens it with `from_pretrained`.

    Raises NotFound for an unknown name and for a twin that has no folder (`load` makes it), CorruptFile if the weights
    are not those of the card.
    """
    base, twin, revision = split(name)
    folder = _folder(base)
    check(folder)
    if twin:
        return _twin_folder(folder, twin) or _part(folder / TWINS, twin, base, "twin")
    return _part(folder / REVISIONS, revision, base, "checkpoint") if revision else folder


def _folder(base: str) -> Path:
    known = names()
    if base not in known:
        near = nearest(base, known, 1)
        shipped = f"The zoo ships: {', '.join(known) or 'nothing'}."
        raise NotFound(
            f"The zoo has no network {base!r}.", f"Did you mean {near[0]!r}? {shipped}" if near else shipped
        )
    return _shelf() / base


def _part(shelf: Path, name: str, base: str, what: str) -> Path:
    folder = shelf / name
    if not name or not (folder / "config.json").is_file() or folder.parent != shelf:
        others = sorted(f.name for f in shelf.iterdir()) if shelf.is_dir() else []
        raise NotFound(
            f"{base} has no folder for a {what} {name!r}.", f"It has: {', '.join(others) or 'none'}."
        )
    return folder


def card(name: str) -> dict[str, Any]:
    """What is known about a shipped network: task, architecture, accuracy, recipe, hash."""
    folder = _folder(split(name)[0])
    check(folder)
    return read_card(folder)


def truth(name: str) -> GroundTruth:
    """The ground truth of a shipped network: nodes, edges, variables and where they live.

    >>> str(truth("induction-gpt2").nodes[0])
    'a0.h1'
    """
    return GroundTruth.from_dict(card(name).get("truth", {}))


def check(folder: Path) -> None:
    """Compare the weights of a folder with the hashes of its card.

    Raises CorruptFile if a file is missing, differs from its hash, or if the card cannot be read.
    """
    for file, wanted in read_card(folder).get("sha256", {}).items():
        weights = folder / file
        if not weights.is_file():
            raise CorruptFile(f"{weights} is missing.", "Install the package again.")
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        if digest != wanted:
            raise CorruptFile(
                f"{weights} is not the file of its card (sha256 {digest[:12]}, expected {wanted[:12]}).",
                "Install the package again, or train the network anew with its recipe.",
            )


def load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """A shipped network, one of its twins or checkpoints, in evaluation mode, with its tokenizer if it has one."""
    base, twin, _ = split(name)
    return load_folder(_folder(base), twin) if twin else _loaded(path(name))


def load_folder(folder: Path, twin: str = "") -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The same for any folder that a recipe has written."""
    check(folder)
    if not twin:
        return _loaded(folder)
    from cutaway.zoo.twins import twin_model  # heavy, and only for twins

    stored = _twin_folder(folder, twin)
    _, tokenizer = _loaded(folder)
    if stored is not None:
        return _loaded(stored)[0], tokenizer
    return twin_model(folder, str(read_card(folder).get("name", "")), twin), tokenizer


def _twin_folder(folder: Path, kind: str) -> Path | None:
    """Where a stored twin lies; some are checkpoints. None for twins that are made when asked for."""
    for twin in read_card(folder).get("twins", []):
        if twin["kind"] == kind and twin["how"] == "stored":
            revision = twin.get("revision")
            return folder / REVISIONS / revision if revision else folder / TWINS / kind
    return None


def _loaded(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
    )  # heavy: only who loads a network waits for it

    with no_bars():
        tokenizer = AutoTokenizer.from_pretrained(folder) if (folder / "tokenizer.json").is_file() else None
        return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


@contextmanager
def no_bars() -> Iterator[None]:
    """While active, transformers shows no progress bars for these small files; afterwards it does as before."""
    from transformers.utils import logging

    showed = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if showed:
            logging.enable_progress_bar()


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder, its weights unchecked. Raises CorruptFile when it cannot be read."""
    try:
        return json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFile(
            f"The card of {folder} cannot be read: {error}.", "Install the package again."
        ) from error
