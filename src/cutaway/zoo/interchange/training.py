"""The training run: steps by number (so that a resumed run sees what it would have seen), checkpoints, a log."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from cutaway.errors import BadInput, CorruptFile
from cutaway.results import atomic_write

from ..algorithms import Algorithm, algorithm
from .exam import Marks, examine
from .losses import Losses, Weights, right_loss, step_losses
from .parts import ARCHITECTURES, Shape, build, run
from .plans import Layout

Kind = Literal["stated", "free", "shuffled"]
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    `kind`: "stated" trains the causal model into its places; "free" trains the task alone; "shuffled" trains on the
    answers of other prompts. `settle` is the factor on the sameness loss in the second half of the run.
    """

    task: str
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
                f"There is no recipe for the architecture {self.architecture!r}.", f"Use one of {', '.join(ARCHITECTURES)}."
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step: a rise, a plateau to the middle, a half cosine down to a fiftieth."""
        rise = min(1.0, (step + 1) / self.warmup)
        done = max(0.0, 2 * step / self.steps - 1)
        return self.learning_rate * rise * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))

    def seated(self) -> Algorithm:
        """The task with its variables in the places that the seed gives them."""
        return algorithm(self.task).seated(self.seed, self.heads)

    def shape(self) -> Shape:
        """The shape of the network."""
        of = algorithm(self.task)
        return Shape(
            self.architecture, len(of.vocabulary), of.layers, self.width, self.heads, self.mlp, context=of.length
        )


@dataclass
class State:
    """A run as it stands: where it is, the seconds spent, and the running interchange loss of each variable.

    Variables that are behind are exchanged more often.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    step: int
    seconds: float
    behind: dict[str, float]

    def shares(self) -> np.ndarray:
        """How often each variable is exchanged: half evenly, half by how far it is behind; adds to one."""
        loss = np.array(list(self.behind.values()))
        return 0.5 / len(loss) + 0.5 * loss / loss.sum()


@dataclass(frozen=True)
class Trained:
    """A run's result: the network, how far it came, and the seconds in training over all sittings."""

    model: PreTrainedModel
    steps: int
    seconds: float


def train(
    recipe: Recipe,
    work: Path,
    *,
    save_every: int = 250,
    stop_at: int | None = None,
    report: Callable[[str], None] = print,
) -> Trained:
    """Train a recipe, or go on from the checkpoint in `work`; `stop_at` ends the sitting early, with a checkpoint.

    Raises BadInput when the checkpoint is of another recipe, CorruptFile when it cannot be read, SaveFailed when
    the disk is full (the last checkpoint is then as it was).
    """
    layout = Layout(recipe.seated(), recipe.heads)
    state = _begun(recipe, work, layout)
    if state.step:
        report(f"{recipe.task}: goes on at step {state.step}")
    clock, end = time.monotonic() - state.seconds, min(recipe.steps, stop_at or recipe.steps)
    try:
        while state.step < end:
            losses = _one_step(recipe, layout, state)
            state.seconds = time.monotonic() - clock
            if state.step % 100 == 0 or state.step == end:
                _note(work, state, losses)
                left = state.seconds / state.step * (recipe.steps - state.step)
                head = f"{recipe.task} {recipe.kind}: step {state.step}/{recipe.steps}"
                report(f"{head}  {_words(losses)}  {left:.0f} s left")
            if state.step % save_every == 0 or state.step == end:
                _save(recipe, work, state)
    except KeyboardInterrupt:
        _save(recipe, work, state)
        raise
    return Trained(state.model.eval(), state.step, state.seconds)


def marks(recipe: Recipe, model: PreTrainedModel, n: int = 1024) -> Marks:
    """The network's examination against the causal model that its recipe states."""
    return examine(model, Layout(recipe.seated(), recipe.heads), n)


def _one_step(recipe: Recipe, layout: Layout, state: State) -> Losses:
    rng = np.random.default_rng([recipe.seed, state.step])
    ids = layout.algorithm.draw(rng, recipe.rows)
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate(state.step)
    state.model.train()
    losses = _stated(recipe, layout, state, ids, rng) if recipe.kind == "stated" else _plain(recipe, layout, state, ids, rng)
    state.optimizer.zero_grad()
    losses.total.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    for name, loss in losses.by_variable.items():
        state.behind[name] = 0.95 * state.behind[name] + 0.05 * loss
    state.step += 1
    return losses


def _stated(recipe: Recipe, layout: Layout, state: State, ids: np.ndarray, rng: np.random.Generator) -> Losses:
    late = recipe.settle if state.step >= recipe.steps // 2 else 1.0
    weights = replace(recipe.weights, same=recipe.weights.same * late)
    return step_losses(state.model, layout, ids, rng, state.shares(), weights)


def _plain(recipe: Recipe, layout: Layout, state: State, ids: np.ndarray, rng: np.random.Generator) -> Losses:
    right = layout.algorithm.answers(ids)
    if recipe.kind == "shuffled":
        right = right[rng.permutation(len(ids))]
    logits, _ = run(state.model, torch.from_numpy(ids), recipe.heads)
    loss = right_loss(logits, torch.from_numpy(right)).mean()
    return Losses(loss, float(loss.detach()))


def _words(losses: Losses) -> str:
    names = ("task", "interchange", "strict", "same")
    return "  ".join(f"{name} {getattr(losses, name):.4f}" for name in names)


def _note(work: Path, state: State, losses: Losses) -> None:
    """A line of the log; a resumed run drops the lines beyond its checkpoint."""
    path = work / LOG
    lines = path.read_text().splitlines() if path.is_file() else []
    kept = [line for line in lines if json.loads(line)["step"] < state.step]
    figures = {name: round(getattr(losses, name), 6) for name in ("task", "interchange", "strict", "same")}
    kept.append(json.dumps({"step": state.step, "seconds": round(state.seconds, 1), **figures}))
    atomic_write(path, "\n".join(kept) + "\n")


def _save(recipe: Recipe, work: Path, state: State) -> None:
    content = {
        "recipe": json.dumps(asdict(recipe)),
        "step": state.step,
        "seconds": state.seconds,
        "behind": state.behind,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write(work / CHECKPOINT, buffer.getvalue())


def _begun(recipe: Recipe, work: Path, layout: Layout) -> State:
    """A new run, or the one of the checkpoint in `work`."""
    model = build(recipe.shape(), recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    state = State(model, optimizer, 0, 0.0, dict.fromkeys(layout.variables, 1.0))
    path = work / CHECKPOINT
    if not path.is_file():
        return state
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        same = saved["recipe"] == json.dumps(asdict(recipe))
    except Exception as error:  # torch raises many kinds on a file that is no checkpoint
        raise CorruptFile(f"{path} cannot be read: {error}.", "Remove it; the run then begins anew.") from error
    if not same:
        raise BadInput(f"{path} belongs to another recipe.", "Choose another folder for the work, or remove it.")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    state.step, state.seconds, state.behind = int(saved["step"]), float(saved["seconds"]), dict(saved["behind"])
    return state
