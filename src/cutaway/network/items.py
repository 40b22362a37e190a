"""Items of inputs that are no text: the patches that a network cuts an image into, and the maps that it makes of it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from cutaway.errors import BadInput
from cutaway.network.face import Face
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site


def rows_of_items(net: Face, values: Tensor) -> Tokens:
    """Inputs [b ...] as rows of items: as many as the network's stream has positions, one where it has none.

    Raises `BadInput` for an empty batch.
    """
    if values.ndim < 2 or values.shape[0] == 0:
        raise BadInput(
            f"Inputs of shape {list(values.shape)} are no batch of rows.",
            "Give one row for each example, at least one.",
        )
    first = Site("resid_pre", 0)
    if not net.has(first):
        return Tokens.of_values(values, 1, "image" if values.ndim == 4 else "row")

    def count() -> int:
        return int(net.run(values[:1], keep=[first], logits=False)[first].shape[1])

    items = int(net.fact(("items", tuple(values.shape[1:])), count))
    names = (tuple(names_of(net.config, items, values.ndim == 4)),) * int(values.shape[0])
    rows = Tokens.of_values(values, items)
    return Tokens(rows.ids, rows.mask, names, rows.values)


def names_of(config: Any, items: int, image: bool) -> list[str]:
    """Names of a row's items: patches by their row and column, those before them as tokens of their own.

    >>> names_of(None, 5, True)
    ['token 0', 'patch 0,0', 'patch 0,1', 'patch 1,0', 'patch 1,1']
    """
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    side = math.isqrt(items)
    if isinstance(size, int) and isinstance(patch, int) and 0 < patch <= size:
        side = size // patch
    extra = items - side * side
    if not image or extra < 0:
        return [f"item {i}" for i in range(items)]
    patches = [f"patch {i // side},{i % side}" for i in range(side * side)]
    return [f"token {i}" for i in range(extra)] + patches


def answers_by_row(net: Face, tokens: Tokens) -> bool:
    """Does the network give one answer for a whole row, as a classifier does, so that logits have no positions?

    tokens: any prompts of the network.
    """

    def look() -> bool:
        logits = net.run(tokens[:1], logits=True).logits
        if logits is None:
            raise without_logits(net)
        return logits.ndim == 2

    return bool(net.fact("answers by row", look))


def without_logits(net: Face) -> BadInput:
    """The error about a network that has no scores of answers."""
    return BadInput(
        f"{net.name} ({type(net.model).__name__}) gives no logits, so that it has no answers to be asked for.",
        "Open it with its language-modelling head or as a classifier; a sentence encoder as "
        '"sentences:FOLDER|one text|another". Without answers it can be probed (cutaway.probe), run and read.',
    )


def class_names(config: Any) -> tuple[str, ...]:
    """Names of a classifier's classes as its configuration tells them, in the order of the logits; empty where it does not.

    >>> from types import SimpleNamespace
    >>> class_names(SimpleNamespace(id2label={1: "dog", 0: "cat"})), class_names(SimpleNamespace(id2label={0: "LABEL_0"}))
    (('cat', 'dog'), ())
    """
    labels = getattr(config, "id2label", None)
    if not isinstance(labels, dict):
        return ()
    named = {int(number): str(name) for number, name in labels.items()}
    unnamed = all(name == f"LABEL_{number}" for number, name in named.items())
    return (
        () if unnamed or sorted(named) != list(range(len(named))) else tuple(named[i] for i in sorted(named))
    )


def maps_of(net: Face) -> tuple[str, ...]:
    """Paths of the modules whose outputs are the maps of an image network without a stream: its convolutions, in the order
    in which the model lists them.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return tuple(path for path, module in net.model.named_modules() if isinstance(module, kinds))


def channels_of(net: Face, path: str) -> int:
    """How many channels the map of a convolution has."""
    return int(net.modules[path].out_channels)  # type: ignore[arg-type]
