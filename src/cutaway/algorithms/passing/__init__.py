"""How a variable moves from place to place: what a sender brings through a receiver, and nothing else of what is named.

`places` gives the places of each variable, `routes` runs the exchanges (path exchange and holding), `judging` says what
passes and what may be claimed, `result` holds it and draws it, `verb` does it all in order.
"""

from cutaway.algorithms.passing.limits import PassingLimits
from cutaway.algorithms.passing.result import VariablePassing
from cutaway.algorithms.passing.verb import passing

__all__ = ["PassingLimits", "VariablePassing", "passing"]
