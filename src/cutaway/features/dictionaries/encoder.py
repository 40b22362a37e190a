"""One encoder of a dictionary: from the values of the sites that it reads to the activations of its latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.dictionaries.nonlinearities import Nonlinearity, TopK, tensors_of

#: What a row is divided by before it is encoded, and its reconstruction multiplied with afterwards.
Norm = Literal["none", "layer-norm", "constant-norm"]
_EPS = 1e-5


@dataclass(frozen=True, eq=False)
class Encoder:
    """activation(gain * ((x - centre) @ weight + bias)), of rows that are normed beforehand where they were in training.

    Everything that is done to a row is said here; nothing is scaled anywhere else.

    Attributes:
        weight: [d F].
        bias: [F]; None for none.
        activation: what the pre-activations go through.
        centre: [d], taken from each row first; None for nothing.
        gain: [F], by which pre-activations are multiplied before they are compared; None for one.
        norm: "layer-norm": each row less its mean, over its standard deviation (unbiased, plus 1e-5); "constant-norm": each
            row as long as the square root of d.
        gate: [d F], a second product whose sigmoid multiplies the first (gated linear unit); None for none.
        gate_bias: [F]; None for none.
        restores: is the reconstruction brought back to the scale and mean of the row? It is multiplied with the standard
            deviation without the 1e-5, as OpenAI and SAELens do; outputs of SAELens's transcoders are not brought back.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Nonlinearity
    centre: Tensor | None = None
    gain: Tensor | None = None
    norm: Norm = "none"
    gate: Tensor | None = None
    gate_bias: Tensor | None = None
    restores: bool = True

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise BadInput(f"An encoder of shape {tuple(self.weight.shape)} is no matrix.", "Give [d F].")
        if self.norm not in ("none", "layer-norm", "constant-norm"):
            raise BadInput(
                f"norm={self.norm!r} is not known.", 'Use "none", "layer-norm" or "constant-norm".'
            )
        d, f = self.weight.shape
        vectors = {"bias": f, "centre": d, "gain": f, "gate_bias": f}
        held = {name: getattr(self, name) for name in vectors} | dict(tensors_of(self.activation))
        for name, value in held.items():
            size = vectors.get(name, f)
            if value is not None and tuple(value.shape) not in (
                (size,),
                *(((),) if name == "threshold" else ()),
            ):
                raise BadInput(
                    f"{name} of shape {tuple(value.shape)} does not go with an encoder of shape {(d, f)}.",
                    f"It must be [{size}].",
                )
        if self.gate is not None and self.gate.shape != self.weight.shape:
            raise BadInput(
                f"A gate of shape {tuple(self.gate.shape)} does not go with an encoder of shape {(d, f)}.",
                "Both must be [d F].",
            )

    @property
    def width(self) -> int:
        """d, numbers in a row."""
        return int(self.weight.shape[0])

    @property
    def size(self) -> int:
        """F, how many latents."""
        return int(self.weight.shape[1])

    def normed(self, rows: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Rows [... d] as they are encoded, what reconstructions are multiplied with [... 1] and what is added [... 1]."""
        if self.norm == "layer-norm":
            mean = rows.mean(-1, keepdim=True)
            spread = (rows - mean).std(-1, keepdim=True)
            return (rows - mean) / (spread + _EPS), spread, mean
        if self.norm == "constant-norm":
            length = rows.norm(dim=-1, keepdim=True) / rows.shape[-1] ** 0.5
            return rows / length, length, None
        return rows, None, None

    def back(self, rows: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Rows [... d] as a skip connection reads them, and what brings a reconstruction back, as `normed` says it."""
        return self.normed(rows) if self.restores else (rows, None, None)

    def pre(self, rows: Tensor) -> Tensor:
        """Pre-activations [... F] of normed rows [... d], before the nonlinearity.

        Raises `BadInput` for rows of another width.
        """
        if rows.shape[-1] != self.width:
            raise BadInput(
                f"Rows of {rows.shape[-1]} numbers do not fit an encoder of width {self.width}.",
                "Give the values of the site that the dictionary was trained on.",
            )
        rows = rows if self.centre is None else rows - self.centre.to(rows)
        pre = rows @ self.weight.to(rows)
        pre = pre if self.bias is None else pre + self.bias.to(rows)
        if self.gate is not None:
            second = rows @ self.gate.to(rows)
            pre = pre * (second if self.gate_bias is None else second + self.gate_bias.to(rows)).sigmoid()
        return pre if self.gain is None else pre * self.gain.to(rows)

    def __call__(self, rows: Tensor) -> Tensor:
        """Activations [... F] of rows [... d] as the network has them."""
        return self.activation(self.pre(self.normed(rows)[0]))

    @property
    def k(self) -> int | None:
        """How many latents a row has at most, where that is bounded."""
        return getattr(self.activation, "k", None)

    def directions(self) -> Tensor:
        """The direction [F d] along which each latent reads."""
        return self.weight.T if self.gain is None else self.weight.T * self.gain.to(self.weight)[:, None]


def as_topk(encoder: Encoder, k: int) -> Encoder:
    """The same encoder, of whose latents each row keeps the k strongest."""
    from dataclasses import replace

    return replace(encoder, activation=TopK(k))


def wide(rows: Tensor) -> Tensor:
    """In at least single precision."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
