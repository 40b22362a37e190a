"""From the trace of one forward pass to the anatomy of the network: nothing about an architecture is assumed."""

from __future__ import annotations

from torch import nn

from cutaway.network.anatomy import Anatomy, Stack
from cutaway.network.discovery.endings import embedding_taps, find_head
from cutaway.network.discovery.layers import Draft, read_layer
from cutaway.network.discovery.linear import Sums
from cutaway.network.discovery.stacks import find_chains, stack_names
from cutaway.network.discovery.trace import Trace
from cutaway.network.discovery.weights import add_bare_calls


def discover(model: nn.Module, trace: Trace, batch: int) -> Anatomy:
    """The anatomy that one traced forward pass shows.

    batch: number of rows in the pass. A network without any layer list gives an anatomy without stacks: its modules can
    still be reached by their dotted paths.
    """
    bare = add_bare_calls(model, trace)
    sums = Sums(trace)
    chains = find_chains(model, trace, sums, batch)
    main = (
        chains[-1] if chains else None
    )  # the output is read from the last: a decoder comes after its encoder
    names = stack_names(chains, main)
    draft = Draft()
    stacks = []
    for chain in chains:
        name, width = names[chain.path], trace.nodes[chain.links[0].in_version].shape[-1]
        layers = [
            read_layer(link, i, name, trace, sums, batch, chain.linked, draft)
            for i, link in enumerate(chain.links)
        ]
        stacks.append(Stack(name, chain.path, width, tuple(layers)))
    head = None
    if main is not None:
        in_layers = [(link.call.start, link.call.end) for chain in chains for link in chain.links]
        for chain in chains:
            embedding_taps(draft.taps, draft.refusals, trace, sums, chain, names[chain.path], in_layers)
        head = find_head(draft.taps, draft.refusals, trace, sums, main)
    return Anatomy(
        tuple(sorted(stacks, key=lambda s: s.name)), draft.taps, draft.refusals, head, trace.in_place, bare
    )
