"""The bench on which sets of components are tried: keep only them, remove them, restore them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import Baselines, Side, measure
from cutaway.errors import NotFinite, SiteUnavailable
from cutaway.network.parts import Part, parts_of
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.statistics import Estimate, bootstrap_ratio
from cutaway.sweeps import Cell, CellState, run_cells, write_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: Called with (what is being done, steps finished, steps in all).
Report = Callable[[str, int, int], None]
Set = Iterable[Part]


def silent(label: str, done: int, total: int) -> None:
    """The progress report that says nothing."""


@dataclass(frozen=True, eq=False)
class Bench:
    """One half of a behaviour on one network, with both runs kept, ready for any set of components.

    All methods return the metric [sets n]; `share` turns it into an estimate on the scale 0 = corrupted, 1 = clean.
    Components are replaced at every position of the prompt.
    """

    net: Network
    behaviour: Behaviour
    components: tuple[Part, ...]
    ends: Baselines
    seed: int
    report: Report = silent

    @classmethod
    def of(cls, net: Network, behaviour: Behaviour, seed: int, report: Report = silent) -> Bench:
        """Run both sides and keep what every component wrote.

        Raises `BadBehaviour` when pairs differ in length (a component's output has then no counterpart), or when there
        is no gap; `SiteUnavailable` when the network has no certified component.
        """
        behaviour.require_aligned("Testing sets of components")
        parts = parts_of(net)
        if not parts:
            raise SiteUnavailable(
                f"{net.name} has no attention head, mixer or MLP whose output was certified.",
                "Look at net.certificate; cutaway.patch works on the sites that are left.",
            )
        sites = sorted({write_of(part).where for part in parts}, key=lambda site: site.rank)
        return cls(net, behaviour, parts, measure(net, behaviour, sites), seed, report)

    def keep_only(self, sets: Sequence[Set], label: str = "keeping sets") -> np.ndarray:
        """Clean prompts; every component outside the set takes its value from the corrupted run."""
        everything = set(self.components)
        return self._run(
            self.ends.clean, self.ends.corrupted.kept, [everything - set(s) for s in sets], label
        )

    def remove(self, sets: Sequence[Set], label: str = "removing sets") -> np.ndarray:
        """Clean prompts; every component of the set takes its value from the corrupted run."""
        return self._run(self.ends.clean, self.ends.corrupted.kept, [set(s) for s in sets], label)

    def restore(self, sets: Sequence[Set], label: str = "restoring sets") -> np.ndarray:
        """Corrupted prompts; every component of the set takes its value from the clean run."""
        return self._run(self.ends.corrupted, self.ends.clean.kept, [set(s) for s in sets], label)

    def sham(self, members: Set) -> np.ndarray:
        """Clean prompts; the set's values are written over themselves. Nothing may change."""
        return self._run(self.ends.clean, self.ends.clean.kept, [set(members)], "sham edit")

    def keep_only_from_others(self, sets: Sequence[Set]) -> np.ndarray | None:
        """As `keep_only`, but what is replaced comes from *another* example's corrupted run of equal length.

        None when no example has another one of its length and template.
        """
        order = self._strangers()
        if order is None:
            return None
        everything = set(self.components)
        others = {site: value[order.to(value.device)] for site, value in self.ends.corrupted.kept.items()}
        return self._run(
            self.ends.clean, others, [everything - set(s) for s in sets], "resampling from other prompts"
        )

    def share(self, metric: np.ndarray) -> Estimate:
        """A metric [n] as a share of the gap, with an interval in which the gap is uncertain, too."""
        corrupted, clean = self.ends.corrupted.metric, self.ends.clean.metric
        return bootstrap_ratio(metric - corrupted, clean - corrupted, self.behaviour.clusters, seed=self.seed)

    def difference(self, first: np.ndarray, second: np.ndarray) -> Estimate:
        """The share of `first` less that of `second` (metrics [n]), paired by example."""
        return bootstrap_ratio(
            first - second,
            self.ends.clean.metric - self.ends.corrupted.metric,
            self.behaviour.clusters,
            seed=self.seed,
        )

    def shares(self, metrics: np.ndarray) -> np.ndarray:
        """Metrics [sets n] as mean shares [sets]."""
        return self.ends.normalise(metrics).mean(-1)

    def _run(
        self, base: Side, sources: dict[Site, Tensor], sets: Sequence[set[Part]], label: str
    ) -> np.ndarray:
        cells: list[Cell] = [tuple(write_of(part) for part in sorted(s, key=lambda c: c.order)) for s in sets]
        experiment = self.ends.experiment(self.net, base, sources)
        work = Work(lambda step: self.report(step.label, step.done, step.total))
        result = run_cells(experiment, cells, work=work, label=label)
        if result.interrupted:
            raise KeyboardInterrupt
        if (result.states == CellState.NOT_FINITE).any():
            which, row = (int(i) for i in np.argwhere(result.states == CellState.NOT_FINITE)[0])
            raise NotFinite(
                f"While {label}, set {which} gives NaN or infinite logits on example {row} ({len(sets[which])} components "
                "replaced).",
                "Use a wider dtype, such as float32.",
            )
        return result.values

    def _strangers(self) -> Tensor | None:
        """[n] row numbers: for each example another of the same length, of its own template where there is one."""
        rng = np.random.default_rng(self.seed)
        lengths, order = self.behaviour.lengths, np.arange(self.behaviour.n)
        for key in sorted(set(zip(lengths, self.behaviour.template, strict=True))):
            rows = [
                i for i, pair in enumerate(zip(lengths, self.behaviour.template, strict=True)) if pair == key
            ]
            if len(rows) > 1:
                shuffled = rng.permutation(rows)
                order[shuffled] = np.roll(shuffled, 1)
        if (order == np.arange(len(order))).any():
            return None
        return torch.from_numpy(order)
