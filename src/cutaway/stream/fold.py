"""Norms as affine maps: out = (x - mean) * scale * weight + bias, with one scale per position, taken from the run.

No norm is known by name. A norm is *probed*: whether it centres, its weight and its bias are read off its answers to a
few random vectors, and the form is then checked on others. Once the scale is frozen at its value in a run the norm is
linear, so that what a sum of writers contributes can be taken through it term by term (Elhage et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import NotFoldable

#: Largest relative difference between a norm and its affine form, by the type it computes in.
TOLERANCE: dict[torch.dtype, float] = {
    torch.float64: 1e-5,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 6e-2,
}


@dataclass(frozen=True, eq=False)
class AffineNorm:
    """The form of one norm.

    Attributes:
        name: of its module, for messages.
        centred: whether it subtracts the mean.
        weight: [d], known up to a factor, which the scale of each position takes up.
        bias: [d].
        tolerance: largest relative difference between the norm and this form.
    """

    name: str
    centred: bool
    weight: Tensor
    bias: Tensor
    tolerance: float = 1e-4

    def linear(self, x: Tensor) -> Tensor:
        """The linear part at scale one: [... d] -> [... d]."""
        weight = self.weight.to(x)
        return (x - x.mean(-1, keepdim=True)) * weight if self.centred else x * weight

    def at(self, before: Tensor, after: Tensor) -> Fold:
        """The norm frozen at what it did to `before` [... d] in a run.

        Raises `NotFoldable` where the run's values do not follow the affine form.
        """
        direction = self.linear(before)
        rest = after.to(direction) - self.bias.to(direction)
        squares = direction.square().sum(-1, keepdim=True, dtype=torch.float64)
        products = (direction * rest).sum(-1, keepdim=True, dtype=torch.float64)
        scale = (products / squares.clamp(min=1e-300)).to(direction.dtype)
        error = _relative(direction * scale, rest)
        if not error <= self.tolerance:
            raise _not_affine(self.name, error)
        return Fold(self, scale, error)


@dataclass(frozen=True, eq=False)
class Fold:
    """A norm frozen at the values of one run: a linear map and a bias.

    Attributes:
        norm: its form.
        scale: [... 1], one for each position.
        error: relative difference between the run and the form.
    """

    norm: AffineNorm
    scale: Tensor
    error: float = 0.0

    @property
    def bias(self) -> Tensor:
        """What the norm adds whatever it reads: [d]."""
        return self.norm.bias.to(self.scale)

    def __call__(self, x: Tensor) -> Tensor:
        """The linear part: what a summand of the norm's input [... d] becomes."""
        return self.norm.linear(x) * self.scale.to(x)

    def back(self, g: Tensor) -> Tensor:
        """The transposed map: a direction [... d] behind the norm as one before it."""
        g = g * (self.norm.weight.to(g) * self.scale.to(g))
        return g - g.mean(-1, keepdim=True) if self.norm.centred else g

    def select(self, index: object) -> Fold:
        """The fold at some positions only."""
        return Fold(self.norm, self.scale[index], self.error)  # type: ignore[index]


def probe_norm(function: Callable[[Tensor], Tensor], width: int, name: str, like: Tensor) -> AffineNorm:
    """Find the affine form of a norm from its answers to random vectors [1 n d] of the type and device of `like`.

    Raises `NotFoldable` where its answers have no such form: a norm by groups, a squashing function, a norm that mixes
    positions.

    >>> form = probe_norm(torch.nn.LayerNorm(8), 8, "ln", torch.empty(0))
    >>> form.centred, float(form.bias.abs().max())
    (True, 0.0)
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (1, 6, width), generator=generator) * 2 - 1
    x = (signs * (0.5 + torch.rand(1, 6, width, generator=generator))).to(like)
    scaled = x * torch.tensor([1.0, 1.0, 1.0, 0.2, 3.0, 8.0]).to(like)[None, :, None]
    tolerance = TOLERANCE.get(like.dtype, 1e-4)
    with torch.no_grad():
        plus, minus = _answer(function, scaled, name), _answer(function, -scaled, name)
        lifted = _answer(function, scaled + 1.5, name)
    size = plus.abs().max().clamp(min=1e-30)
    centred = bool((lifted - plus).abs().max() <= 10 * tolerance * size)
    bias = ((plus + minus) / 2).mean((0, 1))
    rest = (plus - minus) / 2
    inner = scaled.to(rest)
    inner = inner - inner.mean(-1, keepdim=True) if centred else inner
    weight = common_weight(inner[0], rest[0])
    form = AffineNorm(name, centred, weight, bias, tolerance)
    form.at(scaled.to(plus), plus)
    form.at(-scaled.to(plus), minus)
    return form


def _answer(function: Callable[[Tensor], Tensor], x: Tensor, name: str) -> Tensor:
    answer = function(x)
    answer = answer[0] if isinstance(answer, tuple | list) else answer
    if answer.shape != x.shape or not bool(torch.isfinite(answer).all()):
        raise NotFoldable(
            f"{name} is not an affine norm: it gives no finite vector for every vector it reads.", _REMEDY
        )
    return answer.double() if x.dtype == torch.float64 else answer.float()


def common_weight(inner: Tensor, outer: Tensor) -> Tensor:
    """The elementwise factor [d] between two sets of vectors [n d], each pair of which has a scale of its own.

    outer_n = s_n w inner_n, so outer_n inner_0 = (s_n / s_0) outer_0 inner_n gives the scales, and least squares w.
    """
    mixed, first = outer * inner[:1], outer[:1] * inner
    scale = (mixed * first).sum(-1, keepdim=True) / first.square().sum(-1, keepdim=True).clamp(min=1e-30)
    scale = torch.where(scale.abs() > 1e-12, scale, torch.ones_like(scale))
    return (outer / scale * inner).sum(0) / inner.square().sum(0).clamp(min=1e-30)


_REMEDY = (
    "Contributions cannot be taken through it term by term; lenses, which use the norm itself, still work."
)


def _not_affine(name: str, error: float) -> NotFoldable:
    return NotFoldable(
        f"{name} is not an affine norm with one scale per position (relative difference {error:.2g}).",
        _REMEDY,
    )


def _relative(got: Tensor, wanted: Tensor) -> float:
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    error = float((got - wanted).abs().max()) / max(scale, 1e-30) if wanted.numel() else 0.0
    return error if error == error else float("inf")
