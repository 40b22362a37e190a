"""The specimens that are trained to an algorithm: eight tasks, and of each a second network of another seed."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.zoo.specimens import RANDOM, Specimen, Twin

from ..algorithms import ALGORITHMS
from .known import two_step
from .questions import Questions
from .recipe import InterchangeRecipe

SOURCES = (
    "Geiger et al. 2022, Inducing Causal Structure for Interpretable Neural Networks",
    "Gupta et al. 2024, InterpBench: Semi-Synthetic Transformers for Evaluating Mechanistic Interpretability Techniques",
)
TWINS = (
    RANDOM,
    Twin("free", "The same task without the property: trained on the task alone, variables live where they fell.", "stored"),
    Twin("shuffled", "The same prompts with the answers of other prompts: there is no algorithm to learn.", "stored"),
)  # fmt: skip


@dataclass(frozen=True)
class TrainingLength:
    """How long a task is trained.

    Attributes:
        steps: of the first network.
        minutes: on one core.
        rows: prompts in a step.
        second: architecture of the second network.
        second_steps: its steps, where they differ.
    """

    steps: int
    minutes: float
    rows: int = 64
    second: tuple[str, ...] = ("llama",)
    second_steps: int | None = None


RUNS = {
    "indirect-object": TrainingLength(1200, 4, rows=128),
    "greater-than": TrainingLength(700, 1.5),
    "brackets": TrainingLength(600, 1.5),
    "cases": TrainingLength(1600, 2, second=("gpt2",)),
    "docstring": TrainingLength(1000, 2, second=("gpt2",), second_steps=2000),
    "agreement": TrainingLength(500, 1),
    "two-step": TrainingLength(700, 2),
    "one-step": TrainingLength(700, 1.5),
}


def specimens() -> tuple[Specimen, ...]:
    """For each task a GPT-2 of seed 0, and the second network that its run names, of seed 1."""
    return tuple(
        _specimen(name, architecture, seed)
        for name, run in RUNS.items()
        for seed, architecture in enumerate(("gpt2", *run.second))
    )


def _specimen(task: str, architecture: str, seed: int) -> Specimen:
    run = RUNS[task]
    steps = run.second_steps if seed and run.second_steps else run.steps
    recipe = InterchangeRecipe(task, architecture, seed, steps, rows=run.rows)
    seated = recipe.training().seated()
    mechanism = "; ".join(f"{v.name} ({v.meaning}) in {v.place}" for v in seated.variables)
    name = f"{task}-{architecture}"
    return Specimen(
        f"{name}-seed{seed}" if seed and architecture == "gpt2" else name, "trained to a model", ALGORITHMS[task].summary,
        architecture, Questions(seated), recipe, TWINS, minutes=run.minutes * steps / run.steps, sources=SOURCES, seed=seed,
        mechanism=f"{mechanism}.", known=two_step(task, seed),
    )  # fmt: skip
