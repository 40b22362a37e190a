"""Judging: a candidate for a mechanism, put to the test on a bench beside its controls, and what may then be said.

A *candidate* (a set of parts, of edges, a direction) runs on a *bench*, which has both ends of a *scale*; a *trial* keeps it
alone and removes it, beside random ones like it; *controls* run the same procedure where there is nothing to find; `judging`
is the one place where evidence becomes supported, refuted or inconclusive.
"""

from cutaway.trials.bench import Bench
from cutaway.trials.candidate import Candidate, PartSet
from cutaway.trials.controls import (
    CONTROLS,
    Outcome,
    beside_random_weights,
    must_fail,
    random_weights,
    sham,
    shuffled_answers,
)
from cutaway.trials.ends import ends_kept
from cutaway.trials.judging import any_of, claim_of, inside, percent, verdict_of, with_interval
from cutaway.trials.limits import Limits
from cutaway.trials.scale import GapScale, other_rows
from cutaway.trials.subspace import Subspace, SubspaceBench, SubspacePlace
from cutaway.trials.trial import Trial, evidence_of, from_other_prompts, performs, put_to_test, resampled

__all__ = [
    "CONTROLS", "Bench", "Candidate", "GapScale", "Limits", "Outcome", "PartSet", "Subspace", "SubspaceBench",
    "SubspacePlace", "Trial", "any_of", "beside_random_weights", "claim_of", "ends_kept", "evidence_of",
    "from_other_prompts", "inside",
    "must_fail", "other_rows", "percent", "performs", "put_to_test", "random_weights", "resampled", "sham",
    "shuffled_answers", "verdict_of", "with_interval",
]  # fmt: skip
