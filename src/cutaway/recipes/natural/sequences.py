"""Sorting, palindromes, brackets and repeated sequences, as tasks of our own data in the form of next-token prediction."""

from __future__ import annotations

import numpy as np

from cutaway.recipes.measures import exchanged
from cutaway.zoo.tasks import Drawn, TaskPair, spans_at

NUMBERS, LIST = 32, 8
SORT_WORDS = ("BOS", *map(str, range(NUMBERS)), "sorted:")
SORTED = NUMBERS + 1


def sort_row(rng: np.random.Generator) -> list[int]:
    """BOS, eight different numbers, "sorted:", the numbers in order: [18]."""
    numbers = (1 + rng.permutation(NUMBERS)[:LIST]).tolist()
    return [0, *numbers, SORTED, *sorted(numbers)]


def _sort_pair(rng: np.random.Generator) -> TaskPair:
    """The next number of the sorted list; in the corrupted prompt that number was another one with the same rank."""
    while True:
        row = sort_row(rng)
        k = int(rng.integers(LIST))
        right = row[LIST + 2 + k]
        low = row[LIST + 1 + k] + 1 if k else 1
        high = row[LIST + 3 + k] if k < LIST - 1 else NUMBERS + 1
        others = [x for x in range(low, high) if x != right]
        if others:
            wrong, at = int(rng.choice(others)), row.index(right)
            clean = row[: LIST + 2 + k]
            corrupted = [*clean[:at], wrong, *clean[at + 1 :]]
            spans = spans_at({"answer": at, "last": len(clean) - 1})
            return TaskPair(tuple(clean), tuple(corrupted), (right,), (wrong,), spans, f"rank {k}")


HALF = 4
PALINDROME_WORDS = ("BOS", "a", "b", "end", "palindrome", "other")
P_END, P_YES, P_NO = 3, 4, 5


def _palindrome(rng: np.random.Generator) -> np.ndarray:
    half = rng.integers(1, 3, size=HALF)
    return np.concatenate([half, half[::-1]])


def palindrome_row(rng: np.random.Generator) -> list[int]:
    """BOS, eight letters, "end", the verdict: [11]. Half are palindromes; many others are wrong in one place."""
    letters = _palindrome(rng)
    yes = bool(rng.random() < 0.5)
    if not yes:
        places = rng.permutation(HALF)[: 1 if rng.random() < 0.4 else int(rng.integers(1, HALF + 1))]
        letters[places] = 3 - letters[places]
    return [0, *letters.tolist(), P_END, P_YES if yes else P_NO]


def _palindrome_pair(rng: np.random.Generator) -> TaskPair:
    """A palindrome and the same with one letter turned, either of them clean."""
    letters = _palindrome(rng)
    at = int(rng.integers(2 * HALF))
    broken = letters.copy()
    broken[at] = 3 - broken[at]
    yes, no = ((0, *x.tolist(), P_END) for x in (letters, broken))
    spans = spans_at({"turned": at + 1, "mirror": 2 * HALF - at, "last": 2 * HALF + 1})
    if rng.random() < 0.5:
        return TaskPair(yes, no, (P_YES,), (P_NO,), spans, "palindrome")
    return TaskPair(no, yes, (P_NO,), (P_YES,), spans, "other")


BRACKETS = 12
BRACKET_WORDS = ("BOS", "(", ")", "end", "balanced", "unbalanced")
OPEN, CLOSE, B_END, B_YES, B_NO = 1, 2, 3, 4, 5


def balanced(rng: np.random.Generator) -> list[int]:
    """Twelve brackets, balanced, drawn place by place."""
    row, level = [], 0
    for left in range(BRACKETS, 0, -1):
        up = level == 0 or (level < left and rng.random() < 0.5)
        level += 1 if up else -1
        row.append(OPEN if up else CLOSE)
    return row


def is_balanced(row: list[int]) -> bool:
    """Is every bracket closed after it was opened?

    >>> is_balanced([OPEN, CLOSE, CLOSE, OPEN])
    False
    """
    levels = np.cumsum([1 if t == OPEN else -1 for t in row])
    return bool(levels[-1] == 0 and levels.min() >= 0)


def bracket_row(rng: np.random.Generator) -> list[int]:
    """BOS, twelve brackets, "end", the verdict: [15]. Half are balanced; of the others half have as many of each kind."""
    row = balanced(rng)
    kind = rng.random()
    if kind > 0.5:
        at = rng.permutation(BRACKETS)[:2]
        if kind > 0.75:
            row[at[0]] = OPEN + CLOSE - row[at[0]]
        else:
            row = [row[i] for i in rng.permutation(BRACKETS)] if kind > 0.6 else exchanged(row, *at.tolist())
    return [0, *row, B_END, B_YES if is_balanced(row) else B_NO]


def _bracket_pair(rng: np.random.Generator) -> TaskPair:
    """Balanced brackets and the same with one turned, or with two exchanged so that one closes too early."""
    while True:
        row = balanced(rng)
        i, j = sorted(rng.permutation(BRACKETS)[:2].tolist())
        turned = rng.random() < 0.5
        other = [*row[:i], OPEN + CLOSE - row[i], *row[i + 1 :]] if turned else exchanged(row, i, j)
        if is_balanced(other):
            continue
        yes, no = ((0, *x, B_END) for x in (row, other))
        spans = spans_at({"changed": i + 1, "last": BRACKETS + 1})
        kind = "one turned" if turned else "two exchanged"
        if rng.random() < 0.5:
            return TaskPair(yes, no, (B_YES,), (B_NO,), spans, kind)
        return TaskPair(no, yes, (B_NO,), (B_YES,), spans, kind)


TOKENS, ROW = 48, 33
REPEAT_WORDS = ("BOS", *(f"t{i}" for i in range(1, TOKENS)))


def repeat_row(rng: np.random.Generator) -> list[int]:
    """BOS and a random sequence of 6 to 16 different tokens, again and again: [33]."""
    period = int(rng.integers(6, 17))
    verse = (1 + rng.permutation(TOKENS - 1)[:period]).tolist()
    return [0, *(verse * (ROW // period + 1))[: ROW - 1]]


def _repeat_pair(rng: np.random.Generator) -> TaskPair:
    """... A B ... C D ... A -> B; in the corrupted prompt A and C have changed places."""
    period = int(rng.integers(8, 15))
    verse = (1 + rng.permutation(TOKENS - 1)[:period]).tolist()
    while True:
        i, j = rng.permutation(period - 1)[:2].tolist()
        if abs(i - j) >= 2:
            break
    other = exchanged(verse, i, j)
    start = [0, *verse, *verse[: i + 1]]
    changed = [0, *other, *other[:i], verse[i]]
    spans = spans_at({"first": i + 1, "successor": i + 2, "other": j + 1, "last": len(start) - 1})
    return TaskPair(tuple(start), tuple(changed), (verse[i + 1],), (verse[j + 1],), spans, f"period {period}")


SORTING = Drawn(SORT_WORDS, _sort_pair)
PALINDROMES = Drawn(PALINDROME_WORDS, _palindrome_pair)
BALANCE = Drawn(BRACKET_WORDS, _bracket_pair)
REPEATS = Drawn(REPEAT_WORDS, _repeat_pair)
