"""Where the shipped networks lie, and the check that their weights are the ones that were made."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import CorruptFile, NotFound, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CARD = "card.json"


def _shelf() -> Path:
    return Path(str(resources.files("cutaway.zoo"))) / "weights"


def names() -> list[str]:
    """The shipped networks, in alphabetical order."""
    shelf = _shelf()
    return (
        sorted(folder.name for folder in shelf.iterdir() if (folder / CARD).is_file())
        if shelf.is_dir()
        else []
    )


def path(name: str) -> Path:
    """The folder of a shipped network, its weights checked. transformers opens it with `from_pretrained`.

    Raises NotFound for an unknown name, CorruptFile if the weights are not those of the card.
    """
    known = names()
    if name not in known:
        near = nearest(name, known, 1)
        shipped = f"The zoo ships: {', '.join(known) or 'nothing'}."
        raise NotFound(
            f"The zoo has no network {name!r}.", f"Did you mean {near[0]!r}? {shipped}" if near else shipped
        )
    folder = _shelf() / name
    check(folder)
    return folder


def card(name: str) -> dict[str, Any]:
    """What is known about a shipped network: task, architecture, accuracy, recipe, hash."""
    return _card(path(name))


def check(folder: Path) -> None:
    """Compare the weights of a folder with the hashes of its card.

    Raises CorruptFile if a file is missing, differs from its hash, or if the card cannot be read.
    """
    for file, wanted in _card(folder).get("sha256", {}).items():
        weights = folder / file
        if not weights.is_file():
            raise CorruptFile(f"{weights} is missing.", "Install the package again.")
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
        if found != wanted:
            raise CorruptFile(
                f"{weights} is not the file of its card (sha256 {found[:12]}, expected {wanted[:12]}).",
                "Install the package again, or train the network anew with its recipe.",
            )


def load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A shipped network, checked, in float32 and in evaluation mode, with its tokenizer."""
    from transformers import (  # heavy: only who loads a network waits for it
        AutoModelForCausalLM,
        AutoTokenizer,
    )

    folder = path(name)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def _card(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFile(
            f"The card of {folder} cannot be read: {error}.", "Install the package again."
        ) from error
