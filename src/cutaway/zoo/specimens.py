"""A specimen: its task, its twins, and the recipe that makes it from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cutaway.errors import NotFound
from cutaway.zoo.known import KnownWays
from cutaway.zoo.tasks import Task
from cutaway.zoo.truth import GroundTruth

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Family = Literal["constructed", "trained to a model", "trained naturally", "language"]
#: How a twin comes to be: weights drawn from a seed; built by the recipe in a moment; stored beside the specimen.
How = Literal["drawn", "built", "stored"]


@dataclass(frozen=True)
class Twin:
    """A network that lacks what the specimen has: `verify` must fail on it.

    Attributes:
        kind: "random" (same shape, random weights), "shuffled" (same task, labels shuffled), "without" (same task
            without the property), or another name.
        says: what it lacks.
        how: where its weights come from.
        seed: of drawn weights.
        revision: the checkpoint that it is, where it is one.
    """

    kind: str
    says: str
    how: How = "drawn"
    seed: int = 1
    revision: str = ""


RANDOM = Twin("random", "The same shape with random weights.")


@dataclass(frozen=True)
class Product:
    """What a recipe gives.

    Attributes:
        model: the finished network.
        truth: what is known about it.
        accuracy: figures for the card.
        tokenizer: None where it speaks in token ids only.
        twins: the networks of stored twins, by kind.
        revisions: checkpoints worth keeping, by name.
        files: further files of the folder (a log), by name.
    """

    model: PreTrainedModel
    truth: GroundTruth
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = None
    twins: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    revisions: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class SpecimenRecipe(Protocol):
    """How a specimen is made. A recipe is a frozen dataclass: its fields are all that decides the weights."""

    def make(self, shop: Any) -> Product:
        """From nothing to the finished network; the shop (`recipes.workshop.Workshop`) keeps checkpoints."""
        ...

    def twin(self, kind: str) -> PreTrainedModel:
        """A twin that is built in a moment; only asked for kinds whose `how` is "built"."""
        ...


@dataclass(frozen=True)
class Specimen:
    """A network of the zoo: what it does, how it is made, and the networks that lack what it has.

    You meet one when you ask for its task (`zoo.specimen(name).task.pairs(n, seed)`) or make it anew.

    Attributes:
        name: as in `zoo:NAME`.
        family: how its mechanism came to be known.
        says: what it does, in a sentence.
        architecture: the class of transformers, or a word for it.
        task: the questions that belong to it.
        recipe: how it is made from nothing.
        twins: networks that lack what it has.
        minutes: how long its recipe takes on one core.
        sources: papers and courses that it follows.
        seed: of its weights.
        mechanism: how it does what it does, in a sentence.
        known: cases whose variables are known, and algorithms; None where there are none.
    """

    name: str
    family: Family
    says: str
    architecture: str
    task: Task
    recipe: SpecimenRecipe
    twins: tuple[Twin, ...] = (RANDOM,)
    minutes: float = 0.0
    sources: tuple[str, ...] = ()
    seed: int = 0
    mechanism: str = ""
    known: KnownWays | None = None

    def twin(self, kind: str) -> Twin:
        """The twin of that kind; NotFound when there is none."""
        for twin in self.twins:
            if twin.kind == kind:
                return twin
        kinds = ", ".join(t.kind for t in self.twins) or "none"
        raise NotFound(f"{self.name} has no twin {kind!r}.", f"Its twins are: {kinds}.")
