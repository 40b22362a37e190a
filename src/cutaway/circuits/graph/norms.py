"""Norms as the gradient sees them: y = gain * (x - mean) / sigma + bias, found from the module's numbers alone.

With the closed form, the product of a norm's Jacobian with very many vectors costs one pass over them, without an
autograd graph. A module whose numbers do not follow the form is differentiated by autograd instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Largest relative error at which a closed form counts as the module's own.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


@dataclass(frozen=True, eq=False)
class NormForm:
    """One norm.

    Attributes:
        module: the norm.
        centred: is the mean taken off (layer norm) or not (root mean square)?
        gain: [d]; None where the module follows no closed form, and is differentiated by autograd.
        eps: what is added to the variance.
    """

    module: nn.Module
    centred: bool
    gain: Tensor | None
    eps: float

    @classmethod
    def of(cls, module: nn.Module, width: int, device: torch.device, dtype: torch.dtype) -> NormForm:
        """Find the form of a module on random vectors, and check it on others of another size."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(6, width, generator=generator).to(device, dtype)
        probe = (torch.randn(6, width, generator=generator) * 3 + 0.5).to(device, dtype)
        eps = next(
            (float(v) for k in ("eps", "variance_epsilon", "epsilon") if (v := getattr(module, k, None))), 0.0
        )
        with torch.no_grad():
            first, second = module.forward(x), module.forward(-x)
            for centred in (True, False):
                hat = _standard(_wide(x), centred, eps)[0]
                gain = ((_wide(first) - _wide(second)) * hat).sum(0) / (2 * hat.square().sum(0))
                norm = cls(module, centred, gain.to(dtype), eps)
                if norm._agrees(probe):
                    return norm
        return cls(module, False, None, eps)

    def _agrees(self, x: Tensor) -> bool:
        """Do closed form and autograd give the same pullback at x?"""
        vectors = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
        ours = self.pull(x[None], vectors[None, None])[0, 0]
        theirs = _autograd_pull(self.module.forward, x, vectors)
        scale = theirs.abs().max().clamp(min=1e-12)
        return bool((ours - theirs).abs().max() <= _TOLERANCE.get(x.dtype, 1e-4) * scale)

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
