"""Pairs of parts replaced together: what two of them do that neither does alone.

Two parts that carry the same information each have a small effect alone and a large one together (backup); two in series
have a joint effect smaller than the sum. `interaction` is the joint effect less the sum of the single ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cutaway.behaviours import Prompts
from cutaway.effects.baselines import Resampling, behaviour_of, measure
from cutaway.effects.effects import Effects
from cutaway.effects.question import Direction, Question, chosen, require_one_of, require_rules, sides
from cutaway.errors import BadInput
from cutaway.network.parts import Part, parts_of
from cutaway.results import Work, strict, working
from cutaway.statistics import means_of
from cutaway.sweeps import (
    CellState,
    CellValues,
    Rules,
    announce_sweep,
    handing_over,
    plan_cells,
    write_of,
)

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.behaviours.prompts import AnswerLike, PromptLike
    from cutaway.network import Network

Which = Sequence[Part | str] | Literal["heads", "all"]


@strict
def pair_effects(
    net: Network,
    behaviour: Behaviour | str | None = None,
    *,
    clean: PromptLike | None = None,
    corrupted: PromptLike | None = None,
    answers: AnswerLike | None = None,
    which: Which = "heads",
    direction: Direction = "corrupt",
    seed: int = 0,
    folder: str | Path | None = None,
    rules: Rules | None = None,
    work: Work | None = None,
) -> Effects:
    """Patch every pair of parts at once, and each alone.

    Args:
        net: the network.
        behaviour: pairs of prompts of equal length, or the name of a built-in behaviour.
        clean, corrupted, answers: two prompts of yours in its place, as in `patch`.
        which: parts (themselves or by name, `a3.h1`, `MLP 0`), "heads" for all attention heads, "all" for heads, mixers
            and MLPs.
        direction, seed, folder, rules, work: as in `patch`.

    Returns:
        `Effects` over `first` and `second` (symmetric; the diagonal is the part alone), with `interaction` [first second],
        the joint effect less the two single ones, and its interval `interaction_low`, `interaction_high`. A joint effect
        far beyond the sum says backup or redundancy; far below it, that the two lie on one path.

    Raises:
        NotFound: no such part.
        BadInput: fewer than two parts.
        BadBehaviour: pairs differ in length, or there is no gap.
    """
    began = time.perf_counter()
    require_rules(rules)
    with working(work).interruptible() as work, handing_over(net):
        behaviour = behaviour_of(net, behaviour, seed, Prompts(clean, corrupted, answers), "pair_effects")
        behaviour.require_aligned("Patching pairs of parts")
        writes = {part: write_of(part) for part in _parts(net, which)}
        parts, size, n = tuple(writes), len(writes), behaviour.n
        swept = "corrupted" if direction == "restore" else "clean"
        sites = sorted({write.where for write in writes.values()})
        ends = measure(net, behaviour, sites, work, swept=swept, rules=rules)
        base, source = sides(ends, direction)
        names = [str(part) for part in parts]
        dims = {"first": names, "second": names}
        asked = (net, behaviour, ends, base, "pairs of parts", direction, dims)
        question = Question(*asked, seed=seed, began=began)
        places = [(i, j) for i in range(size) for j in range(i, size)]
        cells = [tuple(writes[parts[k]] for k in dict.fromkeys(place)) for place in places]
        experiment = ends.experiment(net, base, source.kept)
        plan = plan_cells(experiment, cells, base=base.metric, rules=rules, time_it=False, work=work)
        announce_sweep(plan, work, "patching pairs")
        once = plan.run(folder, work, "patching pairs")
        values = np.full((size, size, n), np.nan)
        states = np.full((size, size, n), CellState.NOT_RUN, np.int8)
        for (i, j), value, state in zip(places, once.values, once.states, strict=True):
            values[i, j] = values[j, i] = value
            states[i, j] = states[j, i] = state
        both = CellValues(values.reshape(-1, n), states.reshape(-1, n), once.interrupted)
        effects = question.effects(both, plan.warnings)
        interaction = _interaction(question.shares(values), behaviour)
        return Effects(effects.data.assign(interaction), effects.provenance)


def _interaction(joint: np.ndarray, behaviour: Behaviour) -> dict[str, tuple[tuple[str, str], np.ndarray]]:
    """The joint effects [k k n] less the two single ones (the diagonal): mean and interval, [k k] each."""
    size, n = joint.shape[1:]
    alone = joint[np.arange(size), np.arange(size)]
    extra = joint - alone[:, None] - alone[None]
    extra[np.arange(size), np.arange(size)] = 0.0
    drawn = Resampling.of(behaviour.template).intervals
    estimates = means_of(np.nan_to_num(extra).reshape(-1, n).T, drawn)
    shown = np.isfinite(extra).all(-1)
    ends = {"_low": estimates.low, "_high": estimates.high}
    figures = {f"interaction{end}": figure for end, figure in ({"": estimates.value} | ends).items()}
    square = {n: np.where(shown, figure.reshape(size, size), np.nan) for n, figure in figures.items()}
    return {name: (("first", "second"), table) for name, table in square.items()}


def _parts(net: Network, which: Which) -> tuple[Part, ...]:
    everything = parts_of(net)
    if isinstance(which, str):
        require_one_of(which, ("heads", "all"), "set of parts")
        parts = tuple(part for part in everything if which == "all" or part.kind == "head")
    else:
        parts = chosen(which, everything, everything, Part.of, "part")
    if len(parts) < 2:
        remedy = "Use which='all', or name parts."
        raise BadInput(f"Pairs need two parts, and there {'is one' if parts else 'are none'}.", remedy)
    return parts
