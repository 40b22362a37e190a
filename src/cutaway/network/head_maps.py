"""The matrices of attention heads, read off the network itself: what each head makes of what its attention reads.

Projections are fused, interleaved, low-rank, quantised or adapted, differently in every architecture. So they are not taken
apart by name: at the place that the attention reads (`attn_in`), the unit vectors are put in, one per row, and the queries,
keys and values that come out are the matrices' rows. One more row shows the bias, and another whether the map is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import NotFoldable, SiteUnavailable
from cutaway.network.anatomy import Layer, Sublayer
from cutaway.network.coefficients import like
from cutaway.network.edits import Bound, Here
from cutaway.network.execution.heads import projection
from cutaway.network.face import Face
from cutaway.network.memory import rows_at_once
from cutaway.network.norms import TOLERANCE, AffineNorm, affine_norm, common_weight
from cutaway.network.precision import agrees, precise
from cutaway.network.products import exactly
from cutaway.network.sites import Site
from cutaway.results.work import Work


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """What the heads of one layer make of what their attention reads, d wide, as matrices to the head's width e.

    Attributes:
        layer: from 0.
        q: [h d e].
        k, v: [kv d e], one for each key and value head.
        q_bias: [h e].
        k_bias, v_bias: [kv e].
        up_to_scale: which of q, k, v are known up to a positive factor per position only, because a norm stands between.
    """

    layer: int
    q: Tensor
    k: Tensor
    v: Tensor
    q_bias: Tensor
    k_bias: Tensor
    v_bias: Tensor
    up_to_scale: frozenset[str]


@dataclass(frozen=True, eq=False)
class _Put:
    """An edit: rows of vectors [n d] in the place of a site's value [n p d]."""

    site: Site
    rows: Tensor

    def bind(self, network: object) -> list[Bound]:  # noqa: ARG002
        def put(value: Tensor, here: Here) -> Tensor:  # noqa: ARG001
            return self.rows[:, None].to(value).expand_as(value).contiguous()

        return [(self.site, put)]


def head_maps(net: Face, layers: Sequence[int], offset: int, work: Work) -> list[HeadMaps]:
    """The matrices of every head of some layers; offset: how many positions the query stands behind the key.

    Raises `SiteUnavailable` where a layer's heads have none, with the reason.
    """
    for layer in layers:
        _whole_stream(net, layer)
    with exactly(net.model):  # what is read off is the weights, whose own type is finer
        answers = _answers(net, layers, offset, work)
    return [_maps(net, layer, answers) for layer in layers]


def _whole_stream(net: Face, layer: int) -> None:
    """Refuse a layer whose attention reads a projection of the stream (a latent) instead of the stream behind a norm."""
    site = Site("attn_in", layer)
    width = net.run([[0]], keep=[site], logits=False)[site].shape[-1]
    if width != net.d_model:
        raise SiteUnavailable(
            f"The queries of layer {layer} are made from {width} numbers, not from the stream's {net.d_model}: its heads "
            "have no matrices from the stream.",
            "Use logit_attribution or attention patterns, which need none.",
        )


def _answers(net: Face, layers: Sequence[int], offset: int, work: Work) -> dict[Site, Tensor]:
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
        edits = [_Put(Site("attn_in", layer), part) for layer in layers]
        ids = torch.zeros(len(part), offset + 1, dtype=torch.long)
        run = net.run(
            ids, keep=list(kept.values()), edits=edits, logits=False, stop_at=Site("z", max(layers))
        )
        for site, place in kept.items():
            at = offset if site.name.startswith("q") else 0
            answers.setdefault(site, []).append(precise(run[place][:, at]))
    return {site: torch.cat(parts) for site, parts in answers.items()}


def projections(net: Face, layers: Sequence[int]) -> dict[Site, str]:
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


def _maps(net: Face, layer: int, answers: dict[Site, Tensor]) -> HeadMaps:
    loose, tolerance = set(), 10 * TOLERANCE.get(net.dtype, 1e-4)
    maps: dict[str, tuple[Tensor, Tensor]] = {}
    for name in ("q", "k", "v"):
        rows = answers[Site(name, layer)]
        read = linear_map(rows, tolerance)
        if read is None and name != "v":
            read = _normed(rows, answers.get(Site(f"{name}_raw", layer)), name, tolerance)
            loose.add(name)
        if read is None:
            raise SiteUnavailable(
                f"{name}.{layer} is no linear function of what the attention reads, so its heads have no matrices.",
                "Use logit_attribution or attention patterns, which need none.",
            )
        maps[name] = read
    q, k, v = (m.movedim(1, 0) for m, _ in maps.values())
    q_bias, k_bias, v_bias = (bias for _, bias in maps.values())
    return HeadMaps(layer, q, k, v, q_bias, k_bias, v_bias, frozenset(loose))


def linear_map(rows: Tensor, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """Matrix [d ...] and bias [...] from answers to the unit vectors, nothing and a random vector, if they fit together."""
    width = len(rows) - 2
    bias = rows[width]
    matrix = rows[:width] - bias
    generator = torch.Generator().manual_seed(0)
    test = torch.randn(1, width, generator=generator).to(matrix)
    answer = torch.einsum("nd,d...->n...", test, matrix)[0] + bias
    return (matrix, bias) if agrees(answer, rows[-1], tolerance) else None


def _normed(rows: Tensor, raw: Tensor | None, name: str, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """The same where queries or keys pass a norm of their own: the matrix before it times the norm's weight.

    The answers must follow from the projection's, head by head, by one weight per channel and one scale per head and row.
    """
    if raw is None or raw.shape[-1] != rows.shape[1] * rows.shape[2]:
        return None
    inner = raw.unflatten(-1, rows.shape[1:])
    read = linear_map(inner, tolerance)
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


def told_apart(net: Face, layer: Layer, sublayer: Sublayer) -> bool:
    """Whether an attention's write can be told apart by heads."""
    prefix = {"attention": "", "cross_attention": "cross_"}.get(sublayer.kind)
    alone = sum(s.kind == sublayer.kind for s in layer.sublayers) == 1
    return prefix is not None and alone and net.has(Site(f"{prefix}head_out", layer.index))


def output_matrix(net: Face, layer: Layer, sublayer: Sublayer) -> Tensor:
    """From z to the stream: [h e d], behind the weight of a post-norm (at scale one) and the factor of the write.

    Raises `SiteUnavailable` where the heads cannot be told apart.
    """
    attention = sublayer.attention
    if attention is None or attention.output is None or not told_apart(net, layer, sublayer):
        raise SiteUnavailable(
            f"The heads of layer {layer.index} cannot be told apart.",
            net.refusal(Site("head_out", layer.index)) or "",
        )
    weight, _ = projection(net.modules[attention.output])
    if sublayer.norm_after is not None:
        weight = affine_norm(net, sublayer.norm_after).linear(weight)
    return (weight * like(sublayer.factor, weight)).unflatten(0, (attention.heads, -1))
