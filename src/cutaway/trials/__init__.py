"""Judging: a candidate for a mechanism, put to the test on a bench beside its controls, and what may then be said."""

from cutaway.trials.judging import any_of, claim_of, inside, percent, verdict_of, with_interval
from cutaway.trials.limits import Limits

__all__ = ["Limits", "any_of", "claim_of", "inside", "percent", "verdict_of", "with_interval"]
