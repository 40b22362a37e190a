"""How well exact activation patching finds the nodes that are known: scores for all heads and MLPs, and their AUROC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutaway.behaviours import Behaviour
from cutaway.calibration.verify import subject_of
from cutaway.effects import Effects, patch
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.statistics import auroc


@dataclass(frozen=True)
class Recovery:
    """Each node's score (the larger of what it restores and what it corrupts, in shares of the range) and the truth.

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
    found: dict[Part, float] = {}
    for direction in ("restore", "corrupt"):
        by_head = patch(net, behaviour, at="z", by=["layer", "head"], direction=direction)
        by_mlp = patch(net, behaviour, at="mlp_write", by=["layer"], direction=direction)
        pairs: tuple[tuple[Effects, str], ...] = ((by_head, "head"), (by_mlp, "mlp"))
        for effects, kind in pairs:
            mean = effects.data["mean"]
            layers = mean["layer"].to_numpy()
            for index, value in np.ndenumerate(mean.to_numpy()):
                head = int(index[1]) if kind == "head" else None
                node = Part(kind, int(layers[index[0]]), head)
                found[node] = max(found.get(node, 0.0), abs(float(value)))
    return {node: found[node] for node in sorted(found)}
