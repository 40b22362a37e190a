"""One method at work on one behaviour: its wiring and batches, and what all methods do alike with their scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.methods.options import MethodOptions, PositionOptions, ScoreOptions, plain
from cutaway.circuits.methods.tally import Tally
from cutaway.circuits.passes.ablation import groups_of
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.circuits.passes.pairs import PairBatch, PromptPairs
from cutaway.circuits.scores import Scores, spread
from cutaway.errors import BadBehaviour
from cutaway.results import Provenance, Work, working

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


@dataclass(eq=False)
class Study:
    """One method at work on one behaviour.

    Attributes:
        net: the network.
        behaviour: the behaviour.
        options: the method's.
        work: who hears of progress, and may stop it.
        wiring: how the network's parts read and write.
        pairs: the behaviour in batches.
        started: when the method began, for the provenance.
        parts: per-example scores of the batches so far.
        grouped: sums by group of positions so far.
        method: whose scores they are.
    """

    net: Network
    behaviour: Behaviour
    options: MethodOptions
    work: Work
    wiring: Wiring
    pairs: PromptPairs
    started: float
    parts: list[np.ndarray] = field(default_factory=list)
    grouped: np.ndarray | None = None
    method: str = ""

    @classmethod
    def of(
        cls,
        net: Network,
        behaviour: Behaviour,
        options: MethodOptions,
        work: Work | None = None,
        aligned: bool = True,
    ) -> Study:
        """Find the wiring and cut the behaviour into batches.

        Raises BadBehaviour where spans are asked for and there are none, or (`aligned`) where pairs differ in length.
        """
        work = working(work)
        if isinstance(options, PositionOptions) and options.positions == "span" and not behaviour.spans:
            raise BadBehaviour(f"{behaviour.name!r} names no spans.", 'Use positions="position".')
        wired = wiring_of(net)
        pairs = PromptPairs.of(net, behaviour, len(wired.graph.writers), work, aligned)
        return cls(net, behaviour, options, work, wired, pairs, time.perf_counter())

    @property
    def positions(self) -> str | None:
        """What positions are grouped by, where the method tells them apart."""
        return self.options.positions if isinstance(self.options, PositionOptions) else None

    @property
    def examples(self) -> bool:
        """Are the scores of single examples kept?"""
        return isinstance(self.options, ScoreOptions) and self.options.examples

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups of positions."""
        if self.positions is None:
            return ()
        if self.positions == "span":
            return (*self.behaviour.spans, "elsewhere")
        return tuple(map(str, range(max(self.behaviour.lengths))))

    def groups(self, batch: PairBatch) -> Tensor | None:
        """[b p]: the group of every position; -1 at padding."""
        return None if self.positions is None else groups_of(self.group_names, self.pairs, batch)

    def tally(self, batch: PairBatch, like: Tensor) -> Tally:
        """An empty tally for a batch."""
        return Tally.of(batch.n, self.wiring.graph.shape, like, self.groups(batch), len(self.group_names))

    def keep(self, batch: PairBatch, tally: Tally, weight: float = 1.0) -> None:
        """Take over what a batch gave, oriented so that positive supports the behaviour."""
        self.parts.append((batch.sign * weight * tally.examples).double().cpu().numpy().astype(np.float32))
        mine = None
        if tally.positions is not None:
            mine = (batch.sign * weight * tally.positions).double().cpu().numpy()
            self.grouped = mine if self.grouped is None else self.grouped + mine
        if self.work.stages is not None:
            kept = {"examples": self.parts[-1]} | ({} if mine is None else {"grouped": mine})
            self.work.stages.put("scores", kept, self._of(batch))
        self.work.step(self.behaviour.name, sum(len(p) for p in self.parts), self.pairs.n)

    def batches(self, method: str) -> Iterator[PairBatch]:
        """The batches whose scores are to be found; what was kept of others before a stop is taken over in their place."""
        self.method = method
        for batch in self.pairs:
            stages = self.work.stages
            kept = None if stages is None else stages.find("scores", self._of(batch))
            if kept is None:
                yield batch
                continue
            self.parts.append(kept["examples"])
            if "grouped" in kept:
                self.grouped = kept["grouped"] if self.grouped is None else self.grouped + kept["grouped"]
            self.work.step(self.behaviour.name, sum(len(p) for p in self.parts), self.pairs.n)

    def once(self, batch: PairBatch, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The scores of a batch: those that were kept before a stop, else as they are made."""
        found = partial(self._of, batch)
        return self.work.once("scores", make, lambda x: {"x": x}, lambda kept: kept["x"], found)

    def once_named(
        self, name: str, batch: PairBatch, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Several arrays of a batch, by name: those that were kept before a stop, else as they are made."""
        return self.work.once(name, make, dict, dict, partial(self._of, batch))

    def _of(self, batch: PairBatch) -> list[object]:
        """What the scores of a batch depend on, beside the question."""
        return [*self.of_all(), list(batch.rows)]

    def of_all(self) -> list[object]:
        """What the scores of all batches depend on, beside the question."""
        return [self.method, plain(self.options), self.net.hash, self.behaviour.hash]

    def scores(self, method: str, source: str, notes: tuple[str, ...] = ()) -> Scores:
        """The result of an edge method."""
        examples = self.pairs.gather(self.parts, 0)
        grouped = None if self.grouped is None else self.grouped / self.pairs.n
        return Scores(
            self.wiring.graph, examples.mean(0, dtype=np.float64), method, source,
            examples=examples if self.examples else None, positions=grouped, groups=self.group_names,
            clusters=self.behaviour.clusters, notes=(*self.wiring.notes, *notes), provenance=self.provenance(),
        )  # fmt: skip

    def node_scores(
        self, method: str, source: str, examples: np.ndarray, notes: tuple[str, ...] = ()
    ) -> Scores:
        """The result of a node method from per-example scores [n w] in the order of the examples."""
        mean = examples.mean(0, dtype=np.float64)
        graph = self.wiring.graph
        return Scores(
            graph, spread(graph, mean), method, source, nodes=mean,
            node_examples=examples if self.examples else None, clusters=self.behaviour.clusters,
            notes=(*self.wiring.notes, *notes), provenance=self.provenance(),
        )  # fmt: skip

    def provenance(self) -> Provenance:
        """What is needed to repeat it."""
        seconds = round(time.perf_counter() - self.started, 3)
        return Provenance.of(self.net, self.behaviour.hash, self.options.seed, seconds)
