"""A part's value at a span, taken from a prompt in which one variable is another: what of its effect that brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.behaviours.cases import LAST
from cutaway.effects.baselines import Baselines, Resampling, Side, measure
from cutaway.effects.box import span_columns
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.statistics import Estimate
from cutaway.sweeps import CellState, CellValues, Plan, handing_over, plan_cells, write_of
from cutaway.sweeps.footprint import held_bytes
from cutaway.sweeps.metered import forwards_of
from cutaway.trials import GapScale
from cutaway.trials.bench import sites_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: A part at a span of the prompt, by its name.
At = tuple[Part, str]


def called(at: At) -> str:
    """The name of a part at a span: `a1.h0@last`.

    >>> called((Part("head", 1, 0), "last"))
    'a1.h0@last'
    """
    return f"{at[0]}@{at[1]}"


def in_words(at: At) -> str:
    """A part at a span for people.

    >>> in_words((Part("head", 1, 0), "last")), in_words((Part("mlp", 0), "name"))
    ('head 1.0 at the last token', 'MLP 0 at name')
    """
    return f"{at[0].words} at {'the last token' if at[1] == LAST else at[1]}"


@dataclass(frozen=True, eq=False)
class VariableExchange:
    """The exchange of one variable, part by part, on one half of its pairs: planned, not yet run.

    The prompts that are run are the second ones of the pairs; a part gets its value from the first. The metric is how far
    the first prompt's answer is ahead of the second's.

    Attributes:
        behaviour: the pairs.
        places: the parts and spans that are exchanged together, in the order of the cells.
        ends: both prompts as they run without any exchange: 0 and 1 of the scale.
        plan: the sweep over the places.
    """

    behaviour: Behaviour
    places: tuple[tuple[At, ...], ...]
    ends: Baselines
    plan: Plan

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, places: Sequence[At] | Sequence[tuple[At, ...]], work: Work
    ) -> VariableExchange:
        """Run both prompts of the pairs, and make the sweep ready.

        places: parts at spans, each exchanged by itself; or several of them, those of one entry exchanged together.

        Raises `BadBehaviour` where the two prompts are answered alike, so that there is no effect to share.
        """
        behaviour.require_aligned("Exchanging a variable part by part")
        with handing_over(net):
            sets = tuple(_set(place) for place in places)
            parts = [part for several in sets for part, _ in several]
            ends = measure(net, behaviour, sites_of(parts), work, swept="corrupted")
            base, sources = ends.corrupted, ends.clean.kept
            experiment = ends.experiment(net, base, sources, spans=columns_at(behaviour, ends, base))
            cells = [tuple(write_of(part, span=span) for part, span in several) for several in sets]
            held = held_bytes([*base.kept.values(), *sources.values()])
            plan = plan_cells(experiment, cells, base=base.metric, time_it=False, work=work, held=held)
        return cls(behaviour, sets, ends, plan)

    @property
    def forwards(self) -> float:
        """Forward-equivalents that the sweep will take."""
        return forwards_of(self.plan.job)

    def run(self, work: Work, label: str) -> Moved:
        """What each place brings."""
        return Moved(self.behaviour, self.ends, self.plan.run(None, work, label))


def _set(place: At | tuple[At, ...]) -> tuple[At, ...]:
    """One part at a span, or several, as several."""
    return (place,) if isinstance(place[0], Part) else place  # type: ignore[return-value]


def columns_at(behaviour: Behaviour, ends: Baselines, base: Side) -> dict[str, torch.Tensor]:
    """Each named span, and that of the token whose logits are read, as columns: BoolTensor [n p]."""
    at = base.tokens.columns(ends.positions[:, None])[:, 0].cpu()
    last = torch.arange(base.tokens.width)[None] == at[:, None]
    return span_columns(behaviour, base) | {LAST: last}


@dataclass(frozen=True, eq=False)
class Moved:
    """What was measured at each place of one variable.

    Attributes:
        behaviour: the pairs.
        ends: 0 and 1 of the scale.
        result: the metric of each place and pair, with its state.
    """

    behaviour: Behaviour
    ends: Baselines
    result: CellValues

    @cached_property
    def scale(self) -> GapScale:
        """The scale of no exchange (0) and the whole variable exchanged (1)."""
        return GapScale(self.ends.corrupted.metric, self.ends.clean.metric, self.behaviour.clusters)

    @cached_property
    def there(self) -> np.ndarray:
        """Which places were measured on every pair: bool [places]."""
        return np.asarray(np.isin(self.result.states, (CellState.RUN, CellState.KNOWN_ZERO)).all(1))

    @cached_property
    def known_zero(self) -> np.ndarray:
        """At which places nothing can change: bool [places]."""
        return (self.result.states == CellState.KNOWN_ZERO).all(1)

    @cached_property
    def shares(self) -> np.ndarray:
        """What each place moves each pair by, in units of the mean effect of the variable: [places n]."""
        return (self.result.values - self.ends.corrupted.metric) / self.scale.gap

    @cached_property
    def signs(self) -> tuple[str, ...] | None:
        """What a sign-flip test flips together [n]; None for single pairs."""
        return Resampling.of(self.behaviour.template).signs

    def estimate(self, place: int) -> Estimate:
        """The share of a place with its interval, in which the variable's own effect is uncertain, too."""
        if self.known_zero[place]:
            return self.scale.share(self.ends.corrupted.metric)
        return self.scale.share(self.result.values[place])
