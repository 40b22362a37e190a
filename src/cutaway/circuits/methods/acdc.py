"""ACDC: edges are taken out one by one, from the logits downwards, as long as the output stays close."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.metrics import METRICS
from cutaway.circuits.methods.exact import layer_read
from cutaway.circuits.methods.options import MethodOptions, plain
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.outputs import Outputs, record
from cutaway.circuits.passes.pairs import PairBatch
from cutaway.circuits.passes.resuming import ResumedPrefix
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.circuits.scores import Scores

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

ACDC = (
    "Conmy et al. 2023 (arXiv 2304.14997), algorithm 1: an edge goes when D(H without it) - D(H) < threshold"
)


@dataclass(frozen=True)
class AcdcOptions(MethodOptions):
    """Options of ACDC.

    Attributes:
        threshold: an edge goes when the divergence grows by less; `trace(method="acdc", threshold=...)` sets it unless
            `select="threshold"` asks for a selection by score.
        divergence: "kl": of the answer position's distribution; "metric": the fall of the behaviour's metric as a share of
            its gap.
    """

    threshold: float = 0.02
    divergence: Literal["kl", "metric"] = "kl"


def acdc(net: Network, behaviour: Behaviour, options: AcdcOptions, work: Work | None = None) -> Scores:
    """Automatic circuit discovery (Conmy et al. 2023, algorithm 1).

    Nodes are visited from the logits down; of each, the incoming edges from the latest writer to the first. An edge is
    removed for good when the divergence D from the whole network grows by less than the threshold. D is the KL divergence
    of the answer position's distribution, or the fall of the behaviour's metric as a share of its gap. Edges into
    nodes that nothing reads any more go without a run. As all edges below the layer in work are still in, each run starts at
    that layer.

    The score of an edge is the growth of D when it was tried, and `kept` are the edges that stayed; thresholding the scores
    at the threshold gives them.
    """
    study, least, kind = Study.of(net, behaviour, options, work), options.threshold, options.divergence
    removals = _Removals(study, kind)
    graph = study.wiring.graph
    keep = graph.allowed.copy()
    growth = np.zeros(graph.shape)
    now, tried, start = 0.0, 0, len(graph.readers) - 1
    of = [net.hash, behaviour.hash, plain(options)]
    if (kept := None if study.work.stages is None else study.work.stages.find("acdc", of)) is not None:
        keep, growth = kept["keep"], kept["growth"]
        now, tried, start = float(kept["now"]), int(kept["tried"]), int(kept["next"])
    for r in range(start, -1, -1):
        if study.work.stages is not None and r < start:
            state = {"keep": keep, "growth": growth, "now": now, "tried": tried, "next": r}
            study.work.stages.put("acdc", state, of)
        owner = int(graph.owner[r])
        if owner >= 0 and not keep[owner].any():
            keep[:, r] = False
            tried += graph.before[r]
            continue
        for w in range(graph.before[r] - 1, -1, -1):
            keep[w, r] = False
            after = removals.divergence(keep, layer_read(graph.readers[r], net))
            growth[w, r] = after - now
            if after - now < least:
                now = after
            else:
                keep[w, r] = True
            tried += 1
        study.work.step("ACDC", tried, graph.n_edges)
    return Scores(
        graph, np.where(graph.allowed, growth, 0.0), "acdc", ACDC, kept=keep, clusters=behaviour.clusters,
        notes=(*study.wiring.notes, f"ACDC: threshold {least:g} in {kind}; D of the result {now:.4g}."),
        provenance=study.provenance(),
    )  # fmt: skip


class _Removals:
    """The divergence of any circuit from the whole network, with what can be shared computed once."""

    def __init__(self, study: Study, kind: str) -> None:
        self.study, self.kind = study, kind
        self.kept: list[tuple[PairBatch, Outputs, ResumedPrefix, Callable[[Tensor], Tensor]]] = []
        clean, corrupted, n = 0.0, 0.0, 0
        for batch in study.pairs:
            ablated, other = record(study.wiring, batch.corrupted, batch.positions)
            logits = record(study.wiring, batch.clean, batch.positions)[1]
            assert logits is not None
            assert other is not None
            clean += float(batch.score(logits).double().sum())
            corrupted += float(batch.score(other).double().sum())
            n += batch.n
            prefix = ResumedPrefix.of(study.wiring, batch.clean)
            self.kept.append((batch, ablated, prefix, self._from(batch, logits)))
        self.gap = (clean - corrupted) / n

    def _from(self, batch: PairBatch, logits: Tensor) -> Callable[[Tensor], Tensor]:
        if self.kind == "kl":
            answers = batch.answers.with_reference(logits)
            return lambda logits: METRICS["kl"](logits, answers)
        base = batch.score(logits)
        return lambda logits: base - batch.score(logits)

    def divergence(self, keep: np.ndarray, layer: int) -> float:
        """Mean divergence over examples; nothing below `layer` is changed."""
        total = 0.0
        mask = Mask(torch.from_numpy(keep))
        for batch, ablated, prefix, distance in self.kept:
            resume = (prefix, layer)
            logits = run_edges(self.study.wiring, batch.clean, batch.positions, ablated, mask, resume=resume)
            total += float(distance(logits).double().sum())
        mean = total / self.study.pairs.n
        return mean / self.gap if self.kind == "metric" else mean
