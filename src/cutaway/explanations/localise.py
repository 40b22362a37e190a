"""Where the behaviour is: activation patching of the stream, or of the maps of a network without one, in both directions.

What single parts do alone is measured on the bench of the search (`singles`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cutaway.effects import Effects, patch
from cutaway.effects.patching import Direction
from cutaway.errors import Stopped
from cutaway.explanations.grain import SearchGrain
from cutaway.explanations.sizes import Sizes
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.trials.spread import spread

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

DIRECTIONS: tuple[Direction, ...] = ("restore", "corrupt")
_STREAM = ("resid_pre", ("layer", "position"))
#: The span of the position whose logits the metric reads.
END = "end"
_MAP = "map"
_CHANNEL = "channel"


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


def sweeps(net: Network, discovery: Behaviour, grain: SearchGrain, sizes: Sizes) -> list[Sweep]:
    """Which sites are swept, over which dimensions: the stream by position; of a network without one its maps, or channels.

    sizes: with no pairs for the stream, only what the search needs is swept: not the stream, and not the maps where their
    channels are searched. Prompts of several forms speak in one map where they have spans: their positions do not
    correspond, and the tokens of a span do.
    """
    whole = sizes.stream > 0
    if net.anatomy.stack() is None:
        by_map = [Sweep(_MAP, _MAP, (_MAP,), None, discovery)] if whole or not grain.channels else []
        by_channel = [Sweep(_CHANNEL, _MAP, (_MAP, _CHANNEL), None, grain.pairs)] if grain.channels else []
        return by_map + by_channel
    if not whole or not net.has(_STREAM[0]):
        return []
    pairs = discovery
    if sizes.stream < discovery.n:
        pairs = discovery.take(spread(discovery.template, sizes.stream))
    site, by = _STREAM
    if pairs.spans and len(set(zip(pairs.template, pairs.lengths, strict=True))) > 1:
        pairs, by = with_end(pairs), ("layer", "span")
    return [Sweep(site, site, by, list(net.layers_with(site)), pairs)]


def with_end(pairs: Behaviour) -> Behaviour:
    """The same pairs with the position of the answer as a span, `end`: what all of them have, whatever their form."""
    if END in pairs.spans:
        return pairs
    ends = tuple(at % length for at, length in zip(pairs.answer_pos, pairs.lengths, strict=True))
    return replace(pairs, spans={**pairs.spans, END: tuple((at, at + 1) for at in ends)})


def localise(
    net: Network, discovery: Behaviour, grain: SearchGrain, sizes: Sizes, seed: int, work: Work
) -> Iterator[tuple[str, Effects]]:
    """Run the sweeps one after the other and hand each map over as soon as it is done (or was stopped half-way).

    Raises `Stopped` after a map that is not complete.
    """
    for sweep in sweeps(net, discovery, grain, sizes):
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


def strengths(
    parts: Iterable[Part], maps: Mapping[str, Effects], estimates: Mapping[Part, float] | None = None
) -> dict[Part, float]:
    """The strength of every part; of those that were not patched, what was estimated."""
    estimates = estimates or {}
    return {part: strength(maps, part) or estimates.get(part, 0.0) for part in parts}


def journey(effects: Effects, least: float = 0.5) -> list[tuple[int, int, str, float]]:
    """For each layer the position, or span, whose restored stream brings back most: (layer, which, its name, share).

    Layers where no single one brings back `least` of the gap are left out.
    """
    stops = []
    names = effects.data["span"].values if "span" in effects.dims else effects.data["token"].values
    for layer, shares in zip(effects.data["layer"].values, effects.mean.values, strict=True):
        if not np.isfinite(shares).any():
            continue
        place = int(np.nanargmax(shares))
        if shares[place] >= least:
            stops.append((int(layer), place, str(names[place]), float(shares[place])))
    return stops
