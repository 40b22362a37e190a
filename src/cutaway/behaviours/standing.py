"""Performance form by form: on which sentence frames a network does a behaviour, and on which it does not.

A frame on which the network answers the other way round adds a gap of the other sign: shares of the gap mean nothing there,
and little in the mean of all. Such frames are told apart, and set aside before anything is a share of the gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours.answered import answered, better
from cutaway.behaviours.checks import AT_LEAST, answer_logits
from cutaway.results import brief, working
from cutaway.statistics import Estimate, mean_of, proportion

if TYPE_CHECKING:
    from cutaway.behaviours.data import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

#: Fewer examples of a frame do not say whether it is done there.
FEWEST = 6
#: At most this share of the examples is set aside; a network that fails on more does not do the behaviour.
MOST = 0.5


@dataclass(frozen=True)
class FormPerformance:
    """How well a network does the examples of one sentence frame.

    Attributes:
        form: the frame.
        n: its examples.
        accuracy: share of clean prompts that are answered right, with Wilson's interval.
        contrast: clean minus corrupted metric, signed so that more is better.
        stands: False where the intervals say that it is not done there, else True.
    """

    form: str
    n: int
    accuracy: Estimate
    contrast: Estimate
    stands: bool

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"accuracy": self.accuracy.to_dict(), "contrast": self.contrast.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FormPerformance:
        """The inverse of `to_dict`."""
        figures = {name: Estimate.from_dict(data[name]) for name in ("accuracy", "contrast")}
        return cls(**{**data, **figures})


def by_form(
    net: Network, behaviour: Behaviour, at_least: float = AT_LEAST, work: Work | None = None
) -> tuple[FormPerformance, ...]:
    """The performance on each sentence frame, those of the fewest right answers first.

    A frame does not stand where so few of its clean prompts are answered right that the whole interval lies below
    `at_least`, or where clean prompts do worse than corrupted ones beyond the interval. Frames of fewer than `FEWEST`
    examples stand: they do not say.
    """
    clean, corrupted = (
        answer_logits(net, behaviour, which, work=working(work)) for which in ("clean", "corrupted")
    )
    right, _, values = answered(behaviour, clean, corrupted)
    contrast, template = better(behaviour, *values), np.array(behaviour.template)
    found = []
    for form in dict.fromkeys(behaviour.template):
        rows = np.flatnonzero(template == form)
        accuracy, apart = proportion(int(right[rows].sum()), len(rows)), mean_of(contrast[rows])
        fails = accuracy.ends()[1] < at_least or apart.ends()[1] < 0
        found.append(FormPerformance(form, len(rows), accuracy, apart, len(rows) < FEWEST or not fails))
    return tuple(sorted(found, key=lambda f: (f.stands, f.accuracy.value)))


def set_aside(behaviour: Behaviour, forms: tuple[FormPerformance, ...]) -> Behaviour:
    """The behaviour without the frames that do not stand; itself where none, or more than half of the examples, would go.

    Both halves keep at least one example; where one would be left empty, nothing is set aside.
    """
    gone = {form.form for form in forms if not form.stands}
    rows = [row for row, template in enumerate(behaviour.template) if template not in gone]
    if len(rows) == behaviour.n or len(rows) < (1 - MOST) * behaviour.n:
        return behaviour
    held = [behaviour.held[row] for row in rows]
    halves = any(held) and not all(held)
    return behaviour.take(rows) if halves or behaviour.part != "all" else behaviour
