"""The first values of a dictionary's parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.wiring import Routes

#: The vectors that an activation has beside a bias.
VECTORS: dict[str, tuple[str, ...]] = {"jumprelu": ("threshold",), "gated": ("scale", "magnitude")}


def first_values(recipe: DictionaryRecipe, routes: Routes, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters by name, those that learn with `requires_grad`.

    Decoders have drawn rows of length one. Encoders are like them where a source reads what it writes, or something as wide,
    and are drawn where it is not; they have rows of length one, too, but of activations that are charged by size rows so
    short that the reconstruction is of the right size while half of all latents fire. All else is zero.
    """
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(recipe.seed)
    for s in range(len(routes.reads)):
        into, out = routes.width_in(s), routes.width_out(s)
        decoder = torch.randn(recipe.latents, out, generator=generator, dtype=torch.float64)
        whole = recipe.kind == "crosscoder"
        own = decoder if whole else decoder[:, : routes.widths_out[routes.writes[s][0]]]
        drawn = torch.randn(recipe.latents, into, generator=generator, dtype=torch.float64)
        encoder = own if own.shape[1] == into else drawn
        encoder = encoder / encoder.norm(dim=1, keepdim=True)
        if recipe.activation in ("relu", "gated"):
            encoder = encoder * min(1.0, 2 * into / recipe.latents)
        zeros = torch.zeros(recipe.latents)
        found |= {f"encoders.{s}.weight": encoder, f"encoders.{s}.bias": zeros}
        found |= {f"encoders.{s}.{name}": zeros for name in VECTORS.get(recipe.activation, ())}
        found[f"decoders.{s}.weight"] = decoder / decoder.norm(dim=1, keepdim=True)
    for t, width in enumerate(routes.widths_out):
        found[f"biases.{t}"] = torch.zeros(width)
        if recipe.skip:
            found[f"skips.{t}"] = torch.zeros(width, routes.widths_in[t])
    frozen = f"{recipe.frozen}s."
    learns = {name: not (name.startswith(frozen) and name.endswith("weight")) for name in found}
    return {n: value.to(dtype).clone().requires_grad_(learns[n]) for n, value in found.items()}
