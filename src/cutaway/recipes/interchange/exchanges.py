"""Parts of a small network read, and replaced for each row by what they were for another, while it trains.

Parts are numbered layer by layer, heads before the MLP: `part_list(layers=2, heads=4)` has ten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cutaway.interventions import Apply
from cutaway.network import Network
from cutaway.network.opening import open_network
from cutaway.network.parts import Part


def part_list(layers: int, heads: int) -> list[Part]:
    """All parts in their order.

    >>> [str(part) for part in part_list(1, 2)]
    ['a0.h0', 'a0.h1', 'm0']
    """
    heads_of = ([Part("head", layer, head) for head in range(heads)] for layer in range(layers))
    return [part for layer, of in enumerate(heads_of) for part in (*of, Part("mlp", layer))]


@dataclass(frozen=True)
class RowExchange:
    """Replace parts by what they were for other rows of a captured run.

    Attributes:
        mask: bool [rows parts p]: where to replace.
        source: int [rows]: the captured row to take it from.
    """

    mask: Tensor
    source: Tensor


@dataclass(frozen=True)
class Captured:
    """What each part gave in a run.

    Attributes:
        heads: by layer, [rows p h e].
        mlps: by layer, [rows p d].
    """

    heads: dict[int, Tensor] = field(default_factory=dict)
    mlps: dict[int, Tensor] = field(default_factory=dict)


def opened(model: PreTrainedModel) -> Network:
    """A network in training, to be run with exchanges; its weights change under it, so nothing is certified."""
    return open_network(model, certify=False)


def run(
    net: Network,
    ids: Tensor,
    heads: int,
    exchanges: Sequence[RowExchange] = (),
    captured: Captured | None = None,
) -> tuple[Tensor, Captured]:
    """Logits at the last position, [rows v], and what each part gave, after the exchanges (later ones win)."""
    seen = Captured()
    edits = []
    for layer in range(net.n_layers):
        first = layer * (heads + 1)
        of_heads, of_mlps = (captured.heads[layer], captured.mlps[layer]) if captured else (None, None)
        columns = slice(first, first + heads)
        edits += [
            Apply(f"z.{layer}", fn=_exchanging(exchanges, columns, of_heads, seen.heads, layer)),
            Apply(f"mlp_out.{layer}", fn=_exchanging(exchanges, first + heads, of_mlps, seen.mlps, layer)),
        ]
    logits = net.run({"input_ids": ids}, edits=edits, logits="last", grad=torch.is_grad_enabled()).logits
    assert logits is not None
    return logits[:, -1], seen


def _exchanging(
    exchanges: Sequence[RowExchange],
    part: slice | int,
    captured: Tensor | None,
    seen: dict[int, Tensor],
    layer: int,
) -> Callable[[Tensor], Tensor]:
    """The change of one sublayer's value: rows take those of other rows, and what comes out is noted in `seen`."""

    def change(value: Tensor) -> Tensor:
        for exchange in exchanges:
            assert captured is not None
            where = exchange.mask[:, part]
            where = where.transpose(1, 2)[..., None] if where.ndim == 3 else where[..., None]
            value = torch.where(where, captured[exchange.source], value)
        seen[layer] = value
        return value

    return change
