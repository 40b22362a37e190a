"""Features whose right label is known: activations are planted on the tokens of stories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

import cutaway
from cutaway.features.index import FeatureIndex
from cutaway.features.sets import FeatureSet
from cutaway.network import Network
from cutaway.recipes.tales.marks import token_marks
from cutaway.recipes.tales.scenes import stories


@dataclass
class Told:
    """Stories, and what is known of every row.

    Attributes:
        texts, marks: of the stories.
        token, before, after: [N] as text; "" where there is none.
        position: [N] in the window.
        gender, slot, scene: [N] labels of the grammar.
        text: [N] which story.
    """

    texts: list[str]
    marks: dict[str, list[list[Any]]]
    token: list[str]
    before: list[str]
    after: list[str]
    position: np.ndarray
    gender: list[Any]
    slot: list[Any]
    scene: list[Any]
    text: np.ndarray


def zero(net: Network, size: int) -> FeatureSet:
    site = net.resolve("resid_post.3")[0]
    names = tuple(f"planted {i}" for i in range(size))
    return FeatureSet(
        "directions", "planted features", (site,), names, lambda v: torch.zeros(len(v[0]), size)
    )


def told(net: Network, n: int = 160) -> Told:
    texts, marks = token_marks(net.tokenizer, islice(stories("labels"), n), ["gender", "slot", "scene"])
    rows = cutaway.index_features(net, zero(net, 1), texts).rows

    def words(ids: np.ndarray) -> list[str]:
        known = {int(i): net.token_strings([int(i)])[0] if i >= 0 else "" for i in np.unique(ids)}
        return [known[int(i)] for i in ids]

    def mark(name: str) -> list[Any]:
        return [marks[name][t][p] for t, p in zip(rows.texts, rows.positions, strict=True)]

    return Told(
        texts, marks, words(rows.token_ids), words(rows.beside(-1)), words(rows.beside(1)), rows.column, mark("gender"),
        mark("slot"), mark("scene"), rows.texts,
    )  # fmt: skip


def planted(
    net: Network,
    of: Told,
    plants: Mapping[str, Callable[[int], bool]],
    background: int = 12,
    noise: float = 0.0,
    seed: int = 0,
    writes: Any = (),
) -> tuple[FeatureIndex, FeatureSet]:
    """An index in which each plant is active where it says, and others on tokens at random."""
    rng = np.random.default_rng(seed)
    n = len(of.token)
    on = np.stack([np.array([plant(i) for i in range(n)]) for plant in plants.values()], 1)
    on = np.concatenate([on, rng.random((n, background)) < 0.05], 1)
    flipped = rng.random(on.shape) < noise * on.mean(0)
    values = torch.as_tensor(np.where(on ^ flipped, 1 + rng.random(on.shape), 0), dtype=torch.float32)
    names = (*plants, *(f"noise {i}" for i in range(background)))
    base = replace(zero(net, len(names)), names=names, writes=writes)
    features = replace(base, read=_in_order(values))
    return cutaway.index_features(net, features, of.texts), features


def _in_order(values: torch.Tensor) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
    at = [0]

    def read(rows: Sequence[torch.Tensor]) -> torch.Tensor:
        at[0] += len(rows[0])
        return values[at[0] - len(rows[0]) : at[0]]

    return read
