"""Activation patching: copy a site's value from one run of a pair into the other, and measure what changes.

Vig et al. 2020 (causal mediation), Meng et al. 2022 (causal tracing), Wang et al. 2022 (path patching's simplest form);
on the two directions and their meaning see Heimersheim and Nanda 2024, "How to use and interpret activation patching".
Ablation replaces a value by one that carries no information about the prompt: zero, the mean, another prompt's.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from cutaway.effects.baselines import Baselines, Resampling, Side, behaviour_of, measure
from cutaway.effects.box import Box, box_of, checked, span_columns
from cutaway.effects.effects import Effects
from cutaway.effects.summary import summarise, token_labels
from cutaway.errors import BadBehaviour, BadInput
from cutaway.interventions import Ablate
from cutaway.network.edits import Here
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site
from cutaway.results import Provenance, Work, working
from cutaway.sweeps import CellState, CellValues, Plan, Rules, plan_cells

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

Direction = Literal["restore", "corrupt"]
How = Literal["zero", "mean", "mean by position", "resample"]


def patch(
    net: Network,
    behaviour: Behaviour | str,
    *,
    at: str = "resid_pre",
    by: str | Sequence[str] = ("layer", "position"),
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
        at: which site, e.g. `resid_pre`, `z`, `pattern`, `mlp_act`, `mlp_write`.
        by: the dimensions of the sweep: layer; layer with position, span, head or neuron; or layer and head (or neuron)
            with position (or span). What is not named is patched whole (all positions, all heads).
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
        Where the work is stopped (Ctrl-C, too) the finished cells are returned and marked as partial, with a warning.

    Raises:
        SiteUnavailable: the network has no such site, or it was not certified.
        BadInput: `by` or `direction` is not one of those, or the site has no such dimension.
        BadBehaviour: positions were asked for and pairs differ in length; or there is no gap to normalise by.
        NotFinite: the unpatched runs hold NaN or infinity (it says where).
    """
    started = time.perf_counter()
    with working(work).interruptible() as work:
        sweep = patching_sweep(net, behaviour, at, by, direction, layers, seed)
        return sweep.effects(sweep.plan(rules, time_it=False, work=work), started, folder, work)


def ablate(
    net: Network,
    behaviour: Behaviour | str,
    *,
    at: str = "z",
    by: str | Sequence[str] = ("layer", "head"),
    how: How = "mean",
    layers: Sequence[int] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    rules: Rules | None = None,
    work: Work | None = None,
) -> Effects:
    """Ablate one site on the clean prompts, cell by cell, and return the effect of each cell with its interval.

    how: `zero`; `mean`, over the clean prompts and their positions; `mean by position`; `resample`, the value of another
    prompt, drawn with `seed`. The other arguments, the result and the errors are those of `patch`: an effect of -1 takes
    the metric from the clean to the corrupted baseline.
    """
    started = time.perf_counter()
    with working(work).interruptible() as work:
        sweep = ablation_sweep(net, behaviour, at, by, how, layers, seed)
        return sweep.effects(sweep.plan(rules, time_it=False, work=work), started, folder, work)


def ablation_sweep(
    net: Network,
    behaviour: Behaviour | str,
    at: str = "z",
    by: str | Sequence[str] = ("layer", "head"),
    how: How = "mean",
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> PatchSweep:
    """The sweep that `ablate` runs, not yet run: arguments and errors are those of `ablate`."""
    if how not in get_args(How):
        raise BadInput(f"There is no ablation {how!r}.", f"Use one of: {', '.join(get_args(How))}.")
    behaviour = behaviour_of(net, behaviour, seed)
    site, chosen, dims = checked(net, behaviour, at, by, layers)
    ends = measure(net, behaviour, [Site(site, layer) for layer in chosen])
    base = ends.clean
    kind: Any = how.removesuffix(" by position")
    edit = Ablate(site, how=kind, by_position=kind != how, seed=seed)
    sources = {where: _ablated(net, edit, where, value, base.tokens) for where, value in base.kept.items()}
    box = box_of(behaviour, site, dims, chosen, base)
    return PatchSweep(net, behaviour, ends, box, base, sources, True, f"ablate ({how})", seed)


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
        here = Here(site, site.axes, tokens[rows], batch=len(rows))
        new[rows.to(new.device)] = function(value[rows.to(value.device)], here)
    return new


@dataclass(frozen=True, eq=False)
class PatchSweep:
    """A box of cells on one side's prompts, with what is written: ready to be planned and run.

    direction: "restore", "corrupt", or how it is ablated. everywhere: whether every position is written, or only the
    answer's, because pairs differ in length.
    """

    net: Network
    behaviour: Behaviour
    ends: Baselines
    box: Box
    base: Side
    sources: Mapping[Site, Tensor]
    everywhere: bool
    direction: str
    seed: int

    def plan(
        self,
        rules: Rules | None = None,
        memory: int | None = None,
        time_it: bool = True,
        work: Work | None = None,
    ) -> Plan:
        """What the sweep will cost; running it gives the metric of every cell."""
        spans = span_columns(self.behaviour, self.base)
        experiment = self.ends.experiment(self.net, self.base, self.sources, spans=spans)
        return plan_cells(
            experiment, self.box.cells(), base=self.base.metric, rules=rules, memory=memory, time_it=time_it, work=work
        )  # fmt: skip

    def effects(
        self, plan: Plan, started: float, folder: str | Path | None = None, work: Work | None = None
    ) -> Effects:
        """Run a plan of this sweep and put the result together."""
        result = plan.run(
            folder, work, f"patching {self.box.site} by {' and '.join(self.box.by)}, {self.direction}"
        )
        warn_if_stopped(result)
        effect = (result.values - self.base.metric[None, :]) / self.ends.gap
        data = dataset(
            self.box.shape, self.box.by, self.box.coordinates(), self.behaviour, effect, result, self.seed
        )
        data.attrs.update(
            attributes(
                self.net, self.behaviour, self.ends, self.box.site, self.direction, not result.interrupted
            )
        )
        if not self.everywhere:
            data.attrs["where"] = "answer position only: clean and corrupted prompts differ in length"
        data.attrs["notes"] = " ".join(plan.warnings)
        data = data.assign_coords(_labels(self.box, self.behaviour, self.ends.clean))
        data = data.assign(
            clean=("example", self.ends.clean.metric), corrupted=("example", self.ends.corrupted.metric)
        )
        seconds = time.perf_counter() - started
        return Effects(data, Provenance.of(self.net, self.behaviour.hash, self.seed, seconds))


def patching_sweep(
    net: Network,
    behaviour: Behaviour | str,
    at: str = "resid_pre",
    by: Sequence[str] = ("layer", "position"),
    direction: Direction = "restore",
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> PatchSweep:
    """The sweep that `patch` runs, not yet run: arguments and errors are those of `patch`."""
    if direction not in ("restore", "corrupt"):
        raise BadInput(f"There is no direction {direction!r}.", "Use 'restore' or 'corrupt'.")
    behaviour = behaviour_of(net, behaviour, seed)
    site, chosen, dims = checked(net, behaviour, at, by, layers)
    ends = measure(net, behaviour, [Site(site, layer) for layer in chosen])
    base, source = (ends.corrupted, ends.clean) if direction == "restore" else (ends.clean, ends.corrupted)
    box = box_of(behaviour, site, dims, chosen, base)
    sources, everywhere = _sources(ends, behaviour.aligned, base, source)
    return PatchSweep(net, behaviour, ends, box, base, sources, everywhere, direction, seed)


def warn_if_stopped(result: CellValues) -> None:
    """Say how much of a stopped sweep is there."""
    if result.interrupted:
        finished = int((result.states != CellState.NOT_RUN).all(1).sum())
        warnings.warn(
            f"Stopped: {finished} of {len(result.states)} cells are finished and kept; the rest is marked as not run.",
            stacklevel=3,
        )


def _sources(ends: Baselines, aligned: bool, base: Side, source: Side) -> tuple[dict[Site, Tensor], bool]:
    """What is written, laid out like the base run; and whether that is the source at every position.

    With pairs of unequal length only the answer position corresponds: elsewhere the base's own value is written.
    """
    if aligned:
        return source.kept, True
    at = ends.positions[:, None]
    rows = torch.arange(base.tokens.n)
    here, there = base.tokens.columns(at)[:, 0].cpu(), source.tokens.columns(at)[:, 0].cpu()
    laid: dict[Site, Tensor] = {}
    for site, value in base.kept.items():
        if "dest" in site.axes:
            raise BadInput(
                f"{site} of prompts of unequal length cannot be copied: their positions do not correspond.",
                "Use pairs of one length (behaviour.only_aligned()), or patch z.",
            )
        laid[site] = value.clone()
        laid[site][rows, here] = source.kept[site][rows, there]
    return laid, False


def dataset(
    shape: tuple[int, ...],
    dims: Sequence[str],
    coordinates: Mapping[str, Sequence[Any]],
    behaviour: Behaviour,
    effect: np.ndarray,
    result: CellValues,
    seed: int,
) -> xr.Dataset:
    """Effects [cells n] and their summary as a labelled dataset over `dims` and `example`."""
    names = list(dims)
    summary = summarise(effect, result.states, behaviour.template, seed)
    variables = {name: (names, values.reshape(shape)) for name, values in summary.items()}
    for name, values in (("effect", effect), ("metric", result.values), ("state", result.states)):
        variables[name] = ([*names, "example"], values.reshape(*shape, -1))
    return xr.Dataset(variables, {**coordinates, "example": list(range(effect.shape[1]))})


def attributes(
    net: Network, behaviour: Behaviour, ends: Baselines, at: str, direction: str, complete: bool
) -> dict[str, object]:
    """What a result says of itself."""
    return {
        "site": at,
        "direction": direction,
        "complete": complete,
        "network": net.name,
        "behaviour": behaviour.name,
        "metric": behaviour.metric.name,
        "clean_metric": float(ends.clean.metric.mean()),
        "corrupted_metric": float(ends.corrupted.metric.mean()),
        "gap": ends.gap,
        "intervals": Resampling.of(behaviour.template).sentence,
        "correction": "Benjamini-Hochberg over the cells of this sweep",
        "where": "",
        "notes": "",
    }


def _labels(box: Box, behaviour: Behaviour, clean: Side) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Each example's template and clean tokens, and one token label for each position."""
    labels: dict[str, tuple[tuple[str, ...], Any]] = {"template": (("example",), list(behaviour.template))}
    if box.positions is not None:
        strings = [clean.tokens.strings(row) for row in range(clean.tokens.n)]
        grid = np.array([[*row, *[""] * (box.positions - len(row))] for row in strings])
        labels["tokens"] = (("example", "position"), grid)
        labels["token"] = (("position",), token_labels(grid))
    return labels
