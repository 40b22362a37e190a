"""Where a behaviour is, told in maps: the sections of the report on the stream and on single components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.effects import Effects
from cutaway.effects.words import legend, not_drawn
from cutaway.explanations.localise import DIRECTIONS, journey, key
from cutaway.figures import Bar, groups_of_bars, show_token
from cutaway.figures.heatmap import heatmap, scale_limit
from cutaway.network.parts import KINDS, Part, in_words
from cutaway.reports import Block, Figure, Section, Table, Text
from cutaway.trials import percent

if TYPE_CHECKING:
    import pandas as pd

    from cutaway.explanations.singles import PartScreening

_WAYS = {
    "restore": "Restore: the clean value put into the corrupted run",
    "corrupt": "Corrupt: the corrupted value put into the clean run",
}
#: So many forms of prompt are drawn beside the most frequent one; of the others it says how many pairs they have.
_MORE_MAPS = 4
_MEMBERS = 30
_HALF = 0.5


def stream_section(maps: Mapping[str, Effects], discovery: int) -> list[Section]:
    """The maps of the stream, the largest form of prompt first; nothing where it was not restored.

    discovery: how many discovery pairs there are.
    """
    stream = _both(maps, "resid_pre")
    if "restore" not in stream:
        return []
    used = stream["restore"].data.sizes["example"]
    groups = stream["restore"].groups()
    if "span" in stream["restore"].dims:
        groups = [("", stream["restore"])]
    template, first = groups[0]
    shown = {
        way: effects if "span" in effects.dims else effects.groups()[0][1] for way, effects in stream.items()
    }
    others, rest = groups[1 : 1 + _MORE_MAPS], groups[1 + _MORE_MAPS :]
    limit = scale_limit(*(e.mean.values for e in [*shown.values(), *(effects for _, effects in others)]))
    whose = (
        f"In the {first.data.sizes['example']} pairs of the most frequent form: " if len(groups) > 1 else ""
    )
    route = _route(first)
    blocks: list[Block] = [Text((whose + route[0].lower() + route[1:] if whose else route,))]
    form, unlike = "", ""
    if len(groups) > 1:
        form = f" The {first.data.sizes['example']} of {used} pairs of the form “{template}”."
        unlike = (
            f" The prompts have {len(groups)} forms, whose positions do not correspond: each has its own map, the most "
            "frequent first, and its effects are shares of its own gap."
        )
    spans = "span" in first.dims
    for way, effects in shown.items():
        caption = f"{_WAYS[way]}. The same pairs, the other way."
        if way == "restore":
            at = "the tokens of one span, such as a name or the end of the prompt," if spans else "one token,"
            caption = (
                f"The residual stream at one layer and {at} replaced. {_WAYS[way]}.{form} {_signs(effects)}"
            )
        blocks.append(_map(effects, way, limit, caption + _partial(effects)))
    for name, effects in others:
        caption = f"Restoring, in the {effects.data.sizes['example']} of {used} pairs of the form “{name}”."
        signs = _signs(effects)
        blocks.append(
            _map(effects, "restore", limit, caption if signs == _signs(first) else f"{caption} {signs}")
        )
    if left := not_drawn([(name, effects.data.sizes["example"]) for name, effects in rest]):
        blocks.append(Text((left,)))
    lead = (
        f"The residual stream of one run is copied into the other, one layer and {'span' if spans else 'token'} at a time, "
        f"on {used} of {discovery} discovery pairs.{unlike} {_sentence(first.data.attrs['intervals'])}"
    )
    return [Section("where", "Where the information sits", blocks, lead)]


def maps_section(maps: Mapping[str, Effects], searched: str) -> list[Section]:
    """The maps of a network without a stream, whole, in the order of the model; nothing where they were not swept.

    searched: how finely it was searched, and why, in words.
    """
    whole = _both(maps, "map")
    if not whole:
        return []
    first = next(iter(whole.values()))
    caption = (
        "One whole map (the output of a convolution, all channels and pixels), in the order of the model, restored and "
        f"corrupted.{''.join(map(_partial, whole.values()))}"
    )
    bars = groups_of_bars({way: _bars(effects, "") for way, effects in whole.items()})
    lead = (
        "This network has no residual stream; the maps that its convolutions give take its place. One map of one run is "
        f"copied into the other, on {first.data.sizes['example']} discovery pairs. A map beside a shortcut brings back only "
        f"what it adds to it. {searched} {_sentence(first.data.attrs['intervals'])}"
    )
    return [
        Section(
            "where", "Where the information sits", [Text((_strongest(first),)), Figure(bars, caption)], lead
        )
    ]


def _strongest(effects: Effects) -> str:
    """From which map on a single restored one brings back half of the gap, in words."""
    names, shares = [str(name) for name in effects.data["map"].values], effects.mean.values
    half = [f"{name} ({percent(share)})" for name, share in zip(names, shares, strict=True) if share >= _HALF]
    if not half:
        return "No single map brings back half of the gap: the information is spread over several of them."
    return f"Each of these maps alone brings back at least half of the gap: {', '.join(half)}."


def components_section(
    maps: Mapping[str, Effects], members: pd.DataFrame, screening: PartScreening | None = None
) -> list[Section]:
    """The maps of heads, the bars of other components, and the members of the set; nothing where there are none of these.

    screening: which of them were patched; None for all.
    """
    heads = _both(maps, "z")
    limit = scale_limit(*(effects.mean.values for effects in heads.values())) if heads else 1.0
    what = "One attention head (its z, at all positions)."
    blocks: list[Block] = [
        _map(e, way, limit, f"{what} {_WAYS[way]}. {_signs(e)}{_partial(e)}") for way, e in heads.items()
    ]
    channels = _both(maps, "channel")
    limit = scale_limit(*(effects.mean.values for effects in channels.values())) if channels else 1.0
    what = "One channel of one map (all its pixels); maps have different numbers of them."
    blocks += [
        _map(e, way, limit, f"{what} {_WAYS[way]}. {_signs(e)}{_partial(e)}") for way, e in channels.items()
    ]
    for site, kind in (("mlp_write", "mlp"), ("mixer_write", "mixer"), ("attn_write", "attention")):
        if groups := {way: _bars(effects, kind) for way, effects in _both(maps, site).items()}:
            caption = f"The output of one layer's {KINDS[kind].one} at all positions, restored and corrupted"
            blocks.append(Figure(groups_of_bars(groups), f"{caption}."))
    if screening is not None:
        blocks.append(Text((screening.sentence,)))
    if len(members):
        blocks.append(_table(members))
    lead = (
        "The same with one component at a time. Restoring shows what is enough, corrupting what is needed; where several "
        "components do the same work, only the first of the two shows it."
    )
    return [Section("components", "Which components carry it", blocks, lead)] if blocks else []


def _both(maps: Mapping[str, Effects], site: str) -> dict[str, Effects]:
    """The maps of a site by direction, as far as there are any."""
    return {way: maps[key(site, way)] for way in DIRECTIONS if key(site, way) in maps}


def _signs(effects: Effects) -> str:
    """What the signs of a map mean, of those that are in it."""
    return f"{legend(effects.grid())} {effects.undecided}".strip()


def _map(effects: Effects, way: str, limit: float, caption: str) -> Figure:
    return Figure(heatmap(effects.grid(), title=_WAYS[way], limit=limit), caption)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _route(effects: Effects) -> str:
    """Where a single restored position brings back most, from layer to layer, in words."""
    stops: list[tuple[int, int, int, str, float]] = []
    for layer, place, token, share in journey(effects):
        if stops and stops[-1][2] == place:
            stops[-1] = (stops[-1][0], layer, place, token, max(share, stops[-1][4]))
        else:
            stops.append((layer, layer, place, token, share))
    spans = "span" in effects.dims
    if not stops:
        several = "spans" if spans else "tokens"
        spread = f"the information is spread over several {several}"
        return f"At no layer does a single {several[:-1]} carry half of the gap: {spread}."
    parts = []
    for first, last, place, token, share in stops:
        layers = f"layer {first}" if first == last else f"layers {first} to {last}"
        where = (
            f"at the span “{token}”"
            if spans
            else f"at position {place} (“{show_token(token, escape=False)}”)"
        )
        parts.append(f"{where} in {layers} (up to {percent(share)})")
    one = "span" if spans else "position"
    return f"Entering the layers, one {one} is enough to bring back at least half of the gap: {'; then '.join(parts)}."


def _partial(effects: Effects) -> str:
    extra = f" {effects.data.attrs['where']}." if effects.data.attrs.get("where") else ""
    return extra + ("" if effects.complete else " Partial: stopped before the end.")


def _bar(effects: Effects, kind: str, row: Mapping[Any, Any]) -> str:
    """The words of a bar: a sublayer's, or the name of a map."""
    return Part(kind, int(row["layer"])).words if kind else str(row[effects.dims[0]])


def _bars(effects: Effects, kind: str) -> list[Bar]:
    cells = effects.to_pandas().to_dict("records")
    return [
        Bar(_bar(effects, kind, row), row["mean"], row["low"], row["high"], not row["q"] > 0.05)
        for row in cells
        if np.isfinite(row["mean"])
    ]


def _table(members: pd.DataFrame) -> Table:
    rows = []
    ordered = members.sort_values("loss_without", ascending=False, kind="stable")
    for row in ordered.head(_MEMBERS).to_dict("records"):
        role = row["role"] if row["weight"] == "major" else f"{row['role']}, {row['weight']}"
        effects = [_cell(row, way) for way in DIRECTIONS]
        rows.append((in_words(row["part"]), *effects, percent(row["loss_without"]), role))
    first = f" (the {_MEMBERS} that it loses most without)" if len(members) > _MEMBERS else ""
    roles = {row[-1] for row in rows}
    meant = {
        "backup": "Backup members were added because the behaviour survived without the core.",
        "minor": "Minor members cost little when they alone are corrupted.",
        "redundant": "Redundant members cost little when they alone are corrupted, because others stand in.",
    }
    said = [words for role, words in meant.items() if any(role in shown for shown in roles)]
    caption = " ".join([
        f"The {len(members)} members of the set{first}, found on discovery pairs. What each does when it alone is restored "
        "or corrupted, with 95 % intervals, and what the set, kept alone, loses when this member is left out.", *said,
    ])  # fmt: skip
    head = ("Component", "Restored alone", "Corrupted alone", "Set loses", "Role")
    return Table(head, tuple(rows), caption, frozenset({1, 2, 3}))


def _cell(row: Mapping[Any, Any], way: str) -> str:
    mean, low, high, q = (row[f"{way}_{name}"] for name in ("mean", "low", "high", "q"))
    if mean is None or not np.isfinite(mean):
        return "–"
    mark = " (not told from zero)" if q > 0.05 else ""
    interval = f" ({percent(low)[:-2]} to {percent(high)[:-2]})" if np.isfinite(low) else ""
    return f"{percent(mean)}{interval}{mark}"
