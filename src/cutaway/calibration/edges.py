"""What each edge carries, apart from `effects.paths` on purpose: it is what that and the circuits' methods are held against.

Path patching with everything else frozen, by plain edits of whole forwards and no sweep engine.

For the edge S -> R: on the clean prompt S takes its value from another prompt while every other node is frozen at its
clean value; what R then reads at that input (its queries, keys or values; the MLP's input; the logits) is put into a
clean run, in which everything is free to follow. Goldowsky-Dill et al. 2023, Localizing Model Behavior with Path
Patching.
"""

from __future__ import annotations

import numpy as np

from cutaway.calibration.subject import Subject, answers_of, patched
from cutaway.interventions import Freeze, Intervention, Patch
from cutaway.network.parts import Edge, Input, Part

_ROWS = 16


def edge_effects(subject: Subject) -> dict[Edge, float]:
    """For every edge the mean absolute change of the metric, in shares of the effect range.

    The larger of two is given: values from the corrupted prompts, and from unrelated ones; where the ground truth
    knows redundant parts, of three: clean values put into corrupted prompts, too. Empty where there is no
    range.
    """
    if not subject.range:
        return {}
    few = subject.first(_ROWS)
    ways = [(few, True), (few, False)]
    if not all(need.breaks for need in subject.truth.needs):
        ways.append((few.turned(), True))  # of redundant paths each shows only where it restores
    effects: dict[Edge, float] = {}
    for base, corrupted in ways:
        wide: dict[int, Subject] = {}
        for sender in (Part("input"), *few.nodes):
            edges = _leaving(base, sender)
            if len(edges) not in wide:
                wide[len(edges)] = base.repeated(len(edges))
            for edge, effect in _from(wide[len(edges)], sender, edges, corrupted).items():
                effects[edge] = max(effects.get(edge, 0.0), effect)
    return effects


def _from(wide: Subject, sender: Part, edges: list[Edge], corrupted: bool) -> dict[Edge, float]:
    """The effects of all edges that leave a node: one block of rows for each, so that two runs do them all."""
    source = wide.from_corrupted if corrupted else wide.from_others
    keep = sorted({_read_at(edge) for edge in edges if edge.target.part.kind != "logits"})
    frozen: list[Intervention] = [Freeze(site, wide.from_clean) for site in wide.sites]
    cut = [*frozen, *patched([sender], source)]
    run = wide.net.run(wide.clean, keep=keep, edits=cut, logits=wide.positions)
    n = wide.behaviour.n // len(edges)
    edits: list[Intervention] = []
    for i, edge in enumerate(edges):
        rows = range(i * n, (i + 1) * n)
        if edge.target.part.kind != "logits":
            edits.append(Patch(_read_at(edge), run, head=_head_read(edge, wide), row=rows))
    effect = np.abs(wide.effect(edits)).reshape(len(edges), n).mean(1)
    direct = np.abs(wide.change(wide.score(answers_of(run)))).reshape(len(edges), n).mean(1)
    to_logits = [edge.target.part.kind == "logits" for edge in edges]
    return dict(zip(edges, np.where(to_logits, direct, effect).tolist(), strict=True))


def _leaving(subject: Subject, sender: Part) -> list[Edge]:
    """Every edge from a node; of those into keys and values that several heads share, only the stated ones."""
    edges = [Edge(sender, Input(Part("logits")))]
    for node in subject.nodes:
        if not _later(sender, node, subject):
            continue
        for target in node.inputs:
            edge = Edge(sender, target)
            alone = target.port in ("in", "q") or not subject.shares_keys(node.layer or 0)
            if alone or edge in subject.truth.edges:
                edges.append(edge)
    return edges


def _head_read(edge: Edge, subject: Subject) -> int | None:
    """Which head of the site of what is read; key/value heads are counted among themselves."""
    head, layer = edge.target.part.index, edge.target.part.layer or 0
    if head is None or edge.target.port == "q":
        return head
    return head * subject.heads_of_keys[layer] // (subject.net.heads(layer) or 1)


def _read_at(edge: Edge) -> str:
    """The site of what an edge's target reads."""
    port = edge.target.port
    return f"{'mlp_in' if port == 'in' else port}.{edge.target.part.layer}"


def _later(sender: Part, node: Part, subject: Subject) -> bool:
    """Can what the sender writes reach what the node reads?"""
    if sender.layer is None or node.layer is None or sender.layer < node.layer:
        return True
    serial = subject.net.has(f"resid_mid.{node.layer}")
    return serial and sender.layer == node.layer and sender.kind == "head" and node.kind == "mlp"
