"""Training with checkpoints: the same weights whether it was stopped on the way or not."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from cutaway.recipes.workshop import Workshop

#: The loss of a step; everything random about it comes from the step's number.
Loss = Callable[[nn.Module, int], Tensor]


@dataclass(frozen=True)
class Schedule:
    """AdamW: a rise, a plateau, and a fall to zero over the last part. Only matrices decay."""

    steps: int
    rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 50
    fall: float = 0.3
    betas: tuple[float, float] = (0.9, 0.98)

    def at(self, step: int) -> float:
        """The learning rate of a step."""
        rise = min(1.0, (step + 1) / self.warmup)
        start = self.steps * (1 - self.fall)
        down = (
            1.0
            if step < start
            else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, self.steps - start)))
        )
        return self.rate * rise * down


def train(
    model: nn.Module,
    loss: Loss,
    schedule: Schedule,
    shop: Workshop,
    name: str,
    keep: Mapping[int, str] | None = None,
    every: float = 20.0,
) -> dict[str, nn.Module]:
    """Train in place, or go on from the checkpoint `name`; a checkpoint is kept every so many seconds.

    keep: steps at which a copy of the model is taken, with its label; returns the copies by label.
    """
    keep = keep or {}
    moving = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in moving if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in moving if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.rate, betas=schedule.betas, fused=True)
    copies: dict[str, dict[str, Tensor]] = {}
    step = 0
    state = shop.load(name)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, copies = state["step"], state["copies"]
    saved = time.monotonic()
    model.train()
    while step < schedule.steps:
        if step in keep:
            copies[keep[step]] = {k: v.detach().clone() for k, v in model.state_dict().items()}
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        value = loss(model, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        step += 1
        if step % 10 == 0:
            shop.work.step(f"{name}: loss {value.item():.4f}", step, schedule.steps)
        if step == schedule.steps or time.monotonic() - saved > every:
            shop.save(name, _state(model, optimizer, step, copies))
            saved = time.monotonic()
    model.eval()
    return {label: _restored(model, weights) for label, weights in copies.items()}


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, copies: Any) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "copies": copies}


def _restored(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    other = copy.deepcopy(model)
    other.load_state_dict(weights)
    return other.eval()
