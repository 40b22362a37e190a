"""Why a head looks where it looks: an attention score as a sum over pairs of writers, one of the query's, one of the key's.

What each writer put into the stream is taken through the norm that the attention reads through, frozen at the run, and then
through the network's own projections: it is put in at `attn_in`, one writer per row, and the query or key that comes out is
its part. Queries and keys add up, so the score is a sum over pairs.
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

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.figures import Grid, grid_picture, heatmap
from cutaway.interventions import Apply
from cutaway.network.head_maps import projections
from cutaway.network.inputs import Tokens
from cutaway.network.parts import Part
from cutaway.network.precision import agrees, precise
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.stream.head_weights import head_named, reading_norm
from cutaway.stream.record import read_stream
from cutaway.stream.shared import one_text, origin, table_in_words

if TYPE_CHECKING:
    from cutaway.network import Network

_BIAS = Part("constant")
#: A score that is not above this is masked: no query and key come near it.
_MASKED = -1e4


@dataclass(frozen=True, eq=False)
class ScoreParts:
    """An attention score as sum over pairs of writers.

    Attributes:
        head: whose score it is.
        queries, keys: the writers of the query's and of the key's stream.
        values: [query writer, key writer].
        score: the network's own, before the softmax.
        position: what is added by position alone (ALiBi), as far as it is not a product of query and key.
        scaled: whether values are in the score's unit; with a soft-cap on scores they are plain products of query and key.
        dest, source: the tokens that looks and that is looked at.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "score-parts"

    head: Part
    queries: tuple[Part, ...]
    keys: tuple[Part, ...]
    values: np.ndarray
    score: float
    position: float
    scaled: bool
    dest: str
    source: str
    provenance: Provenance

    __repr__ = brief

    @property
    def error(self) -> float:
        """Difference between the sum and the score, as share of the largest part."""
        size = max(float(np.abs(self.values).max(initial=0.0)), abs(self.score), 1e-12)
        return abs(float(self.values.sum()) + self.position - self.score) / size

    def to_pandas(self) -> pd.DataFrame:
        """One row per pair, largest part first."""
        queries, keys = list(map(str, self.queries)), list(map(str, self.keys))
        pairs = {"query": np.repeat(queries, len(keys)), "key": np.tile(keys, len(queries))}
        frame = pd.DataFrame(pairs | {"part": self.values.reshape(-1)})
        return frame.iloc[np.argsort(-frame["part"].abs().to_numpy(), kind="stable")].reset_index(drop=True)

    def plot(self) -> Any:
        """A heat map: what wrote to the query by what wrote to the key."""
        return heatmap(self._grid())

    def _grid(self) -> Grid:
        rows, columns = [w.words for w in self.queries], [w.words for w in self.keys]
        unit = "attention score" if self.scaled else "query times key"
        return Grid(self.values, rows, columns, "query from", "key from", unit=unit)

    @property
    def headline(self) -> str:
        """The score, and which pair makes most of it."""
        said = (
            f"From {self.dest!r} {self.head.words} looks at {self.source!r} with a score of {self.score:.3f}"
        )
        if not self.values.size:
            return said
        query, key = np.unravel_index(int(np.abs(self.values).argmax()), self.values.shape)
        return (
            f"{said}; the largest part is what {self.queries[query].words} wrote to the query meeting what "
            f"{self.keys[key].words} wrote to the key ({self.values[query, key]:+.3f})"
        )

    def _in_words(self, n: int) -> pd.DataFrame:
        return table_in_words(self.to_pandas().head(n), "query", "key")

    def page(self) -> Page:
        """The pairs as a heat map, and the largest."""
        table = self._in_words(12).set_axis(["query from", "key from", "adds"], axis=1)
        rest = float(self.values.sum()) - sum(table["adds"].tolist())
        others = f"the other {self.values.size - len(table)} add {rest:+.3f} together, position adds {self.position:+.3f}"
        blocks = [
            Figure(
                self.plot(),
                f"What wrote to the query by what wrote to the key; all together are the score, within {self.error:.1e}.",
            ),
            table_of(table, f"The largest pairs; {others}.", "+.3f", numeric=(2,)),
        ]
        about = f"An attention score of {self.head.words} of {self.provenance.network}, by who wrote query and key."
        return page_of(self, "Cutaway · heads", about, blocks)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        fields = ("dest", "source", "score", "position", "scaled", "error")
        return described(self, *fields, head=str(self.head), pairs=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        return display_result(self, table=self._in_words(6), picture=grid_picture(self._grid()))


@strict
def why_attend(
    net: Network,
    text: str | Sequence[int] | Tokens,
    head: Part | str,
    *,
    dest: int = -1,
    source: int = 0,
    by: str = "head",
    work: Work | None = None,
) -> ScoreParts:
    """The score with which a head (`a2.h0` or `head 2.0`) attends from position `dest` to `source`, by pairs of writers.

    The biases of query and key, and that of the norm before them, are the writer "constant".

    Raises `BadAddress` for a head or position that is not there, `BadInput` for a score that is masked, `SiteUnavailable`
    where a site is refused or queries are no sums of what the attention reads, `NotFoldable` where the norm before the
    attention is not affine.
    """
    began, work, part = time.monotonic(), working(work), head_named(net, head)
    layer, index = part.layer or 0, part.index or 0
    for name in ("attn_in", "q", "k", "scores"):
        net.resolve(Site(name, layer))
    tokens = one_text(net, text)
    at = tokens.columns([dest, source])[0].tolist()
    stream = read_stream(net, tokens, by=by, pos=[dest, source], work=work)
    parts = stream.decompose(layer)
    sites = [Site("resid_pre", layer), Site("attn_in", layer)]
    run = net.run(tokens, keep=sites, logits=False, pos=[dest, source])
    before, after = (precise(run[site]) for site in sites)
    fold = reading_norm(net, layer).at(before, after)
    bias = fold.bias.expand_as(after)
    # the writers one by one, the bias, all, nothing
    read = torch.cat([fold(parts.values)[:, 0], bias, after, torch.zeros_like(after)])
    (queries, keys), scores = _projected(net, tokens.ids, layer, read, at)
    if not float(scores[-2, index]) > _MASKED:
        raise BadInput(
            f"{part.words} cannot look from position {dest} at position {source}: this score is masked.",
            "Ask for a source that is not behind the destination, and inside the layer's window.",
        )
    groups = (net.heads(layer) or 0) // keys[0].shape[1]
    q_parts, q = _additive(*queries, index, layer, "queries")
    k_parts, k = _additive(*keys, index // groups, layer, "keys")
    scale, position = _scale((q * k).sum(-1), scores[:, index])
    names = (*(w for w in parts.writers if isinstance(w, Part)), _BIAS)
    values = (q_parts @ k_parts.T) * scale
    score = float(scores[-2, index]) if position is not None else float(q[-2] @ k[-2])
    words, offset = tokens.strings(0), int(tokens.first[0])
    return ScoreParts(
        part, names, names, values.numpy(), score, position or 0.0, position is not None,
        words[at[0] - offset], words[at[1] - offset], origin(net, tokens, began),
    )  # fmt: skip


def _projected(
    net: Network, ids: Tensor, layer: int, read: Tensor, at: list[int]
) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """Queries at the first position, keys at the second, and scores [n h] between them, for what was read there: [n 2 d].

    Queries and keys come as [n h e], and as they were before norms of their own, [n h*e], where that is known.
    """
    sites = [Site("q", layer), Site("k", layer), Site("scores", layer)]
    paths = projections(net, [layer])

    def put(value: Tensor) -> Tensor:
        new = value.clone()
        new[:, at] = read.to(value)
        return new

    keep, edits = [*sites, *paths.values()], [Apply(f"attn_in.{layer}", put)]
    run = net.run(ids.expand(len(read), -1), keep=keep, edits=edits, logits=False)
    sides = []
    for name, position in zip(("q", "k"), at, strict=True):
        raw = paths.get(Site(f"{name}_raw", layer))
        before = None if raw is None else precise(run[raw])[:, position].double().cpu()
        sides.append((precise(run[Site(name, layer)])[:, position].double().cpu(), before))
    return sides, precise(run[sites[-1]])[:, :, at[0], at[1]].double().cpu()


def _additive(rows: Tensor, raw: Tensor | None, head: int, layer: int, what: str) -> tuple[Tensor, Tensor]:
    """The parts [c+1 e] of one head's query or key, the last being biases, and its answers [n e] to each writer, the bias,
    all and nothing, from which they are taken.

    Where a norm of its own stands between, each answer was divided by its own size before it; multiplied by that and divided
    by the size of all, they add up again. The size is that of the head's part or of all heads', whichever adds up.
    """
    answers = rows[:, head]
    sizes = [torch.ones(len(rows), 1, dtype=rows.dtype)]
    if raw is not None and raw.shape[-1] == rows.shape[1] * rows.shape[2]:
        of_head = raw.unflatten(-1, rows.shape[1:])[:, head]
        sizes += [of_head.norm(dim=-1, keepdim=True), raw.norm(dim=-1, keepdim=True)]
    for size in sizes:
        each = answers * (size / size[-2].clamp(min=1e-30))
        nothing = each[-1]
        parts = each[:-2] - nothing
        parts[-1] += nothing
        if agrees(parts.sum(0), answers[-2], 1e-3):
            return parts, answers
    raise SiteUnavailable(
        f"The {what} of layer {layer} are no sum over what writers put into the stream.",
        "Use patterns and value-weighted patterns.",
    )


def _scale(products: Tensor, scores: Tensor) -> tuple[float, float | None]:
    """Scale and offset between products of query and key [n] and the network's scores [n], from all rows; offset None where
    the relation is not affine (a soft-cap).
    """
    table = torch.stack([products, torch.ones_like(products)], 1)
    solved = torch.linalg.lstsq(table, scores[:, None]).solution[:, 0]
    if not bool(torch.isfinite(scores).all()) or not agrees(table @ solved, scores, 1e-3):
        return 1.0, None
    return float(solved[0]), float(solved[1])
