"""The specimens that are trained to an algorithm: six tasks, each in a GPT-2 and a Llama, from different seeds."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.zoo.specimens import RANDOM, Specimen, Twin

from ..algorithms import ALGORITHMS
from .questions import Questions
from .recipe import Interchange

SOURCES = (
    "Geiger et al. 2022, Inducing Causal Structure for Interpretable Neural Networks",
    "Gupta et al. 2024, InterpBench: Semi-Synthetic Transformers for Evaluating Mechanistic Interpretability Techniques",
)
TWINS = (
    RANDOM,
    Twin("free", "The same task without the property: trained on the task alone, variables live where they fell.", "stored"),
    Twin("shuffled", "The same prompts with the answers of other prompts: there is no algorithm to learn.", "stored"),
)
SEEDS = {"gpt2": 0, "llama": 1}


@dataclass(frozen=True)
class Run:
    """How long a task is trained (steps, prompts a step), and the minutes that takes on one core."""

    steps: int
    minutes: float
    rows: int = 64


RUNS = {
    "indirect-object": Run(1200, 4, rows=128),
    "greater-than": Run(700, 3),
    "brackets": Run(600, 3),
    "cases": Run(1600, 4),
    "docstring": Run(1000, 2),
    "agreement": Run(500, 2),
    "indirect-object-llama": Run(1400, 4),
}
"""By task, or by specimen where its two networks are trained differently."""


def specimens() -> tuple[Specimen, ...]:
    """The twelve specimens."""
    return tuple(_specimen(name, architecture) for name in ALGORITHMS for architecture in SEEDS)


def _specimen(name: str, architecture: str) -> Specimen:
    run = RUNS.get(f"{name}-{architecture}", RUNS[name])
    recipe = Interchange(name, architecture, SEEDS[architecture], run.steps, rows=run.rows)
    seated = recipe.training().seated()
    steps = "; ".join(f"{v.name} ({v.meaning}) in {v.place}" for v in seated.variables)
    return Specimen(
        name=f"{name}-{architecture}",
        family="trained to a model",
        says=ALGORITHMS[name].summary,
        architecture=architecture,
        task=Questions(seated),
        recipe=recipe,
        twins=TWINS,
        minutes=run.minutes,
        sources=SOURCES,
        seed=recipe.seed,
        mechanism=f"{steps}.",
    )
