"""The interventions of all roles that are tested on the pairs of one variable, as one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cutaway.algorithms.roles.candidates import (
    ANSWER,
    ENRICHMENT,
    LOOKUP,
    MOVER,
    READER,
    SUPPRESSION,
    RoleCandidate,
    suppressed,
)
from cutaway.algorithms.roles.edges import brought_from_other, looking_elsewhere
from cutaway.algorithms.roles.half import LAST, RoleHalf, last_stream
from cutaway.algorithms.roles.neurons import exchanged_neurons, written_change
from cutaway.algorithms.roles.weights import RoleWeights
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.sweeps import Cell, CellState, Plan, Write, plan_cells, write_of
from cutaway.sweeps.metered import forwards_of


@dataclass(eq=False)
class RoleActs:
    """Interventions on the first prompts of the pairs of one variable, gathered, then run together.

    Attributes:
        half: the pairs.
        cells: what is written in each.
        named: values by the name of their source.
    """

    half: RoleHalf
    cells: list[Cell] = field(default_factory=list)
    named: dict[str, dict[Site, Tensor]] = field(default_factory=dict)
    _known: dict[object, int] = field(default_factory=dict)
    _plan: Plan | None = None

    def exchanged(self, part: Part, span: str = "") -> int:
        """The number of the cell that takes a part's value at a span (or everywhere) from the second prompts."""
        return self._add((write_of(part, span=span),), ("exchange", part, span))

    def ablated(self, *parts: Part) -> int:
        """The cell in which parts give, at the last token, their mean over all prompts and tokens."""
        for part in parts:
            site = write_of(part).where
            if ("mean", site) not in self._known:
                mean = torch.cat([self._real(site, s) for s in (False, True)]).mean(0)
                self.named.setdefault("mean", {})[site] = mean.expand_as(self.half.kept(site)).contiguous()
                self._known["mean", site] = 0
        return self._add(
            tuple(write_of(part, span=LAST, source="mean") for part in parts),
            ("mean", *sorted(map(str, parts))),
        )

    def _real(self, site: Site, second: bool) -> Tensor:
        side = self.half.ends.corrupted if second else self.half.ends.clean
        return self.half.kept(site, second)[side.tokens.mask.cpu()]

    def given(self, site: Site, value: Tensor, head: int | None = None, span: str = "") -> int:
        """The cell in which a site, or one head of it, takes these values [n p ...]."""
        name = f"given {len(self.cells)}"
        self.named[name] = {site: value}
        return self._add((Write(site.name, site.layer, head, span=span, source=name),), name)

    def _add(self, cell: Cell, key: object) -> int:
        if key not in self._known:
            self._known[key] = len(self.cells)
            self.cells.append(cell)
        return self._known[key]

    def plan(self, work: Work) -> Plan:
        """The sweep, ready to run; it is made once."""
        if self._plan is None:
            self._plan = self._made(work)
        return self._plan

    def _made(self, work: Work) -> Plan:
        ends = self.half.ends
        base = ends.clean
        spans = {LAST: self.half.spans[LAST]} | self.half.spans
        there = {
            site: value
            for site, value in ends.corrupted.kept.items()
            if site.name in ("z", "mlp_out", "mlp_write")
        }
        named = {
            name: {s: v.to(self.half.ends.clean.kept[s]) for s, v in values.items()}
            for name, values in self.named.items()
        }
        experiment = ends.experiment(self.half.net, base, there, named=named, spans=spans)
        return plan_cells(experiment, self.cells, base=base.metric, time_it=False, work=work)

    def run(self, work: Work, label: str) -> RoleLost:
        """What each cell takes away."""
        if not self.cells:
            return RoleLost(np.zeros((0, self.half.n)), False)
        found = self.plan(work).run(None, work, label)
        values = np.where(
            found.states == CellState.KNOWN_ZERO, self.half.ends.clean.metric[None], found.values
        )
        return RoleLost(np.stack([self.half.lost(row) for row in values]), found.interrupted)

    @property
    def forwards(self) -> float:
        """Forward-equivalents that the cells will take."""
        return forwards_of(self.plan(Work()).job) if self.cells else 0.0


@dataclass(frozen=True, eq=False)
class RoleLost:
    """What each cell takes away.

    Attributes:
        shares: of the variable's effect, by cell and pair [cells n]; NaN where it was not run.
        stopped: was the sweep stopped before its end?
    """

    shares: np.ndarray
    stopped: bool


@dataclass(frozen=True)
class RoleTrial:
    """The cells of one role on trial.

    Attributes:
        candidate: the role.
        own: its cell.
        controls: the same on other parts.
        others: those parts.
        whole: the cell that exchanges the whole part, beside which named neurons are held; else None.
        neurons: those that are named.
    """

    candidate: RoleCandidate
    own: int
    controls: tuple[int, ...]
    others: tuple[Part, ...]
    whole: int | None = None
    neurons: tuple[int, ...] = ()


def put_on_trial(
    acts: RoleActs,
    weights: RoleWeights,
    one: RoleCandidate,
    others: Sequence[Part],
    neurons: tuple[int, ...],
    seed: int,
) -> RoleTrial:
    """Enter the intervention that a role is tested by, and the same on other parts (or neurons)."""
    if one.role == LOOKUP:
        width = acts.half.kept(Site("mlp_act", one.part.layer)).shape[-1]
        site, rng = Site("mlp_act", one.part.layer), np.random.default_rng([seed, 5])
        free = np.setdiff1d(np.arange(width), neurons)
        drawn = [tuple(rng.permutation(free)[: len(neurons)].tolist()) for _ in range(len(others) or 1)]
        own, *rest = (
            acts.given(site, exchanged_neurons(acts.half, one.part, some), span=LAST)
            for some in (neurons, *drawn)
        )
        return RoleTrial(one, own, tuple(rest), (), acts.exchanged(one.part, LAST), neurons)
    cells = [_cell(acts, weights, one, part) for part in (one.part, *others)]
    return RoleTrial(one, cells[0], tuple(cells[1:]), tuple(others))


def _cell(acts: RoleActs, weights: RoleWeights, one: RoleCandidate, part: Part) -> int:
    half = acts.half
    if one.role == ENRICHMENT:
        return acts.exchanged(part, one.place)
    if one.role == ANSWER:
        stream = last_stream(half.net)
        value = half.kept(stream).clone()
        value[torch.arange(half.n), half.answer] += written_change(half, weights, part)
        return acts.given(stream, value, span=LAST)
    assert one.edges is not None
    change = brought_from_other if one.role in (READER, MOVER) else looking_elsewhere
    span = LAST if one.role in (READER, MOVER, SUPPRESSION) else ""
    return acts.given(Site("z", part.layer), change(half, part, one.edges(half)), part.index, span)


def signs_of(one: RoleCandidate, half: RoleHalf, weights: RoleWeights) -> tuple[np.ndarray, np.ndarray]:
    """[n] which way an intervention must move each pair (1 to the second prompt's answer, -1 away from it, 0 neither), and
    the pairs that count [k]: of what a head takes out, those on which it writes most.
    """
    if one.role != SUPPRESSION:
        return np.ones(half.n), np.arange(half.n)
    leading, _, active = suppressed(half, weights, one.part)
    said = half.choices[leading]
    signs = (said == half.wrong).double().numpy() - (said == half.right).double().numpy()
    return signs, np.flatnonzero(active.numpy())
