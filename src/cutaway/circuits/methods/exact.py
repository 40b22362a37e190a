"""Exact patching: every node, and every edge, one after the other, many in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.methods.options import ScoreOptions
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.outputs import Outputs, record
from cutaway.circuits.passes.pairs import PairBatch
from cutaway.circuits.passes.resuming import ResumedPrefix
from cutaway.circuits.passes.running import Mask, run_edges, run_nodes
from cutaway.circuits.scores import Scores
from cutaway.effects.baselines import measure
from cutaway.effects.paths import DirectPaths, Route, receives, sends
from cutaway.errors import SiteUnavailable, Stopped
from cutaway.network.parts import Input
from cutaway.network.sites import Site
from cutaway.sweeps import Cell, Experiment, Write, run_cells

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

PATCHING = "Vig et al. 2020; Meng et al. 2022; Wang et al. 2023: m(clean) - m(clean with the node's output corrupted)"
PATHS = "Goldowsky-Dill et al. 2023 (arXiv 2304.05969): m(clean) - m(clean with this one edge corrupted)"
#: Rows of one batch: more are not faster, as matrix products are then as wide as they get.
_ROWS = 128


def node_writes(wiring: Wiring) -> list[Cell]:
    """For every writer but experts the write that replaces its output at every position."""
    cells: list[Cell] = [(Write("resid_pre", 0),)]
    for stage in wiring.stages:
        if stage.kind == "head":
            cells += [(Write("z", stage.layer, h),) for h in range(stage.heads)]
        elif stage.kind == "unit":
            cells.append((Write(stage.write.split(".")[0], stage.layer),))
    return cells


def node_patching(
    net: Network, behaviour: Behaviour, options: ScoreOptions, work: Work | None = None
) -> Scores:
    """Activation patching of every node, exactly: score(u) = m(clean) - m(clean, u's output from the corrupted prompt).

    Runs on the sweep engine (`cutaway.sweeps.run_cells`): one row for each node and example.
    """
    study = Study.of(net, behaviour, options, work)
    cells = node_writes(study.wiring)
    sites = [Site(c[0].site, c[0].layer) for c in cells]
    ends = measure(net, behaviour, list(dict.fromkeys(sites)))
    experiment = Experiment(net, ends.clean.tokens, ends.positions, ends.score, ends.corrupted.kept)
    done = run_cells(experiment, cells, work=study.work, label="node patching")
    if done.interrupted:
        raise Stopped("Node patching was stopped before every node was patched.", "Start it again.")
    sign = 1.0 if behaviour.metric.higher else -1.0
    values = np.empty((len(study.wiring.graph.writers), behaviour.n))
    numbers = np.arange(len(values))
    mixtures = [numbers[s.writers] for s in study.wiring.stages if s.kind == "expert"]
    experts = np.concatenate([numbers[:0], *mixtures])
    values[np.setdiff1d(numbers, experts)] = done.values
    for number, expert in enumerate(experts.tolist()):
        values[expert] = study.pairs.gather([_without(study.wiring, batch, expert) for batch in study.pairs])
        study.work.step("patching experts", number + 1, len(experts))
    effects = sign * (ends.clean.metric[None] - values).T
    return study.node_scores("node-patching", PATCHING, effects.astype(np.float32))


def path_patching(
    net: Network, behaviour: Behaviour, options: ScoreOptions, work: Work | None = None
) -> Scores:
    """Path patching of every edge, exactly: score(u -> v) = m(clean) - m(clean, v reads u's output of the corrupted prompt).

    Everything else, also what other nodes write, reacts as it does in the network. Edges are cut by `effects.paths`; those
    at nodes that have no site, and all where a network is refused there, by masks over the graph, and the notes say so.
    """
    study = Study.of(net, behaviour, options, work)
    graph = study.wiring.graph
    cut = _Direct.of(study)
    examples = np.zeros((behaviour.n, *graph.shape), dtype=np.float32)
    every = [tuple(int(i) for i in e) for e in np.argwhere(graph.allowed)]
    left = sorted(
        set(every) - set(cut.edges), key=lambda e: (layer_read(graph.readers[e[1]], net), e[1], e[0])
    )
    pieces = cut.paths.pieces(study.work) if cut.paths is not None and cut.edges else []
    lots = [(rows, cut.edges, partial(cut.effects, rows)) for rows in pieces]
    lots += [(b.rows, left, partial(_masked, study.wiring, left, b)) for b in study.pairs if left]
    done, total = 0, sum(len(edges) for _, edges, _ in lots)
    sign = 1.0 if behaviour.metric.higher else -1.0
    for rows, edges, run in lots:
        writers, readers = np.transpose(edges)
        lost = run(study.work.counting(done, total))
        examples[np.array(rows)[:, None], writers, readers] = sign * lost.T
        done += len(edges)
    return Scores(
        graph, examples.mean(0, dtype=np.float64), "path-patching", PATHS, examples=examples if options.examples else None,
        clusters=behaviour.clusters, notes=(*study.wiring.notes, *cut.notes(left)), provenance=study.provenance(),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Direct:
    """The edges of a graph that are direct paths between sites.

    Attributes:
        edges: (writer, reader) of each.
        routes: the same for `paths`.
        paths: what cuts them; None where there are none.
        refused: why the whole network has none; "" where it has.
    """

    edges: list[tuple[int, ...]]
    routes: list[Route]
    paths: DirectPaths | None
    refused: str = ""

    @classmethod
    def of(cls, study: Study) -> _Direct:
        """Those that `effects.paths` knows. A mixture's nodes are no sites: its MLP is what belongs to no expert."""
        net, graph = study.net, study.wiring.graph
        split = [s for s in study.wiring.stages if s.kind == "expert"]
        apart = {part for s in split for part in graph.writers[s.writers]}
        writers = [w for w, part in enumerate(graph.writers) if part not in apart and sends(net, part)]
        try:
            senders = [graph.writers[w] for w in writers]
            paths = DirectPaths.of(net, study.behaviour, senders, "corrupt", study.work)
        except SiteUnavailable as refusal:
            return cls([], [], None, refusal.problem)
        known = [(r, t) for r, t in enumerate(graph.readers) if t.part not in apart and receives(net, t)]
        found = [
            (writers[s], r, (s, t)) for r, t in known for s in paths.before(t) if graph.allowed[writers[s], r]
        ]
        return cls([(w, r) for w, r, _ in found], [route for *_, route in found], paths)

    def effects(self, rows: Sequence[int], work: Work) -> np.ndarray:
        """m(clean) - m(cut) [k b] of its edges on some examples. Raises `Stopped` where the work was asked to end."""
        assert self.paths is not None
        paths = self.paths.take(rows)
        done = paths.run(self.routes, work=work)
        if done.interrupted:
            raise Stopped("Path patching was stopped before every edge was patched.", "Start it again.")
        return paths.base.metric[None] - done.values

    def notes(self, left: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
        """What is to be said of the edges that are cut otherwise."""
        if self.refused:
            return (f"Edges are cut by masks over the graph: {self.refused}",)
        said = f"{len(left)} edges at nodes without a site are cut by masks over the graph."
        return (said,) if left else ()


def _masked(wiring: Wiring, edges: Sequence[tuple[int, ...]], batch: PairBatch, work: Work) -> np.ndarray:
    """m(clean) - m(cut) [k b] of edges sorted by layer, by masks over the graph.

    Every edge is one row of a batch with a mask of its own; a batch starts at the layer of its first reader.
    """
    ablated, _ = record(wiring, batch.corrupted)
    prefix = ResumedPrefix.of(wiring, batch.clean)
    base = batch.score(record(wiring, batch.clean, batch.positions)[1])  # type: ignore[arg-type]
    effects = []
    at_once = max(1, _ROWS // batch.n)
    for start in range(0, len(edges), at_once):
        part = edges[start : start + at_once]
        layer = layer_read(wiring.graph.readers[part[0][1]], wiring.net)

        def lost(part: Sequence[tuple[int, ...]] = part, layer: int = layer) -> np.ndarray:
            values = _cut(wiring, batch, part, ablated, prefix, layer)
            return (base[None] - values).double().cpu().numpy()

        of = (
            [wiring.net.hash, batch.clean.ids, batch.corrupted.ids, list(map(list, part))]
            if work.stages
            else []
        )
        effects.append(work.once("paths", lost, lambda x: {"x": x}, lambda kept: kept["x"], lambda of=of: of))
        work.step("patching paths", start + len(part), len(edges))
    return np.concatenate(effects)


def _without(wiring: Wiring, batch: PairBatch, writer: int) -> np.ndarray:
    """The metric [b] with one writer's output from the corrupted prompt."""
    inside = torch.ones(len(wiring.graph.writers), dtype=torch.bool)
    inside[writer] = False
    ablated, _ = record(wiring, batch.corrupted)
    logits = run_nodes(wiring, batch.clean, batch.positions, ablated, inside)
    return batch.score(logits).double().cpu().numpy()


def layer_read(reader: Input, net: Network) -> int:
    """The layer at which a run must start so that this reader is met; the number of layers for the logits."""
    return net.n_layers if reader.part.layer is None else reader.part.layer


def _cut(
    wiring: Wiring,
    batch: PairBatch,
    edges: Sequence[tuple[int, ...]],
    ablated: Outputs,
    prefix: ResumedPrefix,
    layer: int,
) -> torch.Tensor:
    """The metric [k b] with each of k edges out, one at a time."""
    k = len(edges)
    masks = torch.ones(k, *wiring.graph.shape, dtype=torch.bool)
    for i, (w, r) in enumerate(edges):
        masks[i, w, r] = False
    many = batch.repeat(k)
    rows = masks.repeat_interleave(batch.n, 0)

    resume = (prefix.repeat(k), layer)
    logits = run_edges(wiring, many.clean, many.positions, ablated.repeat(k), Mask(rows), resume=resume)
    return many.score(logits).reshape(k, batch.n)
