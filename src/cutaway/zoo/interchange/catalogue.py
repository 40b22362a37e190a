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
    """How long a task is trained (steps, of which some without the loss of the plain task), and the minutes on one core."""

    steps: int
    minutes: float
    alone: int = 0


RUNS = {
    "indirect-object": Run(1300, 4),
    "greater-than": Run(700, 3),
    "brackets": Run(600, 3),
    "cases": Run(1600, 4),
    "docstring": Run(1600, 4, alone=600),
    "agreement": Run(500, 2),
}


def specimens() -> tuple[Specimen, ...]:
    """The twelve specimens."""
    return tuple(_specimen(name, architecture) for name in RUNS for architecture in SEEDS)


def _specimen(name: str, architecture: str) -> Specimen:
    recipe = Interchange(name, architecture, SEEDS[architecture], RUNS[name].steps, alone=RUNS[name].alone)
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
        minutes=RUNS[name].minutes,
        sources=SOURCES,
        seed=recipe.seed,
        mechanism=f"{steps}.",
    )
