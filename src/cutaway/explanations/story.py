"""An explanation told as a report: the sections on the behaviour, on the tests, and on how to repeat it, and the lead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.figures import Comparison, against_random
from cutaway.network.listing import count
from cutaway.reports import (
    Block,
    ClaimTests,
    Facts,
    Figure,
    KeyFigure,
    Listing,
    Pair,
    Pairs,
    Points,
    Section,
    Table,
)
from cutaway.statistics import Estimate
from cutaway.trials import Limits, Trial, percent, with_interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cutaway.behaviours import Performance
    from cutaway.behaviours.standing import FormPerformance
    from cutaway.claims import Claim
    from cutaway.explanations.identify import Mechanism
    from cutaway.explanations.sizes import Sizes
    from cutaway.results import Provenance


#: So many sentence frames are listed.
_FORMS = 20


def lead(claim: Claim, trial: Trial | None) -> str:
    """What the verdict rests on, under the headline."""
    if claim.verdict == "supported":
        return (
            "The set was found on one half of the examples and tested on the other; it did better than random sets of the "
            "same size, and the same search on the network with random weights found nothing that passes the tests."
        )
    if trial is None:
        return "No test was run to its end, so nothing is claimed."
    return (
        "The tests below say which part of the claim did not hold. A negative result is a result: nothing is claimed beyond "
        "it."
    )


def key_figures(done: Performance, mechanism: Mechanism | None, trial: Trial | None) -> list[KeyFigure]:
    """How well the network does it, how small the set is, what it keeps and what is left without it."""
    figures = [_share("right answers, all examples", done.accuracy)]
    if mechanism is not None:
        members = mechanism.members
        size = f"{len(members)} of {mechanism.total}"
        figures.append(KeyFigure("components in the set", size, count(members)))
    if trial is not None:
        figures.append(_share("kept with the set alone, held-out", trial.kept))
        figures.append(_share("left without the set, held-out", trial.left))
    return figures


def _share(name: str, estimate: Estimate) -> KeyFigure:
    interval = estimate.interval
    low_to_high = (
        "no interval" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"
    )
    return KeyFigure(name, percent(estimate.value), low_to_high)


def behaviour_section(
    b: Mapping[str, Any], done: Performance, pairs: tuple[Pair, ...], forms: Sequence[FormPerformance] = ()
) -> Section:
    """Example pairs, how well the network does the behaviour, and on which sentence frames."""
    unit = f" {b['metric_unit']}" if b["metric_unit"] else ""
    split = (
        f"{b['n']} pairs from {b['templates']} templates: {b['discovery']} to find, {b['held_out']} to test"
    )
    facts = (
        ("Does it", done.sentence),
        ("Metric", f"{b['metric']}: {b['metric_says']}" if b["metric_says"] else b["metric"]),
        ("On clean prompts", f"{done.metric_clean}{unit}"),
        ("On corrupted prompts", f"{done.metric_corrupted}{unit} (answers of the clean prompt)"),
        ("Examples", split),
        *((("Searched", b["searched"]),) if b.get("searched") else ()),
    )
    pictured = any(pair.clean_picture for pair in pairs)
    shown = (
        "Pictures are stretched to their own range of values" if pictured else "Tokens that differ are marked"
    )
    marked = f"{shown}; the dashed box is the answer that belongs to each prompt."
    blocks: list[Block] = [Pairs(pairs, marked), Facts(facts)]
    if b["notes"]:
        blocks.append(Points(tuple(("", note) for note in b["notes"])))
    if len(forms) > 1:
        blocks.append(_forms(forms))
    lead = (
        "Each pair differs only in what decides the answer. Everything below is measured as a share of the gap between the "
        "two: 0 is the corrupted prompt, 1 (100 %) the clean one."
    )
    return Section("behaviour", "The behaviour", blocks, lead)


def _forms(forms: Sequence[FormPerformance]) -> Table:
    """The performance on each sentence frame, those with the fewest right answers first."""
    rows = tuple(
        (
            f.form or "(no frame)",
            str(f.n),
            with_interval(f.accuracy),
            str(f.contrast),
            "" if f.stands else "set aside",
        )
        for f in forms[:_FORMS]
    )
    more = f" The {_FORMS} with the fewest right answers, of {len(forms)}." if len(forms) > _FORMS else ""
    caption = (
        "Each sentence frame by itself, with 95 % intervals: how many of its clean prompts are answered right, and by how "
        f"much the metric is better on them than on corrupted ones.{more}"
    )
    if any(not f.stands for f in forms):
        caption += " What is set aside plays no part in anything below."
    return Table(("Frame", "Pairs", "Right", "Contrast", ""), rows, caption, frozenset({1, 2, 3}))


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


def tests_section(claim: Claim, trial: Trial | None, limits: Limits) -> Section:
    """The trial drawn, and every test of the claim."""
    blocks: list[Block] = [ClaimTests(claim)]
    if trial is not None:
        caption = (
            f"Share of the gap that remains on {trial.n} held-out pairs when only the set is kept "
            f"({with_interval(trial.kept)}) and when it is removed ({with_interval(trial.left)}), beside "
            f"{len(trial.kept_random)} random sets with as many components of each kind. The dotted lines are the "
            "thresholds, fixed before anything was run."
        )
        blocks.insert(0, Figure(trial_figure(trial, limits), caption))
    lead = (
        "The set is put to the test on pairs that played no part in finding it. Keeping it alone asks whether it is enough; "
        "removing it asks whether it is needed; the controls ask whether the procedure can say no."
    )
    return Section("tests", "The causal tests", blocks, lead)


def repeat_section(
    origin: Provenance,
    certificate: Mapping[str, Any],
    b: Mapping[str, Any],
    seconds: Mapping[str, float],
    limits: Limits,
    command: str,
    sizes: Sizes,
    forwards: Mapping[str, float],
) -> Section:
    """The command, the facts that are needed to repeat the explanation, and the network's certificate."""
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    spent = ", ".join(f"{stage} {taken:,.0f}" for stage, taken in forwards.items())
    times = ", ".join(f"{stage} {taken:.1f} s" for stage, taken in seconds.items())
    facts = (
        ("Network", f"{origin.network}, SHA-256 {origin.network_hash[:32]}"),
        ("Behaviour", f"{b['name']}, n = {b['n']}, hash {b['hash']}"),
        ("Seed", f"{origin.seed} (examples: {b['seed']})"),
        ("Versions", versions),
        ("Device and type", f"{origin.device}, {origin.dtype}"),
        *((("Rounding", origin.rounding.sentence),) if origin.rounding is not None else ()),
        ("Time", f"{origin.seconds:.1f} s: {times}" if times else f"{origin.seconds:.1f} s"),
        *((("Forward-equivalents", spent),) if spent else ()),
        ("Sizes", ", ".join(f"{name} {value}" for name, value in sizes.to_dict().items())),
        ("Limits", ", ".join(f"{name} {value:g}" for name, value in limits.to_dict().items())),
    )
    blocks: list[Block] = [Listing(command)] if command else []
    blocks.append(Facts(facts))
    if checks := certificate.get("checks", []):
        rows = tuple(
            (
                check["name"],
                check["sentence"],
                f"{check['error']:.1e}",
                "holds" if check["holds"] else "fails",
            )
            for check in checks
        )
        caption = "The certificate: identities checked on this network when it was opened, with the largest relative error."
        if refused := certificate.get("refusals", {}):
            caption += f" Refused sites: {_kinds_of(refused)}."
        blocks.append(Table(("Identity", "In words", "Error", ""), rows, caption, frozenset({2})))
    return Section("repeat", "How to repeat it", blocks)


def _kinds_of(sites: Iterable[str]) -> str:
    """Sites in words, those of a kind in all their layers as one.

    >>> _kinds_of(["router.0", "router.1", "pos_embed"])
    'pos_embed, router (2 layers)'
    """
    named: dict[str, list[str]] = {}
    for site in sorted(sites):
        named.setdefault(site.rsplit(".", 1)[0], []).append(site)
    return ", ".join(
        f"{kind} ({len(those)} layers)" if len(those) > 1 else those[0] for kind, those in named.items()
    )
