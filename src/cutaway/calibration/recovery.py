"""How well exact activation patching finds the nodes that are known: scores for all heads and MLPs, and their AUROC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutaway.behaviours import Behaviour
from cutaway.calibration.verify import subject_of
from cutaway.effects import patch
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.statistics import auroc


@dataclass(frozen=True)
class Recovery:
    """How well exact activation patching finds the known nodes of a specimen.

    Attributes:
        name: of the specimen.
        nodes: every head and MLP.
        scores: of each the larger of what it restores and what it corrupts, in shares of the range.
        known: whether the ground truth names it.
        auroc: the probability that a known node scores above another one; NaN where all nodes are known.
    """

    name: str
    nodes: tuple[Part, ...]
    scores: tuple[float, ...]
    known: tuple[bool, ...]
    auroc: float


def recovery(name: str, n: int = 64, seed: int = 0) -> Recovery:
    """Patch every head and every MLP of a specimen, in both directions, with the sweep engine.

    Both, because what is redundant shows only when it is restored, and what must come together only when it is
    corrupted (Heimersheim and Nanda 2024).
    """
    subject = subject_of(name, n=n, seed=seed)
    scores = node_scores(subject.net, subject.behaviour)
    known = tuple(node in subject.truth.nodes for node in scores)
    values = tuple(scores.values())
    return Recovery(str(name), tuple(scores), values, known, float(auroc(values, known)))


def node_scores(net: Network, behaviour: Behaviour) -> dict[Part, float]:
    """The score of every head and MLP of a network on a behaviour."""
    scores: dict[Part, float] = {}
    for direction in ("restore", "corrupt"):
        for kind, site, by in (("head", "z", ["layer", "head"]), ("mlp", "mlp_write", ["layer"])):
            mean = patch(net, behaviour, at=site, by=by, direction=direction).data["mean"]
            layers = mean["layer"].to_numpy()
            for (row, *head), value in np.ndenumerate(mean.to_numpy()):
                node = Part(kind, int(layers[row]), int(head[0]) if head else None)
                scores[node] = max(scores.get(node, 0.0), abs(float(value)))
    return {node: scores[node] for node in sorted(scores)}
