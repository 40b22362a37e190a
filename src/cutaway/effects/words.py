"""What is said beside the pictures of effects: legends made from what is drawn, forms that are not, the first pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cutaway.behaviours.metrics import METRICS
from cutaway.figures import Grid

#: So many forms of prompt are drawn on a page; of the others it says how many pairs they have.
DRAWN = 6
_CLIPPED = 60
_WAYS = {
    "restore": "clean values put into the corrupted run",
    "corrupt": "corrupted values put into the clean run",
    "ablate (zero)": "each value set to zero",
    "ablate (mean)": "each value replaced by its mean over clean prompts",
    "ablate (mean by position)": "each value replaced by its mean at that position over clean prompts",
    "ablate (resample)": "each value replaced by that of another clean prompt",
}
#: Metrics of which zero is indifference between right and wrong answers.
_PREFERENCES = ("logit_diff", "logit_diff_lse", "prob_diff")


def example_of(attrs: dict[str, object], n: int) -> str:
    """The first of n pairs of prompts with its answers, in a sentence; "" where the effects do not say it."""
    if not attrs.get("clean_prompt"):
        return ""
    wrong = f", the wrong one {attrs['wrong']}" if attrs.get("wrong") else ""
    answers = f" The right answer is {attrs['right']}{wrong}." if attrs.get("right") else ""
    which = "The pair" if n == 1 else "The first pair"
    return f"{which}: clean “{attrs['clean_prompt']}”, corrupted “{attrs['corrupted_prompt']}”.{answers}"


def doubt(attrs: dict[str, Any]) -> str:
    """That the two ends lie the wrong way round, in a sentence or two; "" where they do not.

    >>> doubt({"metric": "logit_diff", "clean_metric": -7.3, "corrupted_metric": 7.0})
    'The network does not prefer the right answer after the clean prompts: are the answers, or the prompts, exchanged?'
    """
    metric, clean, corrupted = (
        METRICS.get(str(attrs["metric"])),
        attrs["clean_metric"],
        attrs["corrupted_metric"],
    )
    if metric is None:
        return ""
    asked = "are the answers, or the prompts, exchanged?"
    if attrs["metric"] in _PREFERENCES and clean < 0:
        return f"The network does not prefer the right answer after the clean prompts: {asked}"
    if clean < corrupted if metric.higher else clean > corrupted:
        return f"The corrupted prompts do better than the clean ones: {asked}"
    return ""


def empty_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table of effects that say nothing: no known zeros, no interval, no significance, one pair."""
    never = [c for c in ("known_zero", "not_finite") if c in table and not table[c].to_numpy().any()]
    nothing = [c for c in ("low", "high", "q") if c in table and bool(np.all(table[c].isna()))]
    alone = ["n"] if "n" in table and bool((table["n"] == 1).all()) else []
    return [*never, *nothing, *alone, *(["p"] if "q" in nothing and "p" in table else [])]


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
    """What in a heat map its own line of signs does not explain: tokens in angle quotes. "" where there are none."""
    return (
        "‹ › marks a token that differs from prompt to prompt." if any("‹" in c for c in grid.columns) else ""
    )


def about(attrs: dict[str, Any], n: int) -> str:
    """What was patched into what, on which form of prompt where it is one of several, in a few words.

    >>> about({"site": "z", "direction": "restore"}, 3)
    'z, clean values put into the corrupted run'
    """
    way = _WAYS.get(str(attrs["direction"]), str(attrs["direction"]))
    how = f", estimated by {attrs['estimated']}" if attrs.get("estimated") else ""
    form = f" · {n} of {attrs['form_of']} pairs: “{clipped(str(attrs['form']))}”" if "form" in attrs else ""
    return f"{attrs['site']}, {way}{how}{form}"
