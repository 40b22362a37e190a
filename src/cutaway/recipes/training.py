"""The one training loop: the same weights, bit for bit, whether a run was stopped on the way or not.

Everything random about a step comes from the step's number, so that a run that goes on from its checkpoint sees what it
would have seen.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import BadInput, Stopped
from cutaway.recipes.workshop import Workshop

#: The loss of a step.
Loss = Callable[[nn.Module, int], Tensor]


@dataclass(frozen=True)
class Schedule:
    """AdamW: the learning rate rises, stays, and falls along half a cosine.

    Attributes:
        steps: of the whole run.
        rate: the learning rate on the plateau.
        weight_decay: of matrices, and of vectors where `all_decay`.
        warmup: steps of the rise.
        fall: the share of the run in which the rate falls.
        betas: of AdamW.
        lowest: the rate does not fall below this share of the plateau.
        eps: of AdamW.
        all_decay: do vectors (norms, biases) decay, too?
        clip: the largest norm of the gradient; None does not clip.
        fused: which implementation of AdamW; the two differ in the last digits, so a specimen keeps its own.
    """

    steps: int
    rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 50
    fall: float = 0.3
    betas: tuple[float, float] = (0.9, 0.98)
    lowest: float = 0.0
    eps: float = 1e-8
    all_decay: bool = False
    clip: float | None = None
    fused: bool = True

    def at(self, step: int) -> float:
        """The learning rate of a step."""
        rise = min(1.0, (step + 1) / self.warmup)
        start = self.steps * (1 - self.fall)
        down = 1.0
        if step >= start:
            down = 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, self.steps - start)))
        return self.rate * rise * max(self.lowest, down)

    def optimizer(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW over what is to be trained."""
        moving = [p for p in model.parameters() if p.requires_grad]
        decaying = [p for p in moving if self.all_decay or p.ndim > 1]
        groups: list[dict[str, Any]] = [{"params": decaying, "weight_decay": self.weight_decay}]
        if not self.all_decay:
            groups.append({"params": [p for p in moving if p.ndim < 2], "weight_decay": 0.0})
        fused = self.fused or None
        return torch.optim.AdamW(groups, lr=self.rate, betas=self.betas, eps=self.eps, fused=fused)


@dataclass(frozen=True)
class Rhythm:
    """How often a run does what is beside the training.

    Attributes:
        tell: steps between reports of progress.
        save_steps: steps between checkpoints; None goes by the clock alone.
        save_seconds: seconds between checkpoints; None goes by the steps alone.
    """

    tell: int = 10
    save_steps: int | None = None
    save_seconds: float | None = 20.0

    def due(self, step: int, seconds: float) -> bool:
        """Is a checkpoint to be kept at this step, so long after the last one?"""
        by_steps = self.save_steps is not None and step % self.save_steps == 0
        return by_steps or (self.save_seconds is not None and seconds > self.save_seconds)


@dataclass
class TrainingRun:
    """A run as it stands. `begun` gives one, `train` carries it on.

    Attributes:
        model: trained in place.
        schedule: of the learning rate.
        shop: takes progress and keeps checkpoints.
        name: of the checkpoint.
        settings: what decides the weights; a checkpoint of other settings is refused. "" does not compare.
        optimizer: with its state.
        step: steps done.
        seconds: spent in training, over all sittings.
        log: lines for the specimen's folder.
        notes: what the loss carries from step to step.
        copies: weights as they were at steps worth keeping, by label.
    """

    model: Any
    schedule: Schedule
    shop: Workshop
    name: str
    settings: str
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    copies: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def copy(self, label: str) -> Any:
        """A network with the weights that were kept under a label."""
        other = copy.deepcopy(self.model)
        other.load_state_dict(self.copies[label])
        return other.eval()

    def save(self) -> None:
        """Keep a checkpoint of everything but the network's class."""
        kept = ("step", "seconds", "log", "copies")
        state: dict[str, Any] = {name: getattr(self, name) for name in kept} | self.notes
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.shop.save(self.name, state | {"training": self.settings})


def begun(
    model: Any,
    schedule: Schedule,
    shop: Workshop,
    name: str,
    *,
    settings: str = "",
    notes: dict[str, Any] | None = None,
) -> TrainingRun:
    """A new run with these notes, or the one of the checkpoint `name` in the shop.

    Raises BadInput where the checkpoint is of other settings, CorruptFile where it cannot be read.
    """
    run = TrainingRun(model, schedule, shop, name, settings, schedule.optimizer(model), notes=notes or {})
    saved = shop.load(name)
    if saved is None:
        return run
    if settings and saved.get("training") != settings:
        raise BadInput(
            f"The checkpoint {name!r} is of another run.", "Choose another folder for the work, or remove it."
        )
    model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    run.step, run.seconds = int(saved["step"]), float(saved.get("seconds", 0.0))
    run.log, run.copies = list(saved.get("log", ())), dict(saved.get("copies", {}))
    run.notes = {key: saved[key] for key in run.notes}
    return run


def train(
    run: TrainingRun,
    loss: Loss,
    *,
    rhythm: Rhythm = Rhythm(),
    keep: Mapping[int, str] | None = None,
    tell: Callable[[TrainingRun, float], str] | None = None,
    stop_at: int | None = None,
) -> TrainingRun:
    """Train, from where the run stands to its end.

    Args:
        run: as `begun` gives it.
        loss: of a step; called with the network and the step's number.
        rhythm: how often progress is told and checkpoints are kept.
        keep: steps at which a copy of the weights is taken, with its label.
        tell: gives the label of a report, from the run and its last loss; may write to the run's log.
        stop_at: ends the sitting early, with a checkpoint.

    Raises:
        Stopped: when the shop's work was asked to end; a checkpoint is kept before.
        SaveFailed: on a full disk; the last checkpoint is then as it was.
    """
    keep, steps = keep or {}, run.schedule.steps
    end = min(steps, stop_at or steps)
    clock = saved = time.monotonic()
    before = run.seconds
    run.model.train()
    try:
        while run.step < end:
            if run.step in keep:
                weights = run.model.state_dict()
                run.copies[keep[run.step]] = {k: v.detach().clone() for k, v in weights.items()}
            value = _one_step(run, loss)
            run.seconds = before + time.monotonic() - clock
            if run.step % rhythm.tell == 0 or run.step == steps:
                label = tell(run, float(value)) if tell else f"{run.name}: loss {float(value):.4f}"
                run.shop.work.step(label, run.step, steps)
            if run.step == end or rhythm.due(run.step, time.monotonic() - saved):
                run.save()
                saved = time.monotonic()
    except Stopped:
        run.save()
        raise
    run.model.eval()
    return run


def _one_step(run: TrainingRun, loss: Loss) -> Tensor:
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.at(run.step)
    value = loss(run.model, run.step)
    run.optimizer.zero_grad()
    value.backward()
    if run.schedule.clip is not None:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.schedule.clip)
    run.optimizer.step()
    run.step += 1
    return value.detach()
