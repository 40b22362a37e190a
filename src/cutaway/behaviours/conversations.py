"""Prompts that are conversations: through the chat template, up to where the assistant begins to speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.errors import BadFormat, BadInput
from cutaway.network.chat import chat_text

if TYPE_CHECKING:
    from cutaway.network import Network

_SIDES = ("clean", "corrupted")


def is_conversation(prompt: object) -> bool:
    """Whether a prompt is a list of messages.

    >>> is_conversation([{"role": "user", "content": "Hello"}]), is_conversation([5, 6]), is_conversation("Hello")
    (True, False, False)
    """
    return isinstance(prompt, Sequence) and bool(prompt) and isinstance(prompt[0], Mapping)


def through_template(
    net: Network, name: str, rows: Sequence[tuple[int, Mapping[str, Any]]], system: str | None = None
) -> list[tuple[int, Mapping[str, Any]]]:
    """Numbered rows with both prompts as the text that the network's chat template makes of them.

    A prompt is what a user says, or messages in turn; `system` is what the system says before them.

    Raises `BadFormat` for token ids, `BadInput` with the row's number where the template refuses.
    """
    done: list[tuple[int, Mapping[str, Any]]] = []
    for number, row in rows:
        made: dict[str, Any] = {}
        for side in _SIDES:
            if side not in row:
                continue
            if not isinstance(row[side], str) and not is_conversation(row[side]):
                raise BadFormat(
                    f"Row {number} of {name!r}: {side!r} is no conversation.",
                    'Give what the user says, or messages: [{"role": "user", "content": "..."}].',
                )
            try:
                made[side] = chat_text(net, row[side], system=system)
            except BadInput as error:
                raise BadInput(f"Row {number} of {name!r}: {error.problem}", error.remedy) from error
        done.append((number, {**row, **made}))
    return done


def spaced_answers(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> bool:
    """Whether every right answer begins with a space, as it does not where an assistant begins a line."""
    first = [
        row["right"] if isinstance(row["right"], str) else next(iter(row["right"] or ()), "")
        for _, row in rows
    ]
    return all(isinstance(answer, str) and answer.startswith(" ") for answer in first)
