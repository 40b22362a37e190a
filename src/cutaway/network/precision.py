"""Precision: values in at least single precision, and whether two of them agree."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(value: Tensor) -> Tensor:
    """A value in at least single precision."""
    return value if value.dtype == torch.float64 else value.float()


def agrees(got: Tensor, wanted: Tensor, tolerance: float) -> bool:
    """Whether no entry is farther from what is wanted than a tolerance of the largest of these."""
    return float((got - wanted).abs().max()) <= tolerance * float(wanted.abs().max().clamp(min=1e-12))
