"""A mechanism: its blueprint, its task and what is true of it, before an architecture is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cutaway.errors import NotFound
from cutaway.network.parts import Edge, Input, Part
from cutaway.recipes.constructed.architectures import ARCHITECTURES, Architecture
from cutaway.recipes.constructed.blueprint import Blueprint
from cutaway.recipes.constructed.build import direction, model, places
from cutaway.recipes.measures import accuracy
from cutaway.recipes.words import word_tokenizer
from cutaway.zoo.specimens import Product
from cutaway.zoo.tasks import Task
from cutaway.zoo.truth import Feature, GroundTruth, How, Need, Variable, in_card_order

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from cutaway.recipes.workshop import Workshop

Change = Callable[[Blueprint], Blueprint]
ESTABLISHED = "Written into the weights; proved on them by intervention (cutaway zoo verify)."


@dataclass(frozen=True)
class Held:
    """A variable, the block that holds it and the part that writes it there.

    Attributes:
        name: of the variable.
        says: what it means.
        block: of the stream.
        writer: the part of the blueprint; "input" is the embedding.
        pos: the name of a span of the pairs, or "last".
        classes: how many values it takes.
        read: is it used?
    """

    name: str
    says: str
    block: str
    writer: str
    pos: str = "last"
    classes: int | None = None
    read: bool = True


@dataclass(frozen=True)
class Design:
    """A mechanism in names: parts are those of the blueprint.

    Attributes:
        name: of the mechanism; a specimen's name adds the architecture.
        says: what the network does.
        mechanism: how it does it.
        plan: makes the blueprint.
        task: what it is asked.
        edges: (source, target, input of the head, "" for other targets).
        holds: the variables.
        answers: the tokens whose readout is exchanged in the shuffled twin.
        lacks: for each further twin what it lacks, and the change of the blueprint that makes it.
        needs: (parts, does it break?, how they are taken away).
        idle: parts that carry nothing.
        features: directions, given the architecture and the seed.
        facts: names of parts in them become nodes.
        checks: which checks `verify` makes.
        sources: papers that it follows.
    """

    name: str
    says: str
    mechanism: str
    plan: Callable[[], Blueprint]
    task: Task
    edges: tuple[tuple[str, str, str], ...]
    holds: tuple[Held, ...]
    answers: tuple[int, ...]
    lacks: Mapping[str, tuple[str, Change]]
    needs: tuple[tuple[tuple[str, ...], bool, How], ...] = ()
    idle: tuple[str, ...] = ()
    features: Callable[[Architecture, int], tuple[Feature, ...]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[str, ...] = GroundTruth.checks
    sources: tuple[str, ...] = ()

    def truth(self, arch: Architecture, seed: int) -> GroundTruth:
        """The ground truth in an architecture: names of parts become nodes, blocks become directions."""
        parts = places(self.plan(), arch)
        at = parts | {"input": Part("input"), "logits": Part("logits")}
        return GroundTruth(
            nodes=in_card_order(part for name, part in parts.items() if name not in self.idle),
            edges=tuple(Edge(at[a], Input(at[b], port or "in")) for a, b, port in self.edges),
            variables=tuple(self._variable(held, at, seed) for held in self.holds),
            needs=tuple(Need(tuple(at[n] for n in names), breaks, how) for names, breaks, how in self.needs),
            features=self.features(arch, seed) if self.features else (),
            facts={key: _as_node(value, at) for key, value in self.facts.items()},
            checks=self.checks,
            established=ESTABLISHED,
        )

    def _variable(self, held: Held, at: Mapping[str, Part], seed: int) -> Variable:
        writer = at[held.writer]
        site = {
            "input": "resid_pre.0",
            "head": f"attn_write.{writer.layer}",
            "mlp": f"mlp_write.{writer.layer}",
        }
        basis = tuple(tuple(row) for row in direction(self.plan(), held.block, seed).tolist())
        return Variable(
            held.name, held.says, site[writer.kind], held.pos, None, basis, held.classes, held.read
        )


def _as_node(value: Any, at: Mapping[str, Part]) -> Any:
    """A fact, with names of parts as the nodes that they are."""
    if isinstance(value, str):
        return str(at.get(value, value))
    return [_as_node(v, at) for v in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Construction:
    """The recipe of a constructed network.

    Attributes:
        design: the mechanism.
        arch: the name of the architecture.
        seed: of the rotation and the idle parts.
    """

    design: Design
    arch: str
    seed: int = 0

    def make(self, shop: Workshop) -> Product:
        """Write the weights and measure the accuracy on fresh prompts."""
        shop.work.step("writing weights", 0, 1)
        arch = ARCHITECTURES[self.arch]
        network = model(self.design.plan(), arch, self.seed)
        score = accuracy(network, self.design.task.pairs(1000, 1))
        shop.work.step("writing weights", 1, 1)
        truth = self.design.truth(arch, self.seed)
        return Product(network, truth, score, word_tokenizer(self.design.task.words))

    def twin(self, kind: str) -> PreTrainedModel:
        """The twin with its readout shuffled, or with a part taken out. NotFound for other kinds."""
        blueprint = self.design.plan()
        if kind == "shuffled":
            changed = blueprint.shuffled(self.design.answers)
        elif kind in self.design.lacks:
            changed = self.design.lacks[kind][1](blueprint)
        else:
            raise NotFound(
                f"There is no twin {kind!r}.", f"There are: shuffled, {', '.join(self.design.lacks)}."
            )
        return model(changed, ARCHITECTURES[self.arch], self.seed)
