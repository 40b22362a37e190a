"""Any list of interventions as one sweep: planned first, then run at the least cost.

An intervention at one layer's site meets the base run's own value there, so what it writes can be worked out before
anything is run: a patch, an ablation, an addition, a projection all become a written tensor, and the sweep engine does the
rest. Only where several interventions of one cell depend on each other is the cell run as a plain forward.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from cutaway.effects.baselines import Baselines, Side, behaviour_of, measure
from cutaway.effects.effects import Effects
from cutaway.effects.patching import (
    Direction,
    PatchSweep,
    attributes,
    dataset,
    patching_sweep,
    warn_if_stopped,
)
from cutaway.errors import BadInput
from cutaway.interventions import Ablate, Patch
from cutaway.interventions.kinds import Intervention
from cutaway.network.edits import Here
from cutaway.network.sites import Site
from cutaway.results import Provenance, Work
from cutaway.sweeps import Cell, CellState, Plan, Rules, Write, plan_cells

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: One cell: an intervention, or several that are made together.
Item = Intervention | Sequence[Intervention]


def plan(
    net: Network,
    behaviour: Behaviour | str,
    interventions: Sequence[Item] | str,
    *,
    by: Sequence[str] = ("layer", "position"),
    on: Literal["clean", "corrupted"] = "clean",
    direction: Direction = "restore",
    layers: Sequence[int] | None = None,
    memory: int | None = None,
    rules: Rules | None = None,
    seed: int = 0,
) -> PlannedSweep:
    """Say what a sweep will cost before anything of it is run.

    Args:
        net: the network.
        behaviour: pairs, answers and metric, or the name of a built-in behaviour.
        interventions: one entry for each cell, an intervention or several that are made together; or the name of a site,
            for the sweep that `patch` would run over `by` in `direction`.
        by, direction, layers: of a named site's sweep.
        on: the prompts that interventions are made on.
        memory: bytes that the sweep may take; default half of what is free.
        rules: which savings may be used; default all that are valid here.
        seed: of the bootstrap and the sign-flip test.

    Returns a plan: print it; `run()` gives `Effects` (over `cell` for a list of interventions).

    Raises `BadInput` for an empty list, `OutOfMemory` when the memory does not suffice for one cell (it says what is
    needed), and what the interventions and `patch` raise.
    """
    if isinstance(interventions, str):
        sweep = patching_sweep(net, behaviour, interventions, by, direction, layers, seed)
        return PlannedSweep(sweep.plan(rules, memory), sweep=sweep)
    behaviour = behaviour_of(net, behaviour, seed)
    items = [tuple(i) if isinstance(i, Sequence) else (i,) for i in interventions]
    if not items:
        raise BadInput("There are no interventions to plan.", "Give a list of them, or the name of a site.")
    bound = [[(site, edit, made) for made in item for site, edit in made.bind(net)] for item in items]
    sites = sorted({site for cell in bound for site, _, _ in cell if not site.module and not site.stack})
    ends = measure(net, behaviour, sites)
    base = ends.clean if on == "clean" else ends.corrupted
    named: dict[str, dict[Site, Tensor]] = {}
    cells: list[Cell] = []
    live: dict[int, tuple[Intervention, ...]] = {}
    for number, (item, edits) in enumerate(zip(items, bound, strict=True)):
        resolved = _resolved(base, edits)
        if resolved is None:
            live[number] = item
            cells.append(())
        else:
            named[f"cell {number}"] = resolved
            cells.append(tuple(Write(s.name, s.layer, source=f"cell {number}") for s in resolved))
    experiment = ends.experiment(net, base, {}, named=named)
    states = np.full((len(cells), behaviour.n), CellState.NOT_RUN, np.int8)
    states[list(live)] = CellState.ABSENT
    planned = plan_cells(experiment, cells, base=base.metric, states=states, rules=rules, memory=memory)
    planned = replace(planned, job=planned.job.with_live(live)) if live else planned
    return PlannedSweep(planned, items=_Items(net, behaviour, ends, base, items, seed))


def _resolved(base: Side, edits: Sequence[tuple[Site, object, Intervention]]) -> dict[Site, Tensor] | None:
    """What a cell's interventions write, site by site; None where that depends on one another."""
    sites = {site for site, _, _ in edits}
    if any(site.module or site not in base.kept for site in sites):
        return None
    if len(sites) > 1 and not all(_constant(made) for _, _, made in edits):
        return None
    written: dict[Site, Tensor] = {}
    for site, edit, _ in edits:
        here = Here(site, site.axes, base.tokens, batch=base.tokens.n)
        written[site] = edit(written.get(site, base.kept[site]), here)  # type: ignore[operator]
    return {site: written[site] for site in sorted(written)}


def _constant(made: Intervention) -> bool:
    """Whether what it writes does not depend on the value that it meets."""
    return isinstance(made, Patch) or (
        isinstance(made, Ablate) and (made.how == "zero" or made.source is not None)
    )


@dataclass(frozen=True, eq=False)
class _Items:
    """What a list of interventions was planned on."""

    net: Network
    behaviour: Behaviour
    ends: Baselines
    base: Side
    items: Sequence[tuple[Intervention, ...]]
    seed: int


@dataclass(frozen=True, eq=False)
class PlannedSweep:
    """A sweep that can be printed before it is run; see `plan`."""

    plan: Plan
    sweep: PatchSweep | None = None
    items: _Items | None = None

    def run(self, folder: str | Path | None = None, work: Work | None = None) -> Effects:
        """Run it; a sweep that is stopped keeps what is finished.

        folder: finished parts are kept there, and a stopped run goes on from it. work: hears of progress, and may end it.
        """
        started = time.perf_counter()
        if self.sweep is not None:
            return self.sweep.effects(self.plan, started, folder, work)
        assert self.items is not None
        own = self.items
        result = self.plan.run(folder, work, "interventions")
        warn_if_stopped(result)
        effect = (result.values - own.base.metric[None, :]) / own.ends.gap
        names = [" + ".join(repr(i) for i in item) for item in own.items]
        data = dataset((len(names),), ("cell",), {"cell": names}, own.behaviour, effect, result, own.seed)
        side = "clean" if own.base is own.ends.clean else "corrupted"
        direction = "corrupt" if side == "clean" else "restore"
        data.attrs.update(
            attributes(
                own.net,
                own.behaviour,
                own.ends,
                f"interventions on {side} prompts",
                direction,
                not result.interrupted,
            )
        )
        data = data.assign_coords(template=("example", list(own.behaviour.template)))
        data = data.assign(
            clean=("example", own.ends.clean.metric), corrupted=("example", own.ends.corrupted.metric)
        )
        return Effects(
            data, Provenance.of(own.net, own.behaviour.hash, own.seed, time.perf_counter() - started)
        )

    @property
    def cost(self) -> object:
        """What it will take; see `sweeps.Cost`."""
        return self.plan.cost

    def __repr__(self) -> str:
        return repr(self.plan)

    def _repr_html_(self) -> str:
        return f"<div><p>{html.escape('Planned, not yet run')}</p>{self.plan._repr_html_()}</div>"
