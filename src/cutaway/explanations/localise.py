"""Where the behaviour is: activation patching of the stream and of single parts (or of maps), in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cutaway.effects import Effects, patch
from cutaway.effects.patching import Direction
from cutaway.errors import Stopped
from cutaway.explanations.grain import SearchGrain
from cutaway.network.parts import Part
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

DIRECTIONS: tuple[Direction, ...] = ("restore", "corrupt")
_STREAM = ("resid_pre", ("layer", "position"))
_MAP = "map"
_CHANNEL = "channel"
_PARTS = (("z", ("layer", "head")), *((f"{part}_write", ("layer",)) for part in ("attn", "mixer", "mlp")))
_NEURONS = ("mlp_act", ("layer", "neuron"))


def key(site: str, direction: str) -> str:
    """The name of a map: `resid_pre, restore`."""
    return f"{site}, {direction}"


@dataclass(frozen=True, eq=False)
class Sweep:
    """One sweep of the localisation.

    Attributes:
        name: of its map, before the direction.
        site: what is patched.
        by: over which dimensions.
        layers: in which layers; None where there are none to choose from.
        pairs: on which discovery pairs.
    """

    name: str
    site: str
    by: tuple[str, ...]
    layers: list[int] | None
    pairs: Behaviour


def sweeps(net: Network, discovery: Behaviour, grain: SearchGrain, whole: bool = True) -> list[Sweep]:
    """Which sites are swept, over which dimensions, in which layers: what this network has, no more.

    Whole attention layers are swept only where heads cannot be told apart; of a network without a stream its maps are swept,
    and their channels where the grain is that fine.

    whole: with what only a reader needs: the stream by position, and the maps where their channels are searched.
    """
    if net.anatomy.stack() is None:
        by_map = [Sweep(_MAP, _MAP, (_MAP,), None, discovery)] if whole or not grain.channels else []
        by_channel = [Sweep(_CHANNEL, _MAP, (_MAP, _CHANNEL), None, grain.pairs)] if grain.channels else []
        return by_map + by_channel
    swept = []
    if whole and net.has(_STREAM[0]):
        swept.append(Sweep(_STREAM[0], *_STREAM, list(net.layers_with(_STREAM[0])), discovery))
    with_heads = set(net.layers_with("z"))
    for site, by in _PARTS:
        layers = [layer for layer in net.layers_with(site) if site != "attn_write" or layer not in with_heads]
        if layers:
            swept.append(Sweep(site, site, by, layers, discovery))
    if with_neurons := sorted({p.layer for p in grain.parts if p.kind == "neuron" and p.layer is not None}):
        swept.append(Sweep(_NEURONS[0], *_NEURONS, with_neurons, grain.pairs))
    return swept


def localise(
    net: Network, discovery: Behaviour, grain: SearchGrain, seed: int, work: Work, whole: bool = True
) -> Iterator[tuple[str, Effects]]:
    """Run the sweeps one after the other and hand each map over as soon as it is done (or was stopped half-way).

    Raises `Stopped` after a map that is not complete.
    """
    for sweep in sweeps(net, discovery, grain, whole):
        place = {"at": sweep.site, "by": sweep.by, "layers": sweep.layers}
        for direction in DIRECTIONS:
            effects = patch(net, sweep.pairs, **place, direction=direction, seed=seed, work=work)
            yield key(sweep.name, direction), effects
            if not effects.complete:
                raise Stopped(f"Stopped while patching {sweep.name}, {direction}.", "Finished maps are kept.")


def single_effect(maps: Mapping[str, Effects], part: Part, direction: str) -> dict[str, float] | None:
    """Mean, low, high and q of one part's own effect; None where it was not swept."""
    mapped = part.kind in (_MAP, _CHANNEL)
    name = part.kind if mapped else None if part.site is None else part.site.name
    effects = None if name is None else maps.get(key(name, direction))
    if effects is None:
        return None
    place: dict[str, object] = {_MAP: part.place} if mapped else {"layer": part.layer}
    place |= {} if part.index is None else {part.row.axis: part.index}
    at = tuple(effects.data[dim].values.tolist().index(place[dim]) for dim in effects.dims)
    return {name: float(effects.data[name].values[at]) for name in ("mean", "low", "high", "q")}


def strength(maps: Mapping[str, Effects], part: Part) -> float:
    """The larger of a part's two single effects, as a share of the gap: what it brings back, or what it breaks."""
    cells = (single_effect(maps, part, direction) for direction in DIRECTIONS)
    sizes = [abs(cell["mean"]) for cell in cells if cell is not None]
    return max((size for size in sizes if np.isfinite(size)), default=0.0)


def strengths(parts: Iterable[Part], maps: Mapping[str, Effects]) -> dict[Part, float]:
    """The strength of every part."""
    return {part: strength(maps, part) for part in parts}


def journey(effects: Effects, least: float = 0.5) -> list[tuple[int, int, str, float]]:
    """For each layer the position whose restored stream brings back most: (layer, position, token, share).

    Layers where no single position brings back `least` of the gap are left out.
    """
    stops, tokens = [], effects.data["token"].values
    for layer, shares in zip(effects.data["layer"].values, effects.mean.values, strict=True):
        if not np.isfinite(shares).any():
            continue
        place = int(np.nanargmax(shares))
        if shares[place] >= least:
            stops.append((int(layer), place, str(tokens[place]), float(shares[place])))
    return stops
