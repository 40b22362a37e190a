"""Two prompts of one's own, or several pairs of them, as a behaviour: no names, no file, no generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.examples import Example, assemble
from cutaway.behaviours.masked import in_place_of_mask, mask_of, mask_place
from cutaway.behaviours.metrics import Metric
from cutaway.behaviours.metrics import metric as find_metric
from cutaway.behaviours.tokenizing import continuation, encode
from cutaway.errors import BadBehaviour, BadInput
from cutaway.network.texts import spaced
from cutaway.results import strict

if TYPE_CHECKING:
    from cutaway.network import Network

#: A prompt: text, or token ids as the network is given them.
Prompt = str | Sequence[int]
#: One prompt, or several.
PromptLike = Prompt | Sequence[str] | Sequence[Sequence[int]]
#: Right and wrong answer, text (with its space) or token ids; for several pairs of prompts also one such pair for each.
AnswerLike = Sequence[Any]
#: Marks after which a word follows with a space.
_MARKS = tuple(",.;:!?")
_NAMES = ("clean", "corrupted", "answers")


@dataclass(frozen=True, eq=False)
class Prompts:
    """What a verb was given in place of a behaviour.

    Attributes:
        clean: prompts on which the first answer is right.
        corrupted: their twins.
        answers: right and wrong.
    """

    clean: PromptLike | None = None
    corrupted: PromptLike | None = None
    answers: AnswerLike | None = None

    @property
    def given(self) -> list[str]:
        """Which of the three were given."""
        return [name for name in _NAMES if getattr(self, name) is not None]

    def behaviour(self, net: Network, verb: str) -> Behaviour:
        """The pairs; BadInput where one of the three is missing."""
        missing = [name for name in _NAMES if name not in self.given]
        if missing:
            raise BadInput(
                f"{verb} was given {' and '.join(self.given)} without {' and '.join(missing)}.",
                "Two prompts need all three: clean='...', corrupted='...', answers=(' right', ' wrong').",
            )
        return two_prompts(net, self.clean, self.corrupted, self.answers)  # type: ignore[arg-type]


@strict
def two_prompts(
    net: Network,
    clean: PromptLike,
    corrupted: PromptLike,
    answers: AnswerLike,
    *,
    metric: str | Metric = "logit_diff",
    name: str = "",
) -> Behaviour:
    """A behaviour of two prompts, or of several such pairs: the verbs of `effects` take it, as they take the prompts.

    Args:
        net: the network.
        clean: the prompt on which the first answer is right, as text or token ids; several as a list.
        corrupted: its twin, on which it is not, or less so; as many as clean ones.
        answers: the right and the wrong answer, each one token, with its space: `(" Mary", " John")`; token ids are taken,
            too. For several pairs one such pair for all, or a list with one for each.
        metric: what is measured; default the logit of the right answer minus that of the wrong one.
        name: what it is called; default made of the answers.

    One pair shows what happens in these two prompts and no more: results of it have no intervals, no significance, and
    nothing can be supported by them.

    Raises BadInput for empty prompts or other than two answers; BadBehaviour for equal prompts or answers, for an answer of
    several tokens, and for one that lacks its space (it says which was meant).
    """
    first, second = _listed(clean, "clean"), _listed(corrupted, "corrupted")
    if len(first) != len(second):
        raise BadInput(
            f"There are {len(first)} clean and {len(second)} corrupted prompts.",
            "Give as many of each: they are taken in pairs.",
        )
    asked = _answers(answers, len(first))
    examples = [_example(net, *each) for each in zip(first, second, asked, strict=True)]
    called = name or " or ".join(dict.fromkeys(text.strip() for e in examples[:1] for text in _texts(e)))
    from_text = isinstance(first[0], str)
    return assemble(called, examples, metric=find_metric(metric), from_text=from_text)


def _texts(example: Example) -> list[str]:
    return [text for text, _ in (*example.right, *example.wrong)]


def _listed(given: Any, side: str) -> list[Prompt]:
    """One prompt or several as a list of them, all text or all token ids."""
    remedy = f"Give {side}='...', a list of texts, or token ids."
    if isinstance(given, str):
        return [given]
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, Sequence) or not given:
        raise BadInput(f"The {side} prompt is {given!r:.60}.", remedy)
    if all(isinstance(item, int) and not isinstance(item, bool) for item in given):
        return [list(given)]
    rows = [item.tolist() if hasattr(item, "tolist") else item for item in given]
    if not all(isinstance(row, str) for row in rows) and not all(
        isinstance(row, Sequence) and not isinstance(row, str) for row in rows
    ):
        raise BadInput(f"The {side} prompts mix text and token ids.", remedy)
    return rows


def _answers(given: Any, n: int) -> list[tuple[Any, Any]]:
    """(right, wrong) for each of n pairs."""
    remedy = 'Give the right and the wrong one, each with its space: answers=(" Mary", " John").'
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise BadInput(f"The answers are {given!r:.60}.", remedy)
    each = [given] if all(isinstance(a, str | int) for a in given) else list(given)
    for pair in each:
        if isinstance(pair, str | int) or not isinstance(pair, Sequence) or len(pair) != 2:
            count = len(pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else 1
            raise BadInput(
                f"There {'is 1 answer' if count == 1 else f'are {count} answers'}: {pair!r:.60}.", remedy
            )
    if len(each) not in (1, n):
        raise BadInput(
            f"There are {len(each)} pairs of answers for {n} pairs of prompts.",
            "Give one pair, or one for each.",
        )
    return [(pair[0], pair[1]) for pair in (each if len(each) == n else each * n)]


def _example(net: Network, clean: Prompt, corrupted: Prompt, answers: tuple[Any, Any]) -> Example:
    texts = [p if isinstance(p, str) else net.decode(list(p)) for p in (clean, corrupted)]
    ids = [
        encode(net, [p])[0] if isinstance(p, str) else tuple(int(t) for t in p) for p in (clean, corrupted)
    ]
    for side, row in zip(("clean", "corrupted"), ids, strict=True):
        if not row:
            raise BadInput(f"The {side} prompt is empty.", "Give at least one token.")
    if ids[0] == ids[1]:
        raise BadBehaviour(
            f"The clean and the corrupted prompt are the same: {texts[0]!r}.",
            "Change in one of them what decides the answer.",
        )
    right, wrong = ((_text(net, a), (_answer(net, clean, a),)) for a in answers)
    if right[1] == wrong[1]:
        raise BadBehaviour(
            f"Right and wrong answer are the same: {answers[0]!r} and {answers[1]!r} begin with one token.",
            "Give two different ones.",
        )
    place = mask_place(net, "The clean prompt", ids[0], ids[1])
    at = -1 if place is None else place
    return Example(texts[0], texts[1], ids[0], ids[1], (right,), (wrong,), answer_pos=at)


def _text(net: Network, answer: str | int) -> str:
    return answer if isinstance(answer, str) else net.decode([answer])


def _answer(net: Network, prompt: Prompt, answer: Any) -> int:
    """The one token that an answer is after the prompt."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if answer < 0 or (net.d_vocab is not None and answer >= net.d_vocab):
            raise BadInput(
                f"The answer {answer} is no token: there are {net.d_vocab}.",
                "Count tokens from 0, or give text.",
            )
        return answer
    if not isinstance(answer, str) or not answer.strip():
        raise BadInput(
            f"The answer {answer!r} is empty.", 'Give the word that follows, with its space: " Mary".'
        )
    instead = spaced(net, answer)
    alone = net.continuation_ids(answer)
    try:
        masked = isinstance(prompt, str) and mask_of(net, encode(net, [prompt])[0]) is not None
        if masked:
            ids = list(in_place_of_mask(net, answer))
        else:
            ids = list(continuation(net, prompt, answer)) if isinstance(prompt, str) else alone
    except BadBehaviour as error:
        if not instead or str(prompt[-1]).isspace():
            raise
        raise BadBehaviour(error.problem, f"Did you mean {instead!r}, with its space?") from error
    open_end = isinstance(prompt, str) and (prompt[-1:].isalpha() or prompt[-1:] in _MARKS)
    lacks = open_end and answer[:1].isalpha()
    if instead and net.continuation_ids(instead) != ids and (len(ids) > 1 or lacks):
        what = f"is {len(ids)} tokens" if len(ids) > 1 else f"follows {prompt[-12:]!r} without a space"
        raise BadBehaviour(
            f"The answer {answer!r} {what}.",
            f"Did you mean {instead!r}, with its space?"
            + ("" if len(ids) > 1 else " If not, give its token id."),
        )
    if len(ids) > 1:
        pieces = net.token_strings(ids)
        raise BadBehaviour(
            f"The answer {answer!r} is {len(ids)} tokens here: {pieces}.",
            f"Choose a word that is one token, or take its first: {pieces[0]!r}, which is token {ids[0]}.",
        )
    return ids[0]
