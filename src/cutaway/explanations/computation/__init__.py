"""What is computed: from where variables are to an algorithm, in order, and told so that it can be read aloud.

`stages` runs the verbs of `algorithms/` one after the other on the same prompts, `parts` chooses which parts are asked,
`result` holds what each of them found, `sentences` makes the story of it, `questions` answers the five questions, `picture`
draws how the variables move, `sections` puts it on a page.
"""

from cutaway.explanations.computation.asking import NOTHING_STATED, StatedComputation, cases_for, stated
from cutaway.explanations.computation.depth import DEPTHS, check_depth
from cutaway.explanations.computation.result import Computation
from cutaway.explanations.computation.verb import computation, priced_computation, tell

__all__ = [
    "DEPTHS", "NOTHING_STATED", "Computation", "StatedComputation", "cases_for", "check_depth", "computation",
    "priced_computation", "stated", "tell",
]  # fmt: skip
