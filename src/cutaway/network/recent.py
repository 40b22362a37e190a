"""What was computed of a network last, up to so many bytes: the logits of a behaviour's prompts, the sites kept of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from torch import Tensor

from cutaway.network.face import Face
from cutaway.network.memory import budget_bytes

T = TypeVar("T")

#: Names the logits at the answer position of prompts: (LOGITS, token ids of all prompts, answer positions).
LOGITS = "answer logits"
#: Share of the memory budget that is held from one question to the next.
_SHARE = 1 / 8


class Recent:
    """Tensors by key; where they take more than `most` bytes, those that were asked for longest ago make room.

    Nobody may write into what it gives.

    >>> import torch
    >>> recent = Recent(12)
    >>> recent.keep("one", torch.zeros(1))
    >>> recent.keep("two", torch.zeros(2))
    >>> recent.get("one") is not None  # now "two" was asked for longest ago
    True
    >>> recent.keep("three", torch.zeros(1))
    >>> recent.get("two") is None
    True
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self._kept: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable) -> Tensor | None:
        """The tensor of that key; None where it is not there (any more)."""
        value = self._kept.pop(key, None)
        if value is not None:
            self._kept[key] = value
        return value

    def keep(self, key: Hashable, value: Tensor) -> None:
        """Keep a tensor, unless it alone is too large."""
        self.bytes -= _size(self._kept.pop(key, None))
        if _size(value) > self.most:
            return
        self._kept[key] = value
        self.bytes += _size(value)
        while self.bytes > self.most:
            self.bytes -= _size(self._kept.pop(next(iter(self._kept))))


def _size(value: Tensor | None) -> int:
    return 0 if value is None else value.numel() * value.element_size()


def recent(net: Face) -> Recent:
    """What was computed of this network last: a fact, so empty where edits stand, and once weights have changed."""
    return net.fact("recent", lambda: Recent(int(_SHARE * budget_bytes(net))))
