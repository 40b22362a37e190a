"""What effects say, in one sentence: the strongest cell that is told from zero, or that none is.

A cell that cannot be told from zero is no finding. Where too few examples were run for any to be, the sentence says so
first, and what was seen in these examples after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cutaway.effects.labels import said
from cutaway.effects.summary import FEWEST, Q
from cutaway.effects.words import clipped
from cutaway.figures import show_token
from cutaway.network.parts import KINDS, Part

#: Cells that come this near to the strongest one are named with it: of its size, and in shares of the gap.
_NEAR, _ABOUT = 0.05, 0.02
#: Half of the gap; and so many places at most are named one after the other.
_HALF, _STOPS = 0.5, 4
#: What is said of a cell, where it does what is expected of the direction and where it does the opposite.
_DOES = {
    "restore": ("restoring {what} brings back {share}", "restoring {what} leads {share} further away"),
    "corrupt": ("corrupting {what} takes away {share}", "corrupting {what} adds {share}"),
    "ablate": ("ablating {what} loses {share}", "ablating {what} adds {share}"),
}
#: Parts of a layer that are named together with it.
_PARTS_OF_LAYERS = ("head", "neuron", "feature")


def finding_of(
    forms: Sequence[tuple[str, pd.DataFrame, int]], site: str, attrs: Mapping[str, Any], dims: Sequence[str]
) -> str:
    """The strongest cell that is told from zero, in a sentence without its full stop; or that none is.

    Args:
        forms: the forms of prompt, the most frequent first: label ("" where the cells are those of all prompts), one row
            for each cell (coordinates, mean, low, high, q, known_zero), number of pairs.
        site: what was replaced.
        attrs: what the effects say of themselves: `direction`, `estimated`, `complete`.
        dims: the dimensions of the cells.
    """
    several = len(forms) > 1
    label, frame, n = next((form for form in forms if len(_sure(form[1]))), forms[0])
    said = _finding(frame, site, str(attrs["direction"]), dims, n)
    if several:
        whose = f"In the {n} pairs" if n > 1 else "In the one pair"
        said = f"{whose} of the form “{clipped(label)}”: {said[0].lower()}{said[1:]}"
    said += f" (estimated by {attrs['estimated']})" if attrs.get("estimated") else ""
    return said if attrs["complete"] else f"{said}; partial: stopped before the end"


def _sure(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that are told from zero over single examples and, where these share templates, over templates."""
    over = ~(cells["low"] * cells["high"] < 0)
    return cells.loc[(cells["q"] <= Q) & cells["mean"].notna() & over]


def _finding(cells: pd.DataFrame, site: str, direction: str, dims: Sequence[str], n: int) -> str:
    """The finding among the cells of one form."""
    shown = cells.loc[cells["mean"].notna()]
    if not len(shown):
        return "Nothing was measured"
    if bool(shown["known_zero"].all()) or not float(shown["mean"].abs().max()) > 0:
        return "No cell changes anything"
    sure, told, of = _sure(shown), int((shown["q"] <= Q).sum()), len(shown)
    if len(sure):
        words = _strongest(sure, site, direction, dims)
        rest = f"; {told} of {of} cells {'is' if told == 1 else 'are'} told from zero" if of > 1 else ""
        return f"{words[0].upper()}{words[1:]}{rest}"
    if told:
        return f"No cell is told from chance over the templates, {told} of {of} only over single examples"
    if bool(shown.loc[~shown["known_zero"], "q"].notna().any()):
        return (
            f"{_none(dims)} of {of} is told from chance" if of > 1 else "The effect is not told from chance"
        )
    seen = _strongest(shown, site, direction, dims)
    if n == 1:
        return f"One pair says nothing about others (at least {FEWEST} are needed); in this one, {seen}"
    few = f"at least {FEWEST} are needed" if n < FEWEST else f"{of} cells are too many for so few"
    return f"No cell can be told from chance with {n} pairs ({few}); in these, {seen}"


def _none(dims: Sequence[str]) -> str:
    return "No path" if "sender" in dims else "No pair" if "first" in dims else "No cell"


def _strongest(cells: pd.DataFrame, site: str, direction: str, dims: Sequence[str]) -> str:
    """What the strongest of some cells does, with those of neighbouring layers that do the same; or the way it takes."""
    if set(dims) == {"layer", "position"} and (route := _route(cells, site, direction)):
        return route
    best: Any = cells.iloc[int(np.argmax(cells["mean"].abs().to_numpy()))]
    layers = _alike(cells, best, dims)
    what = _named(best, site, dims, layers)
    wanted, otherwise = _DOES[direction if direction in _DOES else "ablate"]
    words = wanted if (best["mean"] > 0) == (direction == "restore") else otherwise
    size = f"{100 * abs(best['mean']):.0f} % of the gap"
    share = f"up to {size}" if len(layers) > 1 else f"{size}{_interval(best)}"
    return words.format(
        what=what if "together" in what or "any one" in what else f"{what} alone", share=share
    )


def _route(cells: pd.DataFrame, site: str, direction: str) -> str:
    """At which position one cell is enough for half of the gap, from layer to layer; "" where it is at none, or only one."""
    sign = 1 if direction == "restore" else -1
    stops: list[list[Any]] = []
    for layer, here in cells.groupby("layer"):
        best: Any = here.iloc[int(np.argmax(sign * here["mean"].to_numpy()))]
        if sign * best["mean"] < _HALF:
            continue
        if stops and stops[-1][0]["position"] == best["position"]:
            stops[-1][2] = layer
        else:
            stops.append([best, layer, layer])
    if len(stops) < 2 or len(stops) > _STOPS:
        return ""
    said = []
    for best, first, last in stops:
        layers = f"layer {first}" if first == last else f"layers {first} to {last}"
        said.append(f"at {_token(best)} in {layers}")
    done = "restoring" if direction == "restore" else "corrupting"
    effect = "brings back" if direction == "restore" else "takes away"
    most = 100 * float((sign * cells["mean"].to_numpy()).max())
    return f"{done} {site} at one token {effect} half of the gap or more: {', then '.join(said)} (up to {most:.0f} %)"


def _token(cell: Any) -> str:
    """The token of a cell in quotes, or its position."""
    token = show_token(str(cell["token"]), escape=False) if "token" in cell else ""
    return (token if token.startswith("‹") else repr(token)) if token else f"position {cell['position']}"


def _interval(cell: Any) -> str:
    low, high = sorted((abs(cell["low"]), abs(cell["high"])))
    if not np.isfinite([low, high]).all():
        return ""
    low = -low if cell["low"] * cell["high"] < 0 else low
    return f" (95 % interval {100 * low:.0f} to {100 * high:.0f} %)".replace("-", "−")


def _alike(cells: pd.DataFrame, best: Any, dims: Sequence[str]) -> list[int]:
    """The layers next to the strongest cell's, without a gap, whose cell at the same place does as much."""
    if "layer" not in cells or any(d in _PARTS_OF_LAYERS for d in dims):
        return []
    same = cells
    for dim in dims:
        if dim != "layer":
            same = same.loc[same[dim] == best[dim]]
    near = (same["mean"] - best["mean"]).abs() <= max(_ABOUT, _NEAR * abs(best["mean"]))
    there = {int(layer) for layer in same.loc[near, "layer"]}
    low = high = int(best["layer"])
    while low - 1 in there:
        low -= 1
    while high + 1 in there:
        high += 1
    return list(range(low, high + 1))


def runs_of_layers(cells: pd.DataFrame, dims: Sequence[str], most: int) -> pd.DataFrame:
    """The `most` strongest cells, strongest first; neighbouring layers that do alike at one place are one row, "12 to 19".

    cells: one row for each cell. The figures of such a row are those of its strongest cell.
    """
    left = cells.loc[cells["mean"].notna()]
    left = left.iloc[np.argsort(-left["mean"].abs().to_numpy(), kind="stable")]
    rows: list[Any] = []
    places = [dim for dim in (*dims, "form") if dim in left and dim != "layer"]
    while len(left) and len(rows) < most:
        best = left.iloc[0]
        layers = _alike(left, best, [dim for dim in ("layer", *places) if dim in dims or dim == "form"])
        same = np.ones(len(left), bool)
        for place in places:
            same &= (left[place] == best[place]).to_numpy()
        if len(layers) > 1:
            same &= left["layer"].isin(layers).to_numpy()
            rows.append(best.to_dict() | {"layer": f"{layers[0]} to {layers[-1]}"})
        else:
            same &= left.index == left.index[0]
            rows.append(best.to_dict())
        left = left.loc[~same]
    return pd.DataFrame(rows, columns=cells.columns)


def _named(cell: Any, site: str, dims: Sequence[str], layers: Sequence[int]) -> str:
    """A cell in words.

    >>> _named({"layer": 3, "head": 1}, "z", ("layer", "head"), [])
    'head 3.1'
    >>> _named({"layer": 3, "position": 1, "token": " Mary"}, "resid_pre", ("layer", "position"), [3, 4])
    "resid_pre at 'Mary' in any one of layers 3 to 4"
    """
    if "sender" in dims:
        return f"the direct path from {said('sender', str(cell['sender']))} to {said('receiver', str(cell['receiver']))}"
    if "first" in dims:
        first, second = (said(dim, str(cell[dim])) for dim in ("first", "second"))
        return first if first == second else f"{first} and {second} together"
    rest = [dim for dim in dims if dim != "layer"]
    part = next((dim for dim in rest if dim in _PARTS_OF_LAYERS), "") if "layer" in dims else ""
    stack, _, bare = site.rpartition(".")
    name = Part(part, int(cell["layer"]), int(cell[part]), stack).words if part else site
    name = f"{site} of {name}" if part and bare != KINDS[part].site else name
    places = []
    for dim in rest:
        if dim == "position":
            places.append(f"at {_token(cell)}")
        elif dim == "cell":
            name = f"“{cell[dim]}”"
        elif dim != part:
            places.append(f"at {dim} {cell[dim]}")
    if "layer" in dims and not part:
        several = len(layers) > 1
        places.append(
            f"in any one of layers {layers[0]} to {layers[-1]}" if several else f"in layer {cell['layer']}"
        )
    return " ".join([name, *places])
