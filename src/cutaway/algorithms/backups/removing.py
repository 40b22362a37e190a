"""Removing parts: what is left of a behaviour without them, and what one of them does directly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import Baselines, measure, require_gap
from cutaway.errors import NotFinite, Stopped
from cutaway.interventions import Patch
from cutaway.network.memory import rows_at_once
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.sweeps import Cell, CellState, Plan, plan_cells, write_of
from cutaway.trials import GapScale
from cutaway.trials.bench import sites_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: How a part is removed: its mean over prompts and tokens, or its value in the corrupted prompt of the pair.
Removal = Literal["mean", "resample"]
REMOVALS: tuple[Removal, ...] = ("mean", "resample")
_UNDER = "under"


@dataclass(frozen=True, eq=False)
class RemovalBench:
    """One half of a behaviour, on whose clean prompts parts are removed in one way.

    Attributes:
        net: the network.
        behaviour: the pairs.
        everything: all parts of the network that can be removed.
        how: in which way.
        ends: both sides as they run without any edit.
        values: what stands in for each site.
        empty: metric [n] with all parts removed.
    """

    net: Network
    behaviour: Behaviour
    everything: tuple[Part, ...]
    how: Removal
    ends: Baselines
    values: dict[Site, Tensor]
    empty: np.ndarray

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, everything: Sequence[Part], how: Removal, work: Work
    ) -> RemovalBench:
        """Run both sides, and once without any part.

        Raises `BadBehaviour` where prompts of a pair differ in length and values are to come from the other, or where
        removing everything changes nothing.
        """
        if how == "resample":
            behaviour.require_aligned("Removing parts by the other prompt's values")
        ends = measure(net, behaviour, sites_of(everything), work)
        clean = ends.clean
        values = ends.corrupted.kept if how == "resample" else {
            site: _mean(value, clean.tokens.mask) for site, value in clean.kept.items()
        }  # fmt: skip
        bench = cls(net, behaviour, tuple(everything), how, ends, values, clean.metric)
        empty = bench.without([bench.everything], work, "removing everything")[0]
        require_gap(clean.metric, empty, f"The metric of {behaviour.name!r} without any part ({how})")
        return cls(net, behaviour, tuple(everything), how, ends, values, empty)

    @property
    def scale(self) -> GapScale:
        """Without any part (0), as it is (1)."""
        return GapScale(self.empty, self.ends.clean.metric, self.behaviour.clusters)

    def plan(self, sets: Sequence[Iterable[Part]], work: Work | None = None) -> Plan:
        """The sweep that removes each of these sets, planned and not run."""
        cells: list[Cell] = [tuple(write_of(part) for part in sorted(set(some))) for some in sets]
        experiment = self.ends.experiment(self.net, self.ends.clean, self.values)
        return plan_cells(experiment, cells, base=self.ends.clean.metric, time_it=False, work=work)

    def without(self, sets: Sequence[Iterable[Part]], work: Work, label: str) -> np.ndarray:
        """Metric [sets n] on clean prompts with each set removed. Raises `Stopped`."""
        if not sets:
            return np.zeros((0, self.behaviour.n))
        return _finished(self.plan(sets, work), work, label)

    def directly(self, removed: Sequence[Part], part: Part, work: Work) -> np.ndarray:
        """What a part does directly, with others removed: metric [n] with it less that without it, all else as it was.

        All other parts are held at the values that they have without `removed`, so that only the stream carries the change.
        """
        tokens, clean = self.ends.clean.tokens, self.ends.clean
        under, before = clean.kept, clean.metric
        if removed:
            edits = [self._edit(one) for one in removed]
            under = self._run(edits)
            before = self.without([removed], work, "removing parts")[0]
        cell: Cell = (
            *(write_of(one) for one in (*removed, part)),
            *(write_of(one, source=_UNDER) for one in self.everything if one not in (*removed, part)),
        )
        experiment = self.ends.experiment(self.net, clean, self.values, named={_UNDER: under})
        plan = plan_cells(experiment, [cell], base=clean.metric, time_it=False, work=work)
        assert tokens.n == len(before)
        return before - _finished(plan, work, "direct effects")[0]

    def _edit(self, part: Part) -> tuple[Site, int | None]:
        write = write_of(part)
        return write.where, write.head

    def _run(self, removed: Sequence[tuple[Site, int | None]]) -> dict[Site, Tensor]:
        """What every site holds with parts removed: [n p ...]."""
        tokens, sites = self.ends.clean.tokens, sites_of(self.everything)
        size, pieces = rows_at_once(self.net, tokens.width), []
        for begin in range(0, tokens.n, size):
            rows = list(range(begin, min(begin + size, tokens.n)))
            edits = [
                Patch(site, self.values[site][rows], **({} if head is None else {"head": head}))
                for site, head in removed
            ]
            run = self.net.run(tokens[rows], keep=sites, edits=edits, logits=False)
            pieces.append({site: run[site] for site in sites})
        return {site: torch.cat([piece[site] for piece in pieces]) for site in sites}


def _finished(plan: Plan, work: Work, label: str) -> np.ndarray:
    """Values [cells n] of a sweep that is run to its end."""
    done = plan.run(None, work, label)
    if done.interrupted:
        raise Stopped(f"Stopped while {label}.", "Nothing of it was kept.")
    if (done.states == CellState.NOT_FINITE).any():
        raise NotFinite(
            f"While {label}, logits became NaN or infinite.", "Use a wider dtype, such as float32."
        )
    return done.values


def _mean(value: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens of all rows, in the place of each: [n p ...] like the value."""
    there = value[mask.to(value.device)]
    return there.mean(0).expand_as(value).clone()
