"""Checks of a whole causal model: exact answers after interchanges, and no way round the stated readers.

They use what the ground truth says of who reads whom: `facts["reads"]`, variable -> what it reads, with `answer` among
the keys.
"""

from __future__ import annotations

import numpy as np
import torch

from cutaway.calibration.evidence import at_least, at_most
from cutaway.calibration.subject import Subject
from cutaway.calibration.variables import by_length, exchange, swapped_logits
from cutaway.claims import Evidence
from cutaway.interventions import Intervention
from cutaway.network import Run
from cutaway.statistics import proportion
from cutaway.zoo.truth import Variable

EXACT, HELD = 0.95, 0.02


def exact(subject: Subject) -> list[Evidence]:
    """After an interchange, do all tokens that the causal model calls right outweigh all others?

    Where several answers are right this asks more than that the best token is one of them.
    """
    tests = []
    for variable in subject.truth.variables:
        swaps = subject.specimen.task.swaps(variable.name, subject.n, subject.seed)
        right = 0
        for group in by_length(swaps):
            logits = swapped_logits(subject.net, variable, group)
            allowed = torch.zeros_like(logits, dtype=torch.bool)
            for row, swap in enumerate(group):
                allowed[row, list(swap.right)] = True
            least = logits.masked_fill(~allowed, torch.inf).amin(-1)
            right += int((least > logits.masked_fill(allowed, -torch.inf).amax(-1)).sum())
        share = proportion(right, max(len(swaps), 1))
        says = f"With {variable.name} of another prompt exactly the predicted tokens come first in {share.value:.1%}."
        tests.append(at_least(f"exact: {variable.name}", share, EXACT, says))
    return tests


def held(subject: Subject) -> list[Evidence]:
    """Does a variable reach the answer through its stated readers only?

    It takes its value from the corrupted prompt while its readers are held at their clean values; the effect is the
    mean absolute change of the metric, in shares of the effect range. Variables that the answer reads are left out.
    """
    reads = subject.truth.facts.get("reads", {})
    tests = []
    for variable in subject.truth.variables:
        readers = [name for name, read in reads.items() if variable.name in read]
        if "answer" in readers or not readers:
            continue
        edits = [_set(subject, variable, subject.from_corrupted)]
        edits += [_set(subject, subject.truth.variable(name), subject.from_clean) for name in readers]
        effect = float(np.abs(subject.effect(edits)).mean())
        names = " and ".join(readers)
        says = (
            f"With {names} held, {variable.name} of the corrupted prompt changes {effect:.2%} of the range."
        )
        tests.append(at_most(f"held: {variable.name}", effect, HELD, says))
    return tests


def _set(subject: Subject, variable: Variable, source: Run) -> Intervention:
    """The edit that gives a variable its value of another run, at its own positions."""
    spans = subject.behaviour.spans
    if variable.pos in spans:
        pos = torch.tensor([list(range(start, stop)) for start, stop in spans[variable.pos]])
    else:
        pos = torch.tensor(subject.behaviour.answer_pos)[:, None]
    return exchange(variable, source, pos)
