"""Which heads feed which: composition scores between the circuits of heads, against random matrices of the same shapes.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": how much of what an earlier head writes is read by a
later head into its queries, keys or values, as ||A B|| / (||A|| ||B||). With factored matrices A = V1 O1 and B = X2 Y2 the
norm is that of S1 (O1 X2) T2, where S1'S1 = V1'V1 and T2 T2' = Y2 Y2' are as small as the heads: one product for all pairs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.figures import Grid, heatmap, small_map
from cutaway.network.parts import Edge, Input, Part
from cutaway.reports import Figure, Page, display_result, page_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.stream.head_weights import HeadWeights, head_weights, heads_of
from cutaway.stream.shared import origin, require_count, require_one, table_in_words

if TYPE_CHECKING:
    from cutaway.network import Network

#: What a later head may read with: its queries, keys or values.
PORTS = ("q", "k", "v")


@dataclass(frozen=True, eq=False)
class Composition:
    """How much of what each head writes each later head reads, into its queries, keys and values.

    A score above chance says that the weights could pass something on, not that they do so on any text.

    Attributes:
        heads: the heads of both axes.
        scores: "q", "k", "v" -> [writer, reader], NaN where the writer does not come before the reader.
        random: scores of random matrices of the same shapes, from which the chance level is taken.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "composition"

    heads: tuple[Part, ...]
    scores: dict[str, np.ndarray]
    random: np.ndarray
    provenance: Provenance

    __repr__ = brief

    @property
    def chance(self) -> float:
        """Mean score of random matrices of the same shapes."""
        return float(self.random.mean())

    @property
    def chance_high(self) -> float:
        """99 % quantile of the scores of random matrices."""
        return float(np.quantile(self.random, 0.99))

    def to_pandas(self, port: str | None = None) -> pd.DataFrame:
        """One row per pair, strongest first: writer, reader, score, score over chance; port: only "q", "k" or "v"."""
        if port is not None:
            require_one("port", port, self.scores)
        frames = []
        for name in self.scores if port is None else (port,):
            pairs = np.nonzero(np.isfinite(self.scores[name]))
            score = self.scores[name][pairs]
            writers, readers = ([str(self.heads[i]) for i in end] for end in pairs)
            table = {
                "writer": writers, "reader": readers, "port": name, "score": score, "over_chance": score / self.chance,
                "above": score > self.chance_high,
            }  # fmt: skip
            frames.append(pd.DataFrame(table))
        frame = pd.concat(frames, ignore_index=True)
        return frame.iloc[np.argsort(-frame["score"].to_numpy(), kind="stable")].reset_index(drop=True)

    def plot(self, port: str = "k") -> Any:
        """A heat map: writer by reader, as score minus chance."""
        return heatmap(self._grid(port))

    def _grid(self, port: str) -> Grid:
        require_one("port", port, self.scores)
        scores, names = self.scores[port], [head.words.removeprefix("head ") for head in self.heads]
        rows = [i for i in range(len(names)) if np.isfinite(scores[i]).any()]
        columns = [i for i in range(len(names)) if np.isfinite(scores[:, i]).any()]
        values = scores[np.ix_(rows, columns)] - self.chance
        labels = [names[i] for i in rows], [names[i] for i in columns]
        return Grid(values, *labels, "writer", "reader", unit="score minus chance")

    @property
    def headline(self) -> str:
        """The strongest pair, in a sentence; or that none is stronger than random ones."""
        pairs = self.to_pandas()
        if not len(pairs):
            return "No head comes before another."
        top = pairs.iloc[0]
        edge = Edge(Part.parse(top["writer"]), Input(Part.parse(top["reader"]), top["port"]))
        chance = f"{top['score']:.3f}, and random ones {self.chance:.3f} (at most {self.random.max():.3f})"
        if top["score"] <= self.random.max():
            return f"No pair of heads is told from chance: the strongest, {edge.words}, has {chance}."
        above = int((pairs["score"] > self.random.max()).sum())
        return (
            f"Of {len(pairs)} ways from head to head {above} {'is' if above == 1 else 'are'} stronger than "
            f"{len(self.random)} random ones, most of all {edge.words}: {chance}."
        )

    def page(self) -> Page:
        """A heat map for queries, keys and values each."""
        says = {"q": "queries", "k": "keys", "v": "values"}
        figures = [Figure(self.plot(port), f"Read into {says[port]}, over chance.") for port in self.scores]
        title = f"Composition scores of pairs of heads of {self.provenance.network}."
        return page_of(self, "Cutaway · heads", title, figures)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "chance", "chance_high", pairs=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        lines = [f"chance {self.chance:.3f}, its 99 % quantile {self.chance_high:.3f}"]
        picture = small_map(self._grid("k")) if "k" in self.scores else ""
        return display_result(
            self, lines, table_in_words(self.to_pandas().head(6), "writer", "reader"), picture
        )


@strict
def composition(
    net: Network,
    *,
    weights: Sequence[HeadWeights] | None = None,
    n_random: int = 200,
    seed: int = 0,
    work: Work | None = None,
) -> Composition:
    """Composition scores of every earlier head with every later one: of queries, keys and values.

    weights: of the heads to compare (default: all). Norms between them are folded at scale one (the score does not depend on
    the scale). n_random: pairs of random matrices of the same shapes that the chance level is taken from.

    Raises `BadInput` where fewer than two layers are given.
    """
    began, work = time.monotonic(), working(work)
    require_count("n_random", n_random)
    weights = head_weights(net, work=work) if weights is None else list(weights)
    if len({w.layer for w in weights}) < 2:
        raise BadInput("Composition needs heads of at least two layers.", "Leave weights out for all heads.")
    heads = heads_of(weights)
    written = [_unit(_side(w.v) @ w.o.double()) for w in weights]
    random = _random(weights, n_random, seed)
    scores = {}
    for done, port in enumerate(PORTS):
        work.step("composing heads", done, len(PORTS))
        scores[port] = _scores(weights, written, [_unit(_reading(w, port)) for w in weights], len(heads))
    return Composition(heads, scores, random, origin(net, None, began, seed))


def _scores(
    weights: Sequence[HeadWeights], written: Sequence[Tensor], reading: Sequence[Tensor], count: int
) -> np.ndarray:
    """[writer, reader] of all heads."""
    scores = np.full((count, count), np.nan)
    ends = np.cumsum([len(w.o) for w in weights])
    spans = [slice(end - len(w.o), end) for end, w in zip(ends, weights, strict=True)]
    for n, reader in enumerate(weights):
        for m, writer in enumerate(weights):
            if writer.layer < reader.layer:
                scores[spans[m], spans[n]] = _block(written[m], reading[n]).numpy()
    return scores


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


def _reading(w: HeadWeights, port: str) -> Tensor:
    """What a head reads with: [h d e], with the size of the other factor in it."""
    near, far = {"q": (w.q, w.k.mT), "k": (w.k, w.q.mT), "v": (w.v, w.o)}[port]
    return near.double() @ _side(far.mT).mT


def _random(weights: Sequence[HeadWeights], n: int, seed: int) -> np.ndarray:
    """Scores of pairs of random factored matrices of the heads' shapes."""
    generator = torch.Generator().manual_seed(seed)
    (e, width), f = weights[0].o.shape[-2:], weights[0].k.shape[-1]
    shapes = ((width, e), (e, width), (width, f), (width, f))
    scores = []
    for start in range(0, n, 50):
        v, o, q, k = (torch.randn(min(50, n - start), *shape, generator=generator) for shape in shapes)
        left, right = _side(v) @ o.double(), q.double() @ _side(k).mT
        sizes = left.flatten(1).norm(dim=1) * right.flatten(1).norm(dim=1)
        scores.append(((left @ right).flatten(1).norm(dim=1) / sizes).numpy())
    return np.concatenate(scores)
