"""What heads and neurons say in words: circuits from the embedding to the unembedding, read in the vocabulary.

The full OV circuit of a head takes an attended token to logits: E A W_V W_O B U, a matrix as large as the vocabulary. Its
eigenvalues are those of a matrix as small as the head, and their sign says whether the head raises the token that it looks
at (Elhage et al. 2021, "copying").
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadAddress, NotFoldable
from cutaway.figures import Bar, bars
from cutaway.network.factored import positive_share
from cutaway.network.memory import rows_at_once
from cutaway.network.norms import affine_norm
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.stream.head_weights import HeadWeights, head_named, head_weights, heads_of
from cutaway.stream.shared import first_few, head_map, origin, require_count, table_in_words
from cutaway.stream.targets import head_of, unembedding

if TYPE_CHECKING:
    from cutaway.network import Network

#: Tokens that stand for a larger vocabulary: a sample, not a batch.
_MOST_TOKENS = 8192


def token_embeddings(net: Network, ids: Tensor, *, work: Work | None = None) -> Tensor:
    """What each token [n] puts into the stream before the first layer, its position left out: [n d]."""
    first = Site("resid_pre", 0)
    sites = [first, *([Site("pos_embed")] if net.has("pos_embed") else [])]
    batch = rows_at_once(net, 1, work, most=2048)
    parts = []
    for start in range(0, len(ids), batch):
        run = net.run(ids[start : start + batch, None], keep=sites, logits=False, stop_at=first)
        value = precise(run[first])[:, 0]
        parts.append(value if len(sites) == 1 else value - precise(run["pos_embed"])[:, 0].to(value))
    return torch.cat(parts)


def token_readout(net: Network, ids: Tensor) -> Tensor:
    """What a vector of the last stream adds to the logit of each token [n], per unit of the final norm's scale: [n d].

    Where the final norm is no affine map, its weight is left out.
    """
    head = head_of(net)
    assert head.unembed is not None
    rows, _ = unembedding(net.modules[head.unembed], ids, net.d_model or 0)
    rows = rows * head.before * head.scale * (1.0 if head.softcap is None else head.softcap)
    if head.norm is not None:
        with contextlib.suppress(NotFoldable):
            return rows @ affine_norm(net, head.norm).linear(torch.eye(rows.shape[1]).to(rows)).mT
    return rows


@dataclass(frozen=True, eq=False)
class Copying:
    """Copying scores of heads: how far each raises the token that it looks at, read from its weights alone.

    Attributes:
        heads: the heads.
        scores: [heads] share of positive eigenvalues of the full OV circuit, from -1 to 1.
        null: [n heads] the same with tokens paired at random; its 99 % quantile over all heads is the limit.
        tokens: how many tokens stand for the vocabulary.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "copying"

    heads: tuple[Part, ...]
    scores: np.ndarray
    null: np.ndarray
    tokens: int
    provenance: Provenance

    __repr__ = brief

    def to_pandas(self) -> pd.DataFrame:
        """One row per head: score, chance, and whether it lies above the chance level's 99 % quantile."""
        names, high = list(map(str, self.heads)), float(np.quantile(self.null, 0.99))
        table = {"head": names, "copying": self.scores, "chance": self.null.mean(0), "chance_high": high}
        return pd.DataFrame(table | {"above": self.scores > high})

    def plot(self) -> Any:
        """Scores layer by head."""
        return head_map(dict(zip(self.heads, self.scores, strict=True)), "copying score")

    @property
    def headline(self) -> str:
        """Which heads copy, in a sentence."""
        above = [head for head, high in zip(self.heads, self.to_pandas()["above"], strict=True) if high]
        if not above:
            return f"None of {len(self.heads)} heads copies more than chance"
        verb = "copies" if len(above) == 1 else "copy"
        return f"{len(above)} of {len(self.heads)} heads {verb} more than chance: {first_few(above, 'none')}"

    def page(self) -> Page:
        """The scores as a heat map."""
        figure = Figure(self.plot(), f"Share of positive eigenvalues, over {self.tokens} tokens.")
        return page_of(
            self, "Cutaway · heads", f"Copying scores of the heads of {self.provenance.network}.", [figure]
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "tokens", heads=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        table = table_in_words(self.to_pandas().nlargest(8, "copying"), "head")
        return display_result(self, [f"over {self.tokens} tokens"], table)


@strict
def copying(
    net: Network,
    *,
    weights: Sequence[HeadWeights] | None = None,
    n_null: int = 8,
    seed: int = 0,
    work: Work | None = None,
) -> Copying:
    """The copying score of every head against the same circuit with tokens paired at random.

    Of vocabularies beyond 8192 tokens a random 8192 stand for all. Raises `SiteUnavailable` where a layer's heads have no
    matrices or it is not known how the stream becomes logits.
    """
    began, work = time.monotonic(), working(work)
    require_count("n_null", n_null)
    weights = head_weights(net, work=work) if weights is None else list(weights)
    generator = torch.Generator().manual_seed(seed)
    size = min(net.d_vocab or 0, net.d_vocab_in or net.d_vocab or 0)
    ids = torch.randperm(size, generator=generator)[:_MOST_TOKENS]
    read, write = token_readout(net, ids).double().cpu(), token_embeddings(net, ids, work=work).double().cpu()
    scores = _scores(weights, read.mT @ write)
    null = []
    for done in range(n_null):
        work.step("pairing tokens at random", done, n_null)
        null.append(_scores(weights, read.mT @ write[torch.randperm(len(ids), generator=generator)]))
    return Copying(heads_of(weights), scores, np.stack(null), len(ids), origin(net, None, began, seed))


def _scores(weights: Sequence[HeadWeights], back: Tensor) -> np.ndarray:
    """Copying scores through `back` [d d], which takes what is written to what is read by way of the vocabulary."""
    small = (w.o.double().cpu() @ back @ w.v.double().cpu() for w in weights)
    return np.concatenate([positive_share(torch.linalg.eigvals(matrix)).numpy() for matrix in small])


def in_vocabulary(net: Network, vectors: Tensor, *, k: int = 8) -> list[list[tuple[str, float]]]:
    """The tokens whose logits vectors of the last stream [n d] raise most: k of (token, logits per unit of scale) each."""
    ids = torch.arange(net.d_vocab or 0)
    logits = vectors.float().cpu() @ token_readout(net, ids).float().cpu().mT
    logits = logits - logits.mean(-1, keepdim=True)
    best = logits.topk(min(k, logits.shape[-1]), -1)
    return [
        [(net.token_strings([int(i)])[0], float(v)) for i, v in zip(row, values, strict=True)]
        for row, values in zip(best.indices, best.values, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class SingularDirections:
    """The strongest directions of a head's OV circuit, read in the vocabulary.

    The sign of a direction is arbitrary, so that both are read: what is read with one sign is written with the same one.

    Attributes:
        head: whose they are.
        values: [n] singular values, largest first.
        reads: for each direction and sign (+, -) the tokens that are read most, by embedding.
        writes: the tokens that are written most, by logit.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "singular-directions"

    head: Part
    values: np.ndarray
    reads: tuple[tuple[str, ...], ...]
    writes: tuple[tuple[str, ...], ...]
    provenance: Provenance

    __repr__ = brief

    def to_pandas(self) -> pd.DataFrame:
        """One row per direction and sign: the singular value, the tokens that are read most and those written most."""
        return pd.DataFrame(
            {
                "direction": np.repeat(np.arange(len(self.values)), 2),
                "sign": [1, -1] * len(self.values),
                "singular_value": np.repeat(self.values, 2),
                "reads": [list(words) for words in self.reads],
                "writes": [list(words) for words in self.writes],
            }
        )

    def plot(self) -> Any:
        """The singular values as bars."""
        each = enumerate(self.values.tolist())
        return bars([Bar.of(f"direction {i}", value) for i, value in each], unit="singular value")

    @property
    def headline(self) -> str:
        """What the strongest direction does, in a sentence."""
        read, wrote = (", ".join(repr(w) for w in words[0][:4]) for words in (self.reads, self.writes))
        return f"Where it reads {read}, {self.head.words} writes {wrote}"

    def page(self) -> Page:
        """The directions in words."""
        table = self.to_pandas().rename(columns={"singular_value": "singular value"})
        table["sign"] = ["+" if sign > 0 else "−" for sign in table["sign"]]
        table = table.assign(reads=table["reads"].map(" ".join), writes=table["writes"].map(" ".join))
        title = f"The largest singular directions of {self.head.words} of {self.provenance.network}."
        return page_of(self, "Cutaway · heads", title, [table_of(table)])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, head=str(self.head), directions=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        return display_result(self, table=self.to_pandas().head(6))


@strict
def singular_directions(
    net: Network,
    head: Part | str,
    *,
    n: int = 3,
    k: int = 8,
    weights: Sequence[HeadWeights] | None = None,
    work: Work | None = None,
) -> SingularDirections:
    """The n strongest directions of a head's OV circuit (`a2.h0` or `head 2.0`), each in k tokens.

    Raises `BadAddress` for a head that is not there.
    """
    began, work, head = time.monotonic(), working(work), head_named(net, head)
    require_count("n", n)
    require_count("k", k)
    layer, index = head.layer or 0, head.index or 0
    given = weights or head_weights(net, layers=[layer], work=work)
    layer_weights = next((w for w in given if w.layer == layer), None)
    if layer_weights is None or index >= len(layer_weights.o):
        raise BadAddress(
            f"The weights that were given hold no {head.words}.", "Leave weights out, or give that layer's."
        )
    u, s, v = layer_weights.ov[index].svd()
    ids = torch.arange(min(net.d_vocab or 0, net.d_vocab_in or 0))
    along = token_embeddings(net, ids, work=work).double().cpu() @ u[:, :n].cpu()
    along = along - along.mean(0)
    reads, writes = [], []
    for i in range(min(n, len(s))):
        for sign in (1, -1):
            top = (along[:, i] * sign).topk(min(k, len(ids))).indices
            reads.append(tuple(net.token_strings([int(t)])[0] for t in ids[top]))
            writes.append(tuple(t for t, _ in in_vocabulary(net, (sign * v[:, i])[None], k=k)[0]))
    values = s[:n].double().cpu().numpy()
    return SingularDirections(head, values, tuple(reads), tuple(writes), origin(net, None, began))
