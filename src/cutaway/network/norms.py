"""Norms, probed: no norm is known by name, its form is read off its answers to random vectors and checked on others.

`probe_norm` is the one procedure. Its `AffineNorm` leaves the scale of each position to be taken from a run, and so needs
no epsilon and bears rounding; frozen at a run it is a `Fold`, a linear map that takes the summands of a stream through the
norm one by one (Elhage et al. 2021). `Norm` adds the scale as a function of what it reads, y = gain * (x - mean) / sigma
+ bias, and so has a derivative: the product of its Jacobian with very many vectors costs one pass over them, without an
autograd graph. A module whose numbers do not follow that form is differentiated by autograd instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cutaway.errors import NotFoldable
from cutaway.network.face import Face


def affine_norm(net: Face, path: str) -> AffineNorm:
    """The affine form of the norm at a path, probed once for a network.

    Raises `NotFoldable` where the module is no such norm.
    """

    def probed() -> AffineNorm:
        module = net.modules[path]
        like = next(
            (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()),
            torch.empty(0, dtype=net.dtype, device=net.device),
        )
        return probe_norm(module, net.d_model or 0, path or "the model", like)

    return net.fact(("norm", path), probed)


def norm_of(net: Face, path: str, width: int | None = None) -> Norm:
    """The norm at a path with its derivative, probed once for a network.

    width: of the stream that it reads; without it, of the main stream.
    """
    size = width or net.d_model or 0
    return net.fact(
        ("norm with derivative", path, size), lambda: Norm.of(net.modules[path], size, net.device, net.dtype)
    )


#: Largest relative difference between a norm and its affine form, by the type it computes in.
TOLERANCE: dict[torch.dtype, float] = {
    torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2
}  # fmt: skip


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
            raise NotFoldable(
                f"{self.name} is not an affine norm with one scale per position (relative difference {error:.2g}).",
                _REMEDY,
            )
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


def _relative(got: Tensor, wanted: Tensor) -> float:
    if not wanted.numel():
        return 0.0
    error = float((got - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-30)
    return error if error == error else float("inf")


#: Largest relative error at which a closed form counts as the module's own.
_PULLBACK_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


@dataclass(frozen=True, eq=False)
class Norm:
    """One norm.

    Attributes:
        module: that computes it.
        centred: whether the mean is taken off (layer norm) or not (root mean square).
        gain: [d]; None where there is no closed form.
        eps: what is added to the mean square.
    """

    module: nn.Module
    centred: bool
    gain: Tensor | None
    eps: float

    @classmethod
    def of(cls, module: nn.Module, width: int, device: torch.device, dtype: torch.dtype) -> Norm:
        """Probe the form (`probe_norm`), give its weight the size that the deviation asks for, and check the derivative."""
        like = torch.empty(0, dtype=dtype, device=device)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(6, width, generator=generator).to(like)
        probe = (torch.randn(6, width, generator=generator) * 3 + 0.5).to(like)
        eps = next(
            (float(v) for k in ("eps", "variance_epsilon", "epsilon") if (v := getattr(module, k, None))), 0.0
        )
        try:
            form = probe_norm(module.forward, width, "the norm", like)
            with torch.no_grad():
                fold = form.at(_wide(x), _wide(module.forward(x)))
        except NotFoldable:
            return cls(module, False, None, eps)
        size = (fold.scale * _standard(_wide(x), form.centred, eps)[1]).mean()
        norm = cls(module, form.centred, (form.weight * size).to(dtype), eps)
        return norm if norm._agrees(probe) else cls(module, False, None, eps)

    def _agrees(self, x: Tensor) -> bool:
        """Do closed form and autograd give the same pullback at x?"""
        vectors = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
        ours = self.pull(x[None], vectors[None, None])[0, 0]
        theirs = _autograd_pull(self.module.forward, x, vectors)
        scale = theirs.abs().max().clamp(min=1e-12)
        return bool((ours - theirs).abs().max() <= _PULLBACK_TOLERANCE.get(x.dtype, 1e-4) * scale)

    def __call__(self, x: Tensor) -> Tensor:
        """The norm of x [... d], by the module's own code (hooks are passed over)."""
        return self.module.forward(x)

    def fold(self, weight: Tensor) -> Tensor:
        """A matrix [c d] that reads the norm's output, as one that reads x_hat: gain, and centring, taken into it."""
        assert self.gain is not None
        folded = weight * self.gain.to(weight.dtype)
        return folded - folded.mean(-1, keepdim=True) if self.centred else folded

    def unit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x_hat [... d] and sigma [... 1] at x, in x's own type."""
        hat, sigma = _standard(_wide(x), self.centred, self.eps)
        return hat.to(x.dtype), sigma.to(x.dtype)

    def pull(self, x: Tensor, vectors: Tensor, frozen: bool = False) -> Tensor:
        """Jacobian-transpose products: vectors [r b p d] at the norm's output -> [r b p d] at its input x [b p d].

        J' u = (g u - mean(g u) - x_hat mean(x_hat g u)) / sigma; the mean is left out for root-mean-square norms.
        frozen: sigma is a constant, and the last term drops out.
        """
        if self.gain is None:
            module = (lambda v: self.frozen(v, self.module.forward(v))) if frozen else self.module.forward
            return _autograd_pull(module, x.expand_as(vectors), vectors)
        hat, sigma = self.unit(x)
        folded = self.fold(vectors / sigma)
        return folded if frozen else along(hat, folded)

    def push(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Jacobian products: vectors [w b p d] at the norm's input x [b p d] -> [w b p d] at its output."""
        if self.gain is None:
            point = x.expand_as(vectors).contiguous()
            return torch.func.jvp(self.module.forward, (point,), (vectors.contiguous(),))[1]
        hat, sigma = self.unit(x)
        if self.centred:
            vectors = vectors - vectors.mean(-1, keepdim=True)
        share = (vectors * hat).mean(-1, keepdim=True)
        return (vectors - hat * share) / sigma * self.gain

    def frozen(self, x: Tensor, out: Tensor) -> Tensor:
        """`out` with the gradient of the norm whose spread is held constant (the LN-rule of relevance propagation)."""
        centred = x - x.mean(-1, keepdim=True) if self.centred else x
        if self.gain is None:
            scale = (out.detach() / torch.where(centred == 0, torch.ones_like(centred), centred)).detach()
            linear = centred * scale
        else:
            sigma = _standard(_wide(x.detach()), self.centred, self.eps)[1].to(x.dtype)
            linear = centred * (self.gain / sigma)
        return out.detach() + linear - linear.detach()


def along(hat: Tensor, vectors: Tensor) -> Tensor:
    """vectors [r b p d] less their part along x_hat [b p d] (which the norm takes off): in place."""
    share = torch.einsum("rbpd,bpd->rbp", vectors, hat)[..., None] / vectors.shape[-1]
    return vectors.addcmul_(hat.expand_as(vectors), share, value=-1)


def _wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _standard(x: Tensor, centred: bool, eps: float) -> tuple[Tensor, Tensor]:
    """(x - mean) / sigma and sigma [... 1]."""
    if centred:
        x = x - x.mean(-1, keepdim=True)
    sigma = (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return x / sigma, sigma


def _autograd_pull(function: Callable[[Tensor], Tensor], x: Tensor, vectors: Tensor) -> Tensor:
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        out = function(point)
        return torch.autograd.grad(out, point, vectors.to(out.dtype).reshape(out.shape))[0]
