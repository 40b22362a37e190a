"""Small fits that have no closed form: all parameters at once, by L-BFGS on all examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def minimise(objective: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int) -> float:
    """Minimise in place; gives the objective reached."""
    how = {"max_iter": steps, "tolerance_grad": 1e-6, "tolerance_change": 1e-10, "history_size": 20}
    optimiser = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **how)

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective()
        for parameter, slope in zip(parameters, torch.autograd.grad(value, list(parameters)), strict=True):
            parameter.grad = slope
        return value

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        return float(objective())
