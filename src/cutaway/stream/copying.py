"""What heads and neurons say in words: circuits from the embedding to the unembedding, read in the vocabulary.

The full OV circuit of a head takes an attended token to logits: E A W_V W_O B U, a matrix as large as the vocabulary. Its
eigenvalues are those of a matrix as small as the head, and their sign says whether the head raises the token that it looks
at (Elhage et al. 2021, "copying").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadAddress, NotFoldable, SiteUnavailable
from cutaway.network.sites import Site
from cutaway.stream.factored import positive_share
from cutaway.stream.head_weights import HeadWeights, head_weights
from cutaway.stream.targets import head_of, unembedding
from cutaway.stream.writers import norms_of, working

if TYPE_CHECKING:
    from cutaway.network import Network

_MOST_TOKENS = 8192


def token_embeddings(net: Network, ids: Tensor) -> Tensor:
    """What each token [n] puts into the stream before the first layer, its position left out: [n d]."""
    first = Site("resid_pre", 0)
    sites = [first, *([Site("pos_embed")] if net.has("pos_embed") else [])]
    found = []
    for start in range(0, len(ids), 2048):
        run = net.run(ids[start : start + 2048, None], keep=sites, logits=False, stop_at=first)
        value = working(run[first])[:, 0]
        found.append(value if len(sites) == 1 else value - working(run["pos_embed"])[:, 0].to(value))
    return torch.cat(found)


def token_readout(net: Network, ids: Tensor) -> Tensor:
    """What a vector of the last stream adds to the logit of each token [n], per unit of the final norm's scale: [n d].

    Where the final norm is no affine map, its weight is left out.
    """
    head = head_of(net)
    assert head.unembed is not None
    rows, _ = unembedding(net.model.get_submodule(head.unembed), ids, net.d_model or 0)
    rows = rows * head.before * head.scale * (1.0 if head.softcap is None else head.softcap)
    if head.norm is None:
        return rows
    try:
        norm = norms_of(net).get(head.norm)
    except NotFoldable:
        return rows
    eye = torch.eye(rows.shape[1]).to(rows)
    return rows @ norm.linear(eye).mT


@dataclass(frozen=True, eq=False)
class Copying:
    """Copying scores of heads: share of positive eigenvalues of the full OV circuit, from -1 to 1.

    null: [n heads] the same with tokens paired at random; low and high are its 1 % and 99 % quantiles over all heads.
    """

    heads: tuple[tuple[int, int], ...]
    scores: np.ndarray
    null: np.ndarray
    tokens: int

    def to_pandas(self) -> pd.DataFrame:
        """One row per head: score, chance, and whether it lies above the chance level's 99 % quantile."""
        high = np.quantile(self.null, 0.99)
        return pd.DataFrame(
            {
                "head": [f"{la}.{h}" for la, h in self.heads],
                "copying": self.scores,
                "chance": self.null.mean(0),
                "chance_high": high,
                "above": self.scores > high,
            }
        )


def copying(
    net: Network, weights: Sequence[HeadWeights] | None = None, *, n_null: int = 8, seed: int = 0
) -> Copying:
    """The copying score of every head against the same circuit with tokens paired at random.

    Of vocabularies beyond 8192 tokens a random 8192 stand for all. Raises `SiteUnavailable` where a layer's heads have no
    matrices or it is not known how the stream becomes logits.
    """
    weights = head_weights(net) if weights is None else list(weights)
    generator = torch.Generator().manual_seed(seed)
    size = min(net.d_vocab or 0, net.d_vocab_in or net.d_vocab or 0)
    ids = torch.randperm(size, generator=generator)[:_MOST_TOKENS]
    read, write = token_readout(net, ids).double().cpu(), token_embeddings(net, ids).double().cpu()
    scores = _scores(weights, read.mT @ write)
    null = [
        _scores(weights, read.mT @ write[torch.randperm(len(ids), generator=generator)])
        for _ in range(n_null)
    ]
    heads = tuple((w.layer, h) for w in weights for h in range(len(w.o)))
    return Copying(heads, scores, np.stack(null), len(ids))


def _scores(weights: Sequence[HeadWeights], back: Tensor) -> np.ndarray:
    """Copying scores through `back` [d d], which takes what is written to what is read by way of the vocabulary."""
    found = []
    for w in weights:
        small = w.o.double().cpu() @ back @ w.v.double().cpu()
        found.append(positive_share(torch.linalg.eigvals(small)).numpy())
    return np.concatenate(found)


def in_vocabulary(net: Network, vectors: Tensor, k: int = 8) -> list[list[tuple[str, float]]]:
    """The tokens whose logits vectors of the last stream [n d] raise most: k of (token, logits per unit of scale) each."""
    ids = torch.arange(net.d_vocab or 0)
    logits = vectors.float().cpu() @ token_readout(net, ids).float().cpu().mT
    logits = logits - logits.mean(-1, keepdim=True)
    best = logits.topk(min(k, logits.shape[-1]), -1)
    return [
        [(net.token_strings([int(i)])[0], float(v)) for i, v in zip(row, values, strict=True)]
        for row, values in zip(best.indices, best.values, strict=True)
    ]


def singular_directions(
    net: Network, layer: int, head: int, n: int = 3, k: int = 8, weights: Sequence[HeadWeights] | None = None
) -> pd.DataFrame:
    """The strongest directions of a head's OV circuit, read in the vocabulary.

    One row per direction and sign: the singular value, the tokens that are read most (by embedding) and those that are
    written most (by logit). Raises `BadAddress` for a head that is not there.
    """
    mine = next((w for w in (weights or head_weights(net, [layer])) if w.layer == layer), None)
    if mine is None or not 0 <= head < len(mine.o):
        raise BadAddress(
            f"There is no head {layer}.{head}.",
            f"Layer {layer} has {0 if mine is None else len(mine.o)} heads.",
        )
    u, s, v = mine.ov[head].svd()
    ids = torch.arange(min(net.d_vocab or 0, net.d_vocab_in or 0))
    reads = token_embeddings(net, ids).double().cpu() @ u[:, :n].cpu()
    reads = reads - reads.mean(0)
    rows = []
    for i in range(min(n, len(s))):
        for sign in (1, -1):
            top = (reads[:, i] * sign).topk(min(k, len(ids))).indices
            rows.append(
                {
                    "direction": i,
                    "sign": sign,
                    "singular_value": float(s[i]),
                    "reads": [net.token_strings([int(t)])[0] for t in ids[top]],
                    "writes": [t for t, _ in in_vocabulary(net, (sign * v[:, i])[None], k)[0]],
                }
            )
    return pd.DataFrame(rows)


def logit_space(net: Network) -> bool:
    """Whether it is known how the stream of a network becomes logits."""
    try:
        head_of(net)
    except SiteUnavailable:
        return False
    return True
