"""`tales` as a specimen: what it is asked, the text it was trained on with labels, its twins and its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerFast

from cutaway.zoo import loaders
from cutaway.zoo.specimens import RANDOM, Specimen, Twin
from cutaway.zoo.tasks import Label, Passage, Swap, TaskPair

from .exam import questions
from .recipe import EIGHT, TalesRecipe
from .stream import told
from .tokenizer import load_tokenizer


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(loaders.path("tales"))


@dataclass(frozen=True)
class Stories:
    """The task of `tales`: fresh contrast pairs of the eight behaviours in turn, and text without end.

    Attributes:
        words: the vocabulary of tasks that are made of words; none here.
    """

    words: tuple[str, ...] = ()

    def pairs(self, n: int, seed: int = 0) -> list[TaskPair]:
        """n pairs of the test split, the behaviours in turn; a pair's template is its behaviour."""
        streams = {name: _pairs(name, seed) for name in EIGHT}
        names = list(EIGHT)
        return [next(streams[names[i % len(names)]]) for i in range(n)]

    def swaps(self, variable: str, n: int, seed: int = 0) -> list[Swap]:
        """None: where the network keeps its variables is not known, only what decides each token."""
        del variable, n, seed
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
    context = TalesRecipe.context
    for tokens in told(_tokenizer(), f"labels:{seed}"):
        ids = (_tokenizer().bos_token_id, *(token.id for token in tokens))
        for at, token in enumerate(tokens[: context - 1]):
            # the value is asked for where the token is foretold, one place before it
            if variable in token.by:
                value = _CLASSES[variable].index(str(token.by[variable]))
                yield Label(tuple(ids[: at + 1]), at, value)  # type: ignore[arg-type]
                break


def _pairs(behaviour: str, seed: int) -> Iterator[TaskPair]:
    tokenizer = _tokenizer()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text)["input_ids"])

    def firsts(words: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words)

    for prompt in questions(behaviour, seed):
        sides = (ids(prompt.text), ids(prompt.corrupted), firsts(prompt.answers), firsts(prompt.foils))
        if _usable(pair := TaskPair(*sides, {}, behaviour)):
            yield pair


def _usable(pair: TaskPair) -> bool:
    """Do the two prompts differ, as long as each other, with answers that differ?"""
    return (
        len(pair.clean) == len(pair.corrupted)
        and pair.clean != pair.corrupted
        and not set(pair.right) & set(pair.wrong)
    )


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
                Twin("shuffled", "Its words exchanged for each other at random: the same text in a cipher.", "built"),
                Twin("blind", "Its attention writes nothing: each token is foretold from the one before it.", "built"),
            ),
            minutes=35,
            mechanism="Not stated: a network to study, with labels by construction.",
        ),
    )  # fmt: skip
