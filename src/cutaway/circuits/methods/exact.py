"""Exact patching: every node, and every edge, one after the other, many in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.methods.protocol import Options, Study
from cutaway.circuits.passes.outputs import record
from cutaway.circuits.passes.pairs import Batch
from cutaway.circuits.passes.resuming import Prefix
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.circuits.scores import Scores
from cutaway.effects.baselines import measure
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.sweeps import Cell, Experiment, Write, run_cells

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

PATCHING = "Vig et al. 2020; Meng et al. 2022; Wang et al. 2023: m(clean) - m(clean with the node's output corrupted)"
PATHS = "Goldowsky-Dill et al. 2023 (arXiv 2304.05969): m(clean) - m(clean with this one edge corrupted)"
_ROWS = 128


def node_writes(wiring: Wiring) -> list[Cell]:
    """For every writer the write that replaces its output at every position."""
    cells: list[Cell] = [(Write("resid_pre", 0),)]
    for stage in wiring.stages:
        if stage.kind == "head":
            cells += [(Write("z", stage.layer, h),) for h in range(stage.heads)]
        elif stage.kind == "unit":
            cells.append((Write(stage.write.split(".")[0], stage.layer),))
    return cells


def node_patching(net: Network, behaviour: Behaviour, options: Options) -> Scores:
    """Activation patching of every node, exactly: score(u) = m(clean) - m(clean, u's output from the corrupted prompt).

    Runs on the sweep engine (`cutaway.sweeps.run_cells`): one row for each node and example.
    """
    study = Study.of(net, behaviour, options)
    cells = node_writes(study.wiring)
    sites = [Site(c[0].site, c[0].layer) for c in cells]
    ends = measure(net, behaviour, list(dict.fromkeys(sites)))
    experiment = Experiment(net, ends.clean.tokens, ends.positions, ends.score, ends.corrupted.kept)
    work = Work(lambda step: options.report(step.label, step.done, step.total))
    done = run_cells(experiment, cells, work=work, label="node patching")
    if done.interrupted:
        raise KeyboardInterrupt
    sign = 1.0 if behaviour.metric.higher else -1.0
    found = sign * (ends.clean.metric[None] - done.values).T
    return study.node_scores("node-patching", PATCHING, found.astype(np.float32))


def path_patching(net: Network, behaviour: Behaviour, options: Options) -> Scores:
    """Path patching of every edge, exactly: score(u -> v) = m(clean) - m(clean, v reads u's output of the corrupted prompt).

    Every edge is one row of a batch with a mask of its own; a batch starts at the layer of its first reader. Everything
    else, also what other nodes write, reacts as it does in the network.
    """
    study = Study.of(net, behaviour, options)
    graph = study.wiring.graph
    edges = [tuple(int(i) for i in e) for e in np.argwhere(graph.allowed)]
    layer_of = np.array(
        [min(r.layer, net.n_layers) if r.kind != "logits" else net.n_layers for r in graph.readers]
    )
    edges.sort(key=lambda e: (layer_of[e[1]], e[1], e[0]))
    found = np.zeros((behaviour.n, *graph.shape), dtype=np.float32)
    done = 0
    for batch in study.pairs:
        ablated, _ = record(study.wiring, batch.corrupted)
        prefix = Prefix.of(study.wiring, batch.clean)
        base = batch.score(record(study.wiring, batch.clean, batch.positions)[1])  # type: ignore[arg-type]
        at_once = max(1, _ROWS // batch.n)
        for start in range(0, len(edges), at_once):
            part = edges[start : start + at_once]
            values = _cut(study.wiring, batch, part, ablated, prefix, int(layer_of[part[0][1]]))
            effect = batch.sign * (base[None] - values)
            for (w, r), row in zip(part, effect.double().cpu().numpy(), strict=True):
                found[list(batch.rows), w, r] = row
            options.report("path patching", done + start + len(part), len(edges) * len(study.pairs.batches))
        done += len(edges)
    return Scores(
        graph, found.mean(0, dtype=np.float64), "path-patching", PATHS, examples=found if options.examples else None,
        clusters=behaviour.clusters, notes=study.wiring.notes, provenance=study.provenance(),
    )  # fmt: skip


def _cut(wiring: Wiring, batch: Batch, edges, ablated, prefix: Prefix, layer: int) -> torch.Tensor:
    """The metric [k b] with each of k edges out, one at a time."""
    k = len(edges)
    masks = torch.ones(k, *wiring.graph.shape, dtype=torch.bool)
    for i, (w, r) in enumerate(edges):
        masks[i, w, r] = False
    many = batch.repeat(k)
    rows = masks.repeat_interleave(batch.n, 0)
    values = ablated.map(lambda v: v.repeat(k, *[1] * (v.ndim - 1)))
    logits = run_edges(
        wiring, many.clean, many.positions, values, Mask(rows), resume=(prefix.repeat(k), layer)
    )
    return many.score(logits).reshape(k, batch.n)
