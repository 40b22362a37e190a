"""Sweeps that are planned first, and run then: a patch, an ablation, or any list of interventions.

An intervention at one layer's site meets the base run's own value there, so what it writes can be worked out before
anything is run: a patch, an ablation, an addition, a projection all become a written tensor, and the sweep engine does the
rest. Only where several interventions of one cell depend on each other is the cell run as a plain forward.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from cutaway.effects.baselines import Side, behaviour_of, measure
from cutaway.effects.effects import Effects
from cutaway.effects.question import Question, require_one_of, require_rules
from cutaway.errors import BadInput
from cutaway.interventions import Ablate, Patch
from cutaway.interventions.kinds import Intervention
from cutaway.network.edits import Here
from cutaway.network.sites import Site
from cutaway.reports import display
from cutaway.results import Work, strict, working
from cutaway.results.meter import Meter, metered
from cutaway.sweeps import (
    Cell,
    CellState,
    Cost,
    Plan,
    Rules,
    Write,
    announce_sweep,
    handing_over,
    plan_cells,
)

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: One cell: an intervention, or several that are made together.
Item = Intervention | Sequence[Intervention]


@dataclass(frozen=True, eq=False)
class PlannedSweep:
    """A sweep that can be printed before it is run; see `plan` and `plan_interventions`.

    Attributes:
        plan: what will be run, and what that costs.
        question: what is asked.
        label: what is being done, for whoever listens.
        first_look: what is cheaper to begin with, in words; "" where there is nothing.
    """

    plan: Plan
    question: Question
    label: str
    first_look: str = ""

    def run(self, folder: str | Path | None = None, *, work: Work | None = None) -> Effects:
        """Run it. A sweep that is stopped keeps what is finished, and a second `run` goes on from there.

        folder: finished parts are kept there, and a stopped run goes on from it. work: hears of progress, and may end it.
        """
        begun = replace(self, question=replace(self.question, began=time.perf_counter()))
        with metered(Meter()):
            return begun.finish(folder, work)

    def finish(self, folder: str | Path | None, work: Work | None) -> Effects:
        """Run it as the second half of work that began when its question did."""
        work = working(work)
        announce_sweep(self.plan, work, self.label)
        result = self.plan.run(folder, work, self.label)
        return self.question.effects(result, self.plan.warnings)

    @property
    def cost(self) -> Cost:
        """What it will take."""
        return self.plan.cost

    def __repr__(self) -> str:
        return repr(self.plan) + (f"\n  first look: {self.first_look}" if self.first_look else "")

    def _repr_html_(self) -> str:
        first = [f"First look: {self.first_look}."] if self.first_look else []
        return display(f"{self.label}: planned, not yet run", first, self.plan.to_pandas())


@strict
def plan_interventions(
    net: Network,
    behaviour: Behaviour | str,
    interventions: Sequence[Item],
    *,
    on: Literal["clean", "corrupted"] = "clean",
    rules: Rules | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> PlannedSweep:
    """Say what a list of interventions will cost on a behaviour's prompts, before any of them is made.

    Args:
        net: the network.
        behaviour: pairs, answers and metric, or the name of a built-in behaviour.
        interventions: one entry for each cell, an intervention or several that are made together.
        on: the prompts that they are made on.
        rules: which savings may be used; default all that are valid here.
        seed: of the sign-flip test, and of a behaviour that is given by name.
        work: may end the preparation; its budget says how much memory may be taken.

    Returns:
        A plan: print it; `run()` gives `Effects` over `cell`.

    Raises:
        BadInput: an empty list, or something in it that is no intervention.
        OutOfMemory: the memory does not suffice for one cell (it says what is needed).
    """
    require_rules(rules)
    require_one_of(on, ("clean", "corrupted"), "side")
    with working(work).interruptible() as work, handing_over(net):
        behaviour = behaviour_of(net, behaviour, seed)
        items = _items(interventions)
        bound = [[(site, edit, item) for item in cell for site, edit in item.bind(net)] for cell in items]
        known = ("", *net.anatomy.dictionaries)
        sites = sorted(
            {site for cell in bound for site, _, _ in cell if not site.module and site.stack in known}
        )
        ends = measure(net, behaviour, sites, work, swept=on, rules=rules)
        base = ends.clean if on == "clean" else ends.corrupted
        named: dict[str, dict[Site, Tensor]] = {}
        cells: list[Cell] = []
        live: dict[int, tuple[Intervention, ...]] = {}
        for number, (item, edits) in enumerate(zip(items, bound, strict=True)):
            written = _written(base, edits)
            if written is None:
                live[number] = item
                cells.append(())
            else:
                named[f"cell {number}"] = written
                cells.append(
                    tuple(Write(s.name, s.layer, source=f"cell {number}", stack=s.stack) for s in written)
                )
        states = np.full((len(cells), behaviour.n), CellState.NOT_RUN, np.int8)
        states[list(live)] = CellState.ABSENT
        experiment = ends.experiment(net, base, {}, named=named)
        plan = plan_cells(experiment, cells, base=base.metric, states=states, rules=rules, work=work)
        plan = replace(plan, job=plan.job.with_live(live)) if live else plan
        names = [" + ".join(repr(i) for i in item) for item in items]
        direction = "corrupt" if on == "clean" else "restore"
        site = f"interventions on {on} prompts"
        question = Question(net, behaviour, ends, base, site, direction, {"cell": names}, seed=seed)
        return PlannedSweep(plan, question, f"{len(items)} interventions on {on} prompts")


def _items(interventions: Sequence[Item]) -> list[tuple[Intervention, ...]]:
    """The cells as tuples of interventions."""
    if isinstance(interventions, str) or not isinstance(interventions, Sequence):
        remedy = "Give a list; cutaway.plan(net, behaviour, at=...) plans the sweep over a site."
        raise BadInput(f"{interventions!r} is no list of interventions.", remedy)
    items = [tuple(item) if isinstance(item, Sequence) else (item,) for item in interventions]
    if not items:
        raise BadInput("There are no interventions to plan.", "Give a list of them.")
    for single in (single for item in items for single in item):
        if not hasattr(single, "bind"):
            raise BadInput(f"{single!r} is no intervention.", "Use cutaway.Ablate, Add, Patch, Scale, ...")
    return items


def _written(base: Side, edits: Sequence[tuple[Site, object, Intervention]]) -> dict[Site, Tensor] | None:
    """What a cell's interventions write, site by site; None where that depends on one another."""
    sites = {site for site, _, _ in edits}
    if any(site.module or site not in base.kept for site in sites):
        return None
    if len(sites) > 1 and not all(_constant(item) for _, _, item in edits):
        return None
    written: dict[Site, Tensor] = {}
    for site, edit, _ in edits:
        whole = Here(site, site.axes, base.tokens, batch=base.tokens.n)
        written[site] = edit(written.get(site, base.kept[site]), whole)  # type: ignore[operator]
    return {site: written[site] for site in sorted(written)}


def _constant(item: Intervention) -> bool:
    """Whether what it writes does not depend on the value that it meets."""
    given = isinstance(item, Ablate) and (
        item.how == "zero" or item.source is not None or item.over is not None
    )
    return given or isinstance(item, Patch)
