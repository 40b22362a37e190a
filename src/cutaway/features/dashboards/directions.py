"""What the directions of features say: logits that they raise, others that are alike, neurons and heads that write alike,
whether they come again with another seed. All of it is read from weights; none of it is a test by intervention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutaway.errors import BadInput, CutawayError
from cutaway.features.components import random_units
from cutaway.features.sets import FeatureSet
from cutaway.network.coefficients import is_one, times
from cutaway.network.norms import affine_norm
from cutaway.network.sites import SITES, Site

if TYPE_CHECKING:
    from cutaway.features.index import FeatureIndex
    from cutaway.network import Network
    from cutaway.network.anatomy import Layer, Stack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Numbers of a product that are held at once; windows of the texts on which the final norm is looked at; random directions.
_HELD, _WINDOWS, _RANDOM = 1 << 24, 8, 200
#: Logits on either side, other directions, neurons and heads that are kept.
RAISED, ALIKE, NEURONS, HEADS = 10, 8, 5, 5


@dataclass(frozen=True, eq=False)
class Ranked:
    """For every feature the first few of something.

    Attributes:
        which: [F k] numbers; -1 where there are fewer.
        value: [F k].
        chance: what a random direction reaches at its best: the middle of many, and what one in twenty exceeds.
    """

    which: Ints
    value: Floats
    chance: tuple[float, float] = (float("nan"), float("nan"))

    def of(self, i: int) -> list[tuple[int, float]]:
        """Those of one feature."""
        return [(int(j), float(v)) for j, v in zip(self.which[i], self.value[i], strict=True) if j >= 0]


@dataclass(frozen=True, eq=False)
class DirectLogits:
    """The direct effect of features on the logits, relative to the mean of all tokens.

    Attributes:
        raised, lowered: tokens and effects of one unit of activation, the strongest first.
        bars: [F bins] how many tokens have which effect; no bins where none were asked for.
        ends: [F 2] of the bars.
        scale: of the final norm, at which it is frozen; None where it is not known.
    """

    raised: Ranked
    lowered: Ranked
    bars: Ints
    ends: Floats
    scale: float | None


@dataclass(frozen=True, eq=False)
class AlignedParts:
    """Which neurons and heads of a layer write as features do.

    Attributes:
        layer: which.
        neurons: cosines with the rows of the MLP's output matrix, the largest in size first; None where there are none.
        heads: of the square of a direction, the share in the space that a head can write to; None where there are none.
    """

    layer: int
    neurons: Ranked | None
    heads: Ranked | None


def normed(rows: Tensor) -> Tensor:
    """Rows of length one; those of zero stay."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)


def own_directions(features: FeatureSet) -> tuple[Tensor, str] | None:
    """The directions [F d] by which features are told alike, and which they are: those they write, else those read."""
    if features.writes:
        return torch.cat([d.detach().float().cpu() for _, d in features.writes], 1), "written"
    return None if features.reads is None else (features.reads.detach().float().cpu(), "read")


def stream_directions(net: Network, features: FeatureSet) -> tuple[Tensor, int, str]:
    """What features add to the stream [F d], behind which layer, and in words where.

    Of several places in the stream itself the last is taken; what is written by sublayers is added up.

    Raises `BadInput` with the reason where that is not known.
    """
    if not features.writes:
        raise BadInput(
            "It is not known in which directions these features write.", "Give a set that says it."
        )
    stack = net.anatomy.stacks[0]
    found: list[tuple[Site, Tensor]] = []
    for site, rows in features.writes:
        read = _as_written(net, stack, site, rows.detach().float().cpu())
        if read is not None:
            found.append((site, read))
    streams = [(s, d) for s, d in found if s.name.startswith(("resid", "embed", "pos_embed"))]
    chosen = streams[-1:] or found
    if not chosen:
        raise BadInput(
            f"What is written at {features.writes[0][0]} is no part of the stream.", "Logits are left out."
        )
    last = max(s.layer if s.layer is not None else -1 for s, _ in chosen)
    if chosen[-1][0].name == "resid_pre":
        last -= 1
    return torch.stack([d for _, d in chosen]).sum(0), last, ", ".join(str(s) for s, _ in chosen)


def _as_written(net: Network, stack: Stack, site: Site, rows: Tensor) -> Tensor | None:
    kind = SITES.get(site.name)
    if kind is None or kind.axes != ("batch", "pos", "width") or rows.shape[1] != net.d_model or site.stack:
        return None
    if site.name.startswith(("resid", "embed", "pos_embed")) or site.name.endswith("_write"):
        return rows
    if not site.name.endswith("_out") or site.layer is None:
        return None
    sublayers = [x for x in stack.layers[site.layer].sublayers if x.kind == kind.sublayer]
    if len(sublayers) != 1:
        return None
    after = sublayers[0].norm_after
    try:
        return times(sublayers[0].factor, rows if after is None else affine_norm(net, after).linear(rows))
    except CutawayError:
        return None


def direct_logits(net: Network, index: FeatureIndex, features: FeatureSet, bins: int = 0) -> DirectLogits:
    """What one unit of activation adds to each logit on the direct path, the final norm frozen at its median scale over some
    of the indexed texts. bins: of the histograms; 0 for none.

    Raises `BadInput` with the reason where the direct path is not known.
    """
    rows, layer, _ = stream_directions(net, features)
    head = net.anatomy.head
    check = net.certificate.check("unembed(final_norm) = logits")
    if head is None or head.unembed is None or (check is not None and not check.holds):
        raise BadInput("It is not known how this network's stream becomes logits.", "Logits are left out.")
    between = [s for x in net.anatomy.stacks[0].layers if x.index > layer for s in x.stretches]
    if any(s.norm is not None or not is_one(s.carry) for s in between):
        raise BadInput("The stream itself is normed on the way to the logits.", "Logits are left out.")
    try:
        unembed = torch.as_tensor(net.weights("W_U").value).detach().float().cpu()
        rows = rows if head.norm is None else affine_norm(net, head.norm).linear(rows)
        scale = 1.0 if head.norm is None else final_scale(net, index, head.norm)
    except CutawayError as error:
        raise BadInput(f"The final norm cannot be frozen: {error}", "Logits are left out.") from error
    rows = rows * scale * head.before * head.scale * (1.0 if head.softcap is None else head.softcap)
    return _ranked_logits(rows, unembed, scale if head.norm is not None else None, bins)


def _ranked_logits(rows: Tensor, unembed: Tensor, scale: float | None, bins: int) -> DirectLogits:
    k = min(RAISED, unembed.shape[1])
    kept: list[list[NDArray[np.generic]]] = [[], [], [], [], [], []]
    for part in rows.split(max(1, _HELD // unembed.shape[1])):
        logits = part @ unembed
        logits = logits - logits.mean(1, keepdim=True)
        up, down = logits.topk(k, dim=1), logits.topk(k, dim=1, largest=False)
        ends = torch.stack([down.values[:, 0], up.values[:, 0]], 1).double().numpy()
        ends[:, 1] = np.where(ends[:, 1] > ends[:, 0], ends[:, 1], ends[:, 0] + 1)
        rows_of = zip(logits.numpy(), ends, strict=True)
        bars = [np.histogram(row, bins, (low, high))[0] for row, (low, high) in rows_of] if bins else []
        found = (x.numpy() for x in (up.indices, up.values, down.indices, down.values))
        for place, value in zip(kept, (*found, np.array(bars).reshape(len(part), bins), ends), strict=True):
            place.append(value)
    ids_up, up, ids_down, down, bars, ends = (np.concatenate(x) for x in kept)
    return DirectLogits(
        Ranked(ids_up.astype(np.int64), up.astype(np.float64)), Ranked(ids_down.astype(np.int64), down.astype(np.float64)),
        bars.astype(np.int64), ends.astype(np.float64), scale,
    )  # fmt: skip


def final_scale(net: Network, index: FeatureIndex, path: str) -> float:
    """The median scale of the final norm over the tokens that count in the first windows of an index."""
    norm, table = affine_norm(net, path), index.rows
    last = Site("resid_post", net.anatomy.stacks[0].layers[-1].index)
    found = []
    for window in np.unique(table.window)[:_WINDOWS].tolist():
        ids = table.ids[table.starts[window] : table.starts[window + 1]].tolist()
        run = net.run([ids], keep=[last, Site("final_norm")], logits=False)
        fold = norm.at(run[last].float(), run[Site("final_norm")].float())
        found.append(fold.scale[0, torch.as_tensor(table.column[table.window == window]), 0].cpu())
    return float(torch.cat(found).median())


def alike(features: FeatureSet) -> Ranked | None:
    """The other features whose directions have the largest cosine, in size; None where no directions are known."""
    own = own_directions(features)
    if own is None or len(features) < 2:
        return None
    rows = normed(own[0])
    there = rows.norm(dim=1) > 0.5
    k, which, value = min(ALIKE, len(rows) - 1), [], []
    for first in range(0, len(rows), step := max(1, _HELD // len(rows))):
        part = rows[first : first + step] @ rows.T
        size = part.abs()
        size[:, ~there] = -1
        size[torch.arange(len(part)), torch.arange(first, first + len(part))] = -1
        best = size.topk(k, dim=1)
        gone = (best.values < 0) | ~there[first : first + step, None]
        which.append(best.indices.masked_fill(gone, -1))
        value.append(part.gather(1, best.indices))
    return Ranked(torch.cat(which).numpy(), torch.cat(value).double().numpy())


def alignment(net: Network, features: FeatureSet, seed: int = 0) -> AlignedParts | None:
    """The neurons and heads that write, in the layer of features or the one before what they write, most like them.

    None where the features write no direction of the stream, or nothing writes there.
    """
    try:
        rows, layer, _ = stream_directions(net, features)
    except BadInput:
        return None
    if layer < 0:
        return None
    rows = normed(rows)
    generator = torch.Generator().manual_seed(seed)
    drawn = random_units(_RANDOM, rows.shape[1], generator).to(rows)
    neurons = None if features.kind == "neurons" else _neurons(net, layer, rows, drawn)
    heads = _heads(net, layer, rows, drawn)
    return AlignedParts(layer, neurons, heads) if neurons is not None or heads is not None else None


def _layer(net: Network, layer: int) -> Layer | None:
    layers = net.anatomy.stacks[0].layers
    return layers[layer] if layer < len(layers) else None


def _written(net: Network, name: str, layer: int, kind: str) -> Tensor | None:
    """A matrix of a layer whose rows are written to the stream; None where there is none, or a norm comes after it."""
    found = _layer(net, layer)
    sublayers = [] if found is None else [x for x in found.sublayers if x.kind == kind]
    if len(sublayers) != 1 or not net.has(Site({"mlp": "mlp_act", "attention": "head_out"}[kind], layer)):
        return None
    try:
        value = net.weights(name, layer=layer).value
        rows = value.detach().float().cpu() if torch.is_tensor(value) else None
        after = sublayers[0].norm_after
        return rows if rows is None or after is None else affine_norm(net, after).linear(rows)
    except CutawayError:
        return None


def _neurons(net: Network, layer: int, rows: Tensor, drawn: Tensor) -> Ranked | None:
    out = _written(net, "W_out", layer, "mlp")
    if out is None or out.ndim != 2 or out.shape[1] != rows.shape[1]:
        return None
    out, which, value = normed(out), [], []
    for part in rows.split(max(1, _HELD // len(out))):
        cosines = part @ out.T
        which.append(cosines.abs().topk(min(NEURONS, len(out)), dim=1).indices)
        value.append(cosines.gather(1, which[-1]).double())
    chance = _chance((drawn @ out.T).abs().amax(1))
    return Ranked(torch.cat(which).numpy(), torch.cat(value).numpy(), chance)


def _heads(net: Network, layer: int, rows: Tensor, drawn: Tensor) -> Ranked | None:
    out = _written(net, "W_O", layer, "attention")
    if out is None or out.ndim != 3 or out.shape[2] != rows.shape[1]:
        return None
    shares, by_chance = [], []
    for one in out.double():
        _, size, basis = torch.linalg.svd(one, full_matrices=False)
        basis = basis[size > 1e-6 * size.max().clamp(min=1e-30)]
        shares.append((rows.double() @ basis.T).square().sum(1))
        by_chance.append((drawn.double() @ basis.T).square().sum(1))
    best = torch.stack(shares, 1).topk(min(HEADS, len(shares)), dim=1)
    return Ranked(best.indices.numpy(), best.values.numpy(), _chance(torch.stack(by_chance, 1).amax(1)))


def _chance(best: Tensor) -> tuple[float, float]:
    middle, high = torch.quantile(best.double(), torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return middle, high


def seed_stability(
    features: FeatureSet, siblings: Sequence[FeatureSet], seed: int = 0
) -> tuple[Floats, float]:
    """Of each feature the largest cosine of its direction with one of every sibling, mean over siblings [F]; and the mean of
    the same with as many directions as the siblings have, drawn with the second moments of theirs.

    Raises `BadInput` for siblings whose directions are not known or not as wide.
    """
    own = own_directions(features)
    generator = torch.Generator().manual_seed(seed)
    found, chance = [], []
    for sibling in siblings:
        other = own_directions(sibling) if isinstance(sibling, FeatureSet) else None
        if own is None or other is None or own[0].shape[1] != other[0].shape[1]:
            raise BadInput(
                f"The directions of {getattr(sibling, 'name', sibling)!s:.80} cannot be held against these.",
                "Give sets of features of the same sites, with directions.",
            )
        rows, theirs = normed(own[0]), other[0]
        spread, axes = torch.linalg.eigh(theirs.double().T @ theirs.double() / len(theirs))
        drawn = torch.randn(len(theirs), len(axes), generator=generator, dtype=torch.float64)
        mixed = (drawn * spread.clamp(min=0).sqrt() @ axes.T).float()
        for place, against in ((found, theirs), (chance, mixed)):
            best = [(part @ normed(against).T).amax(1) for part in rows.split(max(1, _HELD // len(against)))]
            place.append(torch.cat(best).double())
    return torch.stack(found).mean(0).numpy(), float(torch.stack(chance).mean())
