"""From what an encoder computes to activations: the nonlinearities that dictionaries are trained with.

One rule for all: an activation is there where it is *above* its threshold, not at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from cutaway.errors import BadInput


class Nonlinearity(Protocol):
    """What all of them offer."""

    #: Its name in files and in words.
    kind: ClassVar[str]

    def __call__(self, pre: Tensor) -> Tensor:
        """Pre-activations [... F] -> activations [... F], zero where a latent is silent."""
        ...


@dataclass(frozen=True)
class ReLU:
    """max(0, pre)."""

    kind: ClassVar[str] = "relu"

    def __call__(self, pre: Tensor) -> Tensor:
        """The positive part."""
        return pre.relu()


@dataclass(frozen=True)
class Signed:
    """The pre-activation as it is, above and below zero: components and directions, which have no threshold."""

    kind: ClassVar[str] = "signed"

    def __call__(self, pre: Tensor) -> Tensor:
        """Itself."""
        return pre


@dataclass(frozen=True, eq=False)
class JumpReLU:
    """The pre-activation where it is above its latent's threshold, else zero (Rajamanoharan et al. 2024).

    Attributes:
        threshold: [F], or [] for one that all latents share. Below zero it lets negative activations through.
    """

    kind: ClassVar[str] = "jumprelu"
    threshold: Tensor

    def __call__(self, pre: Tensor) -> Tensor:
        """pre * 1[pre > threshold]."""
        return torch.where(pre > self.threshold.to(pre), pre, torch.zeros_like(pre))


@dataclass(frozen=True)
class TopK:
    """The k largest pre-activations of each row, those of them that are positive (Gao et al. 2024).

    Attributes:
        k: how many latents a row has at most.
        by: [F] above zero, with which pre-activations are multiplied to be ranked and no further (the lengths of decoders);
            None for ones.
    """

    kind: ClassVar[str] = "topk"
    k: int
    by: Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _positive(self.k)

    def __call__(self, pre: Tensor) -> Tensor:
        """relu(pre) at the k largest of pre * by, zero elsewhere."""
        ranks = pre if self.by is None else pre * self.by.to(pre)
        at = ranks.topk(min(self.k, pre.shape[-1]), dim=-1).indices
        return torch.zeros_like(pre).scatter(-1, at, pre.gather(-1, at).relu())


@dataclass(frozen=True)
class AbsTopK:
    """The k pre-activations of each row that are largest without their sign, signs kept.

    Attributes:
        k: how many latents a row has at most.
    """

    kind: ClassVar[str] = "abstopk"
    k: int

    def __post_init__(self) -> None:
        _positive(self.k)

    def __call__(self, pre: Tensor) -> Tensor:
        """pre at the k largest |pre|, zero elsewhere."""
        at = pre.abs().topk(min(self.k, pre.shape[-1]), dim=-1).indices
        return torch.zeros_like(pre).scatter(-1, at, pre.gather(-1, at))


@dataclass(frozen=True)
class GroupMax:
    """The largest positive pre-activation of each of k groups of neighbouring latents.

    Attributes:
        k: how many groups; it divides the number of latents.
    """

    kind: ClassVar[str] = "groupmax"
    k: int

    def __post_init__(self) -> None:
        _positive(self.k)

    def __call__(self, pre: Tensor) -> Tensor:
        """relu(pre) at the largest of each group, zero elsewhere. Raises `BadInput` for groups of unequal size."""
        if pre.shape[-1] % self.k:
            raise BadInput(
                f"{pre.shape[-1]} latents do not fall into {self.k} equal groups.",
                "Give a k that divides them.",
            )
        groups = pre.relu().unflatten(-1, (self.k, -1))
        best, at = groups.max(-1, keepdim=True)
        return torch.zeros_like(groups).scatter(-1, at, best).flatten(-2)


@dataclass(frozen=True, eq=False)
class Gated:
    """One product with two biases: the gate says whether, the magnitude how much (Rajamanoharan et al. 2024).

    Attributes:
        gate: bias [F] of the gate.
        scale: factor [F] of the magnitude's product.
        magnitude: bias [F] of the magnitude.
    """

    kind: ClassVar[str] = "gated"
    gate: Tensor
    scale: Tensor
    magnitude: Tensor

    def __call__(self, pre: Tensor) -> Tensor:
        """1[pre + gate > 0] * relu(scale * pre + magnitude); pre has no bias of its own."""
        size = (pre * self.scale.to(pre) + self.magnitude.to(pre)).relu()
        return torch.where(pre + self.gate.to(pre) > 0, size, torch.zeros_like(size))


NONLINEARITIES: dict[str, type] = {
    cls.kind: cls for cls in (ReLU, Signed, JumpReLU, TopK, AbsTopK, GroupMax, Gated)
}


def tensors_of(nonlinearity: Any) -> Mapping[str, Tensor]:
    """The tensors that it holds, by name."""
    found = {f.name: getattr(nonlinearity, f.name) for f in fields(nonlinearity)}
    return {name: value for name, value in found.items() if torch.is_tensor(value)}


def _positive(k: object) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BadInput(f"k={k!r} is no number of latents.", "Give a whole number of at least 1.")
