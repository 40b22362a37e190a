"""Which input tokens an answer rests on, and how far that agrees with exchanging what stands there.

The ways of attribution are in `effects/inputs`; `agreeing` holds their shares against what exchanging a variable does,
`telling` says what may be said, `result` holds it all, `verb` does it in order.
"""

from cutaway.algorithms.inputs.limits import InputLimits
from cutaway.algorithms.inputs.result import InputAgreement, InputAttribution
from cutaway.algorithms.inputs.verb import input_attribution

__all__ = ["InputAgreement", "InputAttribution", "InputLimits", "input_attribution"]
