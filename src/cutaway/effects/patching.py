"""Activation patching: copy a site's value from one run of a pair into the other, and measure what changes.

Vig et al. 2020 (causal mediation), Meng et al. 2022 (causal tracing), Wang et al. 2022 (path patching's simplest form);
on the two directions and their meaning see Heimersheim and Nanda 2024, "How to use and interpret activation patching".
Ablation replaces a value by one that carries no information about the prompt: zero, the mean, another prompt's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import Baselines, Side, behaviour_of, measure
from cutaway.effects.box import Box, box_of, checked, sites_of, span_columns
from cutaway.effects.effects import Effects
from cutaway.effects.planned import PlannedSweep
from cutaway.effects.question import DIRECTIONS, Direction, Question, require_one_of, require_rules, sides
from cutaway.effects.summary import token_labels
from cutaway.errors import BadBehaviour, BadInput
from cutaway.interventions import Ablate
from cutaway.network.edits import Here
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site
from cutaway.results import Work, strict, working
from cutaway.sweeps import Cell, Experiment, Rules, plan_cells

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

How = Literal["zero", "mean", "mean by position", "resample"]
HOW: tuple[How, ...] = get_args(How)
By = str | Sequence[str]


@strict
def patch(
    net: Network,
    behaviour: Behaviour | str,
    *,
    at: str = "resid_pre",
    by: By = ("layer", "position"),
    direction: Direction = "restore",
    layers: Sequence[int] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    rules: Rules | None = None,
    work: Work | None = None,
) -> Effects:
    """Patch one site, cell by cell, and return the effect of each cell with its interval.

    Args:
        net: the network.
        behaviour: pairs of prompts, answers and metric, or the name of a built-in behaviour.
        at: which site, e.g. `resid_pre`, `z`, `pattern`, `mlp_act`, `mlp_write`; `map` for the maps of an image network.
        by: the dimensions of the sweep: layer; layer with position, span, head or neuron; or layer and head (or neuron)
            with position (or span); map, or map and channel. What is not named is patched whole (all positions, all heads).
        direction: `restore` copies clean values into the corrupted run (what is enough to bring the behaviour back?);
            `corrupt` copies corrupted values into the clean run (what is needed for it?).
        layers: only these; default every layer that has the site.
        seed: of the bootstrap and the sign-flip test, and of a behaviour that is given by name.
        folder: finished cells are kept there, and a run that was stopped goes on from it.
        rules: which savings may be used; default all that are valid on this network. The numbers are the same.
        work: hears of progress, and may end the sweep.

    Returns:
        `Effects`, normalised so that 1 is the whole gap between corrupted and clean baseline. Pairs of unequal length
        can only be patched at the answer position; that is then what `by=["layer"]` does, and the result says so.
        Where the work is stopped (by Ctrl-C, too) the finished cells are returned and marked as partial, with a warning.

    Raises:
        SiteUnavailable: the network has no such site, or it was not certified.
        BadInput: `by` or `direction` is not one of those, or the site has no such dimension.
        BadBehaviour: positions were asked for and pairs differ in length; or there is no gap to normalise by.
        NotFinite: the unpatched runs hold NaN or infinity (it says where).
    """
    began = time.perf_counter()
    with working(work).interruptible() as work:
        sweep = patching_sweep(net, behaviour, at, by, direction, layers, seed, began=began, work=work)
        return sweep.planned(rules, time_it=False, work=work).finish(folder, work)


@strict
def ablate(
    net: Network,
    behaviour: Behaviour | str,
    *,
    at: str = "z",
    by: By = ("layer", "head"),
    how: How = "mean",
    layers: Sequence[int] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    rules: Rules | None = None,
    work: Work | None = None,
) -> Effects:
    """Ablate one site on the clean prompts, cell by cell, and return the effect of each cell with its interval.

    Args:
        at: which site, e.g. `z`, `mlp_write`; `map` for the maps of an image network.
        by: the dimensions of the sweep, as in `patch`.
        how: `zero`; `mean`, over the clean prompts and their positions; `mean by position`; `resample`, the value of another
            prompt, drawn with `seed`.
        layers: only these; default every layer that has the site.

    The other arguments, the result and the errors are those of `patch`: an effect of -1 takes the metric from the clean to
    the corrupted baseline.
    """
    began = time.perf_counter()
    with working(work).interruptible() as work:
        sweep = ablation_sweep(net, behaviour, at, by, how, layers, seed, began=began, work=work)
        return sweep.planned(rules, time_it=False, work=work).finish(folder, work)


@strict
def plan(
    net: Network,
    behaviour: Behaviour | str,
    *,
    at: str | None = None,
    by: By | None = None,
    direction: Direction | None = None,
    how: How | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    rules: Rules | None = None,
    work: Work | None = None,
) -> PlannedSweep:
    """Say what `patch` will cost, or `ablate` where `how` is given, before anything of it is run.

    All arguments are those of the verb that is planned, with its defaults; `work` may carry a budget of memory. For a list
    of interventions see `plan_interventions`.

    Returns:
        A plan: print it; `run()` gives the `Effects` that the verb would give.

    Raises:
        BadInput: both `how` and `direction` are given.
        OutOfMemory: the memory does not suffice for one cell (it says what is needed).
        What the verb raises, too.
    """
    if how is not None and direction is not None:
        raise BadInput(
            f"An ablation (how={how!r}) has no direction; direction={direction!r} was given.",
            "Leave one of them out.",
        )
    with working(work).interruptible() as work:
        if how is None:
            sweep = patching_sweep(
                net, behaviour, at or "resid_pre", by or ("layer", "position"), direction or "restore", layers, seed,
                work=work,
            )  # fmt: skip
        else:
            sweep = ablation_sweep(
                net, behaviour, at or "z", by or ("layer", "head"), how, layers, seed, work=work
            )
        return sweep.planned(rules, work=work)


@dataclass(frozen=True, eq=False)
class PatchSweep:
    """A box of cells on one side's prompts, with what is written: ready to be planned and run.

    Attributes:
        question: what is asked.
        experiment: what all cells share.
        cells: what is written in each.
    """

    question: Question
    experiment: Experiment
    cells: Sequence[Cell] = field(repr=False)

    @classmethod
    def of(cls, question: Question, box: Box, sources: Mapping[Site, Tensor]) -> PatchSweep:
        """The sweep over a box in which these values are written."""
        spans = span_columns(question.behaviour, question.base)
        experiment = question.ends.experiment(question.net, question.base, sources, spans=spans)
        return cls(question, experiment, box.cells())

    def planned(
        self, rules: Rules | None = None, time_it: bool = True, work: Work | None = None
    ) -> PlannedSweep:
        """What the sweep will cost; running it gives the effect of every cell."""
        require_rules(rules)
        question = self.question
        plan = plan_cells(
            self.experiment, self.cells, base=question.base.metric, rules=rules, time_it=time_it, work=work
        )
        label = f"patching {question.site} by {' and '.join(question.dims)}, {question.direction}"
        return PlannedSweep(plan, question, label)


def patching_sweep(
    net: Network,
    behaviour: Behaviour | str,
    at: str = "resid_pre",
    by: By = ("layer", "position"),
    direction: Direction = "restore",
    layers: Sequence[int] | None = None,
    seed: int = 0,
    *,
    began: float | None = None,
    work: Work | None = None,
) -> PatchSweep:
    """The sweep that `patch` runs, not yet run: arguments and errors are those of `patch`."""
    require_one_of(direction, DIRECTIONS, "direction")
    behaviour = behaviour_of(net, behaviour, seed)
    site, chosen, dims = checked(net, behaviour, at, by, layers)
    ends = measure(net, behaviour, sites_of(site, chosen), work)
    base, source = sides(ends, direction)
    box = box_of(behaviour, site, dims, chosen, base)
    sources, everywhere = _sources(ends, behaviour.aligned, base, source)
    where = "" if everywhere else "answer position only: clean and corrupted prompts differ in length"
    return PatchSweep.of(
        _question(net, behaviour, ends, base, box, direction, seed, began, where), box, sources
    )


def ablation_sweep(
    net: Network,
    behaviour: Behaviour | str,
    at: str = "z",
    by: By = ("layer", "head"),
    how: How = "mean",
    layers: Sequence[int] | None = None,
    seed: int = 0,
    *,
    began: float | None = None,
    work: Work | None = None,
) -> PatchSweep:
    """The sweep that `ablate` runs, not yet run: arguments and errors are those of `ablate`."""
    require_one_of(how, HOW, "ablation")
    behaviour = behaviour_of(net, behaviour, seed)
    site, chosen, dims = checked(net, behaviour, at, by, layers)
    ends = measure(net, behaviour, sites_of(site, chosen), work)
    base = ends.clean
    kind: Any = how.removesuffix(" by position")
    edit = Ablate(site, how=kind, by_position=kind != how, seed=seed)
    sources = {where: _ablated(net, edit, where, value, base.tokens) for where, value in base.kept.items()}
    box = box_of(behaviour, site, dims, chosen, base)
    return PatchSweep.of(
        _question(net, behaviour, ends, base, box, f"ablate ({how})", seed, began), box, sources
    )


def _question(
    net: Network, behaviour: Behaviour, ends: Baselines, base: Side, box: Box, direction: str, seed: int,
    began: float | None, where: str = "",
) -> Question:  # fmt: skip
    """What a box of cells asks, with a token label for each position."""
    labels: dict[str, tuple[tuple[str, ...], Any]] = {}
    if box.positions is not None:
        strings = [ends.clean.tokens.strings(row) for row in range(ends.clean.tokens.n)]
        grid = np.array([[*row, *[""] * (box.positions - len(row))] for row in strings])
        labels["tokens"] = (("example", "position"), grid)
        labels["token"] = (("position",), token_labels(grid))
    return Question(
        net, behaviour, ends, base, box.site, direction, box.coordinates(), labels, where, seed,
        time.perf_counter() if began is None else began,
    )  # fmt: skip


def _ablated(net: Network, edit: Ablate, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
    """What an ablation writes on all prompts at one site: [n p ...].

    Another prompt's value is one of equal length, so that every position has a counterpart.
    """
    function = next(f for where, f in edit.bind(net) if where == site)
    if edit.how != "resample":
        return function(value, Here(site, site.axes, tokens, batch=tokens.n)).expand_as(value)
    new = value.clone()
    for length in tokens.lengths.unique():
        rows = (tokens.lengths == length).nonzero()[:, 0]
        if len(rows) < 2:
            raise BadBehaviour(
                f"Only one prompt has {int(length)} tokens, so no other can take its place.",
                "Use more examples, or how='mean'.",
            )
        part = Here(site, site.axes, tokens[rows], batch=len(rows))
        new[rows.to(new.device)] = function(value[rows.to(value.device)], part)
    return new


def _sources(ends: Baselines, aligned: bool, base: Side, source: Side) -> tuple[dict[Site, Tensor], bool]:
    """What is written, laid out like the base run; and whether that is the source at every position.

    With pairs of unequal length only the answer position corresponds: elsewhere the base's own value is written.
    """
    if aligned:
        return source.kept, True
    at = ends.positions[:, None]
    rows = torch.arange(base.tokens.n)
    into, out_of = (side.tokens.columns(at)[:, 0].cpu() for side in (base, source))
    laid: dict[Site, Tensor] = {}
    for site, value in base.kept.items():
        if "dest" in site.axes:
            raise BadInput(
                f"{site} of prompts of unequal length cannot be copied: their positions do not correspond.",
                "Use pairs of one length (behaviour.only_aligned()), or patch z.",
            )
        laid[site] = value.clone()
        laid[site][rows, into] = source.kept[site][rows, out_of]
    return laid, False
