"""One behaviour on one network, ready for any circuit: both ends of the scale and the ablated values, made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.passes.ablation import Ablation, ablation, groups_of
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.circuits.passes.outputs import answered
from cutaway.circuits.passes.pairs import PairBatch, PromptPairs
from cutaway.circuits.passes.running import Mask, run_edges, run_nodes
from cutaway.effects.baselines import require_gap
from cutaway.errors import BadBehaviour, NotFinite
from cutaway.results import Work, brief, working
from cutaway.statistics import Estimate
from cutaway.trials.scale import GapScale

#: Bytes of masks and differences up to which circuits share a batch: beyond it they miss the processor's cache.
_SMALL = 48 * 2**20

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class EdgeBench:
    """A behaviour on a network with a fixed ablation. m(C) is the metric of a circuit, per example [n].

    Circuits that were run before are not run again.

    Attributes:
        net: the network.
        behaviour: the pairs.
        wiring: the network's graph, and how to run parts of it.
        pairs: the behaviour in batches.
        ablation: what removed edges carry.
        whole: m(N), the network as it is.
        empty: m(empty), every edge ablated.
        seed: of what is drawn for the ablation.
        tried: m of the circuits that were run, by their masks.
        work: who hears of progress, may end it, and keeps what is finished.
    """

    net: Network
    behaviour: Behaviour
    wiring: Wiring
    pairs: PromptPairs
    ablation: Ablation
    whole: np.ndarray
    empty: np.ndarray
    seed: int = 0
    tried: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)
    work: Work = field(default_factory=Work, repr=False)

    __repr__ = brief

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, how: str = "counterfactual", seed: int = 0, work: Work | None = None,
        prepared: Ablation | None = None,
    ) -> EdgeBench:  # fmt: skip
        """Run both ends. prepared: an ablation whose constants or means were taken elsewhere (on discovery examples).

        Raises BadBehaviour where m(N) and m(empty) are as good as equal, naming both: no share can then be given.
        """
        wiring = wiring_of(net)
        aligned = how in ("counterfactual", "resample")
        pairs = PromptPairs.of(net, behaviour, len(wiring.graph.writers), work, aligned)
        values = prepared if prepared is not None else ablation(wiring, pairs, how, seed)
        blank = cls(net, behaviour, wiring, pairs, values, np.zeros(0), np.zeros(0), seed, work=working(work))
        whole, empty = blank.metric([wiring.graph.allowed, np.zeros(wiring.graph.shape, dtype=bool)])
        try:
            require_gap(whole, empty, f"The metric {behaviour.metric.name}")
        except BadBehaviour:
            raise BadBehaviour(
                f"The metric {behaviour.metric.name} is m(N) = {whole.mean():.6g} on the whole network and "
                f"m(∅) = {empty.mean():.6g} with every edge ablated ({values.how}): there is no share to speak of.",
                "Use pairs whose answers differ, another ablation, or another metric.",
            ) from None
        return replace(blank, whole=whole, empty=empty)

    @property
    def gap(self) -> float:
        """Mean m(N) less mean m(empty): the unit of every share."""
        return self.scale.gap

    @cached_property
    def scale(self) -> GapScale:
        """The scale of m(empty) (0) and m(N) (1)."""
        return GapScale(self.empty, self.whole, self.behaviour.clusters)

    def metric(self, masks: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """m(C) of circuits given as bool [k writers readers] (or [k writers] for nodes): [k n].

        The two ends are run as the bare network: all edges in, and none. On small graphs several circuits share a batch.

        Raises NotFinite, naming the circuit and example.
        """
        masks = [np.ascontiguousarray(m, dtype=bool) for m in masks]
        if not masks:
            return np.zeros((0, self.behaviour.n))
        keys = [bytes([m.ndim]) + m.tobytes() for m in masks]
        new = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in self.tried}
        if new:
            self.tried.update(zip(new, self._run(list(new.values())), strict=True))
        return np.stack([self.tried[key] for key in keys])

    def _run(self, masks: list[np.ndarray]) -> np.ndarray:
        values = np.empty((len(masks), self.behaviour.n))
        plain = [i for i, m in enumerate(masks) if m.ndim == 1 or as_nodes(self.wiring, m) is not None]
        for number in plain:
            each = [self._kept(batch, [masks[number]]) for batch in self.pairs]
            values[number] = self.pairs.gather([scores[0] for scores in each])
        rest = [i for i in range(len(masks)) if i not in set(plain)]
        for batch in self.pairs:
            at_once = self._at_once(batch)
            for start in range(0, len(rest), at_once):
                chosen = rest[start : start + at_once]
                values[np.ix_(chosen, list(batch.rows))] = self._kept(batch, [masks[i] for i in chosen])
                self.work.step("running circuits", start + len(chosen), len(rest))
        if not np.isfinite(values).all():
            which, row = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise NotFinite(
                f"Circuit {which} of those that were run gives NaN or infinity on example {row}.",
                "Use a wider dtype.",
            )
        return values

    def _at_once(self, batch: PairBatch) -> int:
        """How many circuits share a batch: more than one only where masks and differences of all rows stay small."""
        writers, readers = self.wiring.graph.shape
        row = writers * (readers + batch.clean.width * (self.net.d_model or 1)) * 4
        return max(1, min(_SMALL // max(1, row * batch.n), 256 // batch.n))

    def _kept(self, batch: PairBatch, masks: list[np.ndarray]) -> np.ndarray:
        """m [k b] of k circuits, those of one run; what was kept before a stop is not run again."""

        def run() -> np.ndarray:
            return (
                self._batch(batch, masks[0])[None]
                if len(masks) == 1
                else self._together(batch, np.stack(masks))
            )

        def of() -> list[object]:
            packed = [np.packbits(mask) for mask in masks]
            return [
                self.net.hash,
                self.behaviour.hash,
                self.ablation.how,
                self.seed,
                list(batch.rows),
                packed,
            ]

        return self.work.once("circuits", run, lambda x: {"x": x}, lambda kept: kept["x"], of)

    def _together(self, batch: PairBatch, masks: np.ndarray) -> np.ndarray:
        """m [k b] of k circuits in one run."""
        k = len(masks)
        many = batch.repeat(k)
        values = self.ablation.of(self.wiring, batch, self.pairs)
        wide = values.map(lambda v: v.repeat(k, *[1] * (v.ndim - 1)) if v.shape[0] == batch.n else v)
        rows = torch.from_numpy(masks).repeat_interleave(batch.n, 0)
        logits = run_edges(self.wiring, many.clean, many.positions, wide, Mask(rows))
        return many.score(logits).reshape(k, batch.n).detach().double().cpu().numpy()

    def _batch(self, batch: PairBatch, mask: np.ndarray) -> np.ndarray:
        net, allowed = self.net, self.wiring.graph.allowed
        tokens, positions = batch.clean, batch.positions
        if mask.ndim == 2 and bool(mask[allowed].all()):
            logits = answered(net.run(tokens, logits=positions[:, None]))
        else:
            values = self.ablation.of(self.wiring, batch, self.pairs)
            nodes = mask if mask.ndim == 1 else as_nodes(self.wiring, mask)
            if nodes is not None:
                logits = run_nodes(self.wiring, tokens, positions, values, torch.from_numpy(nodes))
            else:
                logits = run_edges(self.wiring, tokens, positions, values, Mask(torch.from_numpy(mask)))
        return batch.score(logits).detach().double().cpu().numpy()

    def of_circuit(self, circuit: Circuit) -> np.ndarray:
        """m(C) [n] of a circuit of this network; BadInput where it is another network's."""
        circuit.check_network(self.net, self.wiring.graph)
        if circuit.positions is not None:
            return self.by_position(circuit)
        return self.metric([circuit.membership])[0]

    def by_position(self, circuit: Circuit) -> np.ndarray:
        """m(C) [n] of a circuit whose membership differs from group to group of positions."""
        assert circuit.positions is not None
        parts = []
        for batch in self.pairs:
            groups = groups_of(circuit.groups, self.pairs, batch)
            values = self.ablation.of(self.wiring, batch, self.pairs)
            mask = Mask(torch.from_numpy(circuit.positions), groups)
            logits = run_edges(self.wiring, batch.clean, batch.positions, values, mask)
            parts.append(batch.score(logits).detach().double().cpu().numpy())
        return self.pairs.gather(parts)

    def share(self, metric: np.ndarray) -> Estimate:
        """Faithfulness of m(C) [n] with its interval: (m(C) - m(empty)) / (m(N) - m(empty)), means over examples."""
        return self.scale.share(metric)

    def shares(self, metrics: np.ndarray) -> np.ndarray:
        """Faithfulness [k] of metrics [k n]."""
        return self.scale.shares(metrics)


def as_nodes(wiring: Wiring, mask: np.ndarray) -> np.ndarray | None:
    """Bool [writers] where a mask keeps all or none of every writer's edges, else None."""
    allowed = wiring.graph.allowed
    some: np.ndarray = np.any(mask & allowed, axis=1)
    every: np.ndarray = np.all(mask | ~allowed, axis=1)
    return some if bool(np.array_equal(some, every)) else None
