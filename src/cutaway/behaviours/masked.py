"""Prompts with a mask: what a masked language model is asked is the word in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.behaviours.data import Ids
from cutaway.behaviours.tokenizing import tokenizer_of
from cutaway.errors import BadBehaviour

if TYPE_CHECKING:
    from cutaway.network import Network


def mask_of(net: Network, ids: Ids) -> int | None:
    """The mask's token, where it stands in a prompt; None where it does not, or where there is none."""
    mask = getattr(net.tokenizer, "mask_token_id", None)
    return mask if mask is not None and mask in ids else None


def mask_place(net: Network, where: str, clean: Ids, corrupted: Ids) -> int | None:
    """The row-relative position of the mask in both prompts; None where the clean one has none.

    Raises `BadBehaviour` where there are several, or where it stands elsewhere in the corrupted prompt.
    """
    mask = mask_of(net, clean)
    if mask is None:
        return None
    if clean.count(mask) > 1:
        raise BadBehaviour(
            f"{where} has {clean.count(mask)} masks.",
            "Say which one is asked for: answer_pos=..., counted in tokens.",
        )
    first = clean.index(mask)
    if len(corrupted) > first and corrupted[first] == mask:
        return first
    last = first - len(clean)
    if len(corrupted) >= -last and corrupted[last] == mask:
        return last
    raise BadBehaviour(
        f"{where}: the mask does not stand at the same place of both prompts.",
        "Let as many tokens stand before it, or after it, in both.",
    )


def in_place_of_mask(net: Network, answer: str) -> Ids:
    """The tokens of an answer in the place of a mask. Raises `BadBehaviour` where the tokenizer does not know it."""
    tokenizer = tokenizer_of(net, answer)
    ids = tuple(net.continuation_ids(answer))
    if not ids or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids):
        raise BadBehaviour(
            f"The tokenizer does not know the answer {answer!r}.", "Choose an answer that it knows."
        )
    return ids
