"""The checks of `verify`: each gives its evidence, one finding for each thing that the ground truth says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from cutaway.calibration.edges import edge_effects
from cutaway.calibration.evidence import at_least, at_most
from cutaway.calibration.natural import bystanders, follows, frequencies, roles
from cutaway.calibration.stated import exact, held
from cutaway.calibration.subject import Subject, patched, removed
from cutaway.calibration.templates import templates
from cutaway.calibration.variables import decoded, interchanged
from cutaway.claims import Evidence
from cutaway.errors import NotFound, did_you_mean
from cutaway.statistics import auroc
from cutaway.zoo.truth import Need

#: What counts: share of the effect range that an inert part may have, and that a needed one must have; accuracies.
INERT, SPARED, NEEDED, CARRIES = 0.02, 0.1, 0.5, 0.05
ACCURACY, INTERCHANGE, DECODES = 0.95, 0.95, 0.95
#: Silence leaves the answer open, half way to the corrupted one; so much less is asked where nodes are silenced.
SILENCED = 0.8
Check = Callable[[Subject], list[Evidence]]


def behaviour(subject: Subject) -> list[Evidence]:
    """Is the right answer the likeliest token on the clean prompts, and is there a contrast to the corrupted ones?"""
    share, right = subject.accuracy()
    bar = float(subject.truth.facts.get("accuracy", ACCURACY))
    said = f"{right} of {subject.behaviour.n} fresh prompts are answered right."
    fall = f"{subject.behaviour.metric.name} falls by {subject.range:.3g} from clean to corrupted prompts."
    return [
        at_least("behaviour", share, bar, said),
        Evidence("contrast", value=subject.range, threshold=0.0, passed=subject.range > 0, sentence=fall),
    ]


def needed(subject: Subject) -> list[Evidence]:
    """Does the behaviour break, or not, where the ground truth says so? By default each node alone is needed."""
    tests = []
    bar = float(subject.truth.facts.get("needed", NEEDED))
    for need in subject.truth.needs or tuple(Need((node,)) for node in subject.truth.nodes):
        effect = float(subject.effect(removed(need.nodes, need.how, subject)).mean())
        names = " + ".join(node.words for node in need.nodes)
        said = f"Taking {names} away ({need.how}) takes {effect:.1%} of the effect."
        if need.breaks:
            asked = bar if need.how == "resample" else SILENCED * bar
            tests.append(at_least(f"needed: {names} ({need.how})", effect, asked, said))
        else:
            tests.append(at_most(f"spared: {names} ({need.how})", abs(effect), SPARED, said))
    return tests


def inert(subject: Subject) -> list[Evidence]:
    """Has everything that the ground truth does not name no effect, each part and all of them together?

    Values come from the corrupted prompts and from unrelated ones; the effect is the mean absolute change.
    """
    outside = [n for n in subject.nodes if n not in subject.truth.nodes]
    if not outside:
        return []
    bar = float(subject.truth.facts.get("inert", INERT))
    sources = (("corrupted", subject.from_corrupted), ("unrelated", subject.from_others))
    worst, where = 0.0, outside[0]
    for _, source in sources:
        for node in outside:
            effect = float(np.abs(subject.effect(patched([node], source))).mean())
            if not effect <= worst:
                worst, where = effect, node
    said = f"Of {len(outside)} other nodes, {where.words} has the largest effect when resampled: {worst:.2%} of the range."
    tests = [at_most("inert: each", worst, bar, said)]
    for name, source in sources:
        effect = float(np.abs(subject.effect(patched(outside, source))).mean())
        said = f"All {len(outside)} other nodes resampled together from {name} prompts: {effect:.2%} of the range."
        tests.append(at_most(f"inert: all ({name})", effect, bar, said))
    return tests


def variables(subject: Subject) -> list[Evidence]:
    """Can each variable be interchanged with the predicted result, and does it decode where it is said to live?"""
    tests = []
    bar = float(subject.truth.facts.get("interchange", INTERCHANGE))
    for variable in subject.truth.variables:
        share = interchanged(subject, variable)
        if share is not None:
            gives = "gives the predicted answer" if variable.read else "changes nothing, as predicted,"
            said = f"Interchanging it at {variable.site} {gives} in {share.value:.1%} of {share.n} cases."
            tests.append(at_least(f"interchange: {variable.name}", share, bar, said))
        decodes = decoded(subject, variable)
        if decodes is not None:
            said = f"A linear readout of {variable.site} tells it on {decodes.value:.1%} of {decodes.n} fresh prompts."
            tests.append(at_least(f"decodes: {variable.name}", decodes, DECODES, said))
    return tests


def edges(subject: Subject) -> list[Evidence]:
    """Does every stated edge carry what its source writes to its target, and no other edge anything?

    By path patching; see `cutaway.calibration.edges`.
    """
    effects = edge_effects(subject)
    stated = set(subject.truth.edges)
    if not effects or not stated:
        return []
    weakest = min(stated, key=lambda e: effects.get(e, 0.0))
    others = [e for e in effects if e not in stated]
    bar = float(subject.truth.facts.get("edge", CARRIES))
    least = effects.get(weakest, 0.0)
    said = f"Of {len(stated)} stated edges, {weakest.words} carries least: {least:.1%} of the range."
    tests = [at_least("edges: stated", least, bar, said)]
    if others:
        strongest = max(others, key=lambda e: effects[e])
        most = effects[strongest]
        said = f"Of {len(others)} other edges, {strongest.words} carries most: {most:.2%} of the range."
        tests.append(at_most("edges: others", most, float(subject.truth.facts.get("inert", INERT)), said))
    return tests


def features(subject: Subject) -> list[Evidence]:
    """Does each feature's direction tell the tokens that have it from all others, on clean prompts?"""
    tested = [f for f in subject.truth.features if f.tokens]
    if not tested:
        return []
    run = subject.net.run(subject.clean, keep=sorted({f.site for f in tested}), logits=False)
    real, ids = subject.clean.mask, subject.clean.ids
    scores = {}
    for feature in tested:
        along = run[feature.site].float().cpu() @ torch.tensor(feature.direction)
        has = torch.isin(ids, torch.tensor(feature.tokens))
        scores[feature.name] = float(auroc(along[real].numpy(), has[real].numpy()))
    worst = min(scores, key=lambda name: scores[name])
    least = scores[worst]
    said = f"Of {len(scores)} features, {worst} is told least well by its direction: AUROC {least:.3f}."
    return [at_least("features", least, DECODES, said)]


#: Every check by name: what a ground truth's `checks` may list.
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        behaviour, needed, inert, variables, edges, exact, held, templates, features, bystanders, roles, frequencies,
        follows,
    )
}  # fmt: skip


def run_check(name: str, subject: Subject) -> list[Evidence]:
    """The evidence of one check. What cannot be computed on this network (NaN) has not passed.

    Raises NotFound for an unknown check.
    """
    if name not in CHECKS:
        raise NotFound(f"There is no check {name!r}.", did_you_mean(name, CHECKS, 3))
    with torch.no_grad(), np.errstate(invalid="ignore"):
        return CHECKS[name](subject)
