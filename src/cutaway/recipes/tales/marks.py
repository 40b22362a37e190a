"""Stories as texts with the grammar's labels of every token: what a feature's label can be held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerFast

from .grammar import Story
from .tokenizer import StoryEncoder

Label = str | int | bool | None


def token_marks(
    tokenizer: PreTrainedTokenizerFast, told: Iterable[Story], names: Sequence[str] | None = None
) -> tuple[list[str], dict[str, list[list[Label]]]]:
    """Texts, and for each variable of the grammar the label of every token of every text; None where it has none.

    names: the variables that are wanted; default all that any word has.

    >>> import cutaway
    >>> from cutaway.recipes.tales.scenes import stories
    >>> net = cutaway.open("zoo:tales")
    >>> texts, marks = token_marks(net.tokenizer, [next(stories("a"))], ["scene", "quote"])
    >>> len(marks["scene"][0]) == len(net.tokens_of(texts)[0]), marks["scene"][0][0] is None
    (True, True)
    """
    encode, every = StoryEncoder(tokenizer), list(told)
    wanted = (
        list(names) if names is not None else sorted({k for s in every for w in s.words for k in w.labels})
    )
    marks: dict[str, list[list[Label]]] = {name: [] for name in wanted}
    for story in every:
        owner = encode(story)[1][:-1]  # what ends a story is not in its text
        for name in wanted:
            marks[name].append([None if i < 0 else story.words[i].labels.get(name) for i in owner])
    return [story.text for story in every], marks
