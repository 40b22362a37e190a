"""The classes of transformers that a blueprint can be built in, and the dense weights that they take."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Architecture:
    """What a blueprint must know of a class.

    Attributes:
        name: of the architecture.
        norm_mean: do its norms subtract the mean?
        parallel: do attention and MLP of a layer read the same stream?
        positions: is there a learned position code?
        fast: for each rotary frequency that is used for offsets (pair of head dimensions, radians per position).
        content: head dimensions whose rotation is negligible.
        width: of a head.
        kv_heads: key/value heads.
        seats: the heads that named heads take, in order.
    """

    name: str
    norm_mean: bool
    parallel: bool
    positions: bool
    fast: tuple[tuple[tuple[int, int], float], ...]
    content: tuple[int, ...]
    width: int
    kv_heads: int
    seats: tuple[int, ...]


GPT2 = Architecture("gpt2", True, False, True, (), tuple(range(16)), 16, 4, (1, 2, 0, 3))
#: theta 1e9 on 32 dimensions: 1, 0.27, 0.075, 0.02, 0.0056 ... radians per position. Content takes one dimension of each
#: slow pair, so that what little rotation there is does not mix letters.
LLAMA = Architecture(
    "llama", False, False, False, (((0, 16), 1.0), ((2, 18), 1e9 ** (-2 / 16))), tuple(range(4, 16)), 32, 2, (1, 2),
)  # fmt: skip
#: Rotary on the first 4 of 16 dimensions, theta 100: 1 and 0.1 radians per position.
NEOX = Architecture(
    "neox", True, True, False, (((0, 2), 1.0), ((1, 3), 0.1)), tuple(range(4, 16)), 16, 4, (2, 0, 1, 3)
)
ARCHITECTURES = {a.name: a for a in (GPT2, LLAMA, NEOX)}


@dataclass(frozen=True)
class BuiltWeights:
    """Dense weights over the turned stream; those of layers have the layer first.

    Attributes:
        embed: [v d].
        position: [p d]; None where the architecture rotates queries and keys instead.
        q: [l h e d].
        k: [l g e d].
        v: [l g e d].
        o: [l h d e].
        read: [l m d].
        write: [l d m].
        unembed: [v d].
        norm: [d], of every norm.
    """

    embed: Tensor
    position: Tensor | None
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    read: Tensor
    write: Tensor
    unembed: Tensor
    norm: Tensor
