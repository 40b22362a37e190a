"""Where the behaviour is: activation patching of the stream, the heads and the other components, in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from cutaway.effects import Effects, patch
from cutaway.effects.patching import Direction
from cutaway.errors import Stopped
from cutaway.network.parts import Part, parts_of
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

DIRECTIONS: tuple[Direction, ...] = ("restore", "corrupt")
_STREAM = ("resid_pre", ("layer", "position"))
_PARTS = (("z", ("layer", "head")), *((f"{part}_write", ("layer",)) for part in ("attn", "mixer", "mlp")))


def key(site: str, direction: str) -> str:
    """The name of a map: `resid_pre, restore`."""
    return f"{site}, {direction}"


def sweeps(net: Network, stream: bool = True) -> list[tuple[str, tuple[str, ...], list[int]]]:
    """Which sites are swept, over which dimensions, in which layers: what this network has, no more.

    Whole attention layers are swept only where heads cannot be told apart.
    """
    swept = []
    if stream and net.has(_STREAM[0]):
        swept.append((*_STREAM, list(net.layers_with(_STREAM[0]))))
    with_heads = set(net.layers_with("z"))
    for site, by in _PARTS:
        layers = [layer for layer in net.layers_with(site) if site != "attn_write" or layer not in with_heads]
        if layers:
            swept.append((site, by, layers))
    return swept


def localise(
    net: Network, behaviour: Behaviour, seed: int, work: Work, stream: bool = True
) -> Iterator[tuple[str, Effects]]:
    """Run the sweeps one after the other and hand each map over as soon as it is done (or was stopped half-way).

    Raises `Stopped` after a map that is not complete.
    """
    for site, by, layers in sweeps(net, stream):
        for direction in DIRECTIONS:
            effects = patch(
                net, behaviour, at=site, by=by, direction=direction, layers=layers, seed=seed, work=work
            )
            yield key(site, direction), effects
            if not effects.complete:
                raise Stopped(f"Stopped while patching {site}, {direction}.", "Finished maps are kept.")


def single_effect(maps: Mapping[str, Effects], part: Part, direction: str) -> dict[str, float] | None:
    """Mean, low, high and q of one part's own effect; None where it was not swept."""
    effects = None if part.site is None else maps.get(key(part.site.name, direction))
    if effects is None:
        return None
    place = {"layer": part.layer} | ({} if part.index is None else {part.row.axis: part.index})
    cell = effects.data.sel(place)
    return {name: float(cell[name]) for name in ("mean", "low", "high", "q")}


def strength(maps: Mapping[str, Effects], part: Part) -> float:
    """The larger of a part's two single effects, as a share of the gap: what it brings back, or what it breaks."""
    cells = (single_effect(maps, part, direction) for direction in DIRECTIONS)
    sizes = [abs(cell["mean"]) for cell in cells if cell is not None]
    return max((size for size in sizes if np.isfinite(size)), default=0.0)


def strengths(net: Network, maps: Mapping[str, Effects]) -> dict[Part, float]:
    """The strength of every part of a network."""
    return {part: strength(maps, part) for part in parts_of(net)}


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
