"""The weights of attention heads between the stream and queries, keys, values and back: what `network.head_maps` reads off
the network, behind the norm that the stream is read through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput, NotFoldable, SiteUnavailable
from cutaway.interventions import Apply
from cutaway.network.factored import Factored
from cutaway.network.head_maps import HeadMaps, head_maps, output_matrix
from cutaway.network.indices import layer_numbers
from cutaway.network.norms import AffineNorm, probe_norm
from cutaway.network.parts import Part
from cutaway.network.pricing import until
from cutaway.network.sites import Site
from cutaway.results import Work, brief, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """The heads of one layer, as matrices between the stream's width d and the head's e.

    They are the network's own, read anew in seconds, so that they are a means and not a result to be saved.

    Attributes:
        layer: from 0.
        q, k, v: [h d e], from the stream (behind the centring and weight of the norm it is read through, where `reader`
            is affine) to query, key, value; key and value heads are repeated for the query heads that share them.
        o: [h e d], from z to the stream (behind a post-norm's weight and the factor of the write).
        q_bias, k_bias, v_bias: [h e].
        reader: the norm that the stream is read through; None where it is not affine.
        offset: how many positions the query stands behind the key (rotary embeddings make `qk` depend on it).
        up_to_scale: which of q, k, v are known up to a positive factor per position only, because a norm stands between.
    """

    layer: int
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    q_bias: Tensor
    k_bias: Tensor
    v_bias: Tensor
    reader: AffineNorm | None
    offset: int = 0
    up_to_scale: frozenset[str] = frozenset()

    __repr__ = brief

    @property
    def qk(self) -> Factored:
        """Where each head looks: W_Q W_K^T [h d d], factored; x_dest qk x_src is the score but for scale and biases."""
        return Factored(self.q, self.k.mT)

    @property
    def ov(self) -> Factored:
        """What each head moves: W_V W_O [h d d], factored; a source x_src adds x_src ov to the stream."""
        return Factored(self.v, self.o)


def heads_of(weights: Sequence[HeadWeights]) -> tuple[Part, ...]:
    """The heads whose weights these are, in order."""
    return tuple(Part("head", w.layer, h) for w in weights for h in range(len(w.o)))


def head_named(net: Network, head: Part | str) -> Part:
    """The head of this network that a part, a name (`a2.h0`) or words (`head 2.0`) mean.

    Raises `BadFormat` where they name no part, `BadAddress` where it is no head or the network does not have it.
    """
    part = Part.of(head)
    if part.kind != "head" or part.place:
        raise BadAddress(f"{part.words} is no attention head of the main stack.", "Write a2.h0 or head 2.0.")
    count = net.heads(part.layer or 0) or 0
    if not 0 <= (part.index or 0) < count:
        raise BadAddress(f"There is no {part.words}.", f"Layer {part.layer} has {count} heads.")
    return part


@strict
def head_weights(
    net: Network, *, layers: Sequence[int] | None = None, offset: int = 0, work: Work | None = None
) -> list[HeadWeights]:
    """The weights of every head of some layers (default: all whose heads can be told apart).

    offset: the query's distance behind the key, for networks with rotary embeddings.

    Raises `SiteUnavailable` where a layer's heads cannot be told apart or its reading is not linear, with the reason.
    """
    able = net.layers_with("head_out")
    chosen = able if layers is None else list(dict.fromkeys(layer_numbers(layers, net.n_layers)))
    if not chosen:
        raise SiteUnavailable(
            "No layer has heads that can be told apart.",
            net.refusal("head_out") or "Use read_stream(by='sublayer').",
        )
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < (net.n_ctx or 10**9):
        raise BadInput(f"offset={offset!r} is no distance between positions.", "Use 0, 1, 2.")
    for layer in chosen:
        for name in ("attn_in", "q", "k", "v", "head_out"):
            net.resolve(Site(name, layer))
    return [_layer(net, maps, offset) for maps in head_maps(net, chosen, offset, working(work))]


#: Rows on which a norm is tried, and what its layer reads.
_TRIED = 14.0


def weights_price(net: Network) -> float:
    """What reading the weights of all heads takes: the unit vectors of the stream go through the layers once, and each norm
    is tried on a few vectors.
    """
    layers = net.layers_with("head_out")
    return (
        ((net.d_model or 0) + 2.0 + _TRIED * len(layers)) * until(net, [Site("z", max(layers))])
        if layers
        else 0.0
    )


def reading_norm(net: Network, layer: int, site: str = "attn_in") -> AffineNorm:
    """The affine form of what stands between the stream and what a sublayer reads (`attn_in` or `mlp_in`).

    Raises `NotFoldable` where it has none.
    """
    key = f"{site}.{layer}"
    source = "resid_mid" if site == "mlp_in" and net.has(Site("resid_mid", layer)) else "resid_pre"
    like = torch.empty(0, dtype=net.dtype, device=net.device)
    reader = _reader(net, Site(source, layer), Site(site, layer))
    return net.fact(("reading norm", key), lambda: probe_norm(reader, net.d_model or 0, key, like))


def _reader(net: Network, source: Site, site: Site) -> Callable[[Tensor], Tensor]:
    def answer(x: Tensor) -> Tensor:
        ids = torch.zeros(x.shape[1], 1, dtype=torch.long)
        edit = Apply(str(source), lambda value: x[0][:, None].to(value))
        return net.run(ids, keep=[site], edits=[edit], logits=False, stop_at=site)[site][:, 0][None]

    return answer


def _layer(net: Network, maps: HeadMaps, offset: int) -> HeadWeights:
    stack = net.anatomy.stack()
    assert stack is not None
    layer = stack.layers[maps.layer]
    sublayer = next(s for s in layer.sublayers if s.kind == "attention")
    groups = maps.q.shape[0] // maps.k.shape[0]
    q, q_bias = maps.q, maps.q_bias
    k, v, k_bias, v_bias = (
        m.repeat_interleave(groups, 0) for m in (maps.k, maps.v, maps.k_bias, maps.v_bias)
    )
    try:
        reader = reading_norm(net, maps.layer)
    except NotFoldable:
        reader = None
    if reader is not None:
        q, k, v = (_through(reader, m) for m in (q, k, v))
    o = output_matrix(net, layer, sublayer)
    return HeadWeights(maps.layer, q, k, v, o, q_bias, k_bias, v_bias, reader, offset, maps.up_to_scale)


def _through(reader: AffineNorm, matrix: Tensor) -> Tensor:
    """A matrix [h d e] that reads behind a norm as one that reads before it, at scale one."""
    return reader.linear(torch.eye(matrix.shape[1]).to(matrix)) @ matrix
