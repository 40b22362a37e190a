"""What the pairs of a behaviour ask: what differs in each, how many different decisions that is, how far guessing comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.metrics import METRICS, Answers

if TYPE_CHECKING:
    from cutaway.behaviours.data import Behaviour, Ids

#: So many different decisions are looked at to count the independent ones: the rank of a larger matrix takes seconds.
_MOST = 512


def differing(clean: Ids, corrupted: Ids) -> tuple[Ids, Ids]:
    """The tokens in which a clean and a corrupted prompt differ, of each; of prompts of unequal length, what lies between
    their common beginning and their common end.

    >>> differing((1, 5, 3, 2), (1, 6, 3, 2)), differing((1, 5, 3, 2), (1, 6, 6, 3, 2))
    (((5,), (6,)), ((5,), (6, 6)))
    """
    if len(clean) == len(corrupted):
        pairs = [(a, b) for a, b in zip(clean, corrupted, strict=True) if a != b]
        return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    start, shorter = 0, min(len(clean), len(corrupted))
    while start < shorter and clean[start] == corrupted[start]:
        start += 1
    end = 0
    while end < shorter - start and clean[-1 - end] == corrupted[-1 - end]:
        end += 1
    return clean[start : len(clean) - end], corrupted[start : len(corrupted) - end]


def decisions(behaviour: Behaviour) -> tuple[int, ...]:
    """[n] the number of each example's decision: what differs between its prompts, and which answers it speaks for.

    Examples of one decision are no independent evidence: a network that answers by one token, whatever it makes of it,
    answers all of them alike, and their mirror images (prompts and answers exchanged) too.
    """
    numbers: dict[object, int] = {}
    keys = (
        frozenset({(clean, right), (corrupted, wrong)})
        for clean, corrupted, right, wrong in _asked(behaviour)
    )
    return tuple(numbers.setdefault(key, len(numbers)) for key in keys)


def independent(behaviour: Behaviour) -> int:
    """How many of the decisions do not follow from others in a network that adds up what each token says for each answer.

    It is the rank of a matrix with a row for each decision and a column for each (differing tokens, answers). Three pairs
    of one singular with three plurals, say, are three decisions; the plural's with a second singular adds one, and all
    further combinations add none.
    """
    columns: dict[object, int] = {}
    rows: set[frozenset[tuple[int, int]]] = set()
    for clean, corrupted, right, wrong in _asked(behaviour):
        row: Counter[int] = Counter()
        for tokens, side in ((clean, 1), (corrupted, -1)):
            for answers, sign in ((right, side), (wrong, -side)):
                if answers:
                    row[columns.setdefault((tokens, answers), len(columns))] += sign
        rows.add(frozenset(row.items()))
        if len(rows) == _MOST:
            break
    matrix = np.zeros((len(rows), len(columns)))
    for i, entries in enumerate(rows):
        for column, value in entries:
            matrix[i, column] = value
    return int(np.linalg.matrix_rank(matrix))


def _asked(behaviour: Behaviour) -> list[tuple[Ids, Ids, frozenset[int], frozenset[int]]]:
    prompts = zip(behaviour.clean_ids, behaviour.corrupted_ids, strict=True)
    answers = zip(behaviour.right, behaviour.wrong, strict=True)
    return [
        (*differing(clean, corrupted), frozenset(right), frozenset(wrong))
        for (clean, corrupted), (right, wrong) in zip(prompts, answers, strict=True)
    ]


def guessing(behaviour: Behaviour) -> float:
    """The share of clean prompts that a guess which ignores the prompt gets right, as far as the answers tell.

    It prefers the answers that are right more often than wrong in the *other* examples; where these say nothing it gets
    half, or none where there are no wrong answers to choose from. It is never below that half.
    """
    rows = list(zip(map(set, behaviour.right), map(set, behaviour.wrong), strict=True))
    chosen = all(wrong for _, wrong in rows)
    weight: Counter[int] = Counter()
    for right, wrong in rows:
        weight.update(right)
        weight.subtract(wrong)
    got = [_preferred(weight, *row) if chosen else _named(weight, row[0]) for row in rows]
    return max(0.5 if chosen else 0.0, sum(got) / len(got))


def _preferred(weight: Counter[int], right: Collection[int], wrong: Collection[int]) -> float:
    """Does a right answer weigh more than every wrong one, this example's own say left out? One half where they tie."""
    best = max(weight[token] - 1 for token in right) - max(weight[token] + 1 for token in wrong)
    return 0.5 if best == 0 else float(best > 0)


def _named(weight: Counter[int], right: Collection[int]) -> float:
    """Is the token that is right most often elsewhere right here, too?"""
    others = {token: count - (token in right) for token, count in weight.items()}
    top = max(others.values())
    return float(top > 0 and any(others[token] == top for token in right))


def margins(logits: Tensor, answers: Answers) -> Tensor:
    """The mean logit of the right answers above that of the wrong ones, in spreads of the logits over the vocabulary: [n].

    logits [n v]. Without wrong answers, above the mean of all tokens. The spread is the standard deviation of a row's
    logits: so it does not depend on how large a network's logits are. 0 where all logits are equal.
    """
    x = logits if logits.dtype == torch.float64 else logits.float()
    real = torch.isfinite(x)
    count = real.sum(1)
    mean = x.masked_fill(~real, 0.0).sum(1) / count
    spread = ((x - mean[:, None]).masked_fill(~real, 0.0).square().sum(1) / count).sqrt()
    if answers.wrong.shape[1] and bool(answers.wrong_mask.any(1).all()):
        above = METRICS["logit_diff"](logits, answers)
    else:
        a = answers.to(x.device)
        above = x.gather(1, a.right).masked_fill(~a.right_mask, 0.0).sum(1) / a.right_mask.sum(1) - mean
    return torch.where(spread > 0, above / spread, torch.zeros_like(above))


def among_all(logits: Tensor, answers: Answers) -> tuple[float, float, int]:
    """Median rank of the best right answer, mean probability of all right ones, how often the likeliest token is one."""
    a = answers.to(logits.device)
    right = logits.gather(1, a.right)
    best = right.masked_fill(~a.right_mask, -torch.inf).amax(1)
    above = (logits > best[:, None]).sum(1)
    told = logits.float().log_softmax(-1).gather(1, a.right).exp().masked_fill(~a.right_mask, 0.0).sum(1)
    return float((above + 1).float().median()), float(told.mean()), int((above == 0).sum())


def held_fixed(behaviour: Behaviour) -> str:
    """What the pairs vary and what they hold fixed, as a sentence; "" for inputs that are not made of tokens."""
    if behaviour.items is not None:
        return ""
    if not behaviour.aligned:
        return "The prompts of a pair differ in length."
    places = [_places(*ids) for ids in zip(behaviour.clean_ids, behaviour.corrupted_ids, strict=True)]
    counts = sorted(map(len, places))
    several = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    lengths = sorted(behaviour.lengths)
    of = str(lengths[0]) if lengths[0] == lengths[-1] else f"{lengths[0]} to {lengths[-1]}"
    where = _named_places(behaviour, places)
    if counts == lengths:
        return "The prompts of a pair differ in every token."
    return (
        f"The prompts of a pair differ in {several} of {of} tokens{where} and are alike in all others: what reads only "
        "those is not found."
    )


def _places(clean: Ids, corrupted: Ids) -> tuple[int, ...]:
    return tuple(i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)


def _named_places(behaviour: Behaviour, places: Sequence[tuple[int, ...]]) -> str:
    """Where they differ, where that can be said for all of them: by the name of a span, or by position."""
    for name, column in behaviour.spans.items():
        if all(set(at) <= set(range(*span)) for at, span in zip(places, column, strict=True)):
            return f" (“{name}”)"
    if len(set(places)) == 1 and len(places[0]) <= 4:
        return f" (position {', '.join(map(str, places[0]))})"
    return ""
