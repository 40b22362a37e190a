"""The weights of attention heads, read off the network itself: what each head reads into queries, keys and values.

Projections are fused, interleaved, low-rank, quantised or adapted, differently in every architecture. So they are not taken
apart by name: at the place that the attention reads (`attn_in`), the unit vectors are put in, one per row, and the queries,
keys and values that come out are the matrices' rows. One more row shows the bias, and another whether the map is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput, NotFoldable, SiteUnavailable
from cutaway.interventions import Apply
from cutaway.network.coefficients import like
from cutaway.network.indices import layer_numbers
from cutaway.network.memory import rows_at_once
from cutaway.network.norms import TOLERANCE, AffineNorm, affine_norm, common_weight, probe_norm
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.results import Work, brief, strict, working
from cutaway.stream.factored import Factored
from cutaway.stream.split import projection
from cutaway.stream.writers import agrees, precise, splits

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.anatomy import Layer, Sublayer


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
        _whole_stream(net, layer)
    answers = _answers(net, chosen, offset, working(work))
    return [_layer(net, layer, answers, offset) for layer in chosen]


def _whole_stream(net: Network, layer: int) -> None:
    """Refuse a layer whose attention reads a projection of the stream (a latent) instead of the stream behind a norm."""
    site = Site("attn_in", layer)
    width = net.run([[0]], keep=[site], logits=False)[site].shape[-1]
    if width != net.d_model:
        raise SiteUnavailable(
            f"The queries of layer {layer} are made from {width} numbers, not from the stream's {net.d_model}: its heads "
            "have no matrices from the stream.",
            "Use logit_attribution or attention patterns, which need none.",
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


def _answers(net: Network, layers: Sequence[int], offset: int, work: Work) -> dict[Site, Tensor]:
    """Queries (at position `offset`), keys and values (at position 0) of all layers for the unit vectors, nothing, and a
    random vector: [d + 2 h e]. What queries and keys were projected to, before a norm of their own, comes along.
    """
    width = net.d_model or 0
    generator = torch.Generator().manual_seed(0)
    inputs = torch.cat([torch.eye(width), torch.zeros(1, width), torch.randn(1, width, generator=generator)])
    sites = [Site(n, i) for i in layers for n in ("q", "k", "v")]
    kept: dict[Site, Site | str] = {**{site: site for site in sites}, **projections(net, layers)}
    answers: dict[Site, list[Tensor]] = {}
    batch = rows_at_once(net, offset + 1, work)
    for start in range(0, len(inputs), batch):
        work.step("reading weights", start, len(inputs))
        part = inputs[start : start + batch].to(net.device)
        edits = [_put(layer, part) for layer in layers]
        ids = torch.zeros(len(part), offset + 1, dtype=torch.long)
        run = net.run(
            ids, keep=list(kept.values()), edits=edits, logits=False, stop_at=Site("z", max(layers))
        )
        for site, place in kept.items():
            at = offset if site.name.startswith("q") else 0
            answers.setdefault(site, []).append(precise(run[place][:, at]))
    return {site: torch.cat(parts) for site, parts in answers.items()}


def _put(layer: int, part: Tensor) -> Apply:
    return Apply(f"attn_in.{layer}", lambda value: part[:, None].to(value).expand_as(value).contiguous())


def projections(net: Network, layers: Sequence[int]) -> dict[Site, str]:
    """Where queries and keys each come from one matrix of their own: the paths of these."""
    stack = net.anatomy.stack()
    assert stack is not None
    paths: dict[Site, str] = {}
    for layer in layers:
        attention = stack.layers[layer].attention()
        if attention is not None:
            each = {"q_raw": attention.queries, "k_raw": attention.keys}.items()
            paths |= {Site(name, layer): modules[0] for name, modules in each if len(modules) == 1}
    return paths


def _layer(net: Network, layer: int, answers: dict[Site, Tensor], offset: int) -> HeadWeights:
    stack = net.anatomy.stack()
    assert stack is not None
    sublayer = next(s for s in stack.layers[layer].sublayers if s.kind == "attention")
    assert sublayer.attention is not None
    loose, tolerance = set(), 10 * TOLERANCE.get(net.dtype, 1e-4)
    maps: dict[str, tuple[Tensor, Tensor]] = {}
    for name in ("q", "k", "v"):
        rows = answers[Site(name, layer)]
        read = _linear(rows, tolerance)
        if read is None and name != "v":
            read = _normed(rows, answers.get(Site(f"{name}_raw", layer)), name, tolerance)
            loose.add(name)
        if read is None:
            raise SiteUnavailable(
                f"{name}.{layer} is no linear function of what the attention reads, so its heads have no matrices.",
                "Use logit_attribution or attention patterns, which need none.",
            )
        maps[name] = read
    groups = maps["q"][0].shape[1] // maps["k"][0].shape[1]
    q, k, v = (
        m.repeat_interleave(groups if name != "q" else 1, 1).movedim(1, 0) for name, (m, _) in maps.items()
    )
    bias = {name: b.repeat_interleave(groups if name != "q" else 1, 0) for name, (_, b) in maps.items()}
    try:
        reader = reading_norm(net, layer)
    except NotFoldable:
        reader = None
    if reader is not None:
        q, k, v = (_through(reader, m) for m in (q, k, v))
    o = output_matrix(net, stack.layers[layer], sublayer)
    return HeadWeights(layer, q, k, v, o, bias["q"], bias["k"], bias["v"], reader, offset, frozenset(loose))


def _through(reader: AffineNorm, matrix: Tensor) -> Tensor:
    """A matrix [h d e] that reads behind a norm as one that reads before it, at scale one."""
    return reader.linear(torch.eye(matrix.shape[1]).to(matrix)) @ matrix


def output_matrix(net: Network, layer: Layer, sublayer: Sublayer) -> Tensor:
    """From z to the stream: [h e d], behind the weight of a post-norm (at scale one) and the factor of the write.

    Raises `SiteUnavailable` where the heads cannot be told apart.
    """
    attention = sublayer.attention
    if attention is None or attention.output is None or not splits(net, layer, sublayer):
        raise SiteUnavailable(
            f"The heads of layer {layer.index} cannot be told apart.",
            net.refusal(Site("head_out", layer.index)) or "",
        )
    weight, _ = projection(net.modules[attention.output])
    if sublayer.norm_after is not None:
        weight = affine_norm(net, sublayer.norm_after).linear(weight)
    return (weight * like(sublayer.factor, weight)).unflatten(0, (attention.heads, -1))


def _linear(rows: Tensor, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """Matrix [d h e] and bias [h e] from answers to the unit vectors, nothing and a random vector, if they fit together."""
    width = len(rows) - 2
    bias = rows[width]
    matrix = rows[:width] - bias
    generator = torch.Generator().manual_seed(0)
    test = torch.randn(1, width, generator=generator).to(matrix)
    answer = torch.einsum("nd,dhe->he", test, matrix) + bias
    return (matrix, bias) if agrees(answer, rows[-1], tolerance) else None


def _normed(rows: Tensor, raw: Tensor | None, name: str, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """The same where queries or keys pass a norm of their own: the matrix before it times the norm's weight.

    The answers must follow from the projection's, head by head, by one weight per channel and one scale per head and row.
    """
    if raw is None or raw.shape[-1] != rows.shape[1] * rows.shape[2]:
        return None
    inner = raw.unflatten(-1, rows.shape[1:])
    read = _linear(inner, tolerance)
    if read is None or float(read[1].abs().max()) > 1e-6:
        return None
    weights = []
    for head in range(rows.shape[1]):
        first, second = inner[:, head], rows[:, head]
        live = first.abs().amax(-1) > 1e-9
        weight = common_weight(first[live], second[live])
        form = AffineNorm(name, False, weight, torch.zeros_like(weight), 1e-2)
        try:
            form.at(first[live], second[live])
        except NotFoldable:
            return None
        weights.append(weight)
    matrix = read[0] * torch.stack(weights)
    return matrix, torch.zeros_like(read[1])
