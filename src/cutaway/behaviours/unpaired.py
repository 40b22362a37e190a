"""A plain list of prompts as a behaviour: what can be ablated and measured, but not exchanged between twins.

The lower end of the scale needs prompts with another answer. Two prompts of the list with different answers are put
together, each as the other's lower end. They differ in more than what decides the answer: therefore nothing may be patched
between them, and `Behaviour.paired` is False.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import BadBehaviour

if TYPE_CHECKING:
    from cutaway.network import Network

Numbered = list[tuple[int, Mapping[str, Any]]]
OTHERS = "A plain list of prompts: the lower end of each is another prompt of the list, so that nothing can be patched."
OWN = "No answers were given: the right one is the network's own likeliest next token."


def is_unpaired(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> bool:
    """Whether no row has a twin."""
    return not any("corrupted" in row for _, row in rows)


def twinned(
    net: Network, name: str, rows: Sequence[tuple[int, Mapping[str, Any]]], seed: int, special: bool
) -> tuple[Numbered, list[str]]:
    """Rows without twins, two and two together with different answers, and notes on it.

    Without right answers they are the network's own; without wrong ones they are the other prompt's right ones. special:
    does the tokenizer add special tokens?

    Raises `BadBehaviour` where no two prompts have different answers.
    """
    notes = [OTHERS]
    usable = [(number, dict(row)) for number, row in rows if row.get("clean")]
    if not any("right" in row for _, row in usable):
        notes.append(OWN)
        said = _own(net, [row["clean"] for _, row in usable], special)
        usable = [(number, row | {"right": own}) for (number, row), own in zip(usable, said, strict=True)]
    left = [usable[i] for i in np.random.default_rng(seed).permutation(len(usable))]
    done: Numbered = []
    while left:
        number, row = left.pop()
        other = next((o for o in left if _differ(row, o[1])), None)
        if other is not None:
            left.remove(other)
            done += [(number, _with(row, other[1])), (other[0], _with(other[1], row))]
        elif (match := next((r for _, r in done if _differ(row, r)), None)) is not None:
            done.append((number, _with(row, match)))
    if not done:
        raise BadBehaviour(
            f"All prompts of {name!r} have the same answer, so that there is no other to tell it from.",
            "Give prompts with different answers, or each its twin as 'corrupted'.",
        )
    if len(done) < len(rows):
        notes.append(f"{len(rows) - len(done)} prompts were left out: no other has a different answer.")
    return sorted(done, key=lambda pair: pair[0]), notes


def _answers(row: Mapping[str, Any]) -> list[Any]:
    right = row.get("right")
    return [right] if isinstance(right, str | int) else list(right or ())


def _differ(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a["clean"] != b["clean"] and not set(_answers(a)) & set(_answers(b))


def _with(row: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {"wrong": _answers(other), **row, "corrupted": other["clean"]}


def _own(net: Network, prompts: Sequence[Any], special: bool) -> list[int]:
    """The network's own likeliest next token after each prompt."""
    said: list[int] = []
    for prompt in prompts:
        rows: Any = [prompt if isinstance(prompt, str) else list(prompt)]
        tokens = net.encode(rows, add_special_tokens=special)
        logits = net.run(tokens, logits="last").logits
        assert logits is not None
        said.append(int(logits[0, -1].argmax()))
    return said
