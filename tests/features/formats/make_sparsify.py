"""Fixtures of sparsify, written by its `save_to_disk` in folders named after modules, in single and double precision."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from making import ROWS, D, F, case, drawn, family, fill
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

FOLDER = family("sparsify", ("eai-sparsify", "torch", "safetensors"))


def dense(sae: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        out = sae(rows)
        acts = torch.zeros(len(rows), F, dtype=rows.dtype).scatter_(-1, out.latent_indices, out.latent_acts)
    return acts, out.sae_out


def main() -> None:
    options = itertools.product(
        ("topk", "groupmax"), (False, True), (False, True), ("float32", "float64"), (False, True)
    )
    for seed, (activation, transcodes, skip, word, expanded) in enumerate(options, 300):
        if expanded and (activation == "groupmax" or skip):
            continue
        dtype = getattr(torch, word)
        settings = {"expansion_factor": 2} if expanded else {"num_latents": F}
        config = SparseCoderConfig(
            activation=activation, k=4, transcode=transcodes, skip_connection=skip, **settings
        )
        sae = SparseCoder(8 if expanded else D, config, dtype=dtype)
        fill(sae, seed)
        path = "layers.3.mlp" if transcodes else "layers.3"

        def make(place: Path, sae: Any = sae, path: str = path, seed: int = seed, dtype: torch.dtype = dtype):
            place = place / path / "seed1" if seed % 3 == 0 else place / path
            sae.save_to_disk(place)
            rows = drawn(seed, ROWS, sae.d_in, dtype=dtype) + 0.2
            return rows, *dense(SparseCoder.load_from_disk(place), rows)

        kind = "transcoder" if transcodes else "autoencoder"
        title = f"{activation}-{kind}-{word}{'-skip' if skip else ''}{'-expanded' if expanded else ''}"
        case(
            FOLDER,
            title,
            make,
            format="sparsify",
            path=f"dictionary/{path}{'/seed1' if seed % 3 == 0 else ''}",
        )
    signed()


def signed() -> None:
    """Files of 2024, whose configuration says `signed`: the k largest without their sign, signs kept."""

    def make(place: Path) -> tuple[Tensor, Tensor, Tensor]:
        place = place / "layers.3"
        sae = SparseCoder(D, SparseCoderConfig(k=4, num_latents=F))
        fill(sae, 399)
        sae.save_to_disk(place)
        (place / "cfg.json").write_text(
            json.dumps(
                {
                    "expansion_factor": 2,
                    "normalize_decoder": True,
                    "num_latents": F,
                    "k": 4,
                    "signed": True,
                    "d_in": D,
                }
            )
        )
        rows = drawn(399, ROWS, D)
        with torch.no_grad():
            pre = (rows - sae.b_dec) @ sae.encoder.weight.T + sae.encoder.bias
            at = pre.abs().topk(4, sorted=False).indices
            acts = torch.zeros_like(pre).scatter(-1, at, pre.gather(-1, at))
            return rows, acts, acts @ sae.W_dec + sae.b_dec

    case(FOLDER, "signed-2024", make, format="sparsify", by="published writer", path="dictionary/layers.3")


if __name__ == "__main__":
    main()
