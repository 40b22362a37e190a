"""One behaviour on one network, ready for any circuit: both ends of the scale and the ablated values, made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.passes.ablation import Ablation, ablation
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.circuits.passes.pairs import PairBatch, PromptPairs
from cutaway.circuits.passes.running import Mask, run_edges, run_nodes
from cutaway.errors import BadBehaviour, NotFinite
from cutaway.results import Work
from cutaway.statistics import Estimate, bootstrap_ratio

_SMALL = 48 * 2**20

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Bench:
    """A behaviour on a network with a fixed ablation. m(C) is the metric of a circuit, per example [n].

    whole: m(N), the network as it is. empty: m(empty), every edge ablated.
    """

    net: Network
    behaviour: Behaviour
    wiring: Wiring
    pairs: PromptPairs
    ablation: Ablation
    whole: np.ndarray
    empty: np.ndarray

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, how: str = "counterfactual", seed: int = 0, work: Work | None = None,
        prepared: Ablation | None = None,
    ) -> Bench:  # fmt: skip
        """Run both ends. prepared: an ablation whose constants or means were taken elsewhere (on discovery examples).

        Raises BadBehaviour where m(N) and m(empty) are as good as equal, naming both: no share can then be given.
        """
        found = wiring_of(net)
        aligned = how in ("counterfactual", "resample")
        pairs = PromptPairs.of(net, behaviour, len(found.graph.writers), work, aligned)
        values = prepared if prepared is not None else ablation(found, pairs, how, seed)
        nothing = np.zeros((1, *found.graph.shape), dtype=bool)
        bench = cls(net, behaviour, found, pairs, values, np.zeros(0), np.zeros(0))
        whole, empty = bench.metric(~nothing & found.graph.allowed)[0], bench.metric(nothing)[0]
        bench = cls(net, behaviour, found, pairs, values, whole, empty)
        bench.require_gap()
        return bench

    @property
    def gap(self) -> float:
        """mean m(N) - mean m(empty): the unit of every share."""
        return float(self.whole.mean() - self.empty.mean())

    def require_gap(self) -> None:
        """BadBehaviour, with both values, where there is no gap to explain."""
        scale = max(1e-3, float(np.abs(self.whole).max()), float(np.abs(self.empty).max()))
        spread = float(np.std(self.whole - self.empty)) / max(1.0, self.behaviour.n**0.5)
        if not abs(self.gap) > max(1e-5 * scale, 0.5 * spread):
            raise BadBehaviour(
                f"The metric {self.behaviour.metric.name} is m(N) = {self.whole.mean():.6g} on the whole network and "
                f"m(∅) = {self.empty.mean():.6g} with every edge ablated ({self.ablation.how}): there is "
                "no share to speak of.",
                "Use pairs whose answers differ, another ablation, or another metric.",
            )

    def metric(self, masks: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """m(C) of circuits given as bool [k writers readers] (or [k writers] for nodes): [k n].

        The two ends are run as the bare network: all edges in, and none. On small graphs several circuits share a batch.

        Raises NotFinite, naming the circuit and example.
        """
        masks = [np.asarray(m) for m in masks]
        found = np.empty((len(masks), self.behaviour.n))
        plain = [i for i, m in enumerate(masks) if m.ndim == 1 or as_nodes(self.wiring, m) is not None]
        for number in plain:
            found[number] = self.pairs.gather([self._batch(batch, masks[number]) for batch in self.pairs])
        rest = [i for i in range(len(masks)) if i not in set(plain)]
        for batch in self.pairs:
            at_once = self._at_once(batch)
            for start in range(0, len(rest), at_once):
                chosen = rest[start : start + at_once]
                if len(chosen) == 1:
                    values = self._batch(batch, masks[chosen[0]])[None]
                else:
                    values = self._together(batch, np.stack([masks[i] for i in chosen]))
                found[np.ix_(chosen, list(batch.rows))] = values
        if not np.isfinite(found).all():
            which, row = (int(i) for i in np.argwhere(~np.isfinite(found))[0])
            raise NotFinite(
                f"Circuit {which} of those that were run gives NaN or infinity on example {row}.",
                "Use a wider dtype.",
            )
        return found

    def _at_once(self, batch: PairBatch) -> int:
        """How many circuits share a batch: more than one only where masks and differences of all rows stay small."""
        writers, readers = self.wiring.graph.shape
        row = writers * (readers + batch.clean.width * (self.net.d_model or 1)) * 4
        return max(1, min(_SMALL // max(1, row * batch.n), 256 // batch.n))

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
            run = net.run(tokens, logits=positions[:, None])
            assert run.logits is not None
            logits = run.logits[:, 0]
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

    def share(self, metric: np.ndarray, seed: int = 0) -> Estimate:
        """Faithfulness of m(C) [n] with its interval: (m(C) - m(empty)) / (m(N) - m(empty)), means over examples."""
        return bootstrap_ratio(
            metric - self.empty, self.whole - self.empty, self.behaviour.clusters, seed=seed
        )

    def shares(self, metrics: np.ndarray) -> np.ndarray:
        """Faithfulness [k] of metrics [k n]."""
        return (metrics.mean(-1) - self.empty.mean()) / self.gap


def as_nodes(wiring: Wiring, mask: np.ndarray) -> np.ndarray | None:
    """Bool [writers] where a mask keeps all or none of every writer's edges, else None."""
    allowed = wiring.graph.allowed
    some: np.ndarray = np.any(mask & allowed, axis=1)
    every: np.ndarray = np.all(mask | ~allowed, axis=1)
    return some if bool(np.array_equal(some, every)) else None


def groups_of(names: Sequence[str], pairs: PromptPairs, batch: PairBatch) -> torch.Tensor:
    """The group [b p] of every position for a circuit's groups: named spans with "elsewhere", or position numbers."""
    from cutaway.circuits.passes.ablation import span_labels

    real = batch.clean.mask.cpu()
    if names and names[-1] == "elsewhere":
        order = {name: i for i, name in enumerate(names)}
        labels = span_labels(pairs, batch)
        mapped = torch.tensor(
            [order.get(name, len(names) - 1) for name in pairs.behaviour.spans] + [len(names) - 1]
        )
        return torch.where(real, mapped[labels], -1)
    columns = torch.arange(batch.clean.width)[None] - batch.clean.first.cpu()[:, None]
    return torch.where(real, columns.clamp(max=len(names) - 1), -1)
