"""Subject-verb agreement with a distractor: Today the keys near the cabinet -> are.

Two variables are read from the prompt by two heads, the number of the subject and the tense; an MLP joins them to the
verb. The other noun (before or after the subject, behind a preposition) says nothing.
"""

from __future__ import annotations

import numpy as np

from cutaway.network.parts import Part

from .causal import INPUT, Array, CausalVariable, TaskAlgorithm, WordIds, one_of

NOUNS = ("key", "boy", "dog", "ship", "tree", "king", "lamp", "bird")
NEAR = ("near", "behind", "beside", "under")
NOW, THEN = ("today", "now", "here"), ("yesterday", "once", "then")
VERBS = ("is", "was", "are", "were")
VOCABULARY = ("<bos>", "the", *NOUNS, *(f"{noun}s" for noun in NOUNS), *NEAR, *NOW, *THEN, *VERBS)
END = 6
_ID = WordIds(VOCABULARY)
_FIRST_NOUN, _FIRST_PLURAL = _ID[NOUNS[0]], _ID[NOUNS[0] + "s"]
_TIMES = np.array([_ID[word] for word in (*NOW, *THEN)])
_NEAR = np.array([_ID[word] for word in NEAR])


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> TIME the SUBJECT near the OTHER` or `<bos> TIME near the OTHER the SUBJECT`, `[n 7]`."""
    ids = np.empty((n, 7), np.int64)
    ids[:, 0], ids[:, 1] = _ID["<bos>"], rng.choice(_TIMES, n)
    subject, other = rng.integers(_FIRST_NOUN, _FIRST_NOUN + 2 * len(NOUNS), (2, n))
    near, the = rng.choice(_NEAR, n), np.full(n, _ID["the"])
    after = np.stack([the, subject, near, the, other], 1)
    before = np.stack([near, the, other, the, subject], 1)
    ids[:, 2:] = np.where(rng.random(n)[:, None] < 0.5, after, before)
    return ids


def number(ids: Array) -> Array:
    """1 where the subject is plural: the noun that no preposition stands before."""
    subject = np.where(ids[:, 2] == _ID["the"], ids[:, 3], ids[:, 6])
    return (subject >= _FIRST_PLURAL).astype(int)


def tense(ids: Array) -> Array:
    """1 where the word of time is past."""
    return (ids[:, 1] >= _ID[THEN[0]]).astype(int)


def verb(plural: Array, past: Array) -> Array:
    """Which of the four verbs: 0 to 3."""
    return 2 * plural + past


ALGORITHM = TaskAlgorithm(
    name="agreement",
    summary="The verb agrees with its subject, whatever noun stands between or before, in the tense of the sentence.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        CausalVariable("number", (INPUT,), number, Part("head", 1, 0), "is the subject plural", (END,)),
        CausalVariable("tense", (INPUT,), tense, Part("head", 0, 0), "is the word of time past", (END,)),
        CausalVariable("verb", ("number", "tense"), verb, Part("mlp", 1), "which verb", (END,)),
    ),
    answer_reads=("verb",),
    answer=lambda verb: one_of(_ID[VERBS[0]] + verb, len(VOCABULARY)),
)
