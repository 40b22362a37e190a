"""The training run: steps by number (so that a resumed run sees what it would have seen), checkpoints, a log."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from cutaway.errors import BadInput, Stopped

from ..algorithms import Algorithm, algorithm
from ..workshop import Workshop
from .losses import Losses, Weights, right_loss, step_losses
from .parts import ARCHITECTURES, Shape, build, run
from .plans import Layout

Kind = Literal["stated", "free", "shuffled"]
SAVE_EVERY, LOG_EVERY = 250, 50


@dataclass(frozen=True)
class Training:
    """Everything that decides the weights of one network.

    `kind`: "stated" trains the causal model into its places; "free" trains the task alone; "shuffled" trains on the
    answers of other prompts. `settle` is the factor on the sameness loss in the second half of the run.
    """

    algorithm: str
    architecture: str = "gpt2"
    seed: int = 0
    kind: Kind = "stated"
    width: int = 48
    heads: int = 4
    mlp: int = 96
    rows: int = 64
    steps: int = 1_500
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.02
    settle: float = 10.0
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise BadInput(
                f"There is no recipe for the architecture {self.architecture!r}.",
                f"Use one of {', '.join(ARCHITECTURES)}.",
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step: a rise, a plateau to the middle, a half cosine down to a fiftieth."""
        rise = min(1.0, (step + 1) / self.warmup)
        done = max(0.0, 2 * step / self.steps - 1)
        return self.learning_rate * rise * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))

    def seated(self) -> Algorithm:
        """The algorithm with its variables in the places that the seed gives them."""
        return algorithm(self.algorithm).seated(self.seed, self.heads)

    def shape(self) -> Shape:
        """The shape of the network."""
        of = self.seated()
        return Shape(
            self.architecture,
            len(of.vocabulary),
            of.layers,
            self.width,
            self.heads,
            self.mlp,
            context=of.length,
        )


@dataclass
class State:
    """A run as it stands: the seconds spent, the running interchange loss of each variable, the log.

    Variables that are behind are exchanged more often.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    step: int
    seconds: float
    behind: dict[str, float]
    log: list[dict[str, float]] = field(default_factory=list)

    def shares(self) -> np.ndarray:
        """How often each variable is exchanged: half evenly, half by how far it is behind; adds to one."""
        loss = np.array(list(self.behind.values()))
        return 0.5 / len(loss) + 0.5 * loss / loss.sum()


def train(recipe: Training, shop: Workshop, stop_at: int | None = None) -> State:
    """Train a network, or go on from its checkpoint in the shop; `stop_at` ends the sitting early, with a checkpoint.

    Raises BadInput when the checkpoint is of other settings; whatever the shop raises passes through (CorruptFile,
    SaveFailed on a full disk: the last checkpoint is then as it was).
    """
    layout = Layout(recipe.seated(), recipe.heads)
    state = _begun(recipe, shop, layout)
    clock, end = time.monotonic() - state.seconds, min(recipe.steps, stop_at or recipe.steps)
    try:
        while state.step < end:
            losses = _one_step(recipe, layout, state)
            state.seconds = time.monotonic() - clock
            if state.step % LOG_EVERY == 0 or state.step == recipe.steps:
                state.log.append(_line(state, losses))
                shop.work.step(
                    f"{recipe.algorithm} {recipe.kind}: {_words(losses)}", state.step, recipe.steps
                )
            if state.step % SAVE_EVERY == 0 or state.step == end:
                _save(recipe, shop, state)
    except Stopped:
        _save(recipe, shop, state)
        raise
    state.model.eval()
    return state


def _one_step(recipe: Training, layout: Layout, state: State) -> Losses:
    rng = np.random.default_rng([recipe.seed, state.step])
    ids = layout.algorithm.draw(rng, recipe.rows)
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate(state.step)
    state.model.train()
    losses = (
        _stated(recipe, layout, state, ids, rng)
        if recipe.kind == "stated"
        else _plain(recipe, layout, state, ids, rng)
    )
    state.optimizer.zero_grad()
    losses.total.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    for name, loss in losses.by_variable.items():
        state.behind[name] = 0.95 * state.behind[name] + 0.05 * loss
    state.step += 1
    return losses


def _stated(
    recipe: Training, layout: Layout, state: State, ids: np.ndarray, rng: np.random.Generator
) -> Losses:
    late = state.step >= recipe.steps // 2
    weights = replace(recipe.weights, same=recipe.weights.same * (recipe.settle if late else 1.0))
    return step_losses(state.model, layout, ids, rng, state.shares(), weights)


def _plain(
    recipe: Training, layout: Layout, state: State, ids: np.ndarray, rng: np.random.Generator
) -> Losses:
    right = layout.algorithm.answers(ids)
    if recipe.kind == "shuffled":
        right = right[rng.permutation(len(ids))]
    logits, _ = run(state.model, torch.from_numpy(ids), recipe.heads)
    loss = right_loss(logits, torch.from_numpy(right)).mean()
    return Losses(loss, float(loss.detach()))


def _line(state: State, losses: Losses) -> dict[str, float]:
    figures = {name: round(getattr(losses, name), 6) for name in ("task", "interchange", "strict", "same")}
    return {"step": state.step, "seconds": round(state.seconds, 1), **figures}


def _words(losses: Losses) -> str:
    return f"loss {losses.task:.3f}, exchanged {losses.interchange:.3f}, outside {losses.strict:.3f}"


def _save(recipe: Training, shop: Workshop, state: State) -> None:
    content = {
        "training": json.dumps(asdict(recipe)),
        "step": state.step,
        "seconds": state.seconds,
        "behind": state.behind,
        "log": state.log,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    shop.save(recipe.kind, content)


def _begun(recipe: Training, shop: Workshop, layout: Layout) -> State:
    """A new run, or the one of the checkpoint in the shop."""
    model = build(recipe.shape(), recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    state = State(model, optimizer, 0, 0.0, dict.fromkeys(layout.variables, 1.0))
    saved = shop.load(recipe.kind)
    if saved is None:
        return state
    if saved.get("training") != json.dumps(asdict(recipe)):
        raise BadInput(
            f"The checkpoint {recipe.kind!r} is of another run of {recipe.algorithm}.",
            "Choose another folder for the work, or remove it.",
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    state.step, state.seconds = int(saved["step"]), float(saved["seconds"])
    state.behind, state.log = dict(saved["behind"]), list(saved["log"])
    return state
