"""Linear modules as matrices, and each head's slice of an output projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.errors import SiteUnavailable
from cutaway.network.bare import BareMatrix
from cutaway.network.precision import precise
from cutaway.network.products import CoarseConv1D, CoarseLinear


def output_weight(projection: nn.Module) -> Tensor | None:
    """The matrix [h*e d] that takes heads to the stream, where the module is a plain matrix; None if it is not.

    >>> output_weight(nn.Linear(6, 4)).shape
    torch.Size([6, 4])
    """
    from transformers.pytorch_utils import Conv1D

    if isinstance(projection, BareMatrix):
        return projection.weight.T if projection.role == "product" else None
    weight = getattr(projection, "weight", None)
    if type(projection) in (nn.Linear, CoarseLinear) and weight is not None:
        return weight.T
    if type(projection) in (Conv1D, CoarseConv1D) and weight is not None:
        return weight
    return None


def head_outputs(projection: nn.Module, z: Tensor, heads: int) -> Tensor:
    """What each head adds to the projection's output: [... h d] from z [... h*e] (the bias belongs to no head).

    A plain matrix is cut into slices; any other linear module (quantised, adapted) is applied to one head at a time.
    """
    split = z.unflatten(-1, (heads, -1))
    weight = output_weight(projection)
    if weight is not None and weight.device.type != "meta":
        return torch.einsum("...he,hed->...hd", split, weight.unflatten(0, (heads, -1)).to(z.dtype))
    nothing = projection(torch.zeros_like(z))
    parts = []
    for head in range(heads):
        alone = torch.zeros_like(split)
        alone[..., head, :] = split[..., head, :]
        parts.append(projection(alone.flatten(-2)) - nothing)
    return torch.stack(parts, -2)


def projection(module: nn.Module) -> tuple[Tensor, Tensor]:
    """A linear module as matrix [in out] and bias [out], in at least single precision.

    A plain matrix is taken as it is; any other (quantised, adapted) is read off its answers to the unit vectors.
    """
    weight = output_weight(module)
    if weight is not None and weight.device.type != "meta":
        bias = getattr(module, "bias", None)
        shift = weight.new_zeros(weight.shape[1]) if bias is None else bias
        return precise(weight.detach()), precise(shift.detach())
    size = int(getattr(module, "in_features", 0) or getattr(module, "nf", 0))
    if size == 0:
        raise SiteUnavailable(
            f"The matrix of {type(module).__name__} cannot be read.", "Open the network unquantised."
        )
    held = held_by(module)
    with torch.no_grad():
        nothing = module(held.new_zeros(1, 1, size))[0, 0]
        rows = module(torch.eye(size, dtype=held.dtype, device=held.device)[None])[0] - nothing
    return precise(rows), precise(nothing)


def held_by(module: nn.Module) -> Tensor:
    """A floating-point tensor that a module holds, for its precision and device."""
    tensors = (*module.parameters(), *module.buffers())
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(1))
