"""What each input token adds to an answer: integrated gradients, occlusion, attention rollout.

`asking` makes prompts, answers and exchanges of a question, `embedded` runs the prompts with other embeddings, `methods` are
the three ways. What they say is held against exchanging variables in `algorithms/inputs`.
"""

from cutaway.effects.inputs.asking import InputExchanges, InputQuestion, InputRows
from cutaway.effects.inputs.embedded import BASELINES, EmbeddedRows
from cutaway.effects.inputs.methods import METHODS, InputOptions, TokenScores

__all__ = [
    "BASELINES", "METHODS", "EmbeddedRows", "InputExchanges", "InputOptions", "InputQuestion", "InputRows", "TokenScores",
]  # fmt: skip
