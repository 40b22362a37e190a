"""The training run of a network that is to run an algorithm: what its schedule and the loss of a step are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.recipes.training import Rhythm, Schedule, TrainingRun, begun
from cutaway.recipes.training import train as carry_on
from cutaway.recipes.workshop import Workshop

from ..algorithms import TaskAlgorithm, algorithm
from .exchanges import opened, run
from .losses import Losses, LossWeights, right_loss, step_losses
from .networks import ARCHITECTURES, NetworkShape, build
from .plans import Seating

Kind = Literal["stated", "free", "shuffled"]
RHYTHM = Rhythm(tell=50, save_steps=250, save_seconds=None)


@dataclass(frozen=True)
class InterchangeTraining:
    """Everything that decides the weights of one network.

    Attributes:
        algorithm: by its name.
        architecture: "gpt2" or "llama".
        seed: of weights, prompts and seats.
        kind: "stated" trains the causal model into its places; "free" trains the task alone; "shuffled" trains on
            the answers of other prompts.
        width: of the stream.
        heads: in a layer.
        mlp: neurons in a layer.
        rows: prompts in a step.
        steps: of the run.
        learning_rate: on the plateau.
        warmup: steps of the rise.
        weight_decay: of everything.
        settle: the factor on the sameness loss in the second half of the run.
        weights: how much each kind of row counts.
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
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise BadInput(
                f"There is no recipe for the architecture {self.architecture!r}.",
                f"Use one of {', '.join(ARCHITECTURES)}.",
            )

    def schedule(self) -> Schedule:
        """A rise, a plateau to the middle, a half cosine down to a fiftieth; everything decays."""
        return Schedule(
            self.steps, self.learning_rate, self.weight_decay, self.warmup, fall=0.5, lowest=0.02, all_decay=True, clip=1.0,
            fused=False,
        )  # fmt: skip

    def seated(self) -> TaskAlgorithm:
        """The algorithm with its variables in the places that the seed gives them."""
        return algorithm(self.algorithm).seated(self.seed, self.heads)

    def shape(self) -> NetworkShape:
        """The shape of the network."""
        of = self.seated()
        sizes = (self.width, self.heads, self.mlp, of.length)
        return NetworkShape(self.architecture, len(of.vocabulary), of.layers, *sizes)


def shares(behind: dict[str, float]) -> np.ndarray:
    """How often each variable is exchanged: half evenly, half by how far it is behind; adds to one."""
    loss = np.array(list(behind.values()))
    return 0.5 / len(loss) + 0.5 * loss / loss.sum()


def train(recipe: InterchangeTraining, shop: Workshop, stop_at: int | None = None) -> TrainingRun:
    """Train a network, or go on from its checkpoint in the shop; `stop_at` ends the sitting early, with a checkpoint.

    Variables that are behind (their running interchange loss, a note of the run) are exchanged more often.

    Raises BadInput when the checkpoint is of other settings; see `recipes.training.train` for the rest.
    """
    seating = Seating(recipe.seated(), recipe.heads)
    state = begun(
        build(recipe.shape(), recipe.seed),
        recipe.schedule(),
        shop,
        recipe.kind,
        settings=json.dumps(asdict(recipe)),
        notes={"behind": dict.fromkeys(seating.variables, 1.0)},
    )
    net, behind = opened(state.model), state.notes["behind"]
    last = Losses(torch.zeros(()), 0.0)

    def loss(_model: Any, step: int) -> Tensor:
        nonlocal last
        rng = np.random.default_rng([recipe.seed, step])
        ids = seating.algorithm.draw(rng, recipe.rows)
        if recipe.kind == "stated":
            late = step >= recipe.steps // 2
            weights = replace(recipe.weights, same=recipe.weights.same * (recipe.settle if late else 1.0))
            last = step_losses(net, seating, ids, rng, shares(behind), weights)
        else:
            right = seating.algorithm.answers(ids)
            if recipe.kind == "shuffled":
                right = right[rng.permutation(len(ids))]
            logits, _ = run(net, torch.from_numpy(ids), recipe.heads)
            plain = right_loss(logits, torch.from_numpy(right)).mean()
            last = Losses(plain, float(plain.detach()))
        for name, value in last.by_variable.items():
            behind[name] = 0.95 * behind[name] + 0.05 * value
        return last.total

    def tell(state: TrainingRun, _: float) -> str:
        figures = {name: round(getattr(last, name), 6) for name in ("task", "interchange", "strict", "same")}
        state.log.append({"step": state.step, "seconds": round(state.seconds, 1), **figures})
        words = f"loss {last.task:.3f}, exchanged {last.interchange:.3f}, outside {last.strict:.3f}"
        return f"{recipe.algorithm} {recipe.kind}: {words}"

    return carry_on(state, loss, rhythm=RHYTHM, tell=tell, stop_at=stop_at)
