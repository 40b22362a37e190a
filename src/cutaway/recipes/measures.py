"""How often a bare model of transformers answers pairs right: for the cards, without any instrument."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.statistics import proportion
from cutaway.zoo.tasks import TaskPair

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def last_logits(model: PreTrainedModel, rows: Sequence[Sequence[int]], at: Sequence[int]) -> Tensor:
    """[n v] logits of each row at its position, rows of equal length run together."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[len(row)].append(i)
    by_row: dict[int, Tensor] = {}
    with torch.no_grad():
        for length, members in groups.items():
            for start in range(0, len(members), 512):
                some = members[start : start + 512]
                ids = torch.tensor([list(rows[i]) for i in some])
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
                by_row |= {i: logits[j, at[i] % length] for j, i in enumerate(some)}
    return torch.stack([by_row[i] for i in range(len(rows))]).float()


def accuracy(model: PreTrainedModel, pairs: Sequence[TaskPair]) -> dict[str, Any]:
    """Share of clean prompts whose likeliest token is a right answer, with its Wilson interval."""
    best = last_logits(model, [p.clean for p in pairs], [p.answer_pos for p in pairs]).argmax(-1).tolist()
    hits = sum(token in pair.right for token, pair in zip(best, pairs, strict=True))
    share, low, high = share_of(hits, len(pairs))
    return {"n": len(pairs), "top1": share, "low": round(low, 4), "high": round(high, 4)}


def share_of(hits: int, n: int) -> tuple[float, float, float]:
    """A share with the two ends of its Wilson interval."""
    share = proportion(hits, n)
    return share.value, *share.ends(share.value)


def exchanged(row: list[int], i: int, j: int) -> list[int]:
    """A row of tokens with those at two places exchanged.

    >>> exchanged([5, 6, 7], 0, 2)
    [7, 6, 5]
    """
    other = list(row)
    other[i], other[j] = other[j], other[i]
    return other
