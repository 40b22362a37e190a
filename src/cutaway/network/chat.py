"""Conversations as prompts, by the chat template of a network's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cutaway.errors import BadInput, UnknownOption, did_you_mean
from cutaway.network.face import Face
from cutaway.network.inputs import Tokens
from cutaway.results import strict

#: One message, as chat templates take it: who speaks, and what is said.
Message = Mapping[str, str]

_WRITE = 'Write net.chat("...") or net.chat([{"role": "user", "content": "..."}]).'


@strict
def chat(
    net: Face,
    messages: str | Sequence[Message],
    *,
    system: str | None = None,
    add_generation_prompt: bool = True,
) -> Tokens:
    """A conversation as a prompt, by the tokenizer's chat template: for `run`, `generate` and whatever reads text.

    Args:
        messages: what the user says, or messages `{"role": "user", "content": "..."}` in turn.
        system: what the system says before them; without it, the template's own, if it has one.
        add_generation_prompt: end where the assistant begins to speak.

    Raises `BadInput` where there is no template, and for messages that are empty or that the template refuses.
    """
    text = chat_text(net, messages, system=system, add_generation_prompt=add_generation_prompt)
    return net.encode([list(net.tokenizer(text, add_special_tokens=False)["input_ids"])])


def chat_text(
    net: Face,
    messages: str | Sequence[Message],
    *,
    system: str | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """A conversation as the text that the chat template makes of it, special tokens written out; see `chat`.

    Raises `BadInput` as `chat` does.
    """
    given = _conversation(messages, system)
    tokenizer = net.tokenizer
    if tokenizer is None:
        raise BadInput("This network was opened without a tokenizer.", "Open it with tokenizer=...")
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            "The tokenizer of this network has no chat template: the network was not trained on conversations.",
            "Give it plain text, or a tokenizer with a template: cutaway.open(model, tokenizer=...).",
        )
    if not isinstance(add_generation_prompt, bool):
        raise BadInput(f"add_generation_prompt={add_generation_prompt!r} is no answer.", "Say True or False.")
    try:
        text = tokenizer.apply_chat_template(
            given, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # templates are programs of the model's makers and raise what they like
        raise BadInput(
            f"The chat template refused the messages: {str(error).strip() or type(error).__name__}.",
            "Most templates take user and assistant in turn, the user first.",
        ) from error
    if not isinstance(text, str) or not text:
        raise BadInput(
            "The chat template makes no text of the messages.", "Give a tokenizer with a template that does."
        )
    return text


def _conversation(messages: object, system: str | None) -> list[dict[str, str]]:
    """Messages as templates take them. Raises `BadInput` for what is no conversation."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise BadInput(f"{messages!r:.80} is no conversation.", _WRITE)
    if not messages:
        raise BadInput("There are no messages: the list is empty.", _WRITE)
    given: list[dict[str, str]] = [] if system is None else [{"role": "system", "content": system}]
    for message in messages:
        given.append(_message(message))
    if not all(message["content"].strip() for message in given):
        raise BadInput("A message is empty.", "Say something in every message.")
    return given


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise BadInput(f"{message!r:.80} is no message.", _WRITE)
    for key in message:
        if key not in ("role", "content"):
            raise UnknownOption(f"A message has no {key!r}.", did_you_mean(key, ("role", "content")))
    if not all(isinstance(message.get(key), str) for key in ("role", "content")):
        raise BadInput(f"{dict(message)!r:.80} does not say who speaks and what is said.", _WRITE)
    return {"role": message["role"], "content": message["content"]}
