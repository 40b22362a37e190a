"""Bytes of the tensors that a call takes at once, counted as they come and go; and those of many rows, told from a few."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Allocations(TorchDispatchMode):
    """Bytes of the tensors that are made and alive, as they come and go; `peak` is the most there was at once.

    What was there before (weights, kept sites) and is only looked at does not count, nor do views of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self.seen: set[int] = set()
        self.before: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for item in tree_leaves((args, kwargs or {})):
            if isinstance(item, Tensor):
                self._pass_over(item)
        out = func(*args, **(kwargs or {}))
        for item in tree_leaves(out):
            if isinstance(item, Tensor):
                self._note(item)
        return out

    def _pass_over(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.seen and key not in self.before:
            self.before.add(key)
            weakref.finalize(storage, self.before.discard, key)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen or key in self.before:
            return
        size = storage.nbytes()
        self.seen.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        if key in self.seen:
            self.seen.discard(key)
            self.alive -= size


def peak_bytes(function: Callable[[], object]) -> int:
    """The most memory that the tensors made by a call take at once, in bytes.

    >>> import torch
    >>> peak_bytes(lambda: torch.ones(1000) + 1) >= 4000
    True
    """
    with _Allocations() as watched:
        function()
    return watched.peak


#: Rows of the larger of two pieces by which the memory of many is told.
_FEW = 3


def peak_of_rows(piece: Callable[[int], object], rows: int) -> int:
    """The bytes that so many rows take at once, told from one row and from three.

    piece: works on so many rows, as the whole does.

    >>> import torch
    >>> peak_of_rows(lambda rows: torch.ones(rows, 1000) + torch.ones(1000), 100)
    804000
    """
    if rows <= _FEW:
        return peak_bytes(lambda: piece(rows))
    one, few = (peak_bytes(lambda rows=rows: piece(rows)) for rows in (1, _FEW))
    return int(one + max(0, few - one) / (_FEW - 1) * (rows - 1))
