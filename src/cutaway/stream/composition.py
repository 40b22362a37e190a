"""Which heads feed which: composition scores between the circuits of heads, against random matrices of the same shapes.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": how much of what an earlier head writes is read by a
later head into its queries, keys or values, as ||A B|| / (||A|| ||B||). With factored matrices A = V1 O1 and B = X2 Y2 the
norm is that of S1 (O1 X2) T2, where S1'S1 = V1'V1 and T2 T2' = Y2 Y2' are as small as the heads: one product for all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.stream.head_weights import HeadWeights, head_weights

if TYPE_CHECKING:
    from cutaway.network import Network

KINDS = ("q", "k", "v")


@dataclass(frozen=True, eq=False)
class Composition:
    """Scores of one kind: [writer, reader], NaN where the writer does not come before the reader.

    heads: (layer, head) of both axes. random: scores of random matrices of the same shapes; their mean and 99 % quantile are
    the chance level.
    """

    kind: str
    heads: tuple[tuple[int, int], ...]
    scores: np.ndarray
    random: np.ndarray
    network: str

    @property
    def chance(self) -> float:
        """Mean score of random matrices of the same shapes."""
        return float(self.random.mean())

    @property
    def chance_high(self) -> float:
        """99 % quantile of the scores of random matrices."""
        return float(np.quantile(self.random, 0.99))

    def to_pandas(self) -> pd.DataFrame:
        """One row per pair, strongest first: writer, reader, score, and the score over chance."""
        writers, readers = np.nonzero(np.isfinite(self.scores))
        frame = pd.DataFrame(
            {
                "writer": [f"{la}.{h}" for la, h in (self.heads[i] for i in writers)],
                "reader": [f"{la}.{h}" for la, h in (self.heads[i] for i in readers)],
                "kind": self.kind,
                "score": self.scores[writers, readers],
                "over_chance": self.scores[writers, readers] / self.chance,
                "above": self.scores[writers, readers] > self.chance_high,
            }
        )
        return frame.iloc[np.argsort(-frame["score"].to_numpy(), kind="stable")].reset_index(drop=True)

    def plot(self) -> Any:
        """A heat map: writer by reader, as score minus chance."""
        from cutaway.figures import Grid, heatmap

        names = [f"{la}.{h}" for la, h in self.heads]
        rows = [i for i in range(len(names)) if np.isfinite(self.scores[i]).any()]
        columns = [i for i in range(len(names)) if np.isfinite(self.scores[:, i]).any()]
        values = self.scores[np.ix_(rows, columns)] - self.chance
        grid = Grid(
            values,
            [names[i] for i in rows],
            [names[i] for i in columns],
            "writer",
            "reader",
            unit="score minus chance",
        )
        return heatmap(grid)


def composition(
    net: Network, weights: Sequence[HeadWeights] | None = None, *, n_random: int = 200, seed: int = 0
) -> dict[str, Composition]:
    """Composition scores of every earlier head with every later one: of queries, keys and values.

    weights: of the heads to compare (default: all). Norms between them are folded at scale one (the score does not depend on
    the scale). n_random: pairs of random matrices of the same shapes that the chance level is taken from.

    Raises `BadInput` where fewer than two layers are given.
    """
    weights = head_weights(net) if weights is None else list(weights)
    if len({w.layer for w in weights}) < 2:
        raise BadInput("Composition needs heads of at least two layers.", "Leave weights out for all heads.")
    heads = tuple((w.layer, h) for w in weights for h in range(len(w.o)))
    written = [_side(w.v) @ w.o.double() for w in weights]
    written = [_unit(w) for w in written]
    random = _random(weights, n_random, seed)
    found = {}
    for kind in KINDS:
        reading = [_reading(w, kind) for w in weights]
        reading = [_unit(r) for r in reading]
        scores = np.full((len(heads), len(heads)), np.nan)
        column = 0
        for n, reader in enumerate(weights):
            row = 0
            for m, writer in enumerate(weights):
                if writer.layer < reader.layer:
                    block = _block(written[m], reading[n])
                    scores[row : row + len(writer.o), column : column + len(reader.o)] = block.numpy()
                row += len(writer.o)
            column += len(reader.o)
        found[kind] = Composition(kind, heads, scores, random, net.name)
    return found


def _block(written: Tensor, reading: Tensor) -> Tensor:
    """Norms of all products of [h e d] with [g d f]: [h g], from one matrix product."""
    h, e, d = written.shape
    g, _, f = reading.shape
    product = written.reshape(h * e, d) @ reading.movedim(0, 1).reshape(d, g * f)
    return product.reshape(h, e, g, f).square().sum((1, 3)).sqrt().double().cpu()


def _unit(thin: Tensor) -> Tensor:
    """Matrices [h . .] at length one, in single precision, in which the large products are made."""
    return (thin / thin.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-30)).float()


def _side(thin: Tensor) -> Tensor:
    """S [.. e e] with S'S = thin'thin for thin [.. n e]: the size of a thin factor without its long side."""
    gram = thin.double().mT @ thin.double()
    values, vectors = torch.linalg.eigh(gram)
    return values.clamp(min=0).sqrt()[..., None] * vectors.mT


def _reading(w: HeadWeights, kind: str) -> Tensor:
    """What a head reads with: [h d e], with the size of the other factor in it."""
    near, far = {"q": (w.q, w.k.mT), "k": (w.k, w.q.mT), "v": (w.v, w.o)}[kind]
    return near.double() @ _side(far.mT).mT


def _random(weights: Sequence[HeadWeights], n: int, seed: int) -> np.ndarray:
    """Scores of pairs of random factored matrices of the heads' shapes."""
    generator = torch.Generator().manual_seed(seed)
    width, e = weights[0].o.shape[-1], weights[0].o.shape[-2]
    f = weights[0].k.shape[-1]
    found = []
    for start in range(0, n, 50):
        count = min(50, n - start)
        v, o, q, k = (
            torch.randn(count, *shape, generator=generator)
            for shape in ((width, e), (e, width), (width, f), (width, f))
        )
        left, right = _side(v) @ o.double(), q.double() @ _side(k).mT
        sizes = left.flatten(1).norm(dim=1) * right.flatten(1).norm(dim=1)
        found.append(((left @ right).flatten(1).norm(dim=1) / sizes).numpy())
    return np.concatenate(found)
