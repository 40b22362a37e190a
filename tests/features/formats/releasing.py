"""What the scripts share that write the files of releases whose writers cannot be installed, as these publish them.

Where sae_lens has a loader for the release, its loader and its classes say what is right; elsewhere the published formula.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sae_lens.loading.pretrained_sae_loaders as loaders
import torch
from making import ROWS, D, F, drawn
from sae_lens.registry import get_sae_class
from safetensors.torch import load_file
from torch import Tensor

Made = tuple[Tensor, Tensor, Tensor]


def rows_of(seed: int, dtype: torch.dtype = torch.float32, width: int = D) -> Tensor:
    return drawn(seed, ROWS, width, dtype=dtype) * 1.4 + 0.1


def weights(
    seed: int, dtype: torch.dtype = torch.float32, d_out: int = D, unit: bool = False
) -> dict[str, Tensor]:
    dec = drawn(seed + 1, F, d_out, dtype=torch.float64)
    dec = dec / dec.norm(dim=1, keepdim=True) if unit else dec * 0.5
    return {
        "enc": drawn(seed, D, F, dtype=dtype) * 0.6,
        "dec": dec.to(dtype),
        "b_enc": drawn(seed + 2, F, dtype=dtype) * 0.3,
        "b_dec": drawn(seed + 3, d_out, dtype=dtype) * 0.3,
        "threshold": drawn(seed + 4, F, dtype=dtype).abs() * 0.5 + 0.01,
    }


def by_saelens(
    loader: Callable[..., Any],
    repo: str,
    inside: str,
    root: Path,
    rows: Tensor,
    factor: float | None = None,
    **overrides: Any,
) -> Made:
    """What sae_lens makes of files that it finds under a folder instead of a repository."""

    def download(
        repo_id: str | None = None, filename: str = "", subfolder: str | None = None, **_: Any
    ) -> str:
        return str(root / subfolder / filename if subfolder else root / filename)

    kept, loaders.hf_hub_download = loaders.hf_hub_download, download
    shapes, loaders.get_safetensors_tensor_shapes = loaders.get_safetensors_tensor_shapes, shapes_here(root)
    try:
        config, state, _ = loader(repo, inside, "cpu", False, overrides)
    finally:
        loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = kept, shapes
    config = loaders.handle_config_defaulting(config)
    cls, config_cls = get_sae_class(config["architecture"])
    sae = cls(config_cls.from_dict(config))
    sae.load_state_dict({k: v.to(rows.dtype) for k, v in state.items()}, assign=True)
    sae.dtype = rows.dtype
    if factor is not None:
        sae.fold_activation_norm_scaling_factor(factor)
    with torch.no_grad():
        if config.get("reshape_activations") == "hook_z":
            latents = sae.encode(rows.unflatten(-1, (2, -1)))
            return rows, latents, sae.decode(latents).flatten(-2)
        latents = sae.encode(rows)
        return rows, latents, sae(rows) if "transcoder" in config["architecture"] else sae.decode(latents)


def shapes_here(root: Path) -> Callable[..., dict[str, list[int]]]:
    def shapes(repo: str, inside: str) -> dict[str, list[int]]:
        return {k: list(v.shape) for k, v in load_file(root / inside).items()}

    return shapes


def formula(
    rows: Tensor,
    w: dict[str, Tensor],
    active: Callable[[Tensor], Tensor],
    centre: Tensor | None = None,
    out: Tensor | None = None,
    skip: Tensor | None = None,
) -> Made:
    pre = (rows if centre is None else rows - centre) @ w["enc"] + w["b_enc"]
    latents = active(pre)
    back = latents @ w["dec"] + (w["b_dec"] if out is None else out)
    return rows, latents, back if skip is None else back + rows @ skip.T


def above(threshold: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda pre: pre.relu() * (pre > threshold)


def strongest(k: int) -> Callable[[Tensor], Tensor]:
    def active(pre: Tensor) -> Tensor:
        best, at = pre.topk(k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, at, best.relu())

    return active
