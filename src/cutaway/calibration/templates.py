"""The check of a specimen that does several things: each of them is done."""

from __future__ import annotations

from dataclasses import replace

from cutaway.behaviours.generators.specimen import of_pairs
from cutaway.calibration.evidence import at_least
from cutaway.calibration.subject import Subject
from cutaway.claims import Evidence

ACCURACY, EACH = 0.95, 60


def templates(subject: Subject) -> list[Evidence]:
    """Are the prompts of every template answered right? Sixty fresh pairs of each are asked."""
    task = subject.specimen.task
    names = list(dict.fromkeys(subject.behaviour.template))
    pairs = task.pairs(EACH * len(names), subject.seed + 1)
    tests = []
    for name in names:
        asked = of_pairs(name, [pair for pair in pairs if pair.template == name], subject.net, task.words)
        these = replace(subject, behaviour=asked, n=asked.n)
        share, right = these.accuracy()
        says = f"{right} of {asked.n} fresh prompts of {name} are answered right."
        tests.append(at_least(f"does: {name}", share, ACCURACY, says))
    return tests
