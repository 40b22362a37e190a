"""Weights of a sum: a number, or a vector over the width where a scale is learned per channel."""

from __future__ import annotations

import torch
from torch import Tensor

Coefficient = float | Tensor


def like(c: Coefficient, tensor: Tensor) -> Coefficient:
    """A weight on the device and in the type of a tensor."""
    return c.to(tensor) if isinstance(c, Tensor) else c


def times(c: Coefficient, tensor: Tensor) -> Tensor:
    """A tensor times a weight; the tensor itself where the weight is one."""
    return tensor if is_one(c) else tensor * like(c, tensor)


def is_one(c: Coefficient) -> bool:
    """Whether a weight is exactly one everywhere."""
    return bool(torch.all(c == 1)) if isinstance(c, Tensor) else c == 1.0
