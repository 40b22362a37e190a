"""Where in its layer an edit takes effect, and what of that layer therefore stays as it was.

An edit of what the attention wrote leaves the attention alone; an edit of one head's `z`, or of one neuron, changes the
sublayer's output by a linear map, so not even that sublayer is run again. `Stage` says which sublayers of the layer at
which a cell joins are taken from the base run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.network.anatomy import Layer, PortTap
from cutaway.network.execution.heads import output_weight
from cutaway.network.sites import SITES, Site

if TYPE_CHECKING:
    from cutaway.network import Network

#: Which sublayers must be computed again after an edit of a site: in blocks where the MLP reads what the attention
#: wrote, and in parallel blocks (where `attn_in` and `mlp_in` may be one tensor).
_NEEDS: dict[str, tuple[str, str]] = {n: kind.anew for n, kind in SITES.items() if kind.anew is not None}

#: Sites whose change reaches the sublayer's output by a linear map, and the site that carries it.
CARRIERS: dict[str, str] = {name: kind.carrier for name, kind in SITES.items() if kind.carrier}

#: Sites whose value at one position acts, within their layer, on that position alone.
_LOCAL = frozenset(name for name in _NEEDS if not SITES[name].spreads)


@dataclass(frozen=True, order=True)
class Stage:
    """Which sublayers of a layer are taken from the base run; with neither, the whole layer is run.

    Attributes:
        attention, mlp: is that one taken?
    """

    attention: bool = False
    mlp: bool = False

    @property
    def whole(self) -> bool:
        """Whether the whole layer is run."""
        return not (self.attention or self.mlp)


WHOLE = Stage()


@dataclass(frozen=True, eq=False)
class Parts:
    """What of one layer can be taken from the base run.

    Attributes:
        attention, mlp: the modules whose outputs are kept: the one that gives the sublayer's raw output, and others that
            need not run then (none around it, because a module that gives more than the raw output may add the stream to
            it); empty where the layer is not of a known form.
        parallel: whether attention and MLP read the same stream.
        carriers: of `z`, `head_out`, `mlp_act`, those whose linear map is known.
        known: whether the layer is of a known form.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    parallel: bool
    carriers: frozenset[str]
    known: bool

    def stage(self, sites: Iterable[str]) -> Stage:
        """The stage at which writes at these sites join."""
        if not self.known:
            return WHOLE
        needs: set[str] = set()
        for site in sites:
            again = _NEEDS.get(site, ("attention mlp",) * 2)[int(self.parallel)]
            if site in CARRIERS and site not in self.carriers:
                again += " mlp" if site == "mlp_act" else " attention mlp"
            needs.update(again.split())
        return Stage("attention" not in needs and bool(self.attention), "mlp" not in needs and bool(self.mlp))

    def local(self, site: str) -> bool:
        """Whether an edit there, in this layer, changes nothing at other positions."""
        return self.known and site in _LOCAL


def parts_of(net: Network, layer: Layer) -> Parts:
    """What of a layer can be taken from the base run, as its anatomy says."""
    kinds = [s.kind for s in layer.sublayers]
    known = kinds == ["attention", "mlp"] and layer.form in ("sequential", "parallel", "post-norm")
    if not known or layer.call:
        return Parts((), (), False, frozenset(), False)
    attention, mlp = layer.sublayers
    kept: dict[str, tuple[str, ...]] = {}
    for name, sublayer, extra in (
        ("attn_out", attention, ()),
        ("mlp_out", mlp, mlp.mlp.up if mlp.mlp is not None else ()),
    ):
        tap = net.anatomy.taps.get(Site(name, layer.index))
        given = tap.port.path if isinstance(tap, PortTap) and tap.port.side == "out" else ""
        around = [p for p in (sublayer.path, *extra) if not given.startswith(f"{p}.")]
        kept[name] = _outermost([given, *around], layer.path) if given else ()
    carriers = frozenset(site for site, carrier in CARRIERS.items() if _linear(net, layer, site, carrier))
    return Parts(kept["attn_out"], kept["mlp_out"], layer.form == "parallel", carriers, True)


def layer_parts(net: Network) -> dict[int, Parts]:
    """What of each layer of the main stack can be taken from a base run."""
    stack = net.anatomy.stack()
    return {} if stack is None else {layer.index: parts_of(net, layer) for layer in stack.layers}


def _outermost(paths: list[str], layer: str) -> tuple[str, ...]:
    """Module paths inside the layer, those inside another of them left out."""
    inside = sorted({p for p in paths if p.startswith(f"{layer}.")}, key=len)
    return tuple(p for i, p in enumerate(inside) if not any(p.startswith(f"{q}.") for q in inside[:i]))


def _linear(net: Network, layer: Layer, site: str, carrier: str) -> bool:
    """Whether a change at `site` reaches `carrier` by a matrix that is at hand."""
    tap = net.anatomy.taps.get(Site(carrier, layer.index))
    if not isinstance(tap, PortTap) or tap.port.side != "out" or not net.has(Site(carrier, layer.index)):
        return False
    if site == "head_out":
        return net.has(Site(site, layer.index))
    if site == "z" and not net.has(Site("head_out", layer.index)):
        return False
    return carrier_weight(net, layer, site) is not None


def carrier_weight(net: Network, layer: Layer, site: str) -> Tensor | None:
    """The matrix [in d] by which a change of `z` (heads flattened) or `mlp_act` reaches the sublayer's output."""
    attention, mlp = layer.attention(), next((s.mlp for s in layer.sublayers if s.mlp is not None), None)
    path = (attention.output if attention else None) if site == "z" else (mlp.down if mlp else None)
    if path is None:
        return None
    weight = output_weight(net.modules[path])
    return None if weight is None or weight.device.type == "meta" else weight.detach()


def linear_change(net: Network, layer: Layer, site: str, change: Tensor, heads: Tensor | None) -> Tensor:
    """What a change at a linear site adds to its carrier: [b w d].

    change: [b w h e] of `z`, [b w h d] of `head_out`, [b w m] of `mlp_act`. With `heads` LongTensor [b] the change is of
    that head alone, [b w e] (of that neuron, [b w 1]).
    """
    if site == "head_out":
        return change if heads is not None else change.sum(2)
    weight = carrier_weight(net, layer, site)
    assert weight is not None
    weight = weight.to(change.dtype)
    if heads is None:
        return change.flatten(2) @ weight
    sliced = weight.unflatten(0, (-1, change.shape[-1]))[heads.to(weight.device)]
    return torch.bmm(change, sliced)
