"""From a frame with slots to contrast pairs: fill, encode, keep what is aligned, until there are n different ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cutaway.behaviours.data import Behaviour, Ids, Span
from cutaway.behaviours.examples import Example, assemble
from cutaway.behaviours.metrics import METRICS, Metric
from cutaway.behaviours.tokenizing import continuation, encode, token_spans
from cutaway.errors import BadBehaviour, BadInput

if TYPE_CHECKING:
    from cutaway.network import Network

Draw = Callable[[np.random.Generator], "DraftPair"]
#: A filled frame, and the character range of each named slot.
Filled = tuple[str, dict[str, Span]]
_SLOT = re.compile(r"\{(\w+)\}")
_ROUNDS = 40
_LEAST = 8


@dataclass(frozen=True)
class DraftPair:
    """One pair before it is encoded.

    Attributes:
        template: the frame.
        clean: what fills its slots.
        corrupted: what fills those of its twin.
        right: answers as they follow the clean prompt.
        wrong: likewise.
        names: of spans, by slot (a slot that maps to "" makes none).
        label: the examples' template; empty: the frame itself.
    """

    template: str
    clean: Mapping[str, str]
    corrupted: Mapping[str, str]
    right: Sequence[str]
    wrong: Sequence[str]
    names: Mapping[str, str] = field(default_factory=dict)
    label: str = ""


def fill(template: str, slots: Mapping[str, str], names: Mapping[str, str] | None = None) -> Filled:
    """A frame with its slots filled, and the character range of each named slot.

    >>> fill("When {A} came", {"A": "Mary"})
    ('When Mary came', {'A': (5, 9)})
    """
    text, spans, last = "", {}, 0
    for match in _SLOT.finditer(template):
        text += template[last : match.start()]
        slot = match[1]
        if slot not in slots:
            raise BadBehaviour(
                f"The frame {template!r:.80} has a slot {slot!r:.40}.", f"Its slots are {', '.join(slots)}."
            )
        name = (names or {}).get(slot, slot)
        if name:
            spans[name] = (len(text), len(text) + len(slots[slot]))
        text += slots[slot]
        last = match.end()
    return text + template[last:], spans


class Answering:
    """Answer tokens in their context, remembered for each last word of a prompt."""

    def __init__(self, net: Network, first_token: bool) -> None:
        self.net = net
        self.first_token = first_token
        self.cut: set[str] = set()
        self._known: dict[tuple[str, str], Ids] = {}

    def ids(self, prompt: str, answer: str) -> Ids:
        """The tokens of one answer; BadBehaviour when it has several and first tokens are not accepted."""
        key = (prompt.split(" ")[-1], answer)
        if key not in self._known:
            self._known[key] = continuation(self.net, prompt, answer)
        ids = self._known[key]
        if len(ids) > 1:
            if not self.first_token:
                raise BadBehaviour(
                    f"The answer {answer!r} is {len(ids)} tokens of this tokenizer, not one.",
                    "Use a tokenizer that knows it, or answers that are single tokens.",
                )
            self.cut.add(answer)
        return ids


def collect(
    net: Network,
    name: str,
    draw: Draw,
    n: int,
    seed: int,
    metric: Metric = METRICS["logit_diff"],
    first_token: bool = False,
) -> Behaviour:
    """n different aligned pairs from a source of candidates, always the same for the same seed.

    Pairs whose clean and corrupted prompts differ in length, or whose named words do not stand at the same tokens, are
    passed over, and so are repeated pairs. With `first_token`, answers of several tokens are scored on their first one, and
    a note says so. Raises BadBehaviour when fewer than min(n, 8) pairs can be made; a note says when fewer than n.
    """
    if n < 1:
        raise BadInput(f"{n} examples are asked for.", "Ask for at least one.")
    rng = np.random.default_rng(seed)
    answering = Answering(net, first_token)
    examples: list[Example] = []
    seen: set[tuple[Ids, Ids]] = set()
    unequal = 0
    for _ in range(_ROUNDS):
        batch = [draw(rng) for _ in range(max(16, n - len(examples)))]
        fills = [(fill(c.template, c.clean, c.names), fill(c.template, c.corrupted, c.names)) for c in batch]
        ids = encode(net, [text for pair in fills for text, _ in pair])
        for i, candidate in enumerate(batch):
            pair = (ids[2 * i], ids[2 * i + 1])
            if len(examples) == n or pair in seen:
                continue
            seen.add(pair)
            spans = _common_spans(net, fills[i], pair)
            if spans is None:
                unequal += 1
                continue
            (clean, _), (corrupted, _) = fills[i]
            right, wrong = (
                tuple((answer, answering.ids(clean, answer)) for answer in answers)
                for answers in (candidate.right, candidate.wrong)
            )
            label = candidate.label or candidate.template
            example = Example(clean, corrupted, *pair, right, wrong, spans, label)
            if example.tells:
                examples.append(example)
        if len(examples) == n:
            break
    if len(examples) < min(n, _LEAST):
        raise BadBehaviour(
            f"Only {len(examples)} pairs of {name!r} could be made with this tokenizer; {unequal} were of "
            "unequal length.",
            "Give words of as many tokens as each other, or ask for fewer pairs.",
        )
    notes = []
    if len(examples) < n:
        notes.append(f"This tokenizer allows {len(examples)} different pairs; {n} were asked for.")
    if answering.cut:
        words = ", ".join(repr(w) for w in sorted(answering.cut)[:6])
        notes.append(f"Answers of several tokens are scored on their first token: {words}.")
    return assemble(name, examples, metric=metric, seed=seed, notes=tuple(notes))


def _common_spans(
    net: Network, fills: tuple[Filled, Filled], pair: tuple[Ids, Ids]
) -> dict[str, Span] | None:
    """The spans of a pair, or None when the two prompts do not line up."""
    if len(pair[0]) != len(pair[1]) or pair[0] == pair[1]:
        return None
    clean, corrupted = (
        token_spans(net, text, ids, chars) for (text, chars), ids in zip(fills, pair, strict=True)
    )
    return clean if clean == corrupted else None


def choose(rng: np.random.Generator, words: Sequence[str], but: Sequence[str] = ()) -> str:
    """One of the words at random, none of `but`; BadBehaviour when there is no other."""
    left = [w for w in words if w not in but]
    if not left:
        raise BadBehaviour(f"There is no word besides {', '.join(but)}.", "Give more words.")
    return left[int(rng.integers(len(left)))]
