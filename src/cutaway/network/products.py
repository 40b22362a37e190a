"""Matrix products in bfloat16, everything else in float32: half the time where the processor multiplies bfloat16.

A linear map keeps its float32 weight, by which it is read and edited, and beside it a copy in bfloat16, by which it
multiplies; what comes in is rounded, what goes out is float32 again. Stream, norms, softmax, biases and the unembedding stay
in float32. A network is examined and certified in float32, and `exactly` computes in float32 for as long as is asked, so
that the error can be measured on any prompts.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cutaway.errors import BadInput

#: The `dtype` of `cutaway.open` that asks for it, and the one that asks for it whatever the processor.
MIXED, ANYWAY = "mixed", "mixed-anyway"


@dataclass(eq=False)
class Switch:
    """Whether the maps of one model multiply in float32 at present.

    Attributes:
        exact: how many blocks ask for it.
    """

    exact: int = 0


class _Coarse:
    """What both kinds of map share: a copy of the weight in bfloat16, made anew once the weight has changed."""

    weight: nn.Parameter
    switch: Switch
    _copy: tuple[tuple[int, int], Tensor] | None

    def coarse(self) -> Tensor:
        """The weight as [out in] in bfloat16."""
        weight = self.weight
        known = (weight.data_ptr(), weight._version)
        if self._copy is None or self._copy[0] != known:
            own = weight.detach()
            self._copy = known, (own.T if isinstance(self, Conv1D) else own).to(torch.bfloat16).contiguous()
        return self._copy[1]

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The map of x in x's own type."""
        given = nn.functional.linear(x.to(torch.bfloat16), self.coarse()).to(x.dtype)
        return given if bias is None else given + bias


class CoarseLinear(_Coarse, nn.Linear):
    """A linear map that multiplies in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """[... in] -> [... out]."""
        return nn.Linear.forward(self, x) if self.switch.exact else self.product(x, self.bias)


class CoarseConv1D(_Coarse, Conv1D):
    """The same of GPT-2's kind of map."""

    def forward(self, x: Tensor) -> Tensor:
        """[... in] -> [... out]."""
        return Conv1D.forward(self, x) if self.switch.exact else self.product(x, self.bias)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: CoarseLinear, Conv1D: CoarseConv1D}


def check_products(device: torch.device, anyway: bool = False) -> None:
    """Raise `BadInput` where the device does not multiply bfloat16 by itself, unless it is asked for anyway."""
    if anyway or multiplies_bfloat16(device):
        return
    raise BadInput(
        f"dtype='{MIXED}' multiplies in bfloat16, which this {'processor' if device.type == 'cpu' else device.type} has no "
        "instructions for, so that it would be slower than float32.",
        f"Leave it out, or write dtype='{ANYWAY}' to have its numbers all the same.",
    )


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16: AVX512-BF16, AMX, ARM's, or a GPU's."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine() in ("aarch64", "arm64"):
        told = Path("/proc/cpuinfo")
        return told.exists() and " bf16" in told.read_text(errors="ignore")
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in asked if hasattr(torch.cpu, name))


def multiply_coarsely(model: nn.Module, but: str | None = None) -> None:
    """Have every plain linear map of a float32 model multiply in bfloat16 from now on.

    but: the path of the unembedding, whose logits are wanted in full.

    Raises `BadInput` where there is no such map: other types, quantised or offloaded weights.
    """
    switch, known = Switch(), 0
    for path, module in model.named_modules():
        kind = _KINDS.get(type(module))
        weight = getattr(module, "weight", None)
        if kind is None or path == but or not torch.is_tensor(weight):
            continue
        if weight.dtype != torch.float32 or weight.device.type == "meta":
            continue
        module.switch, module._copy = switch, None  # type: ignore[assignment]
        module.__class__ = kind
        known += 1
    if not known:
        raise BadInput(
            f"dtype='{MIXED}' is for linear maps with float32 weights, and this network has none besides its unembedding.",
            "Leave it out, or write dtype='bfloat16' where the weights may be rounded.",
        )


def products_of(model: nn.Module) -> torch.dtype | None:
    """The type in which a model's linear maps multiply, where it is not that of their weights; else None."""
    return None if next(_switches(model), None) is None else torch.bfloat16


@contextmanager
def exactly(model: nn.Module) -> Iterator[None]:
    """While active, all maps of the model multiply in the type of their weights."""
    switch = next(_switches(model), None)
    if switch is None:
        yield
        return
    switch.exact += 1
    try:
        yield
    finally:
        switch.exact -= 1


def _switches(model: nn.Module) -> Iterator[Switch]:
    return (module.switch for module in model.modules() if isinstance(module, _Coarse))
