"""A few example pairs as a reader should see them: tokens, where they differ, and what the network says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from cutaway.behaviours import answer_logits
from cutaway.figures import picture, show_token
from cutaway.network.items import answers_by_row, class_names
from cutaway.reports import Pair, Token

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens

_ANSWERS = 3


def example_pairs(net: Network, behaviour: Behaviour, n: int = 3) -> tuple[Pair, ...]:
    """The first example of each of the first `n` templates (or the first `n` examples), with the network's own answers."""
    first = {label: row for row, label in reversed(list(enumerate(behaviour.template)))}
    rows = sorted(first.values())[:n]
    rows += [row for row in range(behaviour.n) if row not in rows][: n - len(rows)]
    chosen = sorted(rows)
    few = behaviour.take(chosen)
    clean, corrupted = few.clean_tokens(net), few.corrupted_tokens(net)
    named = _names(net, behaviour)
    says = [_says(named, answer_logits(net, behaviour, which)[chosen]) for which in ("clean", "corrupted")]
    if few.items is not None and few.items.clean.ndim == 4:
        return tuple(_pictures(few, row, *said) for row, said in enumerate(zip(*says, strict=True)))
    pairs = []
    for row, (clean_says, corrupted_says) in enumerate(zip(*says, strict=True)):
        same = [a == b for a, b in zip(few.clean_ids[row], few.corrupted_ids[row], strict=False)]
        sides = _tokens(clean, row, same), _tokens(corrupted, row, same)
        answers = _answer(few.right_text[row]), _answer(few.wrong_text[row])
        pairs.append(Pair(*sides, *answers, clean_says, corrupted_says))
    return tuple(pairs)


def _pictures(few: Behaviour, row: int, clean_says: str, corrupted_says: str) -> Pair:
    """A pair of images: pictures, and their names in the place of tokens."""
    assert few.items is not None
    sides = ((Token(few.clean[row], False),), (Token(few.corrupted[row], False),))
    answers = _answer(few.right_text[row]), _answer(few.wrong_text[row])
    clean, corrupted = (picture(side[row].float().numpy()) for side in (few.items.clean, few.items.corrupted))
    return Pair(*sides, *answers, clean_says, corrupted_says, clean, corrupted)


def _tokens(tokens: Tokens, row: int, same: list[bool]) -> tuple[Token, ...]:
    padded = same + [False] * int(tokens.lengths[row])
    return tuple(Token(text, not equal) for text, equal in zip(tokens.strings(row), padded, strict=False))


def _answer(texts: Sequence[str]) -> str:
    """The answers of a set, the first three of them."""
    shown = " / ".join(show_token(text, escape=False) for text in texts[:_ANSWERS])
    return shown + (f" … ({len(texts)})" if len(texts) > _ANSWERS else "")


def _names(net: Network, behaviour: Behaviour) -> Callable[[int], str]:
    """What an answer is called: a class by its name, or else its number; a token by its text."""
    if not answers_by_row(net, behaviour.clean_tokens(net)):
        return lambda number: net.decode([number])
    classes = class_names(net.config) if behaviour.items is None else behaviour.items.classes
    return lambda number: classes[number] if number < len(classes) else str(number)


def _says(named: Callable[[int], str], logits: torch.Tensor) -> list[str]:
    """The likeliest answer of each row [n v] with its probability."""
    top = logits.float().softmax(-1).max(-1)
    return [
        f"says {show_token(named(int(token)), escape=False)!r}, {100 * float(p):.0f} %"
        for p, token in zip(top.values, top.indices, strict=True)
    ]
