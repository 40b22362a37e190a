"""What is attributed: the logit of a target, or its difference from that of a foil, as directions at the final norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.network.execution.heads import held_by, output_weight
from cutaway.network.precision import precise
from cutaway.network.texts import spaced
from cutaway.results import brief

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.anatomy import Head

#: A target as a user writes it: a word, a token id, or one of them per row.
TokenLike = str | int | Sequence[str | int] | Tensor


def head_of(net: Network) -> Head:
    """How the stream becomes logits. Raises `SiteUnavailable` with the reason where that is not known."""
    head = net.anatomy.head
    check = net.certificate.check("unembed(final_norm) = logits")
    if head is None or head.unembed is None:
        raise SiteUnavailable(
            "It is not known how this network's last stream becomes logits: between the final norm and the output lies more "
            "than one matrix, or the network has no output head.",
            "Read the stream itself: net.run(text, keep='resid_post').",
        )
    if check is not None and not check.holds:
        raise SiteUnavailable(
            f"The unembedding of this network was not certified: relative error {check.error:.2g}, tolerance "
            f"{check.tolerance:.2g}.",
            "Read the stream itself: net.run(text, keep='resid_post').",
        )
    return head


def token_ids(
    net: Network, tokens: TokenLike, rows: int, what: str = "target", first: bool | None = None
) -> Tensor:
    """A target as one token id per row: LongTensor [b].

    first: take the first token of a word of several; None where the verb does not offer that.

    Raises `BadInput` for an unknown token, one outside the vocabulary,
    a word of several tokens, or another number of targets than rows.
    """
    if torch.is_tensor(tokens):
        tokens = tokens.reshape(-1).tolist()
    given = list(tokens) if isinstance(tokens, Sequence) and not isinstance(tokens, str) else [tokens]
    ids = [_one(net, token, what, first) for token in given]
    if len(ids) == 1:
        ids = ids * rows
    if len(ids) != rows:
        raise BadInput(
            f"There are {len(ids)} {what}s for {rows} prompts.", f"Give one {what}, or one for each prompt."
        )
    return torch.tensor(ids, dtype=torch.long)


def _one(net: Network, token: str | int, what: str, first: bool | None) -> int:
    if isinstance(token, str):
        ids = net.continuation_ids(token)
        if not ids:
            raise BadInput(f"The {what} is empty.", f"Give a word as {what}, with the space before it.")
        unknown = getattr(net.tokenizer, "unk_token_id", None)
        if unknown is not None and unknown in ids:
            raise BadInput(
                f"The {what} {token!r} holds what this tokenizer does not know.", f"Choose another {what}."
            )
        if len(ids) > 1 and not first:
            meant = spaced(net, token)
            how = f"its id is {ids[0]}" if first is None else "first_token=True, --first-token"
            raise BadInput(
                f"The {what} {token!r} is {len(ids)} tokens here: {net.token_strings(ids)}.",
                (f"Did you mean {meant!r}, with its space? Else: give " if meant else "Give ")
                + f"its first token alone, {net.token_strings(ids[:1])[0]!r} ({how}), or score the whole "
                "string: cutaway.stream.string_log_prob(net, text, target).",
            )
        return ids[0]
    if isinstance(token, bool) or not isinstance(token, int):
        raise BadInput(f"{token!r:.80} is no {what}.", "Give a word or a token id.")
    size = net.d_vocab
    if token < 0 or (size is not None and token >= size):
        raise BadInput(
            f"Token id {token} is outside the vocabulary of {size} tokens.",
            f"Use ids 0 to {(size or 1) - 1}.",
        )
    return token


@dataclass(frozen=True, eq=False)
class Direction:
    """A logit, or a difference of two, as function of the final norm's output x [b k d]: sum(vector * x) + bias.

    Attributes:
        vector: [b d].
        bias: [b].
        softcap: the network's, or None; with one this is the logit before it, in the unit of logits.
    """

    vector: Tensor
    bias: Tensor
    softcap: float | None

    __repr__ = brief

    def of(self, x: Tensor) -> Tensor:
        """The value at each position: [b k] from [b k d]."""
        return (x * self.vector[:, None].to(x)).sum(-1, dtype=torch.float64) + self.bias[:, None].to(x.device)


def direction(net: Network, target: Tensor, foil: Tensor | None = None) -> Direction:
    """The direction of the logit of `target` [b], or of logit(target) - logit(foil), at the output of the final norm."""
    head = head_of(net)
    assert head.unembed is not None
    module = net.modules[head.unembed]
    rows, bias = unembedding(module, target, net.d_model or 0)
    if foil is not None:
        other, other_bias = unembedding(module, foil, net.d_model or 0)
        rows, bias = rows - other, bias - other_bias
    factor = head.scale * (1.0 if head.softcap is None else head.softcap)
    return Direction(rows * head.before * factor, bias.double() * factor, head.softcap)


def unembedding(module: nn.Module, ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The rows [n d] of an unembedding and its biases [n], in at least single precision.

    A plain matrix is indexed; any other module is asked for the gradient of each logit.
    """
    weight, bias = output_weight(module), getattr(module, "bias", None)
    if weight is not None and weight.device.type != "meta":
        at = ids.to(weight.device)
        rows = precise(weight.T.detach()[at])
        shifts = rows.new_zeros(len(ids)) if bias is None else bias.detach()[at].to(rows)
        return rows, shifts
    answers = [_by_gradient(module, int(i), width) for i in ids]
    return torch.stack([row for row, _ in answers]), torch.stack([shift for _, shift in answers])


def _by_gradient(module: nn.Module, index: int, width: int) -> tuple[Tensor, Tensor]:
    held = held_by(module)
    with torch.enable_grad():
        x = torch.zeros(1, 1, width, dtype=held.dtype, device=held.device, requires_grad=True)
        logit = module(x)[0, 0, index]
        (row,) = torch.autograd.grad(logit, x)
    return row[0, 0].float(), logit.detach().float()


def string_log_prob(net: Network, text: str, target: str) -> float:
    """Log probability, in nats, that a prompt is continued by a whole string of one or more tokens.

    Raises `BadInput` where the string is empty, `TooLong` where both together do not fit the context.
    """
    prompt = net.encode(text).row_ids(0)
    ids = net.continuation_ids(target)
    if not ids:
        raise BadInput("The target is empty.", "Give a word as target, with the space before it.")
    logits = net.run([[*prompt, *ids]]).logits
    assert logits is not None
    picked = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return float(picked.gather(1, torch.tensor(ids, device=picked.device)[:, None]).sum())
