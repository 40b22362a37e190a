"""Is it the intended computation? Prompts on which what is intended and what is feared give other answers, and what the
network does there.

`apart` finds or makes such prompts, `following` says whose answers a network gives to them, `telling` what may be said,
`result` holds it, `verb` does it in order, at the places of the variables and on a stated shift as well.
"""

from cutaway.algorithms.intended.limits import IntendedLimits
from cutaway.algorithms.intended.result import IntendedTest
from cutaway.algorithms.intended.verb import intended_test as intended

__all__ = ["IntendedLimits", "IntendedTest", "intended"]
