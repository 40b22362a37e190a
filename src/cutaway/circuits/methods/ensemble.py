"""Several methods in one, and the method that knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.methods import known_options, score
from cutaway.circuits.methods.options import MethodOptions
from cutaway.circuits.passes.certify import wiring
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput
from cutaway.results import Provenance, Work, working

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

ENSEMBLE = "After the parallel ensembles of MIB's circuit track (Mueller et al. 2025): mean or maximum of scaled |scores|"


@dataclass(frozen=True)
class EnsembleOptions(MethodOptions):
    """Options of an ensemble.

    Attributes:
        methods: its members, by name.
        how: "mean" or "max" of their scaled sizes.
        weights: one for each member, of a mean; None: all the same.
        steps: of those members that integrate.
    """

    methods: tuple[str, ...] = ("eap", "eap-ig", "eap-ig-activations")
    how: Literal["mean", "max"] = "mean"
    weights: tuple[float, ...] | None = None
    steps: int = 5


def scaled(scores: Scores) -> np.ndarray:
    """|scores| divided by their root mean square over the graph's edges: [w r], so that methods of different units add."""
    sizes = np.abs(scores.values)
    unit = float(np.sqrt(np.mean(sizes[scores.graph.allowed] ** 2)))
    return sizes / unit if unit > 0 else sizes


def combine(members: list[Scores], how: str = "mean", weights: Sequence[float] | None = None) -> Scores:
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


def ensemble(
    net: Network, behaviour: Behaviour, options: EnsembleOptions, work: Work | None = None
) -> Scores:
    """Several methods as one; by default EAP and both kinds of integrated gradients."""
    members = []
    wanted = {"steps": options.steps, "ablation": options.ablation, "seed": options.seed}
    for name in options.methods:
        members.append(score(net, behaviour, method=name, work=work, **known_options(name, wanted)))
    combined = combine(members, options.how, options.weights)
    return replace(combined, provenance=Provenance.of(net, behaviour.hash, options.seed))


def random_scores(
    net: Network, behaviour: Behaviour, options: MethodOptions, work: Work | None = None
) -> Scores:
    """Standard normal scores from the seed: what any method must beat."""
    working(work).check()
    graph = wiring(net).graph
    drawn = np.random.default_rng(options.seed).standard_normal(graph.shape)
    return Scores(
        graph, np.where(graph.allowed, drawn, 0.0), "random", "none",
        provenance=Provenance.of(net, behaviour.hash, options.seed),
    )  # fmt: skip
