"""What all methods of discovery share: (network, behaviour) -> scores, and the options they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.methods.contract import Tally
from cutaway.circuits.passes.ablation import span_labels
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.circuits.passes.pairs import BUDGET, Batch, Pairs
from cutaway.circuits.scores import Scores, spread
from cutaway.errors import BadBehaviour, BadInput
from cutaway.results import Provenance

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: Called with (what is being done, steps finished, steps in all).
Report = Callable[[str, int, int], None]


def silent(label: str, done: int, total: int) -> None:
    """The progress report that says nothing."""


@dataclass(frozen=True)
class Options:
    """How a method runs.

    steps: of an integral over the path from corrupted to clean. positions: None, "position" or "span": score groups of
    positions, too. examples: keep the scores of single examples. ablation: what a removed edge carries, for methods that
    remove edges. removal_threshold: of ACDC, in units of its divergence. seed: of everything random. budget: bytes that the
    differences of one batch may take. more: options of single methods by name.
    """

    steps: int = 5
    positions: str | None = None
    examples: bool = True
    ablation: str = "counterfactual"
    removal_threshold: float | None = None
    seed: int = 0
    budget: int = BUDGET
    report: Report = silent
    more: dict[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """A method of discovery."""

    def __call__(self, net: Network, behaviour: Behaviour, options: Options) -> Scores:
        """The scores of every edge or node of the network for the behaviour."""
        ...


@dataclass(eq=False)
class Study:
    """One method at work on one behaviour: its wiring, its batches, the scores so far."""

    net: Network
    behaviour: Behaviour
    options: Options
    wiring: Wiring
    pairs: Pairs
    started: float
    parts: list[np.ndarray] = field(default_factory=list)
    grouped: np.ndarray | None = None

    @classmethod
    def of(cls, net: Network, behaviour: Behaviour, options: Options, aligned: bool = True) -> Study:
        """Find the wiring and cut the behaviour into batches."""
        if options.positions not in (None, "position", "span"):
            raise BadInput(f"positions={options.positions!r} is not known.", 'Use "position" or "span".')
        if options.positions == "span" and not behaviour.spans:
            raise BadBehaviour(f"{behaviour.name!r} names no spans.", 'Use positions="position".')
        found = wiring_of(net)
        pairs = Pairs.of(net, behaviour, len(found.graph.writers), options.budget, aligned)
        return cls(net, behaviour, options, found, pairs, time.perf_counter())

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups of positions."""
        if self.options.positions is None:
            return ()
        if self.options.positions == "span":
            return (*self.behaviour.spans, "elsewhere")
        return tuple(map(str, range(max(self.behaviour.lengths))))

    def groups(self, batch: Batch) -> Tensor | None:
        """[b p]: the group of every position; -1 at padding."""
        if self.options.positions is None:
            return None
        real = batch.clean.mask.cpu()
        if self.options.positions == "position":
            columns = torch.arange(batch.clean.width)[None] - batch.clean.first.cpu()[:, None]
            return torch.where(real, columns, -1)
        labels = span_labels(self.pairs, batch)
        return torch.where(real, torch.where(labels < 0, len(self.behaviour.spans), labels), -1)

    def tally(self, batch: Batch, like: Tensor) -> Tally:
        """An empty tally for a batch."""
        return Tally.of(batch.n, self.wiring.graph.shape, like, self.groups(batch), len(self.group_names))

    def keep(self, batch: Batch, tally: Tally, weight: float = 1.0) -> None:
        """Take over what a batch gave, oriented so that positive supports the behaviour."""
        self.parts.append((batch.sign * weight * tally.examples).double().cpu().numpy().astype(np.float32))
        if tally.positions is not None:
            mine = (batch.sign * weight * tally.positions).double().cpu().numpy()
            self.grouped = mine if self.grouped is None else self.grouped + mine
        self.options.report(self.behaviour.name, sum(len(p) for p in self.parts), self.pairs.n)

    def ordered(self) -> np.ndarray:
        """Per-example scores in the order of the examples."""
        order = np.concatenate([np.asarray(b.rows) for b in self.pairs])
        joined = np.concatenate(self.parts)
        out = np.empty_like(joined)
        out[order] = joined
        return out

    def scores(self, method: str, source: str, notes: tuple[str, ...] = ()) -> Scores:
        """The result of an edge method."""
        found = self.ordered()
        grouped = None if self.grouped is None else self.grouped / self.pairs.n
        return Scores(
            self.wiring.graph, found.mean(0, dtype=np.float64), method, source,
            examples=found if self.options.examples else None, positions=grouped, groups=self.group_names,
            clusters=self.behaviour.clusters, notes=(*self.wiring.notes, *notes), provenance=self.provenance(),
        )  # fmt: skip

    def node_scores(self, method: str, source: str, found: np.ndarray, notes: tuple[str, ...] = ()) -> Scores:
        """The result of a node method from per-example scores [n w] in the order of the examples."""
        mean = found.mean(0, dtype=np.float64)
        graph = self.wiring.graph
        return Scores(
            graph, spread(graph, mean), method, source, nodes=mean,
            node_examples=found if self.options.examples else None, clusters=self.behaviour.clusters,
            notes=(*self.wiring.notes, *notes), provenance=self.provenance(),
        )  # fmt: skip

    def provenance(self) -> Provenance:
        """What is needed to repeat it."""
        seconds = round(time.perf_counter() - self.started, 3)
        return Provenance.of(self.net, self.behaviour.hash, self.options.seed, seconds)
