"""Does a network answer by a variable, so that there is an effect to be carried?

It is asked what is asked of every behaviour (`behaviours.performance`). Only where whatever is right in the first prompt of
a pair is right in the second, too (all later years), the second is not asked to be answered otherwise: it need not be.
"""

from __future__ import annotations

from cutaway.behaviours import Performance
from cutaway.behaviours.checks import LEAST_CONTRAST
from cutaway.claims import Evidence
from cutaway.trials import performs


def answers_by(done: Performance, one_sided: bool) -> bool:
    """Does it answer by the variable? one_sided: whatever is right in the first prompt is right in the second."""
    if done.does_it or not one_sided:
        return done.does_it
    apart = done.size is not None and done.size.above(0.0) is True and done.size.value >= LEAST_CONTRAST
    return done.accuracy.value >= done.asked and done.contrast.above(0.0) is True and apart


def answered(done: Performance, one_sided: bool) -> Evidence:
    """The first test of every claim: does the network answer by the variable on held-out pairs?"""
    asked = performs(done)
    if done.does_it or not answers_by(done, one_sided):
        return asked
    sentence = (
        f"Of held-out prompts {done.accuracy} are answered right (required: {done.asked:.2f}), by a contrast of "
        f"{done.contrast} to the second prompts. Whatever is right in the first prompt of a pair is right in the second, "
        "too: so it is not asked whether that is answered otherwise."
    )
    passed = True if done.accuracy.ends(0.0)[0] >= done.asked else None
    return Evidence(asked.name, done.accuracy, None, done.asked, passed, sentence, asked.of)
