"""A specimen: its task, its twins, and the recipe that makes it from nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cutaway.errors import NotFound
from cutaway.zoo.tasks import Task
from cutaway.zoo.truth import GroundTruth

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cutaway.zoo.workshop import Workshop

Family = Literal["constructed", "trained to a model", "trained naturally", "language"]
#: How a twin comes to be: weights drawn from a seed; built by the recipe in a moment; stored beside the specimen.
How = Literal["drawn", "built", "stored"]


@dataclass(frozen=True)
class Twin:
    """A network that lacks what the specimen has: `verify` must fail on it.

    kind: "random" (same shape, random weights), "shuffled" (same task, labels shuffled), "without" (same task without
    the property), or a name of its own. says: what it lacks.
    """

    kind: str
    says: str
    how: How = "drawn"
    seed: int = 1
    revision: str = ""


RANDOM = Twin("random", "The same shape with random weights.")


@dataclass(frozen=True)
class Made:
    """What a recipe gives.

    accuracy: figures for the card. twins: the networks of stored twins, by kind. revisions: checkpoints worth keeping,
    by name. files: further files of the folder (a log).
    """

    model: PreTrainedModel
    truth: GroundTruth
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = None
    twins: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    revisions: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Recipe(Protocol):
    """How a specimen is made. A recipe is a frozen dataclass: its fields are all that decides the weights."""

    def make(self, shop: Workshop) -> Made:
        """From nothing to the finished network; `shop` takes progress and keeps checkpoints."""
        ...

    def twin(self, kind: str) -> PreTrainedModel:
        """A twin that is built in a moment; only asked for kinds whose `how` is "built"."""
        ...


@dataclass(frozen=True)
class Specimen:
    """One animal of the zoo. minutes: how long its recipe takes on one core. behaviour: the name of what it does."""

    name: str
    family: Family
    says: str
    architecture: str
    task: Task
    recipe: Recipe
    twins: tuple[Twin, ...] = (RANDOM,)
    minutes: float = 0.0
    sources: tuple[str, ...] = ()
    seed: int = 0
    mechanism: str = ""

    def twin(self, kind: str) -> Twin:
        """The twin of that kind; NotFound when there is none."""
        for found in self.twins:
            if found.kind == kind:
                return found
        kinds = ", ".join(t.kind for t in self.twins) or "none"
        raise NotFound(f"{self.name} has no twin {kind!r}.", f"Its twins are: {kinds}.")


#: What a module of specimens offers: a function without arguments that lists them.
Lister = Callable[[], "tuple[Specimen, ...]"]
