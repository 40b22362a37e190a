"""What weights alone say of a head: which tokens and places its queries match, what it writes for what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.stream.copying import token_embeddings, token_readout
from cutaway.stream.head_weights import HeadWeights, head_weights

if TYPE_CHECKING:
    from cutaway.network import Network

#: Tokens that stand for the vocabulary, distances that are compared, rows of tokens at each, and random directions.
_TOKENS, _DISTANCES, _ROWS, _DIRECTIONS = 256, 5, 200, 400


@dataclass(eq=False)
class RoleWeights:
    """The matrices of heads, read when they are first asked for.

    Attributes:
        net: the network.
        ids: tokens [t] that are tried.
        seed: of what is drawn.
        work: hears of it.
        wanted: layers that are read together.
    """

    net: Network
    ids: Tensor
    seed: int
    work: Work
    _layers: dict[tuple[int, int], HeadWeights] = field(default_factory=dict)
    _embedded: Tensor | None = None
    wanted: tuple[int, ...] = ()

    @classmethod
    def of(cls, net: Network, prompts: Tensor, layers: Sequence[int], seed: int, work: Work) -> RoleWeights:
        """Weights tried on the tokens of these prompts and on others drawn at random."""
        size = min(net.d_vocab or 0, net.d_vocab_in or net.d_vocab or 0)
        drawn = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        known = torch.unique(prompts[prompts >= 0])
        ids = torch.unique(torch.cat([known, drawn]), sorted=False) if len(known) == 0 else None
        if ids is None:
            rest = drawn[~torch.isin(drawn, known)]
            ids = torch.cat([known, rest[: max(0, _TOKENS - len(known))]])[:_TOKENS]
        return cls(net, ids, seed, work, wanted=tuple(layers))

    def layer(self, layer: int, offset: int = 0) -> HeadWeights:
        """The heads of a layer; all layers that are wanted are read together."""
        if (layer, offset) not in self._layers:
            layers = self.wanted if layer in self.wanted else (*self.wanted, layer)
            for found in head_weights(self.net, layers=list(layers), offset=offset, work=self.work):
                self._layers[found.layer, offset] = found
        return self._layers[layer, offset]

    @property
    def embedded(self) -> Tensor:
        """[t d] what each token puts into the stream."""
        if self._embedded is None:
            self._embedded = token_embeddings(self.net, self.ids, work=self.work).float().cpu()
        return self._embedded

    def same_token(self, head: Part) -> np.ndarray:
        """[t] above which share of other tokens' keys a token's query puts its own."""
        return _rank_of_own(self._scores(head, self.embedded, self.embedded))

    def behind_same(self, head: Part, earlier: Sequence[Part]) -> tuple[np.ndarray, Part | None]:
        """[t] the same where keys are read by way of an earlier head, and of these heads the one that does best."""
        best: tuple[np.ndarray, Part | None] = (np.full(len(self.ids), 0.5), None)
        for other in earlier:
            moved = self.ov(other, self.embedded)
            found = _rank_of_own(self._scores(head, self.embedded, moved))
            if found.mean() > best[0].mean():
                best = (found, other)
        return best

    def place_before(self, head: Part) -> np.ndarray:
        """[rows] above which share of other distances random tokens are scored at a distance of one."""
        rng = torch.Generator().manual_seed(self.seed + 1)
        length = _DISTANCES + 3
        if self.net.n_ctx is not None:
            length = min(length, self.net.n_ctx)
        at = torch.randint(len(self.ids), (_ROWS, length), generator=rng)
        stream = self.embedded[at] + self._places(length)
        scores = []
        for distance in range(min(_DISTANCES, length)):
            w = self.layer(head.layer or 0, distance if self.rotary else 0)
            i = head.index or 0
            q = _scaled(w, stream[:, -1]) @ w.q[i].float().cpu() + w.q_bias[i].float().cpu()
            k = _scaled(w, stream[:, -1 - distance]) @ w.k[i].float().cpu() + w.k_bias[i].float().cpu()
            scores.append((q * k).sum(-1))
        table = torch.stack(scores, 1)
        own = table[:, 1:2]
        others = torch.cat([table[:, :1], table[:, 2:]], 1)
        return _share_below(own, others)

    @property
    def rotary(self) -> bool:
        """Are queries and keys turned by their positions?"""
        return not self.net.has("pos_embed")

    def _places(self, length: int) -> Tensor:
        if not self.net.has("pos_embed"):
            return torch.zeros(length, 1)
        first = self.ids[:1].expand(1, length)
        run = self.net.run(first, keep=["pos_embed"], logits=False, stop_at=Site("resid_pre", 0))
        value = run["pos_embed"].float().cpu()
        return value.reshape(-1, value.shape[-1])[-length:]

    def _scores(self, head: Part, queries: Tensor, keys: Tensor) -> Tensor:
        """[t t] scores of queries (rows) and keys, both given as streams."""
        w, i = self.layer(head.layer or 0), head.index or 0
        q = _scaled(w, queries) @ w.q[i].float().cpu() + w.q_bias[i].float().cpu()
        return q @ (_scaled(w, keys) @ w.k[i].float().cpu()).mT

    def ov(self, head: Part, stream: Tensor) -> Tensor:
        """What a head adds to the stream where it looks at these streams [... d]."""
        w, i = self.layer(head.layer or 0), head.index or 0
        return _scaled(w, stream) @ w.v[i].float().cpu() @ w.o[i].float().cpu()

    def written(self, head: Part) -> Tensor:
        """[e d] how a head writes what it gives."""
        return self.layer(head.layer or 0).o[head.index or 0].float().cpu()

    def says(self, head: Part, tokens: Tensor, choices: Tensor) -> Tensor:
        """[n c] what a head adds to the logit of each choice where it looks at these tokens [n], at scale one."""
        every, at = torch.unique(tokens, return_inverse=True)
        stream = token_embeddings(self.net, every, work=self.work).float().cpu()
        return (self.ov(head, stream) @ token_readout(self.net, choices).float().cpu().mT)[at]

    def reads(self, head: Part, changes: Tensor) -> np.ndarray:
        """[n] of random directions, the share that a head reads less than each of these changes [n d] of the stream."""
        w, i = self.layer(head.layer or 0), head.index or 0
        ov = (w.v[i] @ w.o[i]).float().cpu()
        rng = torch.Generator().manual_seed(self.seed + 2)
        drawn = torch.randn(_DIRECTIONS, ov.shape[0], generator=rng)
        null = (drawn @ ov).norm(dim=-1) / drawn.norm(dim=-1)
        gain = (changes @ ov).norm(dim=-1) / changes.norm(dim=-1).clamp(min=1e-12)
        return (gain[:, None] > null[None]).double().mean(-1).numpy()

    def alike(self, one: Part, other: Part) -> float:
        """How far two heads read, look by, or write the same directions, from 0 to 1: the largest of the three."""
        a, b = self.layer(one.layer or 0), self.layer(other.layer or 0)
        i, j = one.index or 0, other.index or 0
        pairs = ((a.o[i].mT, b.o[j].mT), (a.v[i], b.v[j]), (a.k[i], b.k[j]))
        return max(_overlap(x.float().cpu(), y.float().cpu()) for x, y in pairs)


def ranks(logits: Tensor, wanted: Tensor) -> np.ndarray:
    """[n] above which share of the other choices the wanted one lies, of logits [n c].

    >>> ranks(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([2])).tolist()
    [1.0]
    """
    own = logits.gather(1, wanted[:, None])
    keep = torch.ones_like(logits, dtype=torch.bool).scatter(1, wanted[:, None], False)
    return _share_below(own, logits[keep].reshape(len(logits), -1))


def _share_below(own: Tensor, others: Tensor) -> np.ndarray:
    """[n] the share of others [n k] that lie below their own [n 1]; ties count half."""
    below, same = (others < own).double(), (others == own).double()
    return (below + same / 2).mean(-1).numpy()


def _rank_of_own(scores: Tensor) -> np.ndarray:
    """[t] above which share of the rest of its row each entry of the diagonal lies."""
    return ranks(scores, torch.arange(len(scores)))


def _scaled(weights: HeadWeights, stream: Tensor) -> Tensor:
    """Streams [... d] at the size that a norm gives them."""
    if weights.reader is None:
        return stream
    centred = stream - stream.mean(-1, keepdim=True) if weights.reader.centred else stream
    return stream / centred.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)


def _overlap(one: Tensor, other: Tensor) -> float:
    """How far the columns of two matrices [d e] span the same directions, weighted by their strength: 0 to 1."""
    product = one.mT @ other
    top = product.square().sum()
    return float(top / ((one.mT @ one).norm() * (other.mT @ other).norm()).clamp(min=1e-30))
