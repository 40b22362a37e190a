"""How a network comes to run an algorithm in stated places, with its twins and its ground truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from cutaway.errors import NotFound
from cutaway.recipes.words import word_tokenizer
from cutaway.zoo.specimens import Made
from cutaway.zoo.truth import Edge, GroundTruth, Node
from cutaway.zoo.truth import Variable as Truly

from ..algorithms import Algorithm, Place, Variable
from .exam import examine
from .plans import Layout
from .training import Kind, State, Training, train

if TYPE_CHECKING:
    from cutaway.recipes.workshop import Workshop

TWIN_STEPS: dict[Kind, float] = {"free": 0.5, "shuffled": 0.2}
"""Steps of the twins, as a share of the specimen's: they are done when the task is, or when nothing is to be learnt."""

ESTABLISHED = (
    "Trained in by strict interchange-intervention training (Geiger et al. 2022; Gupta et al. 2024): exchanging a part "
    "where a variable lives must give the answer of the causal model, exchanging anything else must leave the answer. "
    "Examined on pairs of prompts kept out of training; `verify` repeats that by intervention on the shipped weights."
)


@dataclass(frozen=True)
class Interchange:
    """The recipe of one network: what it is trained to, and for how long."""

    algorithm: str
    architecture: str
    seed: int
    steps: int
    settle: float = 10.0
    rows: int = 64

    def training(self, kind: Kind = "stated") -> Training:
        """The settings of the network's run, or of a twin's."""
        steps = round(self.steps * TWIN_STEPS.get(kind, 1.0))
        options = {"steps": steps, "settle": self.settle, "rows": self.rows}
        return Training(self.algorithm, self.architecture, self.seed, kind, **options)

    def make(self, shop: Workshop) -> Made:
        """Train the network and its twins, one after the other; each goes on from its own checkpoint."""
        runs = {kind: train(self.training(kind), shop) for kind in ("stated", "free", "shuffled")}
        seated = self.training().seated()
        layout = Layout(seated, self.training().heads)
        marks = {kind: examine(state.model, layout, n=1024).to_dict() for kind, state in runs.items()}
        return Made(
            model=runs["stated"].model,
            truth=ground_truth(seated),
            accuracy={**marks["stated"], "twins": {kind: marks[kind] for kind in ("free", "shuffled")}},
            tokenizer=word_tokenizer(seated.vocabulary),
            twins={kind: runs[kind].model for kind in ("free", "shuffled")},
            files={"log.jsonl": _log(runs)},
        )

    def twin(self, kind: str) -> PreTrainedModel:
        """No twin of this recipe is built in a moment; NotFound."""
        raise NotFound(f"The twin {kind!r} is not built but stored.", "Load it by its name.")


def ground_truth(algorithm: Algorithm, needed: float = 0.1) -> GroundTruth:
    """What is known of a network that runs an algorithm: parts, who reads whom, and the variables' places."""
    parts = dict.fromkeys(_node(v.place) for v in algorithm.variables)
    where = {v.name: _node(v.place) for v in algorithm.variables} | {"answer": Node("logits")}
    edges = dict.fromkeys(Edge(where[name], where[reader]) for name, reader in algorithm.edges())
    reads = {v.name: list(v.reads) for v in algorithm.variables}
    from_input = [Edge(Node("input"), where[v.name]) for v in algorithm.variables if "ids" in v.reads]
    return GroundTruth(
        nodes=tuple(sorted(parts)),
        edges=tuple(dict.fromkeys((*from_input, *(e for e in edges if e.source != e.target)))),
        variables=tuple(_variable(v) for v in algorithm.variables),
        checks=("behaviour", "needed", "inert", "variables", "exact", "held"),
        facts={"needed": needed, "reads": reads | {"answer": list(algorithm.answer_reads)}},
        established=ESTABLISHED,
    )


def _node(place: Place) -> Node:
    return Node("mlp", place.layer) if place.head is None else Node("head", place.layer, place.head)


def _variable(variable: Variable) -> Truly:
    place = variable.place
    return Truly(
        name=variable.name,
        says=variable.meaning,
        site=f"mlp_out.{place.layer}" if place.head is None else f"z.{place.layer}",
        pos=variable.name,
        head=place.head,
    )


def _log(runs: dict[Any, State]) -> bytes:
    lines = [json.dumps({"network": kind, **line}) for kind, state in runs.items() for line in state.log]
    return ("\n".join(lines) + "\n").encode()
