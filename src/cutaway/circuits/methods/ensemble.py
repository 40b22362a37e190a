"""Several methods in one, and the method that knows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.methods.protocol import Options
from cutaway.circuits.passes.certify import wiring
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput
from cutaway.results import Provenance

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

ENSEMBLE = "After the parallel ensembles of MIB's circuit track (Mueller et al. 2025): mean or maximum of scaled |scores|"
_MEMBERS = ("eap", "eap-ig", "eap-ig-activations")


def scaled(scores: Scores) -> np.ndarray:
    """|scores| divided by their root mean square over the graph's edges: [w r], so that methods of different units add."""
    found = np.abs(scores.values)
    size = float(np.sqrt(np.mean(found[scores.graph.allowed] ** 2)))
    return found / size if size > 0 else found


def combine(members: list[Scores], how: str = "mean", weights: list[float] | None = None) -> Scores:
    """Scores of several methods as one: the (weighted) mean or the maximum of their scaled sizes.

    The sign is that of the sum of the members' signed scores.
    """
    if not members or how not in ("mean", "max"):
        raise BadInput("An ensemble needs members, and how='mean' or 'max'.", "Give at least one method.")
    graph: Graph = members[0].graph
    stack = np.stack([scaled(m) for m in members])
    shares = np.asarray(weights if weights is not None else np.ones(len(members)), dtype=float)
    if len(shares) != len(members) or shares.sum() <= 0:
        raise BadInput(
            f"There are {len(members)} members and {len(shares)} weights.", "Give one weight for each."
        )
    sizes = stack.max(0) if how == "max" else np.tensordot(shares / shares.sum(), stack, 1)
    sign = np.sign(sum(s * np.sign(m.values) for s, m in zip(stack, members, strict=True)))
    names = ", ".join(m.method for m in members)
    return Scores(graph, sizes * sign, f"ensemble ({how} of {names})", ENSEMBLE, clusters=members[0].clusters)


def ensemble(net: Network, behaviour: Behaviour, options: Options) -> Scores:
    """Several methods as one. more={"methods": (...), "how": "mean" or "max", "weights": [...]}; default: EAP and both kinds
    of integrated gradients.
    """
    from cutaway.circuits.methods import method

    names = options.more.get("methods", _MEMBERS)
    members = [method(str(name))(net, behaviour, options) for name in names]
    found = combine(members, str(options.more.get("how", "mean")), options.more.get("weights"))
    provenance = Provenance.of(net, behaviour.hash, options.seed)
    return Scores(**{**found.__dict__, "provenance": provenance})


def random_scores(net: Network, behaviour: Behaviour, options: Options) -> Scores:
    """Standard normal scores from the seed: what any method must beat."""
    graph = wiring(net).graph
    drawn = np.random.default_rng(options.seed).standard_normal(graph.shape)
    return Scores(
        graph, np.where(graph.allowed, drawn, 0.0), "random", "none",
        provenance=Provenance.of(net, behaviour.hash, options.seed),
    )  # fmt: skip
