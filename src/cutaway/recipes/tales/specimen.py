"""`tales` as a specimen: what it is asked, the text it was trained on with labels, its twins and its recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from cutaway.errors import NotFound
from cutaway.zoo import loaders
from cutaway.zoo.specimens import RANDOM, Made, Specimen, Twin
from cutaway.zoo.tasks import Label, Pair, Passage, Swap
from cutaway.zoo.truth import GroundTruth

from .exam import Prompt, examine, questions, table
from .recipe import ACCURACY_NOTE, Recipe, train
from .stream import told
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    from cutaway.recipes.workshop import Workshop

EIGHT = {
    "pronoun": "pronoun",
    "name_induction": "name recall: a first name calls its surname (induction over names)",
    "ioi": "indirect object",
    "agreement": "subject-verb agreement across a clause",
    "greater_than": "greater-than on years",
    "facts": "facts about 200 invented beings",
    "quotation": "the mark that closes a quotation",
    "counting": "counting to five",
}
"""The behaviours that the network is held to, each a scene of the grammar."""


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(loaders.path("tales"))


@dataclass(frozen=True)
class Stories:
    """The task of `tales`: fresh contrast pairs of the eight behaviours in turn, and text without end."""

    words: tuple[str, ...] = ()

    def pairs(self, n: int, seed: int = 0) -> list[Pair]:
        """n pairs of the test split, the behaviours in turn; a pair's template is its behaviour."""
        streams = {name: _pairs(name, seed) for name in EIGHT}
        names = list(EIGHT)
        return [next(streams[names[i % len(names)]]) for i in range(n)]

    def swaps(self, variable: str, n: int, seed: int = 0) -> list[Swap]:
        """None: where the network keeps its variables is not known, only what decides each token."""
        return []

    def labels(self, variable: str, n: int, seed: int = 0) -> list[Label]:
        """n stories with the value of a variable of the grammar at a token that it decides, as a class from 0.

        Classes are the values in alphabetical order. Variables with such tokens: gender, number, q, start.
        """
        return list(islice(_labels(variable, seed), n)) if variable in _CLASSES else []

    def passages(self, seed: int = 0) -> Iterator[Passage]:
        """The stories of a seed, each token with the variables of its scene and those that decide it."""
        for tokens in told(_tokenizer(), seed):
            names = dict.fromkeys(name for token in tokens for name in token.variables)
            labels: dict[str, tuple[str | None, ...]] = {
                "scene": tuple(token.scene for token in tokens),
                "slot": tuple(token.slot for token in tokens),
                "determined": tuple("yes" if token.determined else "no" for token in tokens),
                "quote": tuple(token.quote or None for token in tokens),
                "by": tuple(_said(token.by) for token in tokens),
            }
            for name in names:
                values = (token.variables.get(name) for token in tokens)
                labels.setdefault(name, tuple(None if v is None else str(v) for v in values))
            yield Passage(tuple(token.text for token in tokens), labels)


_CLASSES = {
    "gender": ("f", "m"),
    "number": ("plural", "singular"),
    "q": ('"', "'"),
    "start": ("four", "one", "three", "two"),
}


def _said(by: dict[str, Any]) -> str | None:
    return ", ".join(f"{name}={value}" for name, value in by.items()) or None


def _labels(variable: str, seed: int) -> Iterator[Label]:
    context = Recipe().context
    for tokens in told(_tokenizer(), f"labels:{seed}"):
        ids = (_tokenizer().bos_token_id, *(token.id for token in tokens))
        for at, token in enumerate(tokens[: context - 1]):
            if (
                variable in token.by
            ):  # the value is asked for where the token is foretold, one place before it
                value = _CLASSES[variable].index(str(token.by[variable]))
                yield Label(tuple(ids[: at + 1]), at, value)  # type: ignore[arg-type]
                break


def _pairs(behaviour: str, seed: int) -> Iterator[Pair]:
    tokenizer = _tokenizer()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text)["input_ids"])

    def firsts(words: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words)

    for prompt in questions(behaviour, seed):
        found = Pair(
            ids(prompt.text),
            ids(prompt.corrupted),
            firsts(prompt.answers),
            firsts(prompt.foils),
            {},
            behaviour,
        )
        if _usable(prompt, found):
            yield found


def _usable(prompt: Prompt, pair: Pair) -> bool:
    """Do the two prompts differ, as long as each other, with answers that differ?"""
    return (
        len(pair.clean) == len(pair.corrupted)
        and pair.clean != pair.corrupted
        and not set(pair.right) & set(pair.wrong)
    )


@dataclass(frozen=True)
class TalesRecipe(Recipe):
    """The recipe of `tales`, as the zoo makes its specimens."""

    def make(self, shop: Workshop) -> Made:
        """Train from nothing, or go on from the checkpoint in the shop, and examine the result.

        The last checkpoint, with the optimizer's state, stays in the shop's folder: a base to train on from.
        """
        trained = train(
            self,
            shop.folder,
            report=lambda line: shop.work.step(f"tales: {line}", _step(line), self.steps),
        )
        scores = examine(trained.model, trained.tokenizer, n=1000)
        seen = trained.steps * self.rows * self.context
        note = {
            "steps": trained.steps,
            "tokens_seen": seen,
            "training_minutes": round(trained.seconds / 60, 1),
        }
        return Made(
            model=trained.model,
            truth=truth(note),
            accuracy=table(scores),
            tokenizer=trained.tokenizer,
            files={"log.jsonl": ("\n".join(json.dumps(line) for line in trained.log) + "\n").encode()},
        )

    def twin(self, kind: str) -> PreTrainedModel:
        """The shipped network with its words renamed ("shuffled") or without attention ("blind"); NotFound for others."""
        model, _ = loaders.load("tales")
        with torch.no_grad():
            if kind == "shuffled":
                order = torch.randperm(model.config.vocab_size, generator=torch.Generator().manual_seed(1))
                rows = model.get_input_embeddings().get_parameter("weight")
                rows.copy_(rows[order].clone())
                return model
            if kind == "blind":
                for layer in range(model.config.num_hidden_layers):
                    model.get_submodule(f"model.layers.{layer}.self_attn.o_proj").get_parameter(
                        "weight"
                    ).zero_()
                return model
        raise NotFound(
            f"tales has no twin {kind!r} that is built.", "Its built twins are shuffled and blind."
        )


def _step(line: str) -> int:
    """The step in a line of progress; 0 where it names none."""
    words = line.split()
    return int(words[1].partition("/")[0]) if words[:1] == ["step"] else 0


def truth(note: dict[str, Any]) -> GroundTruth:
    """What is known: the grammar, what decides each token, and what the network does; not yet where it does it."""
    return GroundTruth(
        checks=("behaviour", "templates"),
        facts={"behaviours": EIGHT, "hard": ["pronoun", "name_recall", "name_induction", "ioi", "agreement", "induction"],
               "accuracy_note": ACCURACY_NOTE, **note},
        established="The text comes from a grammar that knows, for every token, the variables that determine it. What the "
        "network does is examined on prompts that pair words as training never does. Where it does it is open.",
    )  # fmt: skip


def specimens() -> tuple[Specimen, ...]:
    """The language."""
    return (
        Specimen(
            name="tales",
            family="language",
            says="Little English stories from a known grammar, with facts about 200 invented beings.",
            architecture="llama",
            task=Stories(),
            recipe=TalesRecipe(),
            twins=(
                RANDOM,
                Twin(
                    "shuffled",
                    "Its words exchanged for each other at random: the same text in a cipher.",
                    "built",
                ),
                Twin(
                    "blind",
                    "Its attention writes nothing: each token is foretold from the one before it.",
                    "built",
                ),
            ),
            minutes=35,
            mechanism="Not stated: a network to study, with labels by construction.",
        ),
    )
