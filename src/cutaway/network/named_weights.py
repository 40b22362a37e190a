"""Weights by the names that the field gives them: `W_E`, `W_Q`, `W_OV`, ..., in its shapes, on any network.

They are the network's own, as it holds them: `W_Q` reads what the attention reads, which is the stream behind its norm, and
`W_U` what the final norm gives. Nothing is folded into them; `cutaway.stream.head_weights` gives the heads' matrices behind
the norm that the stream is read through. Each comes with what vouches for it, and is refused where nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput, NotFound, SiteUnavailable, did_you_mean
from cutaway.network.anatomy import Attention, Layer, Mlp, Sublayer
from cutaway.network.execution.heads import output_weight, projection
from cutaway.network.face import Face
from cutaway.network.factored import Factored
from cutaway.network.head_maps import HeadMaps, head_maps, told_apart
from cutaway.network.indices import indices, integer
from cutaway.network.precision import agrees, precise
from cutaway.network.run import Run
from cutaway.network.sites import Site
from cutaway.results import Work, strict

#: Largest difference, as a share of the largest value, at which a module's output counts as a site's.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class NamedWeight:
    """One weight of a network by name.

    Attributes:
        name: as it was asked for.
        value: the matrix, laid out as `axes` say; a product such as `W_OV` as two factors, multiplied out by `.full()`.
        axes: names of the dimensions.
        says: what it is, in a sentence.
        checks: what vouches for it: the certificate's identities, and what was tried when it was read.

    >>> import cutaway
    >>> cutaway.open("zoo:induction-gpt2").weights("W_Q")
    NamedWeight(W_Q [layer 2, head 4, d_model 64, d_head 16]: stream behind the attention's norm -> queries)
    """

    name: str
    value: Tensor | Factored
    axes: tuple[str, ...]
    says: str
    checks: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix, multiplied out."""
        return tuple(self.value.shape)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{axis} {size}" for axis, size in zip(self.axes, self.shape, strict=True))
        return f"NamedWeight({self.name} [{sizes}]: {self.says})"

    def __str__(self) -> str:
        return "\n".join([repr(self), *(f"  {line}" for line in self.checks)])


@dataclass(frozen=True)
class WeightKind:
    """One row of the table of weights.

    Attributes:
        axes: of the weight of one layer.
        says: what it takes to what.
        of: "" for the whole network, "head", "out" (of attention) or "mlp" for each layer.
        check: the identity of the certificate that vouches for it.
    """

    axes: tuple[str, ...]
    says: str
    of: str
    check: str = ""


_QKV, _BIAS = ("head", "d_model", "d_head"), ("head", "d_head")
#: Every weight that has a name.
WEIGHTS: dict[str, WeightKind] = {
    "W_E": WeightKind(("d_vocab", "d_model"), "token -> what it puts into the stream", ""),
    "W_pos": WeightKind(("n_ctx", "d_model"), "position -> what it puts into the stream", ""),
    "W_U": WeightKind(("d_model", "d_vocab"), "output of the final norm -> logits", "", "unembed(final_norm) = logits"),
    "b_U": WeightKind(("d_vocab",), "added to the logits", "", "unembed(final_norm) = logits"),
    "W_Q": WeightKind(_QKV, "stream behind the attention's norm -> queries", "head", "q.k -> scores"),
    "W_K": WeightKind(_QKV, "stream behind the attention's norm -> keys", "head", "q.k -> scores"),
    "W_V": WeightKind(_QKV, "stream behind the attention's norm -> values", "head", "pattern @ v = z"),
    "b_Q": WeightKind(_BIAS, "added to the queries", "head", "q.k -> scores"),
    "b_K": WeightKind(_BIAS, "added to the keys", "head", "q.k -> scores"),
    "b_V": WeightKind(_BIAS, "added to the values", "head", "pattern @ v = z"),
    "W_QK": WeightKind(("head", "d_model", "d_model"), "W_Q W_K^T: where a head looks, but for scale and biases", "head",
        "q.k -> scores"),
    "W_OV": WeightKind(("head", "d_model", "d_model"), "W_V W_O: what a head moves", "head", "z @ W_O = attn_out"),
    "W_O": WeightKind(("head", "d_head", "d_model"), "z -> output of the attention", "out", "z @ W_O = attn_out"),
    "b_O": WeightKind(("d_model",), "added to the output of the attention", "out", "z @ W_O = attn_out"),
    "W_in": WeightKind(("d_model", "d_mlp"), "stream behind the MLP's norm -> hidden layer", "mlp"),
    "b_in": WeightKind(("d_mlp",), "added to W_in's output", "mlp"),
    "W_gate": WeightKind(("d_model", "d_mlp"), "stream behind the MLP's norm -> gate, which the nonlinearity takes", "mlp"),
    "b_gate": WeightKind(("d_mlp",), "added to W_gate's output", "mlp"),
    "W_out": WeightKind(("d_mlp", "d_model"), "neurons -> output of the MLP", "mlp", "down(mlp_act) = mlp_out"),
    "b_out": WeightKind(("d_model",), "added to the output of the MLP", "mlp", "down(mlp_act) = mlp_out"),
}  # fmt: skip

#: A value, and what was found out about it when it was read.
_Read = tuple[Tensor, tuple[str, ...]]


@strict
def named_weight(
    net: Face, name: str, *, layer: int | None = None, head: int | None = None, offset: int | None = None
) -> NamedWeight:
    """A weight by the name that the field gives it, in its shape, with what vouches for it.

    `W_E` [d_vocab d_model], `W_pos`, `W_U` [d_model d_vocab], `b_U`; `W_Q`, `W_K`, `W_V` [head d_model d_head], `W_O`
    [head d_head d_model], `b_Q`, `b_K`, `b_V`, `b_O`; `W_QK` and `W_OV` [head d_model d_model], as factors; `W_in` and
    `W_gate` [d_model d_mlp], `W_out` [d_mlp d_model], `b_in`, `b_gate`, `b_out`. Nothing is folded into them.

    Args:
        name: of the weight.
        layer: the layer; without one, all layers are stacked in front.
        head: the query head.
        offset: for `W_QK` (and `W_Q`) under rotary embeddings: how far the query stands behind the key.

    Raises `NotFound` for another name, with the nearest ones, `BadAddress` for a layer or head that is not there, and
    `SiteUnavailable` where the network has no such matrix, with the reason.
    """
    if name not in WEIGHTS:
        raise NotFound(f"There is no weight {name!r}.", did_you_mean(name, WEIGHTS, 3))
    kind = WEIGHTS[name]
    if offset is not None and (isinstance(offset, bool) or not isinstance(offset, int) or offset < 0):
        raise BadInput(f"offset={offset!r} is no distance between positions.", "Use 0, 1, 2.")
    if not kind.of:
        if layer is not None or head is not None:
            raise BadAddress(
                f"{name} belongs to the whole network, not to a layer.", "Leave layer and head out."
            )
        value, notes = _WHOLE[name](net)
        return NamedWeight(name, value, kind.axes, kind.says, (*_vouched(net, kind), *notes))
    if head is not None and kind.axes[0] != "head":
        raise BadAddress(f"{name} has no heads.", "Leave head out.")
    chosen = (
        _layers(net, kind, name) if layer is None else indices(integer(layer, "layer"), net.n_layers, "layer")
    )
    values, notes = _of_layers(net, name, kind, chosen, offset)
    if head is not None:
        count = len(values[0].left) if isinstance(values[0], Factored) else len(values[0])
        index = indices(integer(head, "head"), count, "head", f"layer {chosen[0]}")[0]
        values = [value[index] for value in values]
    axes = kind.axes if head is None else kind.axes[1:]
    one = layer is not None
    value = values[0] if one else _stacked(values, name)
    return NamedWeight(
        name, value, axes if one else ("layer", *axes), kind.says, (*_vouched(net, kind), *notes)
    )


def _vouched(net: Face, kind: WeightKind) -> tuple[str, ...]:
    """What the certificate says for it; `SiteUnavailable` where its identity was tried and does not hold."""
    if not kind.check:
        return ()
    check = net.certificate.check(kind.check)
    if check is None:
        return (
            "The network was not certified."
            if not net.certificate.made
            else f"{kind.check} was not tried here.",
        )
    if not check.holds and len(check.failures) >= check.places:
        raise SiteUnavailable(
            f"{check.name} does not hold on this network: relative error {check.error:.2g}.",
            "Read activations instead: net.run(text, keep=...).",
        )
    return (f"{check.name}: relative error {check.error:.1e}, tolerance {check.tolerance:.1e}",)


def _stacked(values: Sequence[Tensor | Factored], name: str) -> Tensor | Factored:
    """The values of all layers in one."""
    if len({tuple(value.shape) for value in values}) > 1:
        raise BadAddress(f"{name} has another shape in each layer.", "Name one: layer=0.")
    tensors = [value for value in values if isinstance(value, Tensor)]
    if tensors:
        return torch.stack(tensors)
    products = [value for value in values if isinstance(value, Factored)]
    return Factored(torch.stack([p.left for p in products]), torch.stack([p.right for p in products]))


def _layers(net: Face, kind: WeightKind, name: str) -> list[int]:
    site = {"head": "q", "out": "head_out", "mlp": "mlp_act"}[kind.of]
    layers = net.layers_with(site)
    if not layers:
        raise SiteUnavailable(
            f"No layer of this network has a {name}.",
            net.refusal(site) or "See the sites that there are: net.sites().",
        )
    return layers


def _of_layers(
    net: Face, name: str, kind: WeightKind, layers: Sequence[int], offset: int | None
) -> tuple[list[Tensor | Factored], tuple[str, ...]]:
    """The values of these layers, and what was found out while they were read."""
    if kind.of == "head":
        return _of_heads(net, name, layers, offset)
    if kind.of == "mlp" and name not in ("W_out", "b_out"):
        return _into_mlps(net, name, layers)
    read = _output if kind.of == "out" else _out_of_mlp
    return [read(net, name, layer) for layer in layers], ()


def _sublayer(net: Face, layer: int, kind: str) -> tuple[Layer, Sublayer]:
    stack = net.anatomy.stack()
    place = None if stack is None else stack.layers[layer]
    found = [s for s in (place.sublayers if place else ()) if s.kind == kind]
    if place is None or len(found) != 1:
        raise SiteUnavailable(
            f"Layer {layer} has {len(found) or 'no'} sublayers of the kind {kind}.",
            "Name a layer that has one.",
        )
    return place, found[0]


def _attention(net: Face, layer: int) -> Attention:
    _, sublayer = _sublayer(net, layer, "attention")
    if sublayer.attention is None:
        raise SiteUnavailable(f"The attention of layer {layer} was not told apart.", "Name another layer.")
    return sublayer.attention


def _of_heads(
    net: Face, name: str, layers: Sequence[int], offset: int | None
) -> tuple[list[Tensor | Factored], tuple[str, ...]]:
    turned = any(_attention(net, layer).rotary for layer in layers)
    if name == "W_QK" and turned and offset is None:
        raise SiteUnavailable(
            "There is no W_QK without a distance here: rotary embeddings turn queries and keys by their positions, so where "
            "a head looks depends on how far behind the query the key stands.",
            'Name the distance: net.weights("W_QK", offset=1).',
        )
    for layer in layers:
        for site in ("attn_in", "q", "k", "v"):
            net.resolve(Site(site, layer))
    behind = (offset or 0) if name in ("W_QK", "W_Q", "b_Q") else 0
    maps = net.fact(("head maps", tuple(layers), behind), lambda: head_maps(net, layers, behind, Work()))
    shared = sorted({m.q.shape[0] // m.k.shape[0] for m in maps} - {1})
    notes = [
        "q, k and v are linear in what the attention reads: tried on a random vector when they were read"
    ]
    if name not in ("W_Q", "b_Q"):
        notes += [
            f"each key and value head serves {n} query heads, and stands here once for each" for n in shared
        ]
    part = name[-1].lower()
    if turned and part in "qk":
        notes.append(f"behind the rotary embedding, at position {behind} for queries and 0 for keys")
    if any(
        {"W_QK": "q" in m.up_to_scale or "k" in m.up_to_scale}.get(name, part in m.up_to_scale) for m in maps
    ):
        notes.append(
            "known up to a positive factor at each position, because a norm of queries or keys stands between"
        )
    return [_part(net, name, m) for m in maps], tuple(notes)


def _part(net: Face, name: str, maps: HeadMaps) -> Tensor | Factored:
    """One weight of the heads of a layer, keys and values once for each query head."""
    times = maps.q.shape[0] // maps.k.shape[0]
    if name == "W_QK":
        return Factored(maps.q, maps.k.repeat_interleave(times, 0).mT)
    if name == "W_OV":
        return Factored(maps.v.repeat_interleave(times, 0), _output(net, "W_O", maps.layer))
    letter = name[-1].lower()
    value = getattr(maps, letter if name.startswith("W") else f"{letter}_bias")
    return value if letter == "q" else value.repeat_interleave(times, 0)


def _output(net: Face, name: str, layer: int) -> Tensor:
    place, sublayer = _sublayer(net, layer, "attention")
    attention = sublayer.attention
    if attention is None or attention.output is None or not told_apart(net, place, sublayer):
        raise SiteUnavailable(
            f"The heads of layer {layer} cannot be told apart.", net.refusal(Site("head_out", layer)) or ""
        )
    weight, bias = projection(net.modules[attention.output])
    return weight.unflatten(0, (attention.heads, -1)) if name == "W_O" else bias


def _mlp(net: Face, layer: int) -> Mlp:
    _, sublayer = _sublayer(net, layer, "mlp")
    mlp = sublayer.mlp
    if mlp is None or mlp.down is None or mlp.experts:
        why = "is a mixture of experts" if mlp is not None and mlp.experts else "was not told apart"
        raise SiteUnavailable(
            f"The MLP of layer {layer} {why}, so it has no matrices by name.", "Name another layer."
        )
    net.resolve(Site("mlp_act", layer))
    return mlp


def _out_of_mlp(net: Face, name: str, layer: int) -> Tensor:
    weight, bias = projection(net.modules[_mlp(net, layer).down or ""])
    return weight if name == "W_out" else bias


def _into_mlps(
    net: Face, name: str, layers: Sequence[int]
) -> tuple[list[Tensor | Factored], tuple[str, ...]]:
    found = net.fact(("mlp maps", tuple(layers)), lambda: _into_hidden(net, layers))
    role = name[2:]
    for layer, into in zip(layers, found, strict=True):
        if role not in into:
            raise SiteUnavailable(
                f"The MLP of layer {layer} has no gate: its nonlinearity takes the output of W_in itself.",
                f"Use {name.replace('gate', 'in')}.",
            )
    gated = any("gate" in into for into in found)
    note = f"what the nonlinearity takes is the output of {'W_gate' if gated else 'W_in'}, as a run shows"
    return [into[role][0 if name.startswith("W") else 1] for into in found], (note,)


def _into_hidden(net: Face, layers: Sequence[int]) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """Matrix and bias of the ways into each hidden layer: "in", and "gate" where there is one.

    The gate is the one whose output the nonlinearity takes, which a run shows.
    """
    mlps = [_mlp(net, layer) for layer in layers]
    sites = [Site(name, layer) for layer in layers for name in ("mlp_pre", "mlp_act")]
    for site in sites:
        net.resolve(site)
    ids = torch.arange(8)[None] % max(1, min(net.d_vocab or 8, 8))
    kept = [*sites, *(path for mlp in mlps for path in mlp.up)]
    run = net.run(ids, keep=kept, logits=False, stop_at=Site("mlp_act", max(layers)))
    return [_ways(net, run, mlp, layer) for mlp, layer in zip(mlps, layers, strict=True)]


def _ways(net: Face, run: Run, mlp: Mlp, layer: int) -> dict[str, tuple[Tensor, Tensor]]:
    hidden = run["mlp_act", layer].shape[-1]
    ways: list[tuple[Tensor, Tensor, Tensor]] = []
    for path in mlp.up:
        weight, bias = projection(net.modules[path])
        cuts = [slice(start, start + hidden) for start in range(0, weight.shape[1], hidden)]
        ways += [(weight[:, cut], bias[cut], run[path][..., cut]) for cut in cuts]
    wanted = precise(run["mlp_pre", layer]).flatten(0, -2)
    taken = [
        i for i, (*_, given) in enumerate(ways)
        if given.shape[-1] == wanted.shape[-1] and agrees(precise(given).flatten(0, -2), wanted, _SAME)
    ]  # fmt: skip
    if len(taken) != 1 or len(ways) > 2:
        raise SiteUnavailable(
            f"The ways into the hidden layer {layer} could not be told apart: none of them alone gives what the "
            "nonlinearity takes.",
            f"Read the values instead: net.run(text, keep='mlp_pre.{layer}').",
        )
    names = ["in"] if len(ways) == 1 else ["gate" if i == taken[0] else "in" for i in range(2)]
    return {name: (weight, bias) for name, (weight, bias, _) in zip(names, ways, strict=True)}


def _embedding(net: Face) -> _Read:
    net.resolve("embed")
    size = net.d_vocab_in or net.d_vocab or 0
    rows = []
    for start in range(0, size, 8192):
        ids = torch.arange(start, min(size, start + 8192))[:, None]
        rows.append(precise(net.run(ids, keep=["embed"], logits=False, stop_at="embed")["embed"])[:, 0])
    return torch.cat(rows), ("read off the embedding of every token",)


def _positions(net: Face) -> _Read:
    net.resolve("pos_embed")
    size = net.n_ctx or 0
    value = precise(
        net.run(
            torch.zeros(1, size, dtype=torch.long), keep=["pos_embed"], logits=False, stop_at="pos_embed"
        )["pos_embed"]
    )
    return value[0], ("read off the embedding of every position",)


def _unembedding(net: Face) -> tuple[Tensor, Tensor]:
    head = net.anatomy.head
    module = None if head is None or head.unembed is None else net.modules[head.unembed]
    weight = None if module is None else output_weight(module)
    if module is None or weight is None or weight.device.type == "meta":
        raise SiteUnavailable(
            "It is not known which matrix takes this network's last stream to logits.",
            "Read the logits themselves: net.run(text).",
        )
    bias = getattr(module, "bias", None)
    shift = weight.new_zeros(weight.shape[1]) if bias is None else bias
    return precise(weight.detach()), precise(shift.detach())


def _scaled(net: Face) -> tuple[str, ...]:
    head = net.anatomy.head
    assert head is not None
    said = [f"times {head.before * head.scale:g}"] if head.before * head.scale != 1 else []
    said += [f"soft-capped at {head.softcap:g}"] if head.softcap is not None else []
    return (f"the network's logits are its output {' and '.join(said)}",) if said else ()


_WHOLE: dict[str, Callable[[Face], _Read]] = {
    "W_E": _embedding,
    "W_pos": _positions,
    "W_U": lambda net: (_unembedding(net)[0], _scaled(net)),
    "b_U": lambda net: (_unembedding(net)[1], _scaled(net)),
}
