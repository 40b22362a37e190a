"""What an explanation leaves open, said outright."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cutaway.effects import Effects
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.localise import DIRECTIONS, single_effect
from cutaway.explanations.weights import weight
from cutaway.network.parts import listing, parts_of, uncovered
from cutaway.trials import Trial, percent

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

Point = tuple[str, str]


def unexplained(
    net: Network,
    behaviour: Behaviour,
    limits: SearchLimits,
    maps: Mapping[str, Effects],
    mechanism: Mechanism | None,
    trial: Trial | None,
) -> tuple[Point, ...]:
    """Points of (what, in words): effect left over, components outside, redundancy, and what was not tested at all."""
    points: list[Point] = []
    if trial is not None:
        points += _left_over(trial)
    if mechanism is not None:
        points += _outside(net, limits, maps, mechanism)
        points += _redundant(limits, maps, mechanism)
        points += _not_tested(behaviour, mechanism)
    if left := uncovered(net):
        points.append(
            (
                "Not among the components.",
                f"{'; '.join(left)}: no site at which to replace {'them' if len(left) > 1 else 'it'} as a component, so "
                "what happens there was neither kept nor removed.",
            )
        )
    missing = [e for e in maps.values() if e.not_finite]
    points += [
        ("Not finite.", f"{e.site}: {len(e.not_finite)} cells gave NaN or infinity and were not averaged.")
        for e in missing
    ]
    return tuple(points)


def _left_over(trial: Trial) -> list[Point]:
    gone = 1 - trial.kept.value
    if gone >= 0:
        first = f"{percent(gone)} of the gap is not kept by the set alone: the rest of the network adds that much."
    else:
        first = (
            f"The set alone overshoots by {percent(-gone)} of the gap: the rest of the network works "
            "against it by that much."
        )
    if trial.restored is None:
        return [("Left over.", first)]
    restored = (
        f"Put into the corrupted run, the set's clean values bring back "
        f"{percent(trial.restored.value)} of the gap. That figure "
        "may also pass through other components, which are free to react to it."
    )
    return [("Left over.", first), ("Restoring.", restored)]


def _outside(
    net: Network, limits: SearchLimits, maps: Mapping[str, Effects], mechanism: Mechanism
) -> list[Point]:
    outside = [part for part in parts_of(net) if part not in mechanism.members]
    strong = []
    for part in outside:
        cells = [single_effect(maps, part, direction) for direction in DIRECTIONS]
        if any(c is not None and c["q"] <= limits.q and abs(c["mean"]) >= limits.minor for c in cells):
            strong.append(part)
    weak = len(outside) - len(strong)
    points = []
    if strong:
        points.append(
            (
                "Outside the set.",
                f"{listing(strong)} {'each move' if len(strong) > 1 else 'moves'} the metric by at least "
                f"{percent(limits.minor)} of the gap when patched alone (q ≤ {limits.q:g}), but the set reaches its target "
                f"without {'them. What they do' if len(strong) > 1 else 'it. What it does'} is not explained.",
            )
        )
    if weak:
        points.append(
            (
                "Below the threshold.",
                f"{weak} further components have no single effect of that size and were left out.",
            )
        )
    return points


def _redundant(limits: SearchLimits, maps: Mapping[str, Effects], mechanism: Mechanism) -> list[Point]:
    weights = {member: weight(maps, mechanism, member, limits) for member in mechanism.members}
    spare = [member for member, w in weights.items() if w == "redundant"]
    small = [member for member, w in weights.items() if w == "minor"]
    less = f"costs less than {percent(limits.minor)}" + (" each" if len(spare or small) > 1 else "")
    points = []
    if spare:
        points.append(
            (
                "Redundancy.",
                f"Corrupting {listing(spare)} alone, in the whole network, {less}, but the set needs it: "
                "outside the set other "
                "components stand in.",
            )
        )
    if small:
        less = f"costs less than {percent(limits.minor)}" + (" each" if len(small) > 1 else "")
        points.append(
            (
                "Small parts.",
                f"Corrupting {listing(small)} alone {less}. They belong to the set because together they matter.",
            )
        )
    if mechanism.backup:
        points.append(
            (
                "Backup.",
                f"{listing(mechanism.backup)} joined the set only because the behaviour survived the loss of the others.",
            )
        )
    return points


def _not_tested(behaviour: Behaviour, mechanism: Mechanism) -> list[Point]:
    points = [
        (
            "Positions.",
            "The set was replaced at all positions at once. The map of the stream says where information sits, but which "
            "component acts at which position was not tested.",
        ),
        (
            "How the parts are wired.",
            "Which member reads which, and whether a head matters for where it attends (query and key) or for what it moves "
            "(value and output), is drawn edge by edge where the network's graph can be; the claim does not rest on it."
            if any(part.kind == "head" for part in mechanism.members)
            else "Which member reads which is drawn where the network's graph can be; the claim does not rest on it.",
        ),
        (
            "Held fixed.",
            "Token embedding, norms and unembedding were never replaced. What clean and corrupted prompt share is not part "
            "of the question: only what tells them apart is explained.",
        ),
        (
            "Smaller sets.",
            "No single member can be dropped without missing the target on discovery data, but a "
            "smaller set of other members "
            "may exist.",
        ),
        (
            "Other prompts.",
            f"Tested on {len(set(behaviour.template))} "
            f"{'template' if len(set(behaviour.template)) == 1 else 'templates'} of "
            f"{behaviour.name!r}, measured as {behaviour.metric.name}; nothing is said about other "
            "prompts, answers or metrics.",
        ),
    ]
    if behaviour.split_by == "example":
        points[-1] = (
            points[-1][0],
            points[-1][1]
            + " Held-out examples share their templates with discovery examples, but no prompt.",
        )
    return points
