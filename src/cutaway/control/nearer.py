"""Whether what is written under steering comes nearer to what was asked, as the network itself sees it without steering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.statistics import benjamini_hochberg, flips_needed, sign_flip_p

if TYPE_CHECKING:
    from cutaway.control.direction import SteeringVector
    from cutaway.network import Network

_Q = 0.05
#: With fewer prompts nothing can be told.
FEWEST = flips_needed(_Q)


def place_of(
    net: Network,
    prompts: Sequence[Sequence[int]],
    written: Sequence[Sequence[int]],
    direction: SteeringVector,
) -> list[float]:
    """Where each continuation lies along a direction, in units of the distance of its two means; NaN for an empty one.

    The prompt and the continuation are read without steering, and the mean is taken over the continuation's tokens: so
    it tells what was written, not what was added. Only differences between continuations of one prompt mean anything.
    """
    along = torch.from_numpy(np.asarray(direction.vector)).double().flatten()
    unit = along / along.square().sum()
    found = []
    for prompt, new in zip(prompts, written, strict=True):
        if not len(new):
            found.append(float("nan"))
            continue
        value = net.run([[*prompt, *new]], keep=[direction.site])[direction.site][0]
        read = value[len(prompt) :].double().cpu().flatten(1)
        found.append(float((read @ unit).mean()))
    return found


@dataclass(frozen=True)
class Nearer:
    """What one strength does, on average over prompts.

    Attributes:
        strength: a multiple of the direction.
        moved: how much nearer the text comes to what is asked (a negative strength asks for the negative texts), as a share
            of the way from the one set of texts to the other.
        beside: the same under the random direction; None where that was left out.
        told: whether `moved` is told from `beside` (from zero where there is none), corrected over strengths.
    """

    strength: float
    moved: float
    beside: float | None
    told: bool


def nearer(strengths: Sequence[float], places: np.ndarray, random: np.ndarray) -> list[Nearer]:
    """What each strength but 0 does. places, random: [s n] of `place_of`; random is empty where there is none.

    >>> at = np.array([[0.0] * 8, np.linspace(0.4, 0.6, 8)])
    >>> nearer([0.0, 1.0], at, np.zeros((0, 0)))
    [Nearer(strength=1.0, moved=0.5, beside=None, told=True)]
    """
    base = list(strengths).index(0.0)
    rows = []
    for s, strength in enumerate(strengths):
        if strength:
            moved = np.sign(strength) * (places[s] - places[base])
            beside = np.sign(strength) * (random[s] - random[base]) if random.size else np.zeros_like(moved)
            kept = np.isfinite(moved) & np.isfinite(beside)
            if kept.any():
                rows.append((strength, moved[kept], beside[kept]))
    p = [float(sign_flip_p(moved - beside)) if len(moved) >= FEWEST else 1.0 for _, moved, beside in rows]
    q = benjamini_hochberg(p) if p else np.zeros(0)
    return [
        Nearer(
            float(strength), round(float(moved.mean()), 12), float(beside.mean()) if random.size else None,
            bool(q[i] <= _Q and (moved - beside).mean() > 0),
        )
        for i, (strength, moved, beside) in enumerate(rows)
    ]  # fmt: skip
