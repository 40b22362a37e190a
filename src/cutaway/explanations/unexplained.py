"""What an explanation leaves open, said outright."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from cutaway.effects import Effects
from cutaway.explanations.grain import SearchGrain
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.localise import DIRECTIONS, single_effect
from cutaway.explanations.weights import weight
from cutaway.network.listing import listing
from cutaway.network.parts import Part, uncovered
from cutaway.trials import Trial, percent

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

Point = tuple[str, str]


class Found(Protocol):
    """What an explanation has found when it looks back at what it leaves open."""

    maps: dict[str, Effects]
    mechanism: Mechanism | None
    trial: Trial | None
    grain: SearchGrain | None
    why_no_circuit: str
    why_no_features: str
    why_no_computation: str


def unexplained(net: Network, behaviour: Behaviour, limits: SearchLimits, found: Found) -> tuple[Point, ...]:
    """Points of (what, in words): effect left over, components outside, redundancy, and what was not tested at all."""
    points: dict[str, str] = {}
    maps, mechanism = found.maps, found.mechanism
    if found.trial is not None:
        points |= _left_over(found.trial)
    if mechanism is not None and found.grain is not None:
        points |= _outside(found.grain.parts, limits, maps, mechanism)
        stream = net.anatomy.stack() is not None
        points |= _redundant(limits, maps, mechanism)
        points |= _not_tested(behaviour, mechanism, limits, stream, found.why_no_circuit)
    if found.why_no_features:
        points["Features."] = f"Which features carry it was not looked at: {found.why_no_features}."
    if found.why_no_computation:
        points["Computation."] = f"What is computed is not told: {found.why_no_computation.rstrip('.')}."
    if left := uncovered(net):
        them = "them" if len(left) > 1 else "it"
        points["Not among the components."] = (
            f"{'; '.join(left)}: no site at which to replace {them} as a component, so what happens there was neither kept "
            "nor removed."
        )
    failed = [
        f"{e.site}: {len(e.not_finite)} cells gave NaN or infinity and were not averaged."
        for e in maps.values()
        if e.not_finite
    ]
    return *points.items(), *(("Not finite.", words) for words in failed)


def _left_over(trial: Trial) -> dict[str, str]:
    points: dict[str, str] = {}
    gone = percent(abs(1 - trial.kept.value))
    if trial.kept.value <= 1:
        points["Left over."] = (
            f"{gone} of the gap is not kept by the set alone: the other components add that much."
        )
    else:
        points["Left over."] = (
            f"Alone, the set does {gone} of the gap more than the whole network: there, the other components push the "
            "answer back by that much."
        )
    if trial.restored is not None:
        points["Restoring."] = (
            f"Put into the corrupted run, the set's clean values bring back {percent(trial.restored.value)} of the "
            "gap. That figure may also pass through other components, which are free to react to it."
        )
    return points


def _outside(
    everything: Sequence[Part], limits: SearchLimits, maps: Mapping[str, Effects], mechanism: Mechanism
) -> dict[str, str]:
    points: dict[str, str] = {}
    inside = set(mechanism.members)
    outside = [part for part in everything if part not in inside]
    strong = []
    for part in outside:
        cells = [single_effect(maps, part, direction) for direction in DIRECTIONS]
        if any(c is not None and c["q"] <= limits.q and abs(c["mean"]) >= limits.minor for c in cells):
            strong.append(part)
    if strong:
        several = len(strong) > 1
        points["Outside the set."] = (
            f"{listing(strong)} {'each move' if several else 'moves'} the metric by at least {percent(limits.minor)} of the "
            f"gap when patched alone (q ≤ {limits.q:g}), but the set reaches its target without "
            f"{'them. What they do' if several else 'it. What it does'} is not explained."
        )
    if weak := len(outside) - len(strong):
        points["Below the threshold."] = (
            f"{weak} further components have no single effect of that size and were left out."
        )
    return points


def _redundant(limits: SearchLimits, maps: Mapping[str, Effects], mechanism: Mechanism) -> dict[str, str]:
    points: dict[str, str] = {}
    weights = {member: weight(maps, mechanism, member, limits) for member in mechanism.members}
    spare, small = ([m for m, w in weights.items() if w == kind] for kind in ("redundant", "minor"))

    def little(parts: list[Part]) -> str:
        return f"costs less than {percent(limits.minor)}" + (" each" if len(parts) > 1 else "")

    if spare:
        points["Redundancy."] = (
            f"Corrupting {listing(spare)} alone, in the whole network, {little(spare)}, but the set needs it: outside "
            "the set other components stand in."
        )
    if small:
        points["Small parts."] = (
            f"Corrupting {listing(small)} alone {little(small)}. They belong to the set because together they matter."
        )
    if mechanism.backup:
        points["Backup."] = (
            f"{listing(mechanism.backup)} joined the set only because the behaviour survived the loss of the others."
        )
    return points


def _not_tested(
    behaviour: Behaviour, mechanism: Mechanism, limits: SearchLimits, stream: bool, why_no_circuit: str
) -> dict[str, str]:
    """stream: has the network a residual stream? why_no_circuit: why its edges were not drawn; "" where they were."""
    points: dict[str, str] = {}
    points["Positions."] = (
        "The set was replaced at all positions at once. The map of the stream says where information sits, but which "
        "component acts at which position was not tested."
    )
    if not stream:
        points["Positions."] = (
            "Maps and channels were replaced at all their pixels at once: where in the image they act was not tested."
        )
    which = "Which member reads which"
    if why_no_circuit:
        points["How the parts are wired."] = f"{which} was not drawn edge by edge: {why_no_circuit}"
    elif any(part.kind == "head" for part in mechanism.members):
        points["How the parts are wired."] = (
            f"{which}, and whether a head matters for where it attends (query and key) or for what it moves (value and "
            "output), is drawn edge by edge where the network's graph can be; the claim does not rest on it."
        )
    else:
        drawn = "is drawn where the network's graph can be; the claim does not rest on it."
        points["How the parts are wired."] = f"{which} {drawn}"
    fixed = (
        "Token embedding, norms and unembedding" if stream else "Norms, shortcuts, pooling and the classifier"
    )
    points["Held fixed."] = (
        f"{fixed} were never replaced by themselves. What clean and corrupted prompt share is not part of "
        "the question: only what tells them apart is explained."
    )
    spare = len(mechanism.spare(limits.target))
    points["Smaller sets."] = (
        f"{_dropped(spare)} without missing the target on discovery data, {'and' if spare else 'but'} a smaller set of "
        "other members may exist."
    )
    templates = len(set(behaviour.template))
    held_out = " Held-out examples share their templates with discovery examples, but no prompt."
    points["Other prompts."] = (
        f"Tested on {templates} {'template' if templates == 1 else 'templates'} of {behaviour.name!r}, measured as "
        f"{behaviour.metric.name}; nothing is said about other prompts, answers or metrics."
        + (held_out if behaviour.split_by == "example" else "")
    )
    return points


def _dropped(spare: int) -> str:
    if not spare:
        return "No single member can be dropped"
    return f"{spare} {'member' if spare == 1 else 'members'} could still be dropped{'' if spare == 1 else ', each alone,'}"
