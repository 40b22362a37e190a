"""The exchanges of one variable on one half of its pairs: at one place, through another, and with others held.

The prompts that are run are the second ones of the pairs; a place gets its value from the first. "Its own" is the value
that a place has in the prompt as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.algorithms.carried.exchanging import columns_at
from cutaway.algorithms.places import ALL, VariablePlace
from cutaway.behaviours.cases import Case, Cases
from cutaway.effects.baselines import Baselines, measure
from cutaway.errors import Stopped
from cutaway.network.memory import rows_at_once
from cutaway.network.pricing import until
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.statistics import Estimate
from cutaway.sweeps import Cell, CellState, Experiment, Write, plan_cells, write_of
from cutaway.sweeps.metered import forwards_of
from cutaway.trials import GapScale

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: What stands for the logits as a receiver.
ANSWER = "answer"
#: A sender and a receiver.
Edge = tuple[VariablePlace, VariablePlace]
_OWN = "own"


def write_at(net: Network, place: VariablePlace, source: str = "") -> Write:
    """The write that gives a place its value from a source."""
    span = "" if place.span == ALL else place.span
    part = place.named
    if part is not None:
        return write_of(part, span=span, source=source)
    site = place.site(net)
    return Write(site.name, site.layer, span=span, source=source, stack=site.stack)


def in_order(net: Network, places: Sequence[VariablePlace]) -> tuple[VariablePlace, ...]:
    """Places in the order in which a forward pass computes them."""
    return tuple(sorted(places, key=lambda place: place.site(net).rank))


def may_pass(net: Network, cases: Sequence[Case], sender: VariablePlace, receiver: VariablePlace) -> bool:
    """Is there any way from a sender to a receiver: is it computed before, and does it stand before, or at, its tokens?

    Within a layer (a head, and the MLP behind it) only at the same tokens. Of a network whose tokens see those that follow
    them, everything that is computed before may pass.
    """
    one, other = sender.site(net), receiver.site(net)
    if one.rank >= other.rank:
        return False
    if one.layer is not None and one.layer == other.layer and sender.named is not None:
        stack = net.anatomy.stack()
        parallel = stack is not None and stack.layers[one.layer].form == "parallel"
        if parallel and receiver.named is not None:
            return False
        return any(set(sender.tokens(case)) & set(receiver.tokens(case)) for case in cases)
    if not net.is_causal:
        return True
    return any(min(sender.tokens(case)) <= max(receiver.tokens(case)) for case in cases)


@dataclass(frozen=True, eq=False)
class PassingBench:
    """One variable on one half of its pairs, both prompts run.

    Attributes:
        net: the network.
        behaviour: the pairs.
        bases: the prompts that are run.
        places: where the variable is named to be, in the order of computation.
        ends: both prompts as they run without any exchange: 0 and 1 of the scale.
        brought: by sender and receiver the receiver's site as the sender's exchange makes it.
    """

    net: Network
    behaviour: Behaviour
    bases: tuple[Case, ...]
    places: tuple[VariablePlace, ...]
    ends: Baselines
    brought: dict[str, dict[Site, Tensor]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, net: Network, half: Cases, variable: str, places: Sequence[VariablePlace], others: Sequence[VariablePlace],
        n: int, seed: int, work: Work,
    ) -> PassingBench:  # fmt: skip
        """Run both prompts of the pairs, and keep what stands at the places.

        others: further receivers, for controls. Raises `BadBehaviour` where there are no pairs, or the two prompts are
        answered alike.
        """
        behaviour = half.behaviour(net, variable, n=n, seed=seed)
        bases = tuple(other for _, other in half.telling(net, variable, n=n, seed=seed))
        sites = sorted({place.site(net) for place in (*places, *others)}, key=lambda site: site.rank)
        ends = measure(net, behaviour, sites, work)
        return cls(net, behaviour, bases, in_order(net, places), ends)

    @property
    def scale(self) -> GapScale:
        """The scale of no exchange (0) and the whole variable exchanged (1)."""
        return GapScale(self.ends.corrupted.metric, self.ends.clean.metric, self.behaviour.clusters)

    def between(self, sender: VariablePlace, receiver: VariablePlace | None) -> list[VariablePlace]:
        """The named places that are computed after the sender and before the receiver (None: the answer)."""
        first = sender.site(self.net).rank
        end = None if receiver is None else receiver.site(self.net).rank
        ranks = [
            (place, place.site(self.net).rank) for place in self.places if place not in (sender, receiver)
        ]
        return [place for place, rank in ranks if first < rank and (end is None or rank < end)]

    def price(self, edges: Sequence[Edge]) -> float:
        """Forward-equivalents of all that `run` does, with receivers that change as if they were exchanged themselves."""
        cells, _ = self._cells(edges, "")
        plan = plan_cells(self._experiment(), cells, base=self.ends.corrupted.metric, time_it=False)
        reads = {(str(s), r.site(self.net).rank): r.site(self.net) for s, r in edges}
        return forwards_of(plan.job) + len(self.bases) * sum(
            until(self.net, [site]) for site in reads.values()
        )

    def run(self, edges: Sequence[Edge], work: Work, label: str) -> PassingRoutes:
        """Exchange every sender, alone, through each receiver, and with each receiver held. Raises `Stopped`."""
        self._bring(edges, work, label)
        cells, keys = self._cells(edges, None)
        plan = plan_cells(
            self._experiment(), cells, base=self.ends.corrupted.metric, time_it=False, work=work
        )
        done = plan.run(None, work, label)
        if done.interrupted:
            raise Stopped(f"Stopped while {label}.", "Nothing of it was kept.")
        there = np.isin(done.states, (CellState.RUN, CellState.KNOWN_ZERO)).sum(1) == len(self.bases)
        values = {key: value for key, value, known in zip(keys, done.values, there, strict=True) if known}
        return PassingRoutes(self, values)

    def _bring(self, edges: Sequence[Edge], work: Work, label: str) -> None:
        """What each receiver becomes when the sender is exchanged and the named places between the two are held."""
        groups: dict[tuple[str, tuple[int, int]], list[Edge]] = {}
        for sender, receiver in edges:
            groups.setdefault((str(sender), receiver.site(self.net).rank), []).append((sender, receiver))
        own, clean, tokens = self.ends.corrupted.kept, self.ends.clean.kept, self.ends.corrupted.tokens
        size = rows_at_once(self.net, tokens.width, work)
        for number, group in enumerate(groups.values()):
            sender, receiver = group[0]
            held = self.between(sender, receiver)
            site = receiver.site(self.net)
            pieces: list[Tensor] = []
            for begin in range(0, len(self.bases), size):
                rows = list(range(begin, min(begin + size, len(self.bases))))
                cases = [self.bases[i] for i in rows]
                edits = [sender.edit(self.net, cases, clean[sender.site(self.net)][rows])]  # type: ignore[arg-type]
                edits += [h.edit(self.net, cases, own[h.site(self.net)][rows]) for h in held]  # type: ignore[arg-type]
                run = self.net.run(tokens[rows], keep=[site], edits=edits, logits=False, stop_at=site)
                pieces.append(run[site])
            value = {site: torch.cat(pieces)}
            for one, other in group:
                self.brought[_name(one, other)] = value
            work.step(label, number, len(groups) + 1)

    def _cells(
        self, edges: Sequence[Edge], stand_in: str | None
    ) -> tuple[list[Cell], list[tuple[str, str, str]]]:
        """All cells with what each measures: (what, sender, receiver). stand_in: the source of what is brought."""
        cells: list[Cell] = []
        keys: list[tuple[str, str, str]] = []
        for sender in self.places:
            alone = write_at(self.net, sender)
            later = [write_at(self.net, place, _OWN) for place in self.between(sender, None)]
            cells += [(alone,), (alone, *later)]
            keys += [("alone", str(sender), ""), ("brought", str(sender), ANSWER)]
        for sender, receiver in edges:
            source = _name(sender, receiver) if stand_in is None else stand_in
            cells.append((write_at(self.net, receiver, source),))
            keys.append(("brought", str(sender), str(receiver)))
            if receiver in self.places:
                cells.append((write_at(self.net, sender), write_at(self.net, receiver, _OWN)))
                keys.append(("held", str(sender), str(receiver)))
        return cells, keys

    def _experiment(self) -> Experiment:
        base = self.ends.corrupted
        named = {_OWN: base.kept, **self.brought}
        spans = columns_at(self.behaviour, self.ends, base)
        return self.ends.experiment(self.net, base, self.ends.clean.kept, named=named, spans=spans)


def _name(sender: VariablePlace, receiver: VariablePlace) -> str:
    return f"{sender} to {receiver}"


@dataclass(frozen=True, eq=False)
class PassingRoutes:
    """What was measured of one variable on one half.

    Attributes:
        bench: whose.
        values: the metric [n] by (what, sender, receiver): "alone" (the sender exchanged), "brought" (only the receiver
            changed, by what the sender brings; for the answer: the sender exchanged, all later places held), "held" (the
            sender exchanged, the receiver held).
    """

    bench: PassingBench
    values: Mapping[tuple[str, str, str], np.ndarray]

    def has(self, sender: str, receiver: str) -> bool:
        """Was this edge measured on every pair?"""
        return ("brought", sender, receiver) in self.values

    def share(self, sender: str, receiver: str) -> Estimate:
        """What passes, as a share of the variable's effect."""
        return self.bench.scale.share(self.values["brought", sender, receiver])

    def alone(self, sender: str) -> Estimate:
        """What exchanging the sender brings in all."""
        return self.bench.scale.share(self.values["alone", sender, ""])

    def lost(self, sender: str, receiver: str) -> Estimate | None:
        """What of that is lost when the receiver is held at its own value; None for the answer."""
        if ("held", sender, receiver) not in self.values:
            return None
        return self.bench.scale.difference(
            self.values["alone", sender, ""], self.values["held", sender, receiver]
        )

    def more_than(self, sender: str, receiver: str, others: Sequence[str]) -> Estimate | None:
        """What passes less what passes to other receivers on average; None where there are none."""
        beside = [self.values["brought", sender, other] for other in others if self.has(sender, other)]
        if not beside:
            return None
        return self.bench.scale.difference(self.values["brought", sender, receiver], np.mean(beside, axis=0))

    def each(self, sender: str, receiver: str) -> np.ndarray:
        """What passes in each pair [n], in units of the variable's mean effect."""
        base = self.bench.ends.corrupted.metric
        return (self.values["brought", sender, receiver] - base) / self.bench.scale.gap

    def by_frame(self, sender: str, receiver: str) -> dict[str, float]:
        """What passes in each sentence frame, as a share of the variable's effect there."""
        base, whole = self.bench.ends.corrupted.metric, self.bench.ends.clean.metric
        moved = self.values["brought", sender, receiver] - base
        found = {}
        for frame in dict.fromkeys(self.bench.behaviour.template):
            rows = [i for i, name in enumerate(self.bench.behaviour.template) if name == frame]
            gap = float((whole - base)[rows].mean())
            found[frame] = float(moved[rows].mean()) / gap if gap else float("nan")
        return found
