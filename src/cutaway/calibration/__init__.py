"""Methods and claims held against networks whose mechanism is known.

`verify` proves the ground truth of a specimen by intervention on its weights; `recovery` says how well exact
activation patching finds its nodes.
"""

from cutaway.calibration.recovery import Recovery, recovery
from cutaway.calibration.verify import Verification, verify, verify_twins

__all__ = ["Recovery", "Verification", "recovery", "verify", "verify_twins"]
