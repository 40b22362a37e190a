"""Activation patching: copy a site's value from one run of a pair into the other, and measure what changes.

Vig et al. 2020 (causal mediation), Meng et al. 2022 (causal tracing), Wang et al. 2022 (path patching's simplest form);
on the two directions and their meaning see Heimersheim and Nanda 2024, "How to use and interpret activation patching".
Ablation replaces a value by one that carries no information about the prompt: zero, the mean, another prompt's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours import Prompts
from cutaway.effects.baselines import Baselines, Side, behaviour_of, measure
from cutaway.effects.box import MAPS, Box, box_of, checked, sites_of, span_columns
from cutaway.effects.effects import Effects
from cutaway.effects.planned import PlannedSweep
from cutaway.effects.question import DIRECTIONS, Direction, Question, require_one_of, require_rules, sides
from cutaway.effects.summary import token_labels
from cutaway.errors import BadBehaviour, BadInput
from cutaway.interventions import Ablate
from cutaway.network.edits import Here
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site
from cutaway.network.textsets import digest
from cutaway.results import Work, strict, working
from cutaway.sweeps import Rules, handing_over, plan_cells
from cutaway.sweeps.footprint import held_bytes, require_room

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.behaviours.prompts import AnswerLike, PromptLike
    from cutaway.network import Network

How = Literal["zero", "mean", "mean by position", "resample"]
HOW: tuple[How, ...] = get_args(How)
By = str | Sequence[str]


@strict
def patch(
    net: Network,
    behaviour: Behaviour | str | None = None,
    *,
    clean: PromptLike | None = None,
    corrupted: PromptLike | None = None,
    answers: AnswerLike | None = None,
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
        clean, corrupted, answers: in place of a behaviour two prompts of yours, or lists of them, and the right and the
            wrong answer, each one token with its space: `(" Mary", " John")`.
        at: which site, e.g. `resid_pre`, `z`, `pattern`, `mlp_act`, `mlp_write`; `map` for the maps of an image network.
        by: the dimensions of the sweep: layer; layer with position, span, head or neuron; or layer and head (or neuron)
            with position (or span); map, or map and channel. What is not named is patched whole (all positions, all heads).
        direction: `restore` copies clean values into the corrupted run (what is enough to bring the behaviour back?);
            `corrupt` copies corrupted values into the clean run (what is needed for it?).
        layers: only these; default every layer that has the site.
        seed: of the sign-flip test, and of a behaviour that is given by name.
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
    require_one_of(direction, DIRECTIONS, "direction")
    with working(work).interruptible() as work:
        pairs = behaviour_of(net, behaviour, seed, Prompts(clean, corrupted, answers), "patch")
        sweep = box_sweep(net, pairs, at, by, direction, layers, seed, rules, work, time_it=False)
        return sweep.finish(folder, work)


@strict
def ablate(
    net: Network,
    behaviour: Behaviour | str | None = None,
    *,
    clean: PromptLike | None = None,
    corrupted: PromptLike | None = None,
    answers: AnswerLike | None = None,
    at: str = "z",
    by: By = ("layer", "head"),
    how: How = "mean",
    over: Sequence[Any] | Path | None = None,
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
        over: a set of texts that the mean is taken over in place of the clean prompts, all their tokens alike: a list, or a
            file with one text a line (.txt) or a column `text` (.csv, .json, .jsonl).
        layers: only these; default every layer that has the site.

    The other arguments, the result and the errors are those of `patch`: an effect of -1 takes the metric from the clean to
    the corrupted baseline.
    """
    require_one_of(how, HOW, "ablation")
    _require_mean(how, over)
    with working(work).interruptible() as work:
        pairs = behaviour_of(net, behaviour, seed, Prompts(clean, corrupted, answers), "ablate")
        sweep = box_sweep(net, pairs, at, by, how, layers, seed, rules, work, time_it=False, over=over)
        return sweep.finish(folder, work)


@strict
def plan(
    net: Network,
    behaviour: Behaviour | str | None = None,
    *,
    clean: PromptLike | None = None,
    corrupted: PromptLike | None = None,
    answers: AnswerLike | None = None,
    at: str | None = None,
    by: By | None = None,
    direction: Direction | None = None,
    how: How | None = None,
    over: Sequence[Any] | Path | None = None,
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
        what = f"An ablation (how={how!r}) has no direction; direction={direction!r} was given."
        raise BadInput(what, "Leave one of them out.")
    _require_mean(how, over)
    if how is None:
        way, site, dims = direction or "restore", "resid_pre", ("layer", "position")
        require_one_of(way, DIRECTIONS, "direction")
    else:
        way, site, dims = how, "z", ("layer", "head")
        require_one_of(way, HOW, "ablation")
    with working(work).interruptible() as work:
        pairs = behaviour_of(net, behaviour, seed, Prompts(clean, corrupted, answers), "plan")
        return box_sweep(net, pairs, at or site, by or dims, way, layers, seed, rules, work, over=over)


def box_sweep(
    net: Network, behaviour: Behaviour | str, at: str, by: By, way: Direction | How, layers: Sequence[int] | None = None,
    seed: int = 0, rules: Rules | None = None, work: Work | None = None, *, time_it: bool = True, over: Any = None,
) -> PlannedSweep:  # fmt: skip
    """The sweep that `patch` runs where `way` is a direction, and `ablate` where it says how; not yet run.

    The other arguments and the errors are those of the verbs. time_it: measure memory and seconds on a small piece.
    over: the texts that an ablation's mean is taken over.
    """
    began = time.perf_counter()
    with handing_over(net):
        return _box_sweep(
            net,
            behaviour_of(net, behaviour, seed),
            at,
            by,
            way,
            layers,
            seed,
            rules,
            work,
            time_it,
            over,
            began,
        )


def _box_sweep(
    net: Network, behaviour: Behaviour, at: str, by: By, way: Direction | How, layers: Sequence[int] | None, seed: int,
    rules: Rules | None, work: Work | None, time_it: bool, over: Any, began: float,
) -> PlannedSweep:  # fmt: skip
    site, chosen, dims = checked(net, behaviour, at, by, layers)
    require_rules(rules)
    swept, tokens = sites_of(site, chosen), behaviour.clean_tokens(net)
    copies = 2 if way in DIRECTIONS else 3
    require_room(net, swept, copies * tokens.n, tokens.size, working(work))
    ends = measure(
        net, behaviour, swept, work, swept="corrupted" if way == "restore" else "clean", rules=rules
    )
    where = ""
    if way in DIRECTIONS:
        behaviour.require_pairs("Patching")
        direction, (base, source) = str(way), sides(ends, way)
        sources = _sources(ends, base, source) if not behaviour.aligned else source.kept
        if not behaviour.aligned:
            where = "answer position only: clean and corrupted prompts differ in length"
    else:
        direction, base, kind = f"ablate ({way})", ends.clean, cast(Any, way.removesuffix(" by position"))
        edit = Ablate(
            site, how=kind, by_position=kind != way, seed=seed, over=over, layer=_layers_of(site, chosen)
        )
        if edit.over is not None:
            where = f"mean over {len(edit.over)} texts (SHA-256 {digest(edit.over)[:12]})"
        sources = {s: _ablated(net, edit, s, value, base.tokens) for s, value in base.kept.items()}
    box = box_of(behaviour, site, dims, chosen, base)
    labels = position_labels(behaviour, ends, box)
    asked = (net, behaviour, ends, base, site, direction, box.coordinates())
    question = Question(*asked, labels, where, seed, began)
    experiment = ends.experiment(net, base, sources, spans=span_columns(behaviour, base))
    held = held_bytes([*ends.clean.kept.values(), *ends.corrupted.kept.values(), *sources.values()])
    plan = plan_cells(
        experiment, box.cells(), base=base.metric, rules=rules, time_it=time_it, work=work, held=held
    )
    first, price = "", 4 * behaviour.n  # two forwards, and a backward that counts two
    if way in DIRECTIONS and plan.cost.forwards > 2 * price:
        first = f"cutaway.attribution_patch estimates all cells from gradients for about {price:,} forward-equivalents"
    label = f"patching {site} by {' and '.join(question.dims)}, {direction}"
    return PlannedSweep(plan, question, label, first)


def _require_mean(how: How | None, over: object) -> None:
    """Raise `BadInput` where a set of texts is given for what takes no mean."""
    if over is not None and how not in ("mean", "mean by position"):
        given = "a patch" if how is None else f"how={how!r}"
        raise BadInput(f"A set of texts was given beside {given}: it is for a mean.", 'Use how="mean".')


def _layers_of(site: str, layers: Sequence[Any]) -> list[int] | None:
    """The layers of a sweep as an address names them; None where maps are swept."""
    return None if site == MAPS else [int(layer) for layer in layers]


def position_labels(
    behaviour: Behaviour, ends: Baselines, box: Box
) -> dict[str, tuple[tuple[str, ...], Any]]:
    """The tokens at the positions of a box, as coordinates; of a single pair both prompts' tokens where they differ."""
    if box.positions is None:
        return {}
    strings = [ends.clean.tokens.strings(row) for row in range(ends.clean.tokens.n)]
    if behaviour.n == 1 and behaviour.aligned:
        strings = [_both(*(side.tokens.strings(0) for side in (ends.clean, ends.corrupted)))]
    grid = np.array([[*row, *[""] * (box.positions - len(row))] for row in strings])
    return {"tokens": (("example", "position"), grid), "token": (("position",), token_labels(grid))}


def _both(clean: Sequence[str], corrupted: Sequence[str]) -> list[str]:
    """The tokens of two prompts as one row: where they differ, both.

    >>> _both([" Mary", " was"], [" Tom", " was"])
    ['Mary / Tom', ' was']
    """
    pairs = zip(clean, corrupted, strict=True)
    return [a if a == b else f"{a.strip() or a} / {b.strip() or b}" for a, b in pairs]


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
            what = f"Only one prompt has {int(length)} tokens, so no other can take its place."
            raise BadBehaviour(what, "Use more examples, or how='mean'.")
        part = Here(site, site.axes, tokens[rows], batch=len(rows))
        new[rows.to(new.device)] = function(value[rows.to(value.device)], part)
    return new


def _sources(ends: Baselines, base: Side, source: Side) -> dict[Site, Tensor]:
    """What is written where pairs differ in length, laid out like the base run.

    Only the answer position corresponds: elsewhere the base's own value is written.
    """
    at = ends.positions[:, None]
    into, out_of = (side.tokens.columns(at)[:, 0].cpu() for side in (base, source))
    laid: dict[Site, Tensor] = {}
    for site, value in base.kept.items():
        laid[site] = at_answer(site, value, source.kept[site], into, out_of)
    return laid


def at_answer(site: Site, base: Tensor, source: Tensor, into: Tensor, out_of: Tensor) -> Tensor:
    """The base's value [n p ...] with the source's in the columns of the answer: from `out_of` [n] to `into` [n].

    Raises `BadInput` for what lies over two axes of positions.
    """
    if "dest" in site.axes:
        what = f"{site} of prompts of unequal length cannot be copied: their positions do not correspond."
        raise BadInput(what, "Use pairs of one length (behaviour.only_aligned()), or patch z.")
    rows = torch.arange(len(into))
    laid = base.clone()
    laid[rows, into] = source[rows, out_of]
    return laid
