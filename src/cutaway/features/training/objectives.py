"""What each activation makes of pre-activations in training, and what is charged for firing.

A `Layout` says where activations may be other than zero or have a gradient; everything here works on its entries, listed or
full, and so gives the same numbers for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.features.training.kernels import Layout
from cutaway.features.training.recipe import Activation, DictionaryRecipe
from cutaway.features.training.selection import Rule

#: Activations that are charged for firing, by a coefficient that is steered.
CHARGED: tuple[Activation, ...] = ("relu", "gated", "jumprelu")
#: The first coefficient of a charge by size, how quickly it is steered, and of the square of a charge by number.
FIRST, GAIN, SQUARE = 0.2, 0.02, 1.0
#: How far steering looks ahead, in units of the memory of the running mean that shows the trend; and that mean's decay.
AHEAD, TREND = 2.0, 0.98


def rule_of(recipe: DictionaryRecipe, extras: Mapping[str, Tensor], bandwidth: float) -> Rule:
    """Which entries of the encoder's product matter. Those of a jumprelu also where a threshold's gradient is not zero."""
    match recipe.activation:
        case "topk":
            return Rule("rows", recipe.k)
        case "batchtopk":
            return Rule("batch", recipe.k)
        case "groupmax":
            return Rule("groups", recipe.k)
        case "jumprelu":
            return Rule("above", threshold=extras["threshold"].detach() - bandwidth / 2)
    return Rule("above", threshold=torch.zeros((), dtype=extras["bias"].dtype))


@dataclass(frozen=True, eq=False)
class Fired:
    """What the latents of one source do on a batch.

    Attributes:
        layout: the entries.
        pre: pre-activations of the entries.
        values: activations of the entries.
        gates: of a gated one, the positive part of its gates; else None.
    """

    layout: Layout
    pre: Tensor
    values: Tensor
    gates: Tensor | None = None


def fire(
    recipe: DictionaryRecipe, layout: Layout, pre: Tensor, extras: Mapping[str, Tensor], bandwidth: float
) -> Fired:
    """Activations of pre-activations.

    "gated": `pre` is the gate's, whose bias is `bias`; the magnitude is relu(exp(scale) * (pre - bias) + magnitude), and no
    gradient goes through the step of the gate. "jumprelu": `jump`.
    """
    if recipe.activation == "jumprelu":
        threshold = layout.spread(extras["threshold"])
        return Fired(layout, pre, layout.kept(jump(pre, threshold, bandwidth)))
    if recipe.activation == "gated":
        scale, bias, magnitude = (layout.spread(extras[n]) for n in ("scale", "bias", "magnitude"))
        product = pre - bias
        size = (scale.exp() * product + magnitude).relu()
        return Fired(layout, pre, layout.kept(size), layout.kept(pre.relu()))
    return Fired(layout, pre, layout.kept(pre.relu()))


def charge(recipe: DictionaryRecipe, fired: Fired, lengths: Tensor, extras: Mapping[str, Tensor], unit: float,
           bandwidth: float, n_rows: int, coefficient: float) -> Tensor:  # fmt: skip
    """What is charged for the firing of one source's latents, [].

    By size ("relu", "gated"): coefficient * the mean over rows of the sum of u / k, where u is the activation (of a gated
    one, the positive part of the gate) times the length of the latent's decoder, times sqrt(k) / unit: about one where k
    latents share a row evenly. With `penalty="tanh"` of tanh(u), which large activations are not charged more for.

    By number ("jumprelu"): with r = L0 / k - 1, coefficient * r + SQUARE / 2 * r^2, where L0 is the batch's mean number of
    latents above their threshold. The square is that of Gemma Scope 2; the first term, which is steered, takes away the
    offset that a square alone would leave. The gradient goes to thresholds, by `step`.

    lengths: [F]. unit: the root of the variance of what the source writes to.
    """
    layout = fired.layout
    if recipe.activation == "jumprelu":
        over = layout.kept(step(fired.pre, layout.spread(extras["threshold"]), bandwidth))
        excess = over.sum() / n_rows / recipe.k - 1
        return coefficient * excess + SQUARE / 2 * excess.square()
    sizes = fired.values if fired.gates is None else fired.gates
    sizes = sizes * layout.spread(lengths) * (recipe.k**0.5 / unit)
    sizes = sizes.tanh() if recipe.penalty == "tanh" else sizes
    return coefficient * sizes.sum() / (n_rows * recipe.k)


def steered(recipe: DictionaryRecipe, coefficient: float, l0: float, slow: float) -> float:
    """The coefficient of the next step, after one in which l0 latents fired on a row.

    By size: times exp(GAIN * off), where off is log(l0 / k), looked ahead along its trend: AHEAD times the logarithm's
    distance from its running mean `slow` is added. By number: plus GAIN * (l0 / k - 1). Both within -1 and 1.
    """
    if recipe.activation == "jumprelu":
        return coefficient + GAIN * min(1.0, l0 / recipe.k - 1)
    now = log_of(l0)
    off = now - math.log(recipe.k) + AHEAD * (now - slow)
    return coefficient * math.exp(GAIN * max(-1.0, min(1.0, off)))


def log_of(l0: float) -> float:
    """The logarithm of a number of latents, of none that of a thousandth."""
    return math.log(max(l0, 1e-3))


def jump(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """pre * 1[pre > threshold], and as its gradients (Rajamanoharan et al. 2024): 1[pre > threshold] for pre, and for the
    threshold -(threshold / bandwidth) where pre is within half a bandwidth of it."""
    return _Jump.apply(pre, threshold, bandwidth)  # type: ignore[return-value]


def step(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """1[pre > threshold] of the pre-activation itself, and as its gradients: none for pre, and for the threshold
    -(1 / bandwidth) where pre is within half a bandwidth of it."""
    return _Step.apply(pre, threshold, bandwidth)  # type: ignore[return-value]


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return (pre - threshold).abs() < bandwidth / 2


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(pre > threshold, pre, torch.zeros_like(pre))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (by,), (pre, threshold) = grads, ctx.saved_tensors
        near = _near(pre, threshold, ctx.bandwidth)
        return by * (pre > threshold), -by * threshold * near / ctx.bandwidth, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (by,), (pre, threshold) = grads, ctx.saved_tensors
        return None, -by * _near(pre, threshold, ctx.bandwidth) / ctx.bandwidth, None
