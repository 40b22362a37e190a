"""Fixtures of Gemma Scope and Llama Scope, written as they publish their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from making import D, F, case, drawn, family
from releasing import Made, above, by_saelens, formula, loaders, rows_of, strongest, weights
from safetensors.torch import save_file

FOLDER = family("releases", ("sae-lens", "torch", "safetensors", "numpy"))
BEFORE, AFTER = (f"model.layers.3.{side}_feedforward_layernorm.output" for side in ("pre", "post"))
STREAM = "blocks.8.hook_resid_post"


def gemma() -> None:
    for i, (lower, folder, kind) in enumerate(
        (
            (False, "layer_5/width_16/average_l0_12", ""),
            (True, "layer_5/width_16/average_l0_12", ""),
            (False, "embedding/width_4k/average_l0_6", "embedding"),
            (False, "layer_7/width_16k/average_l0_9", "transcoder"),
        )
    ):
        for dtype in (torch.float32, torch.float64):

            def make(
                place: Path,
                i: int = i,
                lower: bool = lower,
                folder: str = folder,
                kind: str = kind,
                dtype: torch.dtype = dtype,
            ) -> Made:
                w = weights(1000 + 10 * i, dtype)
                names = {
                    "W_enc": "enc",
                    "W_dec": "dec",
                    "b_enc": "b_enc",
                    "b_dec": "b_dec",
                    "threshold": "threshold",
                }
                if lower:
                    names = {key.lower(): value for key, value in names.items()}
                target = place / folder
                target.mkdir(parents=True)
                np.savez(target / "params.npz", **{key: w[value].numpy() for key, value in names.items()})
                rows = rows_of(i, dtype)
                if (
                    kind == "embedding"
                ):  # of raw rows of the table; what enters the stream is the root of d times as long
                    _, latents, back = formula(rows, w, above(w["threshold"]))
                    return rows * D**0.5, latents, back * D**0.5
                if dtype == torch.float64 or lower:
                    return formula(rows, w, above(w["threshold"]))
                if kind == "transcoder":
                    return by_saelens(
                        loaders.gemma_2_transcoder_huggingface_loader,
                        "google/gemma-scope-2b-pt-transcoders",
                        folder,
                        place,
                        rows,
                        d_in=D,
                        d_out=D,
                        d_sae=F,
                    )
                return by_saelens(
                    loaders.gemma_2_sae_huggingface_loader,
                    "google/gemma-scope-2b-pt-res",
                    folder,
                    place,
                    rows,
                    d_in=D,
                    d_sae=F,
                )

            name = f"gemma-scope{'-' + kind if kind else ''}{'-lower' if lower else ''}-{str(dtype).removeprefix('torch.')}"
            case(
                FOLDER,
                name,
                make,
                format="gemma-scope-transcoder" if kind == "transcoder" else "gemma-scope",
                by="published writer",
                path=f"dictionary/{folder}",
            )


def gemma_second() -> None:
    sites = {
        "resid_post": ("model.layers.3.output", None),
        "attn_out": ("model.layers.3.self_attn.o_proj.input", None),
        "mlp_out": (AFTER, None),
        "transcoder": (
            "model.layers.3.pre_feedforward_layernorm.output",
            "model.layers.3.post_feedforward_layernorm.output",
        ),
        "transcoder_affine": (
            "model.layers.3.pre_feedforward_layernorm.output",
            "model.layers.3.post_feedforward_layernorm.output",
        ),
    }
    for i, (name, (first, second)) in enumerate(sites.items()):

        def make(
            place: Path, i: int = i, name: str = name, first: str = first, second: str | None = second
        ) -> Made:
            w = weights(1200 + 10 * i)
            folder = place / name / "layer_3_width_16_l0_small"
            folder.mkdir(parents=True)
            tensors = {
                "w_enc": w["enc"],
                "w_dec": w["dec"],
                "b_enc": w["b_enc"],
                "b_dec": w["b_dec"],
                "threshold": w["threshold"],
            }
            config: dict[str, Any] = {
                "architecture": "jump_relu",
                "model_name": "gemma-3-1b-pt",
                "width": F,
                "hf_hook_point_in": first,
            }
            if second:
                config |= {"hf_hook_point_out": second, "affine_connection": "affine" in name}
            if "affine" in name:
                tensors["affine_skip_connection"] = drawn(1300, D, D)
            save_file(tensors, folder / "params.safetensors")
            (folder / "config.json").write_text(json.dumps(config))
            return by_saelens(
                loaders.gemma_3_sae_huggingface_loader,
                "google/gemma-scope-2-1b-pt",
                f"{name}/layer_3_width_16_l0_small",
                place,
                rows_of(40 + i),
            )

        case(
            FOLDER,
            f"gemma-scope-2-{name}",
            make,
            format="gemma-scope-2",
            by="published writer",
            path=f"dictionary/{name}/layer_3_width_16_l0_small",
        )


def llama() -> None:
    for i, (name, extra) in enumerate(
        {
            "jumprelu": {},
            "jumprelu-bfloat16": {},
            "transcoder": {
                "hook_point_in": "blocks.8.ln2.hook_normalized",
                "hook_point_out": "blocks.8.hook_mlp_out",
            },
            "topk": {"act_fn": "topk", "top_k": 3},
            "decoder-norm": {"sparsity_include_decoder_norm": True},
            "inference": {"norm_activation": "inference"},
            "token-wise": {"norm_activation": "token-wise", "act_fn": "relu"},
        }.items()
    ):

        def make(place: Path, i: int = i, name: str = name, extra: dict[str, Any] = extra) -> Made:
            w = weights(1400 + 10 * i, torch.bfloat16 if "bfloat16" in name else torch.float32)
            (place / "checkpoints").mkdir()
            into, back = 3.3, 1.7 if name == "transcoder" else 3.3
            config = {
                "d_model": D,
                "d_sae": F,
                "hook_point_in": "blocks.8.hook_resid_post",
                "hook_point_out": "blocks.8.hook_resid_post",
                "act_fn": "jumprelu",
                "jump_relu_threshold": 0.31,
                "norm_activation": "dataset-wise",
                "top_k": 50,
                "dataset_average_activation_norm": {"in": into, "out": back},
                "use_decoder_bias": True,
                "apply_decoder_bias_to_pre_encoder": False,
                "sparsity_include_decoder_norm": False,
                "lr": 1e-4,
                **extra,
            }
            save_file(
                {
                    "encoder.weight": w["enc"].T.contiguous(),
                    "encoder.bias": w["b_enc"],
                    "decoder.weight": w["dec"].T.contiguous(),
                    "decoder.bias": w["b_dec"],
                },
                place / "checkpoints" / "final.safetensors",
            )
            (place / "hyperparams.json").write_text(json.dumps(config))
            rows = rows_of(60 + i)
            s_in, s_out = D**0.5 / into, D**0.5 / back
            if name == "jumprelu":
                return by_saelens(
                    loaders.llama_scope_sae_huggingface_loader,
                    "fnlp/x",
                    ".",
                    place,
                    rows,
                    s_in,
                    dtype="float32",
                )
            w = {key: value.float() for key, value in w.items()}
            if name == "token-wise":
                length = D**0.5 / rows.norm(dim=-1, keepdim=True)
                _, latents, out = formula(rows * length, w, torch.relu)
                return rows, latents, out / length
            if name == "inference":
                return formula(rows, w, above(torch.tensor(0.31)))
            norms = w["dec"].norm(dim=1)
            level = 0.31 * s_in / norms if name == "decoder-norm" else torch.tensor(0.31 * s_in)
            _, latents, out = formula(rows * s_in, w, strongest(3) if name == "topk" else above(level))
            return rows, latents, out / s_out

        case(FOLDER, f"llama-scope-{name}", make, format="llama-scope", by="published writer")
    distilled()


def distilled() -> None:
    def make(place: Path) -> Made:
        w = weights(1500)
        save_file(
            {
                "encoder.weight": w["enc"].T.contiguous(),
                "encoder.bias": w["b_enc"],
                "decoder.weight": w["dec"].T.contiguous(),
                "decoder.bias": w["b_dec"],
                "log_jumprelu_threshold": w["threshold"].log(),
                "dataset_average_activation_norm.blocks.8.hook_resid_post": torch.tensor(3.3),
            },
            place / "sae_weights.safetensors",
        )
        (place / "config.json").write_text(
            json.dumps(
                {
                    "d_model": D,
                    "expansion_factor": F / D,
                    "hook_point_in": "blocks.8.hook_resid_post",
                    "hook_point_out": "blocks.8.hook_resid_post",
                    "act_fn": "jumprelu",
                    "norm_activation": "dataset-wise",
                    "sparsity_include_decoder_norm": False,
                }
            )
        )
        scale = D**0.5 / float(torch.tensor(3.3))
        return by_saelens(
            loaders.llama_scope_r1_distill_sae_huggingface_loader,
            "fnlp/x",
            ".",
            place,
            rows_of(70),
            scale,
            d_sae=F,
        )

    case(FOLDER, "llama-scope-r1", make, format="llama-scope-r1", by="published writer")


if __name__ == "__main__":
    for step in (gemma, gemma_second, llama):
        step()
