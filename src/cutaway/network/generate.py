"""Continue prompts with edits in place, using the model's own generation and its key/value cache."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadInput, TooLong, require_known
from cutaway.network.core import Core
from cutaway.network.edits import Bound, Phase
from cutaway.network.execution.running import RunOptions, evaluating, memory_errors, plan_work
from cutaway.network.execution.session import Session
from cutaway.network.inputs import Inputs, Tokens
from cutaway.network.texts import InputLike
from cutaway.results.meter import spend


@dataclass(frozen=True, eq=False)
class Generation:
    """Continued prompts.

    Attributes:
        prompts: as they were given.
        ids: LongTensor [b p+new], with prompts padded on the left.
        new: LongTensor [b new].
        texts: each prompt with what continues it, up to its end.
        replies: what continues it alone, up to its end.
        ended: did each come to its end token by itself, rather than to the last token that was allowed?
    """

    prompts: Tokens
    ids: Tensor
    new: Tensor
    texts: tuple[str, ...]
    replies: tuple[str, ...] = ()
    ended: tuple[bool, ...] = ()

    def __repr__(self) -> str:
        return "\n".join(self.texts)


def generate(
    net: Core,
    inputs: InputLike,
    max_new_tokens: int,
    edits: Sequence[Bound],
    on: Phase,
    options: dict[str, Any],
) -> Generation:
    """Continue prompts under edits.

    on: "all", "prompt" or "new": which tokens the edits act on. Positions in edits count from each prompt's first token;
    negative ones from its last. Decoding is greedy unless `do_sample=True` is given; other options go to the model's
    own `generate`.

    Raises `BadInput` where the model cannot generate, where prompts of unequal length need left padding that this network
    does not bear, or for beam search; `TooLong` beyond the context.
    """
    model: Any = net.model
    if not hasattr(model, "generate"):
        raise BadInput(
            f"{type(net.model).__name__} cannot generate.", "Open a model with a language-modelling head."
        )
    if on not in ("all", "prompt", "new"):
        raise BadInput(f"on={on!r} is not known.", 'Use "all", "prompt" or "new".')
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise BadInput(f"max_new_tokens={max_new_tokens!r} generates nothing.", "Ask for one token at least.")
    for name in ("num_beams", "num_return_sequences"):
        if int(options.get(name, getattr(model.generation_config, name, None) or 1)) > 1:
            raise BadInput(f"With {name} above 1, rows are not the prompts any more.", f"Use {name}=1.")
    encodes = net.interface.encoder_decoder
    if encodes and edits:
        raise BadInput(
            "Edits in the generation of an encoder-decoder are not supported.",
            "Use net.run with decoder_input_ids, which takes edits in both stacks.",
        )
    _require_options(net, options)
    tokens = net.texts.encode(inputs)
    if tokens.padded:
        if net.certificate.pads_left is False:
            raise BadInput(
                "Prompts of unequal length need left padding, which changes this network's numbers.",
                "Generate for prompts of one length at a time.",
            )
        tokens = tokens.padded_left()
    width = tokens.width
    if net.n_ctx is not None and width + max_new_tokens > net.n_ctx:
        raise TooLong(
            f"{width} prompt tokens and {max_new_tokens} new ones exceed the context of {net.n_ctx}.",
            f"Ask for at most {max(net.n_ctx - width, 0)} new tokens.",
        )
    ids = tokens.ids.to(net.device)
    arguments = {"do_sample": False, **options, "max_new_tokens": max_new_tokens}
    pad = getattr(net.model.generation_config, "pad_token_id", None)
    if pad is None:
        arguments.setdefault("pad_token_id", net.texts.pad_id)
    work = plan_work(net, (), edits, RunOptions())
    holder = Inputs({}, tokens, tokens.n)
    with net.lock, memory_errors(holder), evaluating(net.model), torch.no_grad():
        mask = tokens.mask.to(net.device).long()
        session: Any = nullcontext()
        if work:
            rows = {"": tokens}
            session = Session(net.model, net.anatomy, work, rows, tokens.n, phase=on, prompt_columns=width)
        with session:
            out = model.generate(input_ids=ids, attention_mask=mask, **arguments)
    whole = out if torch.is_tensor(out) else out.sequences
    new = whole[:, 1 if encodes else width :]
    spend(tokens.n * (1 + max(0, new.shape[1] - 1) / max(1, width)))
    prompts = [[] if encodes else tokens.row_ids(i) for i in range(tokens.n)]
    ends = options.get("eos_token_id", getattr(net.model.generation_config, "eos_token_id", None))
    stops = set(ends if isinstance(ends, list | tuple) else [ends])
    rows = new.tolist()
    said = [list(takewhile(lambda t: t not in stops, row)) for row in rows]
    texts = tuple(_text(net, [*prompt, *row]) for prompt, row in zip(prompts, said, strict=True))
    ended = tuple(len(short) < len(row) for short, row in zip(said, rows, strict=True))
    return Generation(tokens, whole.cpu(), new.cpu(), texts, tuple(_text(net, row) for row in said), ended)


def _require_options(net: Core, options: Mapping[str, Any]) -> None:
    """Refuse options that the model's own `generate` does not have; `UnknownOption` names the nearest."""
    model: Any = net.model
    own = [p for p in inspect.signature(model.generate).parameters if p != "kwargs"]
    settings = [name for name in vars(model.generation_config) if not name.startswith("_")]
    require_known(options, [*own, *settings, *net.interface.names], "generate")


def _text(net: Core, ids: list[int]) -> str:
    tokenizer = net.texts.tokenizer
    return net.texts.decode(ids) if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=True)
