"""Pairs of components replaced together: what two of them do that neither does alone.

Two components that carry the same information each have a small effect alone and a large one together (backup); two in
series have a joint effect smaller than the sum. `interaction` is the joint effect less the sum of the single ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cutaway.effects.baselines import Resampling, behaviour_of, measure
from cutaway.effects.components import Component, components
from cutaway.effects.effects import Effects
from cutaway.effects.patching import Direction, attributes, dataset, warn_if_stopped
from cutaway.errors import BadInput
from cutaway.results import Provenance, Work
from cutaway.statistics import bootstrap_many
from cutaway.sweeps import CellState, CellValues, Rules, run_cells

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

Which = Sequence[Component] | Literal["heads", "all"]


def pair_effects(
    net: Network,
    behaviour: Behaviour | str,
    *,
    which: Which = "heads",
    direction: Direction = "corrupt",
    seed: int = 0,
    folder: str | Path | None = None,
    rules: Rules | None = None,
    work: Work | None = None,
) -> Effects:
    """Patch every pair of components at once, and each alone.

    which: components, "heads" for all attention heads, "all" for heads, mixers and MLPs.

    Returns `Effects` over `first` and `second` (symmetric; the diagonal is the component alone), with `interaction`
    [first second], the joint effect less the two single ones, and its interval `interaction_low`, `interaction_high`.
    A joint effect far beyond the sum says backup or redundancy; far below it, that the two lie on one path.

    Raises `BadInput` for fewer than two components, `BadBehaviour` when pairs differ in length or there is no gap.
    """
    started = time.perf_counter()
    behaviour = behaviour_of(net, behaviour, seed)
    behaviour.require_aligned("Patching pairs of components")
    parts = _chosen(net, which)
    ends = measure(net, behaviour, sorted({part.write.where for part in parts}))
    base, source = (ends.corrupted, ends.clean) if direction == "restore" else (ends.clean, ends.corrupted)
    size = len(parts)
    places = [(i, j) for i in range(size) for j in range(i, size)]
    cells = [(parts[i].write,) if i == j else (parts[i].write, parts[j].write) for i, j in places]
    found = run_cells(
        ends.experiment(net, base, source.kept), cells, base=base.metric, rules=rules, folder=folder, work=work,
        label="patching pairs",
    )  # fmt: skip
    warn_if_stopped(found)
    n = behaviour.n
    values, states = np.full((size, size, n), np.nan), np.full((size, size, n), CellState.NOT_RUN, np.int8)
    for (i, j), value, state in zip(places, found.values, found.states, strict=True):
        values[i, j] = values[j, i] = value
        states[i, j] = states[j, i] = state
    result = CellValues(values.reshape(-1, n), states.reshape(-1, n), found.interrupted)
    effect = (result.values - base.metric[None, :]) / ends.gap
    names = [str(part) for part in parts]
    coordinates = {"first": names, "second": names}
    data = dataset((size, size), ("first", "second"), coordinates, behaviour, effect, result, seed)
    joint = effect.reshape(size, size, n)
    alone = joint[np.arange(size), np.arange(size)]
    extra = joint - alone[:, None] - alone[None]
    extra[np.arange(size), np.arange(size)] = 0.0
    drawn = Resampling.of(behaviour.template).intervals
    estimates = bootstrap_many(np.nan_to_num(extra).reshape(-1, n).T, drawn, seed=seed)
    shown = np.isfinite(extra).all(-1)
    for name, figures in (
        ("interaction", estimates.value),
        ("interaction_low", estimates.low),
        ("interaction_high", estimates.high),
    ):
        data[name] = (("first", "second"), np.where(shown, figures.reshape(size, size), np.nan))
    data.attrs.update(
        attributes(net, behaviour, ends, "pairs of components", direction, not found.interrupted)
    )
    data = data.assign_coords(template=("example", list(behaviour.template)))
    data = data.assign(clean=("example", ends.clean.metric), corrupted=("example", ends.corrupted.metric))
    return Effects(data, Provenance.of(net, behaviour.hash, seed, time.perf_counter() - started))


def _chosen(net: Network, which: Which) -> tuple[Component, ...]:
    if isinstance(which, str):
        if which not in ("heads", "all"):
            raise BadInput(
                f"There is no set of components {which!r}.", "Use 'heads', 'all', or a list of them."
            )
        found = tuple(c for c in components(net) if which == "all" or c.kind == "head")
    else:
        found = tuple(which)
    if len(found) < 2:
        raise BadInput(
            f"Pairs need two components, and there {'is one' if found else 'are none'}.",
            "Use which='all', or name components.",
        )
    return found
