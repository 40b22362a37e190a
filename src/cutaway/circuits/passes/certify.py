"""The wiring of a network, vouched for by numbers: rebuilt readers must compute what the network computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.circuits.graph.finding import Grain, find_wiring
from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.passes.outputs import record
from cutaway.circuits.passes.running import Mask, run_edges, run_nodes
from cutaway.errors import CutawayError, SiteUnavailable
from cutaway.network.discovery.example import COLUMNS, probe_rows

if TYPE_CHECKING:
    from cutaway.network import Network

_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def wiring(net: Network) -> Wiring:
    """The wiring of a network, found and checked once, and then a fact of it.

    Three identities are checked on random prompts: with every edge in, the network's own logits come out; with none in,
    those of the run whose values are put in; and ablating a random set of nodes edge by edge is the same as replacing what
    they write. Where heads or experts do not pass, their sublayer is taken as one node, with a note.

    Raises `SiteUnavailable`, saying which layer and why, where no graph can be vouched for.
    """
    return net.fact("circuit wiring", lambda: _vouched(net))


def _vouched(net: Network) -> Wiring:
    wired = find_wiring(net)
    error = disagreement(wired)
    for by_running, heads, experts in _COARSER:
        kinds = {stage.kind for stage in wired.stages}
        if error <= _tolerance(net) or not kinds & {"head", "expert"}:
            break
        why = f"could not be told apart exactly (error {error:.1e})"
        wired = find_wiring(
            net, Grain(by_running, None if heads else f"its heads {why}", None if experts else f"they {why}")
        )
        error = disagreement(wired)
    if not error <= _tolerance(net):
        raise SiteUnavailable(
            f"The graph of {net.name} could not be vouched for: rebuilding what its parts read changes the logits by "
            f"{error:.1e} of their size.",
            "Use activation patching (cutaway.patch) on the sites that are certified.",
        )
    return wired


#: What is tried when the finest graph is not exact: do heads read by running their attention, are there heads, experts?
_COARSER = ((True, True, True), (False, True, False), (True, True, False), (False, False, False))


def _tolerance(net: Network) -> float:
    return _TOLERANCE.get(net.products or net.dtype, 1e-4)


def disagreement(wired: Wiring) -> float:
    """Largest difference of logits in the three identities, relative to their largest value; infinity where one fails."""
    net = wired.net
    rows, others = (probe_rows(net, COLUMNS, seed=s) for s in (21, 22))
    tokens, other = net.encode(rows), net.encode(others)
    positions = torch.full((len(rows),), -1)
    writers, readers = wired.graph.shape
    try:
        outputs, logits = record(wired, tokens, positions)
        ablated, there = record(wired, other, positions)
        kept = torch.rand(writers, generator=torch.Generator().manual_seed(5)) > 0.5
        every = torch.ones(writers, readers)
        expected = (
            (1, logits),
            (0, there),
            (kept[:, None], run_nodes(wired, tokens, positions, ablated, kept)),
        )
        pairs = [
            (run_edges(wired, tokens, positions, ablated, Mask(every * inside)), logits)
            for inside, logits in expected
        ]
    except CutawayError:
        raise
    except (RuntimeError, ValueError, IndexError):
        return float("inf")
    return max(_relative(a, b) for a, b in pairs)


def _relative(a: Tensor, b: Tensor | None) -> float:
    assert b is not None
    scale = b.double().abs().max().clamp(min=1e-12)
    error = float((a.double() - b.double()).abs().max() / scale)
    return error if error == error else float("inf")
