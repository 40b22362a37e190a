"""The cells of a sweep as a box with named sides: layers, positions, heads, neurons, spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import Side
from cutaway.errors import BadBehaviour, BadInput, SiteUnavailable, nearest
from cutaway.network.indices import layer_numbers, without_repeats
from cutaway.network.items import maps_of
from cutaway.network.sites import SITES, Site
from cutaway.sweeps import Cell, Write

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: The dimensions that a sweep can run over, in the order in which they are named.
BY = (
    ("layer",),
    ("layer", "position"),
    ("layer", "span"),
    ("layer", "head"),
    ("layer", "head", "position"),
    ("layer", "head", "span"),
    ("layer", "neuron"),
    ("layer", "neuron", "position"),
    ("layer", "feature"),
    ("layer", "feature", "position"),
    ("map",),
    ("map", "channel"),
)
#: What is swept in a network without a stream: the maps that its convolutions give.
MAPS = "map"
_UNITS = ("hidden", "expert", "feature", "width")
#: Dimensions that count single entries of a site's last axis; features are those of a dictionary.
UNITS = ("neuron", "feature")


@dataclass(frozen=True)
class Box:
    """The cells of a sweep, as a box with named sides.

    Attributes:
        site: what is written; behind the name of its dictionary and a dot, where it has one.
        by: the names of the sides.
        layers: which layers; paths of the maps where maps are swept.
        positions, heads, neurons, channels: how many of them (features count as neurons); None where they are not a side.
        spans: the names of the spans.
    """

    site: str
    by: tuple[str, ...]
    layers: tuple[Any, ...]
    positions: int | None = None
    heads: int | None = None
    neurons: int | None = None
    spans: tuple[str, ...] = ()
    channels: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of entries along each dimension of `by`."""
        return tuple(len(labels) for labels in self.coordinates().values())

    def cells(self) -> list[Cell]:
        """One cell for each entry of the box, the last dimension running fastest."""
        cells: list[Cell] = []
        for index in np.ndindex(*self.shape):
            place = dict(zip(self.by, index, strict=True))
            if "map" in place:
                path = str(self.layers[place["map"]])
                write = Write(path, None, neuron=place.get("channel"), module=True)
            else:
                span = self.spans[place["span"]] if "span" in place else ""
                head, position = place.get("head"), place.get("position")
                unit = next((place[name] for name in UNITS if name in place), None)
                stack, _, name = self.site.rpartition(".")
                write = Write(name, self.layers[place["layer"]], head, position, unit, span, stack=stack)
            cells.append((write,))
        return cells

    def coordinates(self) -> dict[str, list[Any]]:
        """The labels along each dimension of `by`."""
        sizes = {"position": self.positions, "head": self.heads, "neuron": self.neurons}
        sizes |= {"channel": self.channels, "feature": self.neurons}
        labels: dict[str, list[Any]] = {name: list(range(size or 0)) for name, size in sizes.items()}
        labels |= {"layer": list(self.layers), "span": list(self.spans), "map": list(map(str, self.layers))}
        return {name: labels[name] for name in self.by}


def checked(
    net: Network, behaviour: Behaviour, at: str, by: Sequence[str], layers: Sequence[int] | None
) -> tuple[str, tuple[Any, ...], tuple[str, ...]]:
    """Site name, layers and dimensions of a sweep that this network and behaviour allow.

    Raises `BadInput`, `SiteUnavailable`, `BadBehaviour`.
    """
    dims = _dims(by)
    if not isinstance(at, str):
        raise BadInput(f"The site {at!r} is not a name.", "Use 'resid_pre', 'z', 'mlp_write', ...")
    if at == MAPS or "map" in dims:
        return MAPS, _maps(net, at, dims, layers), dims
    if any(sign in at for sign in "*?["):
        remedy = "Use resid_pre, z, mlp_write, ..."
        raise BadInput(f"A sweep is over one kind of site, and {at!r} is a pattern.", remedy)
    sites = net.resolve(at)
    site, kind = sites[0].name, None if sites[0].module else SITES[sites[0].name]
    if kind is None or not kind.layered or not {"pos", "dest"} & set(kind.axes):
        remedy = "Use resid_pre, z, mlp_write, ..."
        raise BadInput(f"The site {site} is not one value per layer and position.", remedy)
    if "head" in dims and not {"head", "kv_head"} & set(kind.axes):
        raise BadInput(f"The site {site} has no heads.", "Use z, q, k or v, or sweep by layer and position.")
    if "neuron" in dims and not set(_UNITS) & set(kind.axes):
        raise BadInput(f"The site {site} has no neurons.", "Use mlp_act, or sweep by layer and position.")
    if "feature" in dims and "feature" not in kind.axes:
        remedy = (
            "Sweep at='features' of a network with a dictionary (features.with_dictionary), or by neuron."
        )
        raise BadInput(f"The site {site} has no features.", remedy)
    if "position" in dims:
        behaviour.require_aligned("A sweep over positions")
    if "span" in dims:
        behaviour.require_aligned("A sweep over spans")
        if not behaviour.spans:
            remedy = "Use a behaviour with spans, or sweep over positions."
            raise BadBehaviour(f"{behaviour.name!r} names no spans of tokens.", remedy)
    has = [s.layer for s in sites if s.layer is not None]
    numbers = None if layers is None else layer_numbers(layers, net.n_layers)
    chosen = tuple(has if numbers is None else without_repeats(numbers, "layer"))
    missing = [layer for layer in chosen if layer not in has]
    if missing or not chosen:
        remedy = f"It exists in layers {has}."
        raise SiteUnavailable(f"{site} does not exist in layer {missing[0] if missing else '-'}.", remedy)
    return f"{sites[0].stack}.{site}" if sites[0].stack else site, chosen, dims


def _dims(by: object) -> tuple[str, ...]:
    """The dimensions that are asked for; `BadInput` where no sweep runs over them, with the nearest that one does."""
    known = sorted({name for names in BY for name in names})
    if not isinstance(by, str) and not isinstance(by, Sequence):
        raise BadInput(f"by={by!r} names no dimensions.", "Write by=['layer', 'position'].")
    dims = (by,) if isinstance(by, str) else tuple(by)
    if dims not in BY:
        wrong = next((name for name in dims if name not in known), None)
        near = nearest(str(wrong), known, 1) if wrong is not None else []
        choices = "; ".join(", ".join(names) for names in BY)
        remedy = (f"Did you mean {near[0]}? " if near else "") + f"Choose one of: {choices}."
        raise BadInput(f"A sweep cannot run over {', '.join(map(str, dims)) or 'nothing'}.", remedy)
    return dims


def sites_of(site: str, layers: Sequence[int | str]) -> list[Site]:
    """The sites that a sweep writes, layer by layer, or map by map."""
    stack, _, name = site.rpartition(".")
    return [
        Site(layer, None, "", True) if isinstance(layer, str) else Site(name, layer, stack)
        for layer in layers
    ]


def _maps(net: Network, at: str, dims: tuple[str, ...], layers: object) -> tuple[str, ...]:
    """Paths of the maps that a sweep runs over."""
    maps = maps_of(net)
    if not maps:
        remedy = "Sweep a site: at='resid_pre'."
        raise SiteUnavailable(f"{net.name} has no maps: none of its modules is a convolution.", remedy)
    if at != MAPS or "map" not in dims:
        raise BadInput(
            f"Maps are swept at 'map' by map, or by map and channel; asked was {at!r} by {', '.join(dims)}.",
            "Write at='map', by=['map', 'channel'].",
        )
    if layers is not None:
        raise BadInput("Maps are not counted by layers.", "Leave layers out.")
    return maps


def box_of(
    behaviour: Behaviour, site: str, dims: tuple[str, ...], layers: tuple[Any, ...], base: Side
) -> Box:
    """The box of a sweep on one side's prompts."""
    if site == MAPS:
        channels = max(base.kept[place].shape[1] for place in sites_of(site, layers))
        return Box(site, dims, layers, channels=channels if "channel" in dims else None)
    places = sites_of(site, layers)
    axes, kept = places[0].axes, [base.kept[place] for place in places]
    head = next((i for i, a in enumerate(axes) if a in ("head", "kv_head")), None)
    return Box(
        site,
        dims,
        layers,
        positions=int(base.tokens.lengths.max()) if "position" in dims else None,
        heads=max(v.shape[head] for v in kept) if "head" in dims and head is not None else None,
        neurons=max(v.shape[-1] for v in kept) if set(UNITS) & set(dims) else None,
        spans=tuple(behaviour.spans) if "span" in dims else (),
    )


def span_columns(behaviour: Behaviour, base: Side) -> dict[str, Tensor]:
    """Each named span as columns of the base prompts: BoolTensor [n p]."""
    first, columns = base.tokens.first.cpu(), torch.arange(base.tokens.width)
    columns_of_span = {}
    for name, spans in behaviour.spans.items():
        ends = torch.tensor([[start, stop] for start, stop in spans]) + first[:, None]
        columns_of_span[name] = (columns >= ends[:, :1]) & (columns < ends[:, 1:])
    return columns_of_span
