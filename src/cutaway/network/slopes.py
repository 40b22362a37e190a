"""Gradients of a number with respect to kept sites: what attribution patching and everything like it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from cutaway.errors import BadBehaviour, NotFinite
from cutaway.network.run import Run
from cutaway.network.sites import Site

P = TypeVar("P", str, Site)


@contextmanager
def without_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """While active no parameter asks for a gradient, so that a backward pass keeps and computes only what is needed."""
    asking = [p for p in model.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def slopes_of(values: Tensor, run: Run, where: Sequence[P], again: bool = False) -> dict[P, Tensor]:
    """The gradient of the sum of some values at places of a run; zero where they do not depend on it.

    again: a further backward pass will follow.
    """
    slopes = torch.autograd.grad(values.sum(), [run[p] for p in where], allow_unused=True, retain_graph=again)
    return {p: torch.zeros_like(run[p]) if g is None else g for p, g in zip(where, slopes, strict=True)}


def require_slope(slopes: Mapping[P, Tensor]) -> None:
    """Raise `BadBehaviour` where all gradients are zero, `NotFinite` where one is NaN or infinite."""
    if not any(bool(g.any()) for g in slopes.values()):
        raise independent()
    for place, slope in slopes.items():
        if not bool(torch.isfinite(slope).all()):
            raise NotFinite(
                f"The gradient at {place} is NaN or infinite.", "Use a wider dtype, such as float32."
            )


def independent() -> BadBehaviour:
    """The error that says that a metric has no gradient."""
    return BadBehaviour(
        "The metric does not depend on the network: its gradient is zero everywhere.",
        "Use a metric of the logits that has a slope, such as logit_diff (accuracy has none).",
    )
