"""An algorithm proposed from what parts carry, and tested on prompts that had no part in proposing it.

`rules` reads answers as functions off values, `known` says what the cases say of a task, `searching` tries each variable at
each place on discovery prompts, `assembling` puts the places that hold together in the order of the network, `rivals` makes
other algorithms that could be meant, `telling` says which prompts would tell them apart, `describing` puts it into words,
`result` holds it, `verb` does it all in order.
"""

from cutaway.algorithms.proposing.limits import ProposalLimits
from cutaway.algorithms.proposing.result import ProposedAlgorithm
from cutaway.algorithms.proposing.verb import propose_algorithm

__all__ = ["ProposalLimits", "ProposedAlgorithm", "propose_algorithm"]
