"""Induction on random tokens: '... A B ... A' -> ' B', where in the corrupted prompt another token followed A.

After Elhage et al. 2021 and Olsson et al. 2022. Works without a tokenizer. Spans: previous (the first A), successor (B),
last (the second A).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cutaway.behaviours.data import Behaviour, Ids
from cutaway.behaviours.examples import Example, assemble
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.tokenizing import KnownWords, continuation
from cutaway.errors import BadBehaviour, BadInput
from cutaway.zoo.tasks import spans_at

if TYPE_CHECKING:
    from cutaway.network import Network

_LEAST_WORDS = 64


def induction(net: Network, n: int = 128, seed: int = 0, length: int = 12) -> Behaviour:
    """Pairs of induction: `length` different random tokens, and their beginning again up to a random place.

    With a tokenizer the tokens are plain English words in no order, where it knows 64 of ours, else anything but special
    tokens and lone bytes. The template of an example is how far the repetition has come. Raises BadBehaviour when the
    vocabulary is too small.
    """
    if length < 3:
        raise BadInput(f"A sequence of {length} tokens cannot be repeated in part.", "Use length >= 3.")
    if n < 1:
        raise BadInput(f"{n} examples are asked for.", "Ask for at least one.")
    pool, start = vocabulary(net)
    if len(pool) < length + 1:
        raise BadBehaviour(
            f"'induction' needs {length + 1} different tokens, and the vocabulary offers {len(pool)}.",
            "Use a smaller length.",
        )
    rng = np.random.default_rng(seed)
    at, examples = len(start), []
    for _ in range(n):
        *verse, other = (pool[i] for i in rng.choice(len(pool), size=length + 1, replace=False))
        k = int(rng.integers(1, length - 1))
        clean = (*start, *verse, *verse[: k + 1])
        corrupted = (*start, *verse[: k + 1], other, *verse[k + 2 :], *verse[: k + 1])
        right, wrong = (((_show(net, (token,)), (token,)),) for token in (verse[k + 1], other))
        spans = spans_at({"previous": at + k, "successor": at + k + 1, "last": len(clean) - 1})
        texts, template = (_show(net, clean), _show(net, corrupted)), f"{k + 1} of {length}"
        examples.append(Example(*texts, clean, corrupted, right, wrong, spans, template))
    return assemble("induction", examples, seed=seed, from_text=False)


def vocabulary(net: Network) -> tuple[tuple[int, ...], Ids]:
    """Tokens to draw from, and what every prompt begins with (a beginning-of-text token where the tokenizer adds one)."""
    tokenizer = net.tokenizer
    if tokenizer is None:
        sizes = [size for size in (net.d_vocab_in, net.d_vocab) if size is not None]
        if not sizes:
            raise BadInput(
                "This network does not say how many tokens it has.", "Pass a tokenizer to cutaway.open."
            )
        return tuple(range(min(sizes))), ()
    with_special, without = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    extra = len(with_special) - len(without)
    start = tuple(with_special[:extra]) if with_special[-len(without) :] == without else ()
    words = KnownWords(net, "induction")
    known = [w for w in dict.fromkeys((*W.LIST_WORDS, *W.NAMES, *W.THINGS, *W.PLACES)) if words.size(w) == 1]
    if len(known) >= _LEAST_WORDS:
        return tuple(continuation(net, "a", f" {word}")[0] for word in known), start
    special, size = set(tokenizer.all_special_ids), min(net.d_vocab or len(tokenizer), len(tokenizer))
    shown = ((i, tokenizer.decode([i])) for i in range(size) if i not in special)
    return tuple(i for i, text in shown if text.strip() and "\ufffd" not in text), start


def _show(net: Network, ids: Ids) -> str:
    return net.decode(list(ids)) if net.tokenizer is not None else " ".join(map(str, ids))
