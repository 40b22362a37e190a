"""How a network comes to run an algorithm in stated places, with its twins and its ground truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from cutaway.errors import NotFound
from cutaway.network.parts import Edge, Input, Part
from cutaway.recipes.words import word_tokenizer
from cutaway.zoo.specimens import Product
from cutaway.zoo.truth import GroundTruth, Variable, in_card_order

from ..algorithms import CausalVariable, TaskAlgorithm
from .exam import examine
from .plans import Seating
from .training import InterchangeTraining, Kind, train

if TYPE_CHECKING:
    from cutaway.recipes.training import TrainingRun
    from cutaway.recipes.workshop import Workshop

TWIN_STEPS: dict[Kind, float] = {"free": 0.5, "shuffled": 0.2}
"""Steps of the twins, as a share of the specimen's: they are done when the task is, or when nothing is to be learnt."""

ESTABLISHED = (
    "Trained in by strict interchange-intervention training (Geiger et al. 2022; Gupta et al. 2024): exchanging a part "
    "where a variable lives must give the answer of the causal model, exchanging anything else must leave the answer. "
    "Examined on pairs of prompts kept out of training; `verify` repeats that by intervention on the shipped weights."
)


@dataclass(frozen=True)
class InterchangeRecipe:
    """The recipe of one network: what it is trained to, and for how long.

    Attributes:
        algorithm: by its name.
        architecture: "gpt2" or "llama".
        seed: of weights, prompts and seats.
        steps: of the run.
        settle: the factor on the sameness loss in its second half.
        rows: prompts in a step.
    """

    algorithm: str
    architecture: str
    seed: int
    steps: int
    settle: float = 10.0
    rows: int = 64

    def training(self, kind: Kind = "stated") -> InterchangeTraining:
        """The settings of the network's run, or of a twin's."""
        steps = round(self.steps * TWIN_STEPS.get(kind, 1.0))
        options = {"steps": steps, "settle": self.settle, "rows": self.rows}
        return InterchangeTraining(self.algorithm, self.architecture, self.seed, kind, **options)

    def make(self, shop: Workshop) -> Product:
        """Train the network and its twins, one after the other; each goes on from its own checkpoint."""
        runs = {kind: train(self.training(kind), shop) for kind in ("stated", "free", "shuffled")}
        seated = self.training().seated()
        seating = Seating(seated, self.training().heads)
        marks = {kind: examine(state.model, seating, n=1024).to_dict() for kind, state in runs.items()}
        return Product(
            model=runs["stated"].model,
            truth=ground_truth(seated),
            accuracy={**marks["stated"], "twins": {kind: marks[kind] for kind in ("free", "shuffled")}},
            tokenizer=word_tokenizer(seated.vocabulary),
            twins={kind: runs[kind].model for kind in ("free", "shuffled")},
            files={"log.jsonl": _log(runs)},
        )

    def twin(self, kind: str) -> PreTrainedModel:
        """Raises NotFound: its twins are drawn or stored."""
        raise NotFound(f"The twin {kind!r} is not built but stored.", "Load it by its name.")


def ground_truth(algorithm: TaskAlgorithm, needed: float = 0.1) -> GroundTruth:
    """What is known of a network that runs an algorithm: parts, who reads whom, and the variables' places."""
    where = {v.name: v.part for v in algorithm.variables} | {"answer": Part("logits")}
    inner = [_edge(where[name], where[reader]) for name, reader in algorithm.edges()]
    reads = {v.name: list(v.reads) for v in algorithm.variables}
    from_input = [_edge(Part("input"), v.part) for v in algorithm.variables if "ids" in v.reads]
    edges = (*from_input, *(edge for edge in inner if edge.source != edge.target.part))
    return GroundTruth(
        nodes=in_card_order({v.part for v in algorithm.variables}),
        edges=tuple(dict.fromkeys(edges)),
        variables=tuple(_variable(v) for v in algorithm.variables),
        checks=("behaviour", "needed", "inert", "variables", "exact", "held"),
        facts={"needed": needed, "reads": reads | {"answer": list(algorithm.answer_reads)}},
        established=ESTABLISHED,
    )


def _edge(source: Part, target: Part) -> Edge:
    """Which input of a head is read is not stated."""
    return Edge(source, Input(target, "any" if target.kind == "head" else "in"))


def _variable(variable: CausalVariable) -> Variable:
    part = variable.part
    site = f"z.{part.layer}" if part.kind == "head" else f"mlp_out.{part.layer}"
    return Variable(variable.name, variable.meaning, site, variable.name, part.index)


def _log(runs: dict[Any, TrainingRun]) -> bytes:
    lines = [json.dumps({"network": kind, **line}) for kind, state in runs.items() for line in state.log]
    return ("\n".join(lines) + "\n").encode()
