"""What an edit does to text that has nothing to do with the label: the change in cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.interventions import Add, Project
from cutaway.network.inputs import Tokens
from cutaway.probes.reading import beds
from cutaway.probes.reading.spots import Spot
from cutaway.probes.use.directions import Along
from cutaway.probes.use.moving import Moving

if TYPE_CHECKING:
    from cutaway.network import Network

#: Plain English about nothing in particular, for networks with a tokenizer where no other text is given.
SENTENCES: tuple[str, ...] = (
    "One day it began to rain, and the water ran down the street.",
    "There was a big box under the table. Nobody knew what was in it.",
    "The sun came up over the hills and the birds started to sing.",
    "They walked for a long time until they came to a small house.",
    "It was cold outside, so the door was closed and the fire was lit.",
    "The cake was on the plate. It smelled very good.",
    "A little boat went across the lake and came back in the evening.",
    "In the morning the grass was wet and the flowers were open.",
)


def text_rows(net: Network, given: Sequence[Any] | None, tokens: Tokens, seed: int) -> tuple[Tokens, str]:
    """Rows of unrelated text and what they are: those given, plain sentences, or the prompts' own tokens in random order."""
    if given is not None:
        if isinstance(given, str) or len(given) == 0:
            remedy = "Give several texts, or rows of token ids."
            raise BadInput("The unrelated text is no list of texts.", remedy)
        return net.encode(list(given)), f"{len(given)} given texts"
    if net.tokenizer is not None:
        return net.encode(list(SENTENCES)), f"{len(SENTENCES)} plain sentences"
    rng = np.random.default_rng(seed)
    pool = tokens.ids[tokens.mask].cpu().numpy()
    size = min(int(tokens.lengths.max()), 16)
    rows = rng.choice(pool, size=(16, max(2, size)))
    return net.encode(rows.tolist()), "the prompts' tokens in random order"


def cross_entropy(net: Network, tokens: Tokens, edits: Sequence[Any] = ()) -> float:
    """Mean nats per token of rows [b p], predicted from the tokens before.

    Raises `BadInput` where the network does not predict the tokens that it reads.
    """
    logits = net.run(tokens, edits=list(edits)).logits
    if not _predicts(logits, tokens):
        raise BadInput(
            f"{net.name} does not predict the tokens that it reads.",
            "Cross-entropy needs an output over tokens.",
        )
    assert logits is not None
    ids, mask = tokens.ids.to(logits.device), tokens.mask.to(logits.device)
    logp = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    real = mask[:, 1:] & mask[:, :-1]
    return float(-(logp * real).sum() / real.sum().clamp(min=1))


def _predicts(logits: Tensor | None, tokens: Tokens) -> bool:
    """Whether there is a logit at every position for every token that is read."""
    if logits is None or logits.ndim != 3 or logits.shape[1] != tokens.width:
        return False
    return int(tokens.ids[tokens.mask].max()) < logits.shape[-1]


def projected(net: Network, spot: Spot, tokens: Tokens, directions: Tensor, levels: Tensor) -> np.ndarray:
    """Cross-entropy [s] with each direction [s d] held at its level [s] at every position."""
    out = []
    for direction, level in zip(directions.float(), levels.tolist(), strict=True):
        out_of = Project(spot.site, direction, head=spot.head)
        back = Add(spot.site, direction, level, head=spot.head)
        out.append(cross_entropy(net, tokens, [out_of, back]))
    return np.array(out)


def side_effect(
    moving: Moving, alongs: Sequence[Along], others: Tensor, given: Sequence[Any] | None
) -> dict[str, Any] | None:
    """Cross-entropy on unrelated text with each direction projected out at every position; None where heads are read
    side by side, and where the network does not predict the tokens that it reads (a classifier, an algorithm).

    Raises `BadInput` in the latter case where the text was given.
    """
    net, spot, bed = moving.net, moving.spot, moving.bed
    if spot.head is None and not spot.site.module and "head_width" in spot.site.axes:
        return None
    tokens, what = text_rows(net, given, bed.tokens, moving.seed)
    if given is None and not _predicts(net.run(tokens).logits, tokens):
        return None
    base = cross_entropy(net, tokens)
    mean = moving.features.mean(0)
    some = others[:: max(1, len(others) // 20)]
    random = projected(net, spot, tokens, some, some @ mean) - base
    levels = torch.tensor([float(a.middle.mean()) for a in alongs])
    changes = projected(net, spot, tokens, torch.stack([a.vector for a in alongs]), levels) - base
    vocabulary = beds.run(net, bed, rows=torch.arange(1)).shape[-1]
    moving.work.step("unrelated text", 1, 1)
    return {
        "what": what, "base": base, "known": base < math.log(vocabulary), "random": random.tolist(),
        "changes": {a.name: float(c) for a, c in zip(alongs, changes, strict=True)},
    }  # fmt: skip
