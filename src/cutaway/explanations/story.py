"""An explanation told as a report: which blocks, in which order, with which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cutaway.effects import Effects
from cutaway.explanations import wiring
from cutaway.explanations.localise import DIRECTIONS, journey, key
from cutaway.explanations.reads_and_writes_section import reads_and_writes_section
from cutaway.explanations.verdict import short
from cutaway.figures import Bar, Comparison, against_random, groups_of_bars, show_token
from cutaway.figures.heatmap import heatmap, scale_limit
from cutaway.network.parts import Part, count
from cutaway.reports import (
    Block,
    ClaimTests,
    Facts,
    Figure,
    KeyFigure,
    Listing,
    Page,
    Pair,
    Pairs,
    Points,
    Section,
    Table,
    Text,
)
from cutaway.statistics import Estimate
from cutaway.trials import Limits, Trial, percent, with_interval

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from cutaway.behaviours import Performance
    from cutaway.circuits import CircuitTest
    from cutaway.claims import Claim
    from cutaway.explanations.identify import Mechanism
    from cutaway.explanations.limits import SearchLimits
    from cutaway.explanations.reads_and_writes import ReadsAndWrites
    from cutaway.results import Provenance


_WAYS = {
    "restore": "Restore: clean value into the corrupted run",
    "corrupt": "Corrupt: corrupted value into the clean run",
}
_MORE_MAPS = 2
_WORTH_A_MAP = 5
_LEGEND = (
    "White is zero; · cannot be told from zero (q > 0.05, Benjamini–Hochberg); – nothing can "
    "change here; ‹ › the token varies "
    "between examples."
)


class Told(Protocol):
    """What the report tells of an explanation; see `Explanation`, which has all of it."""

    def to_pandas(self) -> pd.DataFrame: ...  # noqa: D102
    @property
    def claim(self) -> Claim: ...  # noqa: D102
    @property
    def behaviour(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def performance(self) -> Performance: ...  # noqa: D102
    @property
    def pairs(self) -> tuple[Pair, ...]: ...  # noqa: D102
    @property
    def maps(self) -> Mapping[str, Effects]: ...  # noqa: D102
    @property
    def mechanism(self) -> Mechanism | None: ...  # noqa: D102
    @property
    def trial(self) -> Trial | None: ...  # noqa: D102
    @property
    def unexplained(self) -> tuple[tuple[str, str], ...]: ...  # noqa: D102
    @property
    def limits(self) -> SearchLimits: ...  # noqa: D102
    @property
    def certificate(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def seconds(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def provenance(self) -> Provenance: ...  # noqa: D102
    @property
    def complete(self) -> bool: ...  # noqa: D102
    @property
    def command(self) -> str: ...  # noqa: D102
    @property
    def headline(self) -> str: ...  # noqa: D102
    @property
    def reads_and_writes(self) -> ReadsAndWrites: ...  # noqa: D102
    @property
    def circuit(self) -> CircuitTest | None: ...  # noqa: D102


def page(explanation: Told) -> Page:
    """The whole report."""
    name = explanation.behaviour["name"]
    sections = [
        _behaviour(explanation),
        *_where(explanation),
        *_components(explanation),
        *reads_and_writes_section(explanation.reads_and_writes),
        *_tests(explanation),
        *wiring.section(explanation.circuit),
        _open(explanation),
        _repeat(explanation),
    ]
    return Page(
        title=f"What carries “{name}” in {short(explanation.provenance.network)}",
        kicker="Cutaway · explanation" + ("" if explanation.complete else " · partial"),
        verdict=explanation.claim.verdict,
        headline=explanation.headline,
        lead=_lead(explanation),
        key_figures=_key_figures(explanation),
        sections=sections,
        colophon=(
            f"Made by Cutaway {explanation.provenance.versions.get('cutaway', '')} on {explanation.provenance.created} in "
            f"{explanation.provenance.seconds:.0f} s. This file is complete in itself and loads nothing from any network."
        ),
    )


def _lead(explanation: Told) -> str:
    if explanation.claim.verdict == "supported":
        return (
            "The set was found on one half of the examples and tested on the other; it did better "
            "than random sets of the same "
            "size, and the same procedure, forced on random weights, supports nothing."
        )
    if explanation.trial is None:
        return "No test was run to its end, so nothing is claimed."
    return (
        "The tests below say which part of the claim did not hold. A negative result is a "
        "result: nothing is claimed beyond it."
    )


def _key_figures(explanation: Told) -> list[KeyFigure]:
    done = explanation.performance
    figures = [KeyFigure("right answers, all examples", percent(done.accuracy.value), _range(done.accuracy))]
    if explanation.mechanism is not None:
        figures.append(
            KeyFigure(
                "components in the set",
                f"{len(explanation.mechanism.members)} of {explanation.mechanism.total}",
                count(explanation.mechanism.members),
            )
        )
    if explanation.trial is not None:
        figures += [
            KeyFigure(
                "kept with the set alone, held-out",
                percent(explanation.trial.kept.value),
                _range(explanation.trial.kept),
            ),
            KeyFigure(
                "left without the set, held-out",
                percent(explanation.trial.left.value),
                _range(explanation.trial.left),
            ),
        ]
    return figures


def _range(estimate: Estimate) -> str:
    return (
        "no interval"
        if estimate.interval is None
        else f"{percent(estimate.interval.low)} to {percent(estimate.interval.high)}"
    )


def _behaviour(explanation: Told) -> Section:
    b, done = explanation.behaviour, explanation.performance
    unit = f" {b['metric_unit']}" if b["metric_unit"] else ""
    blocks: list[Block] = [
        Pairs(
            explanation.pairs,
            "Tokens that differ are marked; the dashed box is the answer that belongs to each prompt.",
        ),
        Facts(
            (
                ("Does it", done.sentence),
                ("Metric", f"{b['metric']}: {b['metric_says']}" if b["metric_says"] else b["metric"]),
                ("On clean prompts", f"{done.metric_clean}{unit}"),
                ("On corrupted prompts", f"{done.metric_corrupted}{unit} (answers of the clean prompt)"),
                (
                    "Examples",
                    f"{b['n']} pairs from {b['templates']} templates: {b['discovery']} to find, {b['held_out']} to test",
                ),
            )
        ),
    ]
    if b["notes"]:
        blocks.append(Points(tuple(("", note) for note in b["notes"])))
    lead = (
        "Each pair differs only in what decides the answer. Everything below is measured as a "
        "share of the gap between the two: 0 "
        "is the corrupted prompt, 1 (100 %) the clean one."
    )
    return Section("behaviour", "The behaviour", blocks, lead)


def _where(explanation: Told) -> list[Section]:
    stream = {
        way: explanation.maps[key("resid_pre", way)]
        for way in DIRECTIONS
        if key("resid_pre", way) in explanation.maps
    }
    if "restore" not in stream:
        return []
    groups = stream["restore"].groups()
    template, first = groups[0]
    shown = {way: effects.groups()[0][1] for way, effects in stream.items()}
    others = [
        (name, effects) for name, effects in groups[1:] if effects.data.sizes["example"] >= _WORTH_A_MAP
    ][:_MORE_MAPS]
    limit = scale_limit(
        *(effects.mean.values for effects in [*shown.values(), *(effects for _, effects in others)])
    )
    blocks: list[Block] = [Text((_route(first),))]
    form = (
        ""
        if len(groups) == 1
        else f" The {first.data.sizes['example']} discovery pairs of the form “{template}”."
    )
    for way, effects in shown.items():
        legend = _LEGEND if way == "restore" else "The same pairs, the other way."
        what = (
            f"The residual stream at one layer and token. {_WAYS[way]}.{form} "
            if way == "restore"
            else f"{_WAYS[way]}. "
        )
        caption = f"{what}{legend}{_partial(effects)}"
        blocks.append(Figure(heatmap(effects.grid(), title=_WAYS[way], limit=limit), caption))
    for name, effects in others:
        caption = f"Restoring, in the {effects.data.sizes['example']} discovery pairs of the form “{name}”."
        blocks.append(Figure(heatmap(effects.grid(), title=_WAYS["restore"], limit=limit), caption))
    unlike = ""
    if len(groups) > 1:
        unlike = (
            " Prompts of different form are shown apart, because their positions do not correspond, "
            "each as a share of its own "
            f"gap ({len(groups)} forms, the {1 + len(others)} largest are shown)."
        )
    lead = (
        f"The residual stream of one run is copied into the other, one layer and token at a time, "
        f"on {explanation.behaviour['discovery']} "
        f"discovery pairs.{unlike} {_sentence(first.data.attrs['intervals'])}"
    )
    return [Section("where", "Where the information sits", blocks, lead)]


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
    if not stops:
        return "At no layer does a single position carry half of the gap: the information is spread over several tokens."
    parts = []
    for first, last, place, token, share in stops:
        layers = f"layer {first}" if first == last else f"layers {first} to {last}"
        parts.append(
            f"at position {place} (“{show_token(token, escape=False)}”) in {layers} (up to {percent(share)})"
        )
    return f"Entering the layers, one position is enough to bring back at least half of the gap: {'; then '.join(parts)}."


def _partial(effects: Effects) -> str:
    extra = f" {effects.data.attrs['where']}." if effects.data.attrs.get("where") else ""
    return extra + ("" if effects.complete else " Partial: stopped before the end.")


def _components(explanation: Told) -> list[Section]:
    blocks: list[Block] = []
    heads = {way: explanation.maps[key("z", way)] for way in DIRECTIONS if key("z", way) in explanation.maps}
    limit = scale_limit(*(effects.mean.values for effects in heads.values())) if heads else 1.0
    for way, effects in heads.items():
        blocks.append(
            Figure(
                heatmap(effects.grid(), title=_WAYS[way], limit=limit),
                f"One attention head (its z, at all positions). {_WAYS[way]}.{_partial(effects)}",
            )
        )
    for site, what in (("mlp_write", "MLP"), ("mixer_write", "token mixer"), ("attn_write", "attention")):
        maps = {
            way: explanation.maps[key(site, way)] for way in DIRECTIONS if key(site, way) in explanation.maps
        }
        if maps:
            groups = {way: _bars(effects, what) for way, effects in maps.items()}
            blocks.append(
                Figure(
                    groups_of_bars(groups),
                    f"The output of one layer's {what} at all positions, restored and corrupted; faint bars "
                    "are not significant.",
                )
            )
    if explanation.mechanism is not None:
        blocks.append(_table(explanation))
    if not blocks:
        return []
    return [
        Section(
            "components",
            "Which components carry it",
            blocks,
            "The same with one component at a time. Restoring shows what is enough, corrupting what "
            "is needed; where several "
            "components do the same work, only the first of the two shows it.",
        )
    ]


def _bars(effects: Effects, what: str) -> list[Bar]:
    cells = effects.to_pandas().to_dict("records")
    return [
        Bar(f"{what} {int(row['layer'])}", row["mean"], row["low"], row["high"], bool(row["q"] <= 0.05))
        for row in cells
        if np.isfinite(row["mean"])
    ]


def _table(explanation: Told) -> Table:
    frame = explanation.to_pandas()
    frame = frame.sort_values("loss_without", ascending=False, kind="stable")
    rows = []
    for row in frame.to_dict("records"):
        notes = [row["role"]] + ([row["weight"]] if row["weight"] != "major" else [])
        rows.append(
            (
                Part.parse(row["part"]).words,
                _cell(row, "restore"),
                _cell(row, "corrupt"),
                percent(row["loss_without"]),
                ", ".join(notes),
            )
        )
    assert explanation.mechanism is not None
    caption = (
        f"The {len(rows)} members of the set, found on discovery pairs. Single effects with 95 % "
        "intervals; “set loses” is what the "
        "set, kept alone, loses when this member is left out. Backup members were added because "
        "the behaviour survived without "
        "the core; minor and redundant members cost little when they alone are corrupted (redundant: others stand in)."
    )
    head = ("Component", "Restored alone", "Corrupted alone", "Set loses", "Role")
    return Table(head, tuple(rows), caption, frozenset({1, 2, 3}))


def _cell(row: Mapping[Any, Any], way: str) -> str:
    mean, low, high, q = (row[f"{way}_{name}"] for name in ("mean", "low", "high", "q"))
    if mean is None or not np.isfinite(mean):
        return "–"
    mark = "" if q <= 0.05 else " (n.s.)"
    interval = f" ({percent(low)[:-2]} to {percent(high)[:-2]})" if np.isfinite(low) else ""
    return f"{percent(mean)}{interval}{mark}"


def trial_figure(trial: Trial, limits: Limits) -> go.Figure:
    """What the set keeps alone and leaves when removed, beside random sets."""
    lines = []
    for label, estimate, random, limit, above in (
        ("kept alone", trial.kept, trial.kept_random, limits.kept, True),
        ("removed", trial.left, trial.left_random, limits.left, False),
    ):
        interval = estimate.interval
        low, high = (estimate.value,) * 2 if interval is None else (interval.low, interval.high)
        lines.append(Comparison(label, estimate.value, low, high, random, limit, above))
    return against_random(lines)


def _tests(explanation: Told) -> list[Section]:
    blocks: list[Block] = []
    trial, limits = explanation.trial, explanation.limits
    if trial is not None:
        blocks.append(
            Figure(
                trial_figure(trial, limits),
                f"Share of the gap that remains on {trial.n} held-out pairs when only the set is kept "
                f"({with_interval(trial.kept)}) and "
                f"when it is removed ({with_interval(trial.left)}), beside {len(trial.kept_random)} "
                "random sets with as many "
                "components of each kind. The dotted lines are the thresholds, fixed before anything was run.",
            )
        )
    blocks.append(ClaimTests(explanation.claim))
    lead = (
        "The set is put to the test on pairs that played no part in finding it. Keeping it alone asks whether it is enough; "
        "removing it asks whether it is needed; the controls ask whether the procedure can say no."
    )
    return [Section("tests", "The causal tests", blocks, lead)]


def _open(explanation: Told) -> Section:
    return Section(
        "open", "What is not explained", [Points(explanation.unexplained)] if explanation.unexplained else []
    )


def _repeat(explanation: Told) -> Section:
    origin, certificate = explanation.provenance, explanation.certificate
    blocks: list[Block] = []
    if explanation.command:
        blocks.append(Listing(explanation.command))
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in explanation.seconds.items())
    blocks.append(
        Facts(
            (
                ("Network", f"{origin.network}, SHA-256 {origin.network_hash[:32]}"),
                (
                    "Behaviour",
                    f"{explanation.behaviour['name']}, n = {explanation.behaviour['n']}, "
                    f"hash {explanation.behaviour['hash']}",
                ),
                ("Seed", f"{origin.seed} (examples: {explanation.behaviour['seed']})"),
                ("Versions", versions),
                ("Device and type", f"{origin.device}, {origin.dtype}"),
                ("Time", f"{origin.seconds:.1f} s: {times}" if times else f"{origin.seconds:.1f} s"),
                (
                    "Limits",
                    ", ".join(f"{name} {value:g}" for name, value in explanation.limits.to_dict().items()),
                ),
            )
        )
    )
    checks = certificate.get("checks", [])
    if checks:
        rows = tuple(
            (
                check["name"],
                check["sentence"],
                f"{check['error']:.1e}",
                "holds" if check["holds"] else "fails",
            )
            for check in checks
        )
        refused = certificate.get("refusals", {})
        caption = "The certificate: identities checked on this network when it was opened, with the largest relative error."
        if refused:
            caption += f" Refused sites: {', '.join(sorted(refused))}."
        blocks.append(Table(("Identity", "In words", "Error", ""), rows, caption, frozenset({2})))
    return Section("repeat", "How to repeat it", blocks)
