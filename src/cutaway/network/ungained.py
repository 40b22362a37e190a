"""The norm's output before its gain: read off its output, which is all that a module hands over."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cutaway.errors import NotFoldable
from cutaway.network.anatomy import NormedTap, PortTap, SumTap
from cutaway.network.norms import Norm, probe_norm


def summed(tap: NormedTap, modules: Mapping[str, nn.Module]) -> SumTap:
    """The same site as a sum: what the sublayer reads, less the norm's bias, over its gain.

    Raises `NotFoldable` where the module is no norm by mean and spread, or has a gain of zero somewhere.
    """
    gain, bias = _gain_and_bias(tap.norm, modules[tap.norm], tap.width)
    if not bool((gain != 0).all()):
        raise NotFoldable(
            f"{tap.norm} has a gain of zero at {int((gain == 0).sum())} of {len(gain)} channels.",
            "What they held before it cannot be told from behind; use the site behind it.",
        )
    return SumTap((PortTap(tap.port, 1 / gain),), -bias / gain)


def standardised(tap: NormedTap, modules: Mapping[str, nn.Module], stream: Tensor) -> Tensor:
    """What the norm makes of a stream [... d] before its gain: less its mean (of centred norms), over its spread."""
    return _norm(modules[tap.norm], tap.width).unit(stream)[0]


def _gain_and_bias(path: str, module: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    if _like(module).device.type == "meta":
        raise NotFoldable(
            f"The weights of {path} are kept elsewhere until it runs.", "Use the site behind it."
        )
    refused = NotFoldable(f"{path} is no norm by mean and spread.", "Use the site behind it.")
    try:
        norm = _norm(module, width)
        if norm.gain is None:
            raise refused
        bias = probe_norm(module.forward, width, path, _like(module)).bias
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        IndexError,
    ):  # a module that takes or gives other things
        raise refused from None
    return norm.gain.detach(), bias.to(norm.gain).detach()


def _norm(module: nn.Module, width: int) -> Norm:
    like = _like(module)
    return Norm.of(module, width, like.device, like.dtype)


def _like(module: nn.Module) -> Tensor:
    held = (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
    return next(held, torch.empty(0))
