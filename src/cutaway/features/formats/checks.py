"""What every reader of a format asks of a file: one definition each, for readers of one place and of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def whole_of(value: Any) -> int | None:
    """A whole number of at least one, such as 64, 64.0 or a tensor of it; None for anything else.

    >>> whole_of(64.0), whole_of(torch.tensor(3)), whole_of(True), whole_of(float("inf")), whole_of(0)
    (64, 3, None, None, None)
    """
    number = value.item() if torch.is_tensor(value) and value.numel() == 1 else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not float(number).is_integer():
        return None
    return int(number) if number >= 1 else None


def left_over(config: Mapping[str, Any], understood: Iterable[str]) -> list[str]:
    """Settings of a configuration that nobody here understands, in order.

    >>> left_over({"k": 4, "seed": 1, "lr": 0.1}, ["k"])
    ['lr', 'seed']
    """
    return sorted(str(key) for key in set(config) - set(understood))


def types_of(tensors: Iterable[Tensor | None]) -> list[str]:
    """Names of the types of tensors, in order.

    >>> types_of([torch.ones(1), None, torch.ones(1).half(), torch.ones(2)])
    ['float16', 'float32']
    """
    return sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t is not None})


def wider(*tensors: Tensor) -> torch.dtype:
    """In what type to compute with these: the widest of them, and at least single precision."""
    found = torch.float32
    for tensor in tensors:
        found = torch.promote_types(found, tensor.dtype)
    return found
