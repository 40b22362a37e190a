"""The bench on which sets of parts are tried: keep only them, remove them, restore them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import Baselines, Side, measure
from cutaway.errors import NotFinite, SiteUnavailable, Stopped
from cutaway.network.parts import Part, parts_of
from cutaway.network.sites import Site
from cutaway.results import Work, brief, working
from cutaway.sweeps import Cell, CellState, run_cells, write_of
from cutaway.trials.scale import GapScale, other_rows
from cutaway.trials.spread import spread

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

Parts = Iterable[Part]


@dataclass(frozen=True, eq=False)
class Bench:
    """One half of a behaviour on one network, with both runs kept, ready for any set of parts.

    All methods return the metric [sets n]; `scale` turns it into shares, 0 = corrupted, 1 = clean. Parts are replaced at
    every position of the prompt. A set that was tried before is not run again, also where it was tried through `on`, which
    gives the same bench for some of the examples.

    Attributes:
        net: the network.
        behaviour: the pairs.
        parts: everything that can be kept or replaced.
        ends: both sides as they run without any edit.
        seed: of which other prompts values are taken from.
        work: who hears of progress, and may stop it.
        tried: the metric [n] of the sets that were run, NaN for examples on which they were not.
        rows: numbers of the examples that it looks at; None for all.
        level: of the intervals on its scale.
    """

    net: Network
    behaviour: Behaviour
    parts: tuple[Part, ...]
    ends: Baselines
    seed: int = 0
    work: Work = field(default_factory=Work)
    tried: dict[tuple[str, frozenset[Part]], np.ndarray] = field(default_factory=dict, repr=False)
    rows: tuple[int, ...] | None = None
    level: float = 0.95

    __repr__ = brief

    @classmethod
    def of(
        cls,
        net: Network,
        behaviour: Behaviour,
        seed: int = 0,
        work: Work | None = None,
        parts: Sequence[Part] | None = None,
    ) -> Bench:
        """Run both sides and keep what every part wrote.

        parts: everything that can be kept or replaced; default `parts_of(net)`.

        Raises `BadBehaviour` when pairs differ in length (a part's output has then no counterpart), or when there is no
        gap; `SiteUnavailable` when the network has no certified part.
        """
        behaviour.require_aligned("Testing sets of parts")
        parts = parts_of(net) if parts is None else tuple(parts)
        if not parts:
            raise SiteUnavailable(
                f"{net.name} has no attention head, mixer or MLP whose output was certified.",
                "Look at net.certificate; cutaway.patch works on the sites that are left.",
            )
        work = working(work)
        return cls(net, behaviour, parts, measure(net, behaviour, sites_of(parts), work), seed, work)

    def on(self, rows: Sequence[int]) -> Bench:
        """The same bench for these examples only: what it has tried on them is known to both, and nothing is run twice."""
        return replace(self, rows=tuple(sorted(rows)))

    def first(self, n: int) -> Bench:
        """The same bench for at most n of its examples, spread over their sentence frames; itself where it has no more."""
        here = self.chosen
        if n >= len(here):
            return self
        return self.on([int(here[i]) for i in spread([self.behaviour.template[row] for row in here], n)])

    @property
    def chosen(self) -> np.ndarray:
        """The numbers of the examples that it looks at."""
        return np.arange(self.behaviour.n) if self.rows is None else np.array(self.rows)

    @cached_property
    def scale(self) -> GapScale:
        """The scale of the corrupted (0) and the clean prompts (1)."""
        ends, here = self.ends, self.chosen
        some = self.behaviour if self.rows is None else self.behaviour.take(here.tolist())
        return GapScale(ends.corrupted.metric[here], ends.clean.metric[here], some.clusters, self.level)

    def keep_only(self, sets: Sequence[Parts], label: str = "keeping sets") -> np.ndarray:
        """Clean prompts; every part outside the set takes its value from the corrupted run."""
        return self._run("clean", self.ends.corrupted.kept, self._others(sets), label)

    def remove(self, sets: Sequence[Parts], label: str = "removing sets") -> np.ndarray:
        """Clean prompts; every part of the set takes its value from the corrupted run."""
        return self._run("clean", self.ends.corrupted.kept, [frozenset(s) for s in sets], label)

    def restore(self, sets: Sequence[Parts], label: str = "restoring sets") -> np.ndarray:
        """Corrupted prompts; every part of the set takes its value from the clean run."""
        return self._run("corrupted", self.ends.clean.kept, [frozenset(s) for s in sets], label)

    def sham(self, members: Parts) -> np.ndarray:
        """Clean prompts; the set's values are written over themselves. Nothing may change."""
        return self._run("clean", self.ends.clean.kept, [frozenset(members)], "sham edit", "sham")

    def keep_only_from_others(self, sets: Sequence[Parts]) -> tuple[np.ndarray, np.ndarray] | None:
        """As `keep_only`, but what is replaced comes from *another* example's corrupted run of equal length and template.

        Returns the metric [sets m] and the m examples that have such another; None where fewer than two have one.
        """
        like = list(zip(self.behaviour.lengths, self.behaviour.template, strict=True))
        order = other_rows(like, np.random.default_rng(self.seed))
        some = np.intersect1d(np.flatnonzero(order != np.arange(len(order))), self.chosen)
        if len(some) < 2:
            return None
        rows = torch.from_numpy(order)
        others = {site: value[rows.to(value.device)] for site, value in self.ends.corrupted.kept.items()}
        label = "resampling from other prompts"
        return self.on(some.tolist())._run("clean", others, self._others(sets), label, "others"), some

    def _others(self, sets: Sequence[Parts]) -> list[frozenset[Part]]:
        return [frozenset(self.parts) - set(s) for s in sets]

    def _run(
        self,
        side: str,
        sources: dict[Site, Tensor],
        sets: Sequence[frozenset[Part]],
        label: str,
        what: str = "pair",
    ) -> np.ndarray:
        """The metric [sets n] with these sets replaced on one side's prompts; what: which values the sources are."""
        keys, here = [(f"{side} {what}", members) for members in sets], self.chosen
        known = {key: self.tried.get(key, np.full(self.behaviour.n, np.nan)) for key in dict.fromkeys(keys)}
        new = [key for key, values in known.items() if np.isnan(values[here]).any()]
        if new:
            base: Side = getattr(self.ends, side)
            cells: list[Cell] = [tuple(write_of(part) for part in sorted(members)) for _, members in new]
            wanted = np.zeros((len(new), self.behaviour.n), bool)
            wanted[:, here] = np.isnan([known[key][here] for key in new])
            values = self._values(base, sources, cells, wanted, label)
            for key, fresh, run in zip(new, values, wanted, strict=True):
                self.tried[key] = np.where(run, fresh, known[key])
        return np.stack([self.tried[key][here] for key in keys])

    def _values(
        self, base: Side, sources: dict[Site, Tensor], cells: list[Cell], wanted: np.ndarray, label: str
    ) -> np.ndarray:
        experiment = self.ends.experiment(self.net, base, sources)
        states = np.where(wanted, CellState.NOT_RUN, CellState.ABSENT).astype(np.int8)
        result = run_cells(experiment, cells, states=states, work=self.work, label=label)
        if result.interrupted:
            raise Stopped(f"Stopped while {label}.", "Nothing of it was kept.")
        if (result.states == CellState.NOT_FINITE).any():
            which, row = (int(i) for i in np.argwhere(result.states == CellState.NOT_FINITE)[0])
            raise NotFinite(
                f"While {label}, set {which} gives NaN or infinite logits on example {row} ({len(cells[which])} parts "
                "replaced).",
                "Use a wider dtype, such as float32.",
            )
        return result.values


def sites_of(parts: Iterable[Part]) -> list[Site]:
    """The sites at which these parts are replaced, each once, in the order of computation."""
    return sorted({write_of(part).where for part in parts}, key=lambda site: site.rank)
