"""The page of effects: a map for each form of prompt, the strongest cells, and legends made from what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cutaway.effects.forms import FORM
from cutaway.effects.labels import said
from cutaway.effects.summary import Q
from cutaway.figures import Grid
from cutaway.reports import Block, Figure, Page, Section, Table, Text, result_page

if TYPE_CHECKING:
    from cutaway.effects.effects import Effects

#: So many forms of prompt are drawn on a page; of the others it says how many pairs they have.
DRAWN = 6
_ROWS = 12
_CLIPPED = 60


def effects_page(effects: Effects) -> Page:
    """The page of effects: maps (or bars), the strongest cells, how they were made."""
    attrs = effects.data.attrs
    told = effects.groups() if FORM in effects.data.dims else [("", effects)]
    maps: list[Block] = []
    signs = ""
    for _, form in told[:DRAWN] if effects.dims else ():
        # what the signs mean is said once, and again where it is not the same
        maps.append(Figure(form.plot(), form.caption.replace(signs, "") if signs else form.caption))
        signs = f"{legend(form.grid())} " if len(effects.dims) >= 2 else ""
    if left := not_drawn([(label, form.data.sizes["example"]) for label, form in told[DRAWN:]]):
        maps.append(Text((left,)))
    lead = ""
    if len(told) > 1:
        lead = (
            f"The {effects.data.sizes['example']} pairs have {len(told)} forms. Position 5 of one is not position 5 of "
            "another, so nothing is averaged over them: each form has its own map, the most frequent first, and its effects "
            f"are shares of its own gap.{_by_span(effects)}"
        )
    sections = [Section("map", "Effects", maps, lead)] if maps else []
    notes = [str(attrs[name]) for name in ("where", "notes") if attrs.get(name)]
    done = "ablated" if effects.direction.startswith("ablate") else "patched"
    return result_page(
        f"{effects.site} of {attrs['network']}, {done} on “{attrs['behaviour']}”",
        "Cutaway · ablation" if done == "ablated" else "Cutaway · activation patching",
        effects.headline(),
        [*sections, Section("strongest", "Strongest cells", [_strongest(effects, len(told) > 1)])],
        effects.provenance,
        lead=" ".join([example_of(attrs), *notes]).strip(),
    )


def _by_span(effects: Effects) -> str:
    spans = str(effects.data.attrs.get("spans", ""))
    if not spans:
        return ""
    return f" To average over all pairs, sweep by span in place of position: the behaviour names {spans}."


def example_of(attrs: dict[str, object]) -> str:
    """The first pair of prompts with its answers, in a sentence; "" where the effects do not say it."""
    if not attrs.get("clean_prompt"):
        return ""
    wrong = f", the wrong one {attrs['wrong']}" if attrs.get("wrong") else ""
    answers = f" The right answer is {attrs['right']}{wrong}." if attrs.get("right") else ""
    return (
        f"The first pair: clean “{attrs['clean_prompt']}”, corrupted “{attrs['corrupted_prompt']}”.{answers}"
    )


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


def _strongest(effects: Effects, several: bool) -> Table:
    top = effects.top(_ROWS)
    figures = [c for c in ("mean", "low", "high", "q", "n") if c in top and top[c].notna().any()]
    places = [c for c in (FORM, *effects.dims, "token") if c in top]
    rows = tuple(
        (
            *(said(c, str(row[c])) for c in places),
            *("–" if row[c] != row[c] else f"{row[c]:.3g}" for c in figures),
        )
        for row in top.to_dict("records")
    )
    unit = "Effects as shares of the gap between clean and corrupted prompts" + (
        " of that form." if several else "."
    )
    caption = f"{unit} {effects.undecided}".strip()
    heads = ["pairs" if c == "n" else c for c in figures]
    return Table((*places, *heads), rows, caption, frozenset(range(len(places), len(places) + len(figures))))
