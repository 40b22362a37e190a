"""From the values of a sweep's cells to `Effects`: the one place where shares, intervals and labels are put together."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from cutaway.behaviours.data import listed
from cutaway.behaviours.rounding import measure_rounding
from cutaway.effects.baselines import Baselines, Resampling, Side
from cutaway.effects.effects import Effects
from cutaway.effects.forms import by_form
from cutaway.effects.summary import summarise
from cutaway.errors import BadFormat, BadInput, NotFound, did_you_mean, nearest
from cutaway.network.parts import Input, Part
from cutaway.results import Provenance
from cutaway.sweeps import CellState, CellValues, Rules, write_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

Direction = Literal["restore", "corrupt"]
DIRECTIONS: tuple[Direction, ...] = ("restore", "corrupt")


@dataclass(frozen=True, eq=False)
class Question:
    """What a sweep asks: what is changed on which prompts, in which cells.

    Attributes:
        net, behaviour, ends: what is asked about, and both sides without any change.
        base: the side on whose prompts changes are made.
        site: what is changed, as the result calls it.
        direction: "restore", "corrupt", or how it is ablated.
        dims: dimension -> labels of its entries; the cells run through them, the last one fastest.
        labels: further coordinates: name -> (dimensions, values).
        where: what is to be said of where it was changed; "" where that is plain.
        seed: of the sign flips.
        began: `time.perf_counter()` when the work on it began.
        estimated: how the cells are estimated, where nothing is patched; "" where it is.
    """

    net: Network
    behaviour: Behaviour
    ends: Baselines
    base: Side
    site: str
    direction: str
    dims: Mapping[str, Sequence[Any]]
    labels: Mapping[str, tuple[tuple[str, ...], Any]] = field(default_factory=dict)
    where: str = ""
    seed: int = 0
    began: float = field(default_factory=time.perf_counter)
    estimated: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of entries along each dimension."""
        return tuple(len(labels) for labels in self.dims.values())

    def shares(self, values: np.ndarray) -> np.ndarray:
        """Metric [... n] -> its change against the unchanged prompts, as a share of the gap."""
        return (values - self.base.metric) / self.ends.gap

    def effects(self, result: CellValues, notes: Sequence[str] = ()) -> Effects:
        """The effects of all cells, from their values and states [cells n]; it warns where the sweep was stopped.

        notes: what the plan had to say.
        """
        if result.interrupted:
            finished = int((result.states != CellState.NOT_RUN).all(1).sum())
            warnings.warn(
                f"Stopped: {finished} of {len(result.states)} cells are finished and kept; the rest is marked as not run.",
                stacklevel=3,
            )
        names, effect = list(self.dims), self.shares(result.values)
        summary = summarise(effect, result.states, self.behaviour.template, self.seed)
        variables: dict[str, Any] = {n: (names, values.reshape(self.shape)) for n, values in summary.items()}
        for name, values in (("effect", effect), ("metric", result.values), ("state", result.states)):
            variables[name] = ([*names, "example"], values.reshape(*self.shape, -1))
        for side in ("clean", "corrupted"):
            variables[side] = ("example", getattr(self.ends, side).metric)
        coordinates = {
            **self.dims,
            "example": list(range(self.behaviour.n)),
            "template": ("example", list(self.behaviour.template)),
            **self.labels,
        }
        said = self._attributes(not result.interrupted) | {"notes": " ".join(notes)}
        data = xr.Dataset(variables, coordinates, said)
        measure_rounding(self.net, self.behaviour)
        seconds = time.perf_counter() - self.began
        return Effects(
            by_form(data, self.seed), Provenance.of(self.net, self.behaviour.hash, self.seed, seconds)
        )

    def _attributes(self, complete: bool) -> dict[str, Any]:
        """What the result says of itself."""
        return {
            "site": self.site,
            "direction": self.direction,
            "complete": complete,
            "network": self.net.name,
            "behaviour": self.behaviour.name,
            "metric": self.behaviour.metric.name,
            "clean_metric": float(self.ends.clean.metric.mean()),
            "corrupted_metric": float(self.ends.corrupted.metric.mean()),
            "gap": self.ends.gap,
            "intervals": Resampling.of(self.behaviour.template).sentence,
            "correction": "Benjamini-Hochberg over the cells of this sweep",
            "where": self.where,
            "spans": ", ".join(self.behaviour.spans),
            "estimated": self.estimated,
            **self._first_pair(),
        }

    def _first_pair(self) -> dict[str, str]:
        """The texts of the first pair, and its answers."""
        b = self.behaviour
        if b.items is not None:
            return {}
        said = {"clean_prompt": b.clean[0], "corrupted_prompt": b.corrupted[0]}
        texts = {"right": b.right_text, "wrong": b.wrong_text}
        return said | {name: listed(column[0]) for name, column in texts.items() if column and column[0]}


def sides(ends: Baselines, direction: Direction) -> tuple[Side, Side]:
    """The side on which changes are made, and the one that their values come from.

    Raises `BadInput` for a direction that there is not.
    """
    require_one_of(direction, DIRECTIONS, "direction")
    return (ends.corrupted, ends.clean) if direction == "restore" else (ends.clean, ends.corrupted)


def require_one_of(given: object, known: Sequence[str], what: str) -> None:
    """Raise `BadInput` with the nearest known name where `given` is none of them."""
    if given not in known:
        raise BadInput(f"There is no {what} {given!r}.", did_you_mean(given, known, show=repr))


def require_rules(rules: Rules | None) -> None:
    """Raise `BadInput` where `rules` are not rules."""
    if rules is not None and not isinstance(rules, Rules):
        remedy = "Write rules=cutaway.sweeps.Rules(suffix=False), or leave it out."
        raise BadInput(f"rules={rules!r} are no rules.", remedy)


def chosen(
    given: Sequence[Any] | None, known: Sequence[Any], default: Sequence[Any], parse: Any, what: str
) -> tuple[Any, ...]:
    """Parts or inputs that are given, themselves or by either spelling, each of them once; `default` for None.

    Raises `NotFound` for one that this network does not have, `SiteUnavailable` for an expert, `BadInput`
    for an empty list, or a single name.
    """
    if given is None:
        return tuple(default)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise BadInput(f"The {what}s {given!r} are not a list.", f"Write [{str(given)!r}].")
    members = []
    for item in given:
        try:
            member = parse(item)
        except BadFormat:
            member = None
        part = member.part if isinstance(member, Input) else member
        if isinstance(part, Part) and part.kind == "expert":
            write_of(part)  # says why an expert cannot be swept
        if member not in known:
            names = [str(k) for k in known]
            offers = ", ".join(nearest(str(item), names, n=4)) or ", ".join(names[:6])
            raise NotFound(f"There is no {what} {str(item)!r}.", f"Nearest: {offers}.")
        members.append(member)
    if not members:
        raise BadInput(f"No {what}s were named.", f"Leave the {what}s out for all of them.")
    return tuple(dict.fromkeys(members))
