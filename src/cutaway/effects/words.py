"""What is said beside the pictures of effects: legends made from what is drawn, forms that are not, the first pair."""

from __future__ import annotations

import numpy as np

from cutaway.effects.summary import Q
from cutaway.figures import Grid

#: So many forms of prompt are drawn on a page; of the others it says how many pairs they have.
DRAWN = 6
_CLIPPED = 60


def example_of(attrs: dict[str, object], n: int) -> str:
    """The first of n pairs of prompts with its answers, in a sentence; "" where the effects do not say it."""
    if not attrs.get("clean_prompt"):
        return ""
    wrong = f", the wrong one {attrs['wrong']}" if attrs.get("wrong") else ""
    answers = f" The right answer is {attrs['right']}{wrong}." if attrs.get("right") else ""
    which = "The pair" if n == 1 else "The first pair"
    return f"{which}: clean “{attrs['clean_prompt']}”, corrupted “{attrs['corrupted_prompt']}”.{answers}"


def not_drawn(rest: list[tuple[str, int]]) -> str:
    """The forms that have no map, with their number of pairs, in a sentence; "" where all have one."""
    if not rest:
        return ""
    named = "; ".join(f"“{clipped(label)}” ({n})" for label, n in rest[:DRAWN])
    more = f"; and {len(rest) - DRAWN} more" if len(rest) > DRAWN else ""
    return f"Not drawn, with their number of pairs: {named}{more}."


def clipped(label: str, most: int = _CLIPPED) -> str:
    """A label no longer than `most` characters.

    >>> clipped("When {A} and {B} went to the store", 12)
    'When {A} an…'
    """
    return label if len(label) <= most else label[: most - 1] + "…"


def legend(grid: Grid) -> str:
    """What the signs of a heat map mean, of those that are in it."""
    there = np.isfinite(grid.values)
    zero = np.zeros_like(there) if grid.known_zero is None else grid.known_zero.astype(bool)
    q = np.full(there.shape, np.nan) if grid.q is None else grid.q
    dim = (there & ~zero & (q > Q)).any()
    signs = [
        "White is zero",
        "“·” cannot be told from zero (q above 0.05)" if dim else "",
        "“–” nothing can change here: both runs hold the same" if (there & zero).any() else "",
        "‹ › the token differs from prompt to prompt" if any("‹" in label for label in grid.columns) else "",
        "grey was not run, or does not exist" if not there.all() else "",
    ]
    return "; ".join(part for part in signs if part) + "."
