"""An algorithm as a network without an architecture: named blocks of the stream, heads that match and move, neurons.

Blocks are coordinates of the stream as a reader sees it (after a norm that was made harmless). What a head or an MLP
reads and writes is a matrix over blocks; `cutaway.recipes.constructed.build` turns it into the weights of a class of
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

WIDTH = 64
CONTEXT = 32
#: Coordinates that make norms harmless: the constant and its opposite. The others are signals; the last of them stays
#: empty, so that signals can be turned into directions whose entries sum to zero.
ONE, MINUS, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Space:
    """Named blocks of the stream's coordinates, in the order given; the rest of the width is scratch.

    Attributes:
        sizes: coordinates of each block.

    >>> Space({"token": 12, "out": 12}).rows("out").shape
    torch.Size([12, 64])
    """

    sizes: Mapping[str, int]

    def span(self, block: str) -> range:
        """The coordinates of a block; of "scratch", those that no block has."""
        start = FIRST
        for name, size in self.sizes.items():
            if name == block:
                return range(start, start + size)
            start += size
        if block == "scratch":
            return range(start, WIDTH - 1)
        raise KeyError(block)

    def rows(self, block: str) -> Tensor:
        """[size WIDTH] unit rows that read a block (or, transposed, write it)."""
        return torch.eye(WIDTH)[list(self.span(block))]

    def unit(self, block: str, index: int = 0) -> Tensor:
        """[WIDTH] the direction of one coordinate of a block."""
        return self.rows(block)[index]


def one() -> Tensor:
    """[WIDTH] the row that reads the constant, as 1."""
    return torch.eye(WIDTH)[ONE]


@dataclass(frozen=True)
class HeadPlan:
    """A head that moves `value` of the source to `out` of the destination.

    Its attention score in nats is the sum over rows of (match_q x_dest)(match_k x_src), plus `strength` times how near the
    source lies to `offset` positions before the destination.

    Attributes:
        name: of the head.
        value: [n d], what it reads.
        out: [n d], where that is written.
        match_q: [m d] on the destination; None matches nothing.
        match_k: [m d] on the source.
        offset: in positions; None does not look at them.
        strength: of the offset.
    """

    name: str
    value: Tensor
    out: Tensor
    match_q: Tensor | None = None
    match_k: Tensor | None = None
    offset: int | None = None
    strength: float = 40.0


@dataclass(frozen=True)
class MlpPlan:
    """Neurons relu(read x) that write `out`.

    Attributes:
        name: of the MLP.
        read: [m d]; a bias is read from the constant.
        out: [m d].
    """

    name: str
    read: Tensor
    out: Tensor


@dataclass(frozen=True)
class LayerPlan:
    """Heads and an MLP.

    Attributes:
        heads: in any number up to the architecture's.
        mlp: None where there is none.
        serial: the MLP needs what the heads write, so parallel blocks give it a layer of its own.
    """

    heads: tuple[HeadPlan, ...] = ()
    mlp: MlpPlan | None = None
    serial: bool = True


@dataclass(frozen=True)
class Blueprint:
    """The whole network, over blocks.

    Attributes:
        space: the blocks.
        words: the vocabulary.
        embed: [v d].
        layers: in order.
        unembed: [v d].
    """

    space: Space
    words: tuple[str, ...]
    embed: Tensor
    layers: tuple[LayerPlan, ...]
    unembed: Tensor

    def laid_out(self, parallel: bool) -> Blueprint:
        """The same for blocks in which attention and MLP run in parallel: serial MLPs go to the next layer."""
        if not parallel:
            return self
        layers: list[LayerPlan] = []
        for layer in self.layers:
            if layer.serial and layer.heads and layer.mlp is not None:
                layers += [LayerPlan(layer.heads), LayerPlan((), layer.mlp)]
            else:
                layers.append(layer)
        return replace(self, layers=tuple(layers))

    def neurons(self, least: int) -> int:
        """As many as its largest MLP has, or `least`; all layers have the same number."""
        return max([least, *(len(layer.mlp.read) for layer in self.layers if layer.mlp is not None)])

    def without(self, *names: str) -> Blueprint:
        """The same without the parts of these names."""
        layers = tuple(
            replace(
                layer,
                heads=tuple(h for h in layer.heads if h.name not in names),
                mlp=None if layer.mlp is not None and layer.mlp.name in names else layer.mlp,
            )
            for layer in self.layers
        )
        return replace(self, layers=layers)

    def shuffled(self, tokens: Sequence[int]) -> Blueprint:
        """The same with the readout of these tokens moved on by one: every answer is the wrong one."""
        unembed = self.unembed.clone()
        unembed[list(tokens)] = self.unembed[[*tokens[1:], tokens[0]]]
        return replace(self, unembed=unembed)


def letters(n: int, prefix: str = "") -> tuple[str, ...]:
    """n words: the first letters of the alphabet, with a prefix.

    >>> letters(3)
    ('a', 'b', 'c')
    """
    return tuple(prefix + chr(ord("a") + i) for i in range(n))
