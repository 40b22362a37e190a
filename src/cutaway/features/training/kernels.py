"""Products with activations of which most are zero, with their gradients, exact.

What fires on a batch is a list of (row, latent), in the order of rows: a `Listed`. Three products are all that a step needs
beside the encoder's: rows of a matrix summed with weights (the reconstruction; and, over the same list in the order of
latents, the gradients of both matrices), and inner products at the listed places (the gradient of activations). All are
`embedding_bag`s. A `Full` does the same with ordinary products, where so many fire that a list is no use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def summed(weight: Tensor, at: Tensor, starts: Tensor, by: Tensor) -> Tensor:
    """For each bag the sum of by[i] * weight[at[i]] over i from its start [bags + 1] to the next: [bags d]."""
    if not at.numel():
        return weight.new_zeros(starts.numel() - 1, weight.shape[1])
    return F.embedding_bag(
        at, weight, starts, mode="sum", per_sample_weights=by, include_last_offset=True
    )  # fmt: skip


def inner(left: Tensor, right: Tensor, bags: Tensor, at: Tensor, starts: Tensor) -> Tensor:
    """left[bags[i]] @ right[at[i]] for each i: [n]. starts: of the bags, as for `summed`."""
    if not at.numel():
        return left.new_zeros(0)
    backward = torch.ops.aten._embedding_bag_per_sample_weights_backward
    return backward(left.contiguous(), right, at, starts, bags, 0)


@dataclass(frozen=True, eq=False)
class Listed:
    """What may fire on a batch, as a list.

    Attributes:
        rows: [n] ascending.
        latents: [n]; ascending within a row where there are several parts.
        n_rows: N.
        size: F.
        bounds: the ends of the parts that latents fall into, ascending, the last of them F.
    """

    rows: Tensor
    latents: Tensor
    n_rows: int
    size: int
    bounds: tuple[int, ...]

    @cached_property
    def bags(self) -> Tensor:
        """row * parts + part, [n]."""
        if len(self.bounds) == 1:
            return self.rows
        ends = torch.tensor(self.bounds[:-1], device=self.rows.device)
        return self.rows * len(self.bounds) + torch.bucketize(self.latents, ends, right=True)

    @cached_property
    def starts(self) -> Tensor:
        """Where each bag begins, and the end: [N * parts + 1]."""
        return _starts(self.bags, self.n_rows * len(self.bounds))

    @cached_property
    def row_starts(self) -> Tensor:
        """Where each row begins, and the end: [N + 1]."""
        return self.starts if len(self.bounds) == 1 else _starts(self.rows, self.n_rows)

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor]:
        """The list in the order of latents [n], and where each of them begins [F + 1]."""
        small = self.latents.to(torch.int16 if self.size < 2**15 else torch.int32)
        return torch.sort(small, stable=True).indices, _starts(self.latents, self.size)

    @cached_property
    def touched(self) -> Tensor:
        """Which latents are in the list at all: bool [F]."""
        return self.mark(self.latents)

    def mark(self, latents: Tensor) -> Tensor:
        """bool [F], true at these latents."""
        return torch.zeros(self.size, dtype=torch.bool, device=latents.device).index_fill_(0, latents, True)

    def transposed(self, by: Tensor, rows: Tensor, bags: Tensor) -> Tensor:
        """For each latent the sum of by[i] * rows[bags[i]] over its entries: [F d]."""
        order, starts = self.by_latent
        return summed(rows.contiguous(), bags.index_select(0, order), starts, by.index_select(0, order))

    def encoded(self, rows: Tensor, weight: Tensor, bias: Tensor, values: Tensor) -> Tensor:
        """The listed pre-activations [n], whose values are known, as what they depend on: rows [N d], weight [F d], bias."""
        return _Encoded.apply(rows, weight, bias, values, self)  # type: ignore[return-value]

    def decoded(self, values: Tensor, weight: Tensor) -> Tensor:
        """values @ weight [F d], from the latents up to each bound: [N parts d]."""
        out: Tensor = _Decoded.apply(values, weight, self)  # type: ignore[assignment]
        out = out.view(self.n_rows, len(self.bounds), -1)
        return out if len(self.bounds) == 1 else out.cumsum(1)

    def spread(self, parameter: Tensor) -> Tensor:
        """A number for each latent [F], at each entry [n]."""
        return _Spread.apply(parameter, self)  # type: ignore[return-value]

    def kept(self, values: Tensor) -> Tensor:
        """Values at what is listed; a list holds no others."""
        return values

    def fired(self, values: Tensor) -> Tensor:
        """Which latents fired anywhere: bool [F]."""
        on = values > 0
        return self.touched if bool(on.all()) else self.mark(self.latents[on])


@dataclass(frozen=True, eq=False)
class Full:
    """What may fire on a batch, as a mask.

    Attributes:
        mask: bool [N F].
        bounds: as of `Listed`.
    """

    mask: Tensor
    bounds: tuple[int, ...]

    @cached_property
    def touched(self) -> Tensor:
        """Which latents are in the mask at all: bool [F]."""
        return self.mask.any(0)

    def encoded(self, rows: Tensor, weight: Tensor, bias: Tensor, _: Tensor | None = None) -> Tensor:
        """All pre-activations [N F]; known values are of no use."""
        return torch.addmm(bias, rows, weight.T)

    def decoded(self, values: Tensor, weight: Tensor) -> Tensor:
        """values @ weight [F d], from the latents up to each bound: [N parts d]."""
        if len(self.bounds) == 1:
            return (values @ weight)[:, None]
        starts = (0, *self.bounds[:-1])
        parts = [values[:, a:b] @ weight[a:b] for a, b in zip(starts, self.bounds, strict=True)]
        return torch.stack(parts, 1).cumsum(1)

    def spread(self, parameter: Tensor) -> Tensor:
        """A number for each latent [F], at each entry [N F]."""
        return parameter.expand_as(self.mask)

    def kept(self, values: Tensor) -> Tensor:
        """Values where the mask is true, zero elsewhere."""
        return torch.where(self.mask, values, torch.zeros_like(values))

    def fired(self, values: Tensor) -> Tensor:
        """Which latents fired anywhere: bool [F]."""
        return (values > 0).any(0)


Layout = Listed | Full


def listed(flat: Tensor, n_rows: int, size: int, bounds: tuple[int, ...]) -> Listed:
    """The list of flat places row * F + latent [n] ascending."""
    rows = torch.div(flat, size, rounding_mode="floor")
    return Listed(rows, flat - rows * size, n_rows, size, bounds)


def full(flat: Tensor, n_rows: int, size: int, bounds: tuple[int, ...]) -> Full:
    """The same as a mask."""
    mask = torch.zeros(n_rows * size, dtype=torch.bool, device=flat.device).index_fill_(0, flat, True)
    return Full(mask.view(n_rows, size), bounds)


def _starts(of: Tensor, count: int) -> Tensor:
    counts = torch.bincount(of, minlength=count)
    return F.pad(counts.cumsum(0), (1, 0))


class _Encoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, _: Tensor, values: Tensor, at: Listed) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.at = at
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (by,), at = grads, ctx.at
        rows, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        to_rows = summed(weight, at.latents, at.row_starts, by) if needs[0] else None
        to_weight = at.transposed(by, rows, at.rows) if needs[1] else None
        to_bias = _by_latent(by, at) if needs[2] else None
        return to_rows, to_weight, to_bias, None, None


class _Decoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, at: Listed) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.at = at
        return summed(weight, at.latents, at.starts, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        at = ctx.at
        values, weight = ctx.saved_tensors
        by = grads[0].contiguous()
        needs = ctx.needs_input_grad
        to_values = inner(by, weight, at.bags, at.latents, at.starts) if needs[0] else None
        to_weight = at.transposed(values, by, at.bags) if needs[1] else None
        return to_values, to_weight, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, at: Listed) -> Tensor:
        ctx.at = at
        return parameter.index_select(0, at.latents)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _by_latent(grads[0], ctx.at), None


def _by_latent(values: Tensor, at: Listed) -> Tensor:
    """The sum of values over the entries of each latent: [F]."""
    return values.new_zeros(at.size).index_add_(0, at.latents, values)
