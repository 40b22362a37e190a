"""How finely a network is searched: by heads and MLPs where there is a stream, by neurons where these are too few, else by
maps or by their channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from cutaway.explanations.limits import SearchLimits
from cutaway.network.parts import KINDS, Part, in_order, parts_of
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: Fewer pairs tell channels apart too poorly to search among them.
_FEWEST = 8
#: Heads and MLPs of a network that is small enough to be searched by neurons, where it must be, are fewer than this.
FEW_PARTS = 12


@dataclass(frozen=True, eq=False)
class SearchGrain:
    """What is searched, and on what.

    Attributes:
        parts: everything that can be in the set.
        pairs: the discovery pairs that single effects of the finest parts, and the search, are run on.
        words: how the grain was chosen and what was left out, in words; "" where there was nothing to choose.
    """

    parts: tuple[Part, ...]
    pairs: Behaviour
    words: str = ""

    @property
    def channels(self) -> bool:
        """Are maps taken apart into channels?"""
        return any(part.kind == "channel" for part in self.parts)


def grain_of(net: Network, discovery: Behaviour, limits: SearchLimits) -> SearchGrain:
    """The grain that suits a network: channels of its maps where it has no stream and a sweep over them is affordable.

    A sweep takes one forward for each channel and pair. Where all pairs would be too many operations (`limits.operations`),
    as many as are affordable are taken, evenly spaced; with fewer than eight the whole maps are searched instead. The choice
    depends on the network and the behaviour alone, not on the machine.
    """
    if net.anatomy.stack() is not None:
        return SearchGrain(parts_of(net), discovery)
    channels, each = parts_of(net, channels=True), operations(net, discovery)
    affordable = int(limits.operations / max(1.0, each * len(channels)))
    n = discovery.n
    if affordable < min(_FEWEST, n):
        words = (
            f"Whole maps were searched: one sweep over {len(channels)} channels takes {each * len(channels):.2g} operations "
            f"for each pair, and {limits.operations:.2g} were allowed for all (limits.operations)."
        )
        return SearchGrain(parts_of(net), discovery, words)
    words = f"{len(channels)} channels of {len(parts_of(net))} maps were searched"
    if affordable >= n:
        return SearchGrain(channels, discovery, f"{words} on all {n} discovery pairs.")
    rows = np.linspace(0, n - 1, affordable).round().astype(int).tolist()
    words += (
        f" on {affordable} of {n} discovery pairs, evenly spaced: more would take over {limits.operations:.2g} operations "
        "a sweep (limits.operations)."
    )
    return SearchGrain(channels, discovery.take(rows), words)


def finer(net: Network, discovery: Behaviour) -> SearchGrain | None:
    """Neurons in place of MLPs, for networks of which heads and MLPs are so few that a set of them is most of the network.

    None where there are no MLPs, or where one has no certified neurons: then no finer parts can all be replaced.
    """
    parts = [] if net.anatomy.stack() is None else parts_of(net)
    whole = [part.layer for part in parts if part.kind == "mlp" and part.layer is not None]
    if not whole or set(whole) - set(net.layers_with(KINDS["neuron"].site)):
        return None
    sites = [str(Site(KINDS["neuron"].site, layer)) for layer in whole]
    run = net.run(discovery.clean_tokens(net)[:1], keep=sites, logits=False)
    counts = {layer: run[site].shape[-1] for layer, site in zip(whole, sites, strict=True)}
    neurons = [Part("neuron", layer, unit) for layer, count in counts.items() for unit in range(count)]
    kept = [part for part in parts if part.kind != "mlp"]
    words = (
        f"By heads and MLPs, {len(parts)} in all, the set found was most of the network: {len(neurons)} neurons of "
        f"{len(whole)} MLPs were searched in their place."
    )
    return SearchGrain(in_order([*kept, *neurons]), discovery, words)


def operations(net: Network, pairs: Behaviour) -> float:
    """Floating-point operations of one forward of one prompt."""

    def count() -> float:
        counter = FlopCounterMode(display=False)
        with counter:
            net.run(pairs.clean_tokens(net)[:1])
        return float(counter.get_total_flops())

    shape = () if pairs.items is None else tuple(pairs.items.clean.shape[1:])
    return float(net.fact(("operations of a forward", shape), count))
