"""Fixtures of releases of single `.pt` files and of Prisma, written as they publish them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from making import D, F, case, drawn, family
from releasing import Made, by_saelens, formula, loaders, rows_of, strongest, weights
from safetensors.torch import save_file
from torch import Tensor

FOLDER = family("torch_files", ("sae-lens", "torch", "safetensors"))


def torch_files() -> None:
    def qwen(place: Path) -> Made:
        w = weights(1600)
        torch.save(
            {
                "W_enc": w["enc"].T.contiguous(),
                "W_dec": w["dec"].T.contiguous(),
                "b_enc": w["b_enc"],
                "b_dec": w["b_dec"],
            },
            place / "layer4.sae.pt",
        )
        return by_saelens(
            loaders.qwen_scope_sae_huggingface_loader,
            "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_5",
            "layer4.sae.pt",
            place,
            rows_of(80),
            d_in=D,
            d_sae=F,
        )

    def goodfire(place: Path) -> Made:
        w = weights(1610)
        torch.save(
            {
                "encoder_linear.weight": w["enc"].T.contiguous(),
                "encoder_linear.bias": w["b_enc"],
                "decoder_linear.weight": w["dec"].T.contiguous(),
                "decoder_linear.bias": w["b_dec"],
            },
            place / "Llama-3.1-8B-Instruct-SAE-l19.pth",
        )
        return by_saelens(
            loaders.get_goodfire_huggingface_loader,
            "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
            "Llama-3.1-8B-Instruct-SAE-l19.pth",
            place,
            rows_of(81),
            d_in=D,
            d_sae=F,
        )

    def attention(place: Path) -> Made:
        w = weights(1620)
        name = "gpt2-small_L5_Hcat_z_lr1.20e-03_l1_1.80e+00_ds16"
        torch.save(
            {"W_enc": w["enc"], "W_dec": w["dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]},
            place / f"{name}.pt",
        )
        (place / f"{name}_cfg.json").write_text(
            json.dumps(
                {
                    "act_name": "blocks.5.attn.hook_z",
                    "act_size": D,
                    "dict_size": F,
                    "layer": 5,
                    "site": "z",
                    "lr": 1e-3,
                }
            )
        )
        return by_saelens(
            loaders.connor_rob_hook_z_huggingface_loader, "ckkissane/x", f"{name}.pt", place, rows_of(82)
        )

    case(FOLDER, "qwen-scope", qwen, format="qwen-scope", by="published writer", given={"k": 5})
    case(FOLDER, "goodfire", goodfire, format="goodfire", by="published writer")
    case(FOLDER, "attention-autoencoders", attention, format="attention-autoencoders", by="published writer")


def openai() -> None:
    for i, (name, k, tied) in enumerate((("relu", 0, False), ("topk", 4, False), ("relu-tied", 0, True))):
        for dtype in (torch.float32, torch.float64):

            def make(
                place: Path, i: int = i, k: int = k, tied: bool = tied, dtype: torch.dtype = dtype
            ) -> Made:
                w = weights(1700 + 10 * i, dtype)
                values: dict[str, Any] = {
                    "pre_bias": w["b_dec"],
                    "latent_bias": w["b_enc"],
                    "stats_last_nonzero": torch.zeros(F, dtype=torch.long),
                    "latents_activation_frequency": torch.ones(F),
                    "latents_mean_square": torch.zeros(F),
                    "encoder.weight": w["enc"].T.contiguous(),
                    "activation": "TopK" if k else "ReLU",
                    "activation_state_dict": {"k": k, "postact_fn": "ReLU"} if k else {},
                }
                if tied:
                    w["dec"] = w["enc"].T
                    values["decoder.linear.weight"] = values["encoder.weight"]
                else:
                    values["decoder.weight"] = w["dec"].T.contiguous()
                torch.save(values, place / "autoencoder.pt")
                rows = rows_of(90 + i, dtype)
                if not k:
                    return formula(rows, w, torch.relu, w["b_dec"])
                mean = rows.mean(-1, keepdim=True)
                std = (rows - mean).std(-1, keepdim=True)
                _, latents, back = formula((rows - mean) / (std + 1e-5), w, strongest(k), w["b_dec"])
                return rows, latents, back * std + mean

            case(
                FOLDER,
                f"openai-{name}-{str(dtype).removeprefix('torch.')}",
                make,
                format="openai",
                by="published writer",
            )


def prisma() -> None:
    for i, (name, extra) in enumerate(
        {
            "relu": {},
            "relu-plain": {"normalize_activations": "none"},
            "topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}},
            "gated": {"architecture": "gated"},
            "transcoder": {"is_transcoder": True},
            "transcoder-skip": {
                "is_transcoder": True,
                "transcoder_with_skip_connection": True,
                "normalize_activations": "none",
            },
        }.items()
    ):

        def make(place: Path, i: int = i, name: str = name, extra: dict[str, Any] = extra) -> Made:
            w = weights(1800 + 10 * i)
            state = {"W_enc": w["enc"], "W_dec": w["dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
            config = {
                "hook_point_layer": 9,
                "layer_subtype": "hook_resid_post",
                "model_name": "tiny-clip",
                "d_in": D,
                "d_sae": F,
                "activation_fn_str": "relu",
                "activation_fn_kwargs": {},
                "normalize_activations": "layer_norm",
                "architecture": "standard",
                "is_transcoder": False,
                "out_hook_point_layer": 9,
                "layer_out_subtype": "hook_mlp_out",
                "cls_token_only": False,
                "dtype": {"__type__": "torch.dtype", "value": "torch.float32"},
                **extra,
            }
            out = skip = None
            if extra.get("is_transcoder"):
                out = state["b_dec_out"] = drawn(1890 + i, D)
            if extra.get("transcoder_with_skip_connection"):
                skip = state["W_skip"] = drawn(1895, D, D)
            active: Callable[[Tensor], Tensor] = strongest(4) if "topk" in name else torch.relu
            if name == "gated":
                state |= {
                    "b_gate": drawn(1880, F),
                    "r_mag": drawn(1881, F) * 0.3,
                    "b_mag": drawn(1882, F) * 0.3,
                }
                del state["b_enc"]
                w["b_enc"] = torch.zeros(F)

                def active(pre: Tensor, state: dict[str, Tensor] = state) -> Tensor:
                    return (pre * state["r_mag"].exp() + state["b_mag"]).relu() * (pre + state["b_gate"] > 0)

            torch.save(state, place / "weights.pt")
            (place / "config.json").write_text(json.dumps(config))
            rows = rows_of(100 + i)
            if config["normalize_activations"] == "none":
                return formula(rows, w, active, w["b_dec"], out, skip)
            mean = rows.mean(-1, keepdim=True)
            std = (rows - mean).std(-1, keepdim=True)
            _, latents, back = formula((rows - mean) / (std + 1e-5), w, active, w["b_dec"], out)
            return rows, latents, back * std + mean

        case(FOLDER, f"prisma-{name}", make, format="prisma", by="published writer")


def dunefsky() -> None:
    for i, name in enumerate(("nested", "converted", "safetensors")):

        def make(place: Path, i: int = i, name: str = name) -> Made:
            w = weights(1900 + 10 * i, d_out=4)
            centre = drawn(1950 + i, D)
            state = {
                "W_enc": w["enc"],
                "W_dec": w["dec"],
                "b_enc": w["b_enc"],
                "b_dec": centre,
                "b_dec_out": w["b_dec"],
            }
            config = {
                "hook_point": "blocks.8.ln2.hook_normalized",
                "out_hook_point": "blocks.8.hook_mlp_out",
                "is_transcoder": True,
                "model_name": "gpt2-small",
                "context_size": 128,
            }
            if name == "safetensors":
                save_file(state, place / "transcoder.safetensors")
            else:
                torch.save(
                    {"cfg": config, "state_dict": state} if name == "nested" else state,
                    place / "transcoder.pt",
                )
            return formula(rows_of(110 + i), w, torch.relu, centre)

        case(FOLDER, f"transcoder_circuits-{name}", make, format="transcoder_circuits", by="published writer")


if __name__ == "__main__":
    for step in (torch_files, openai, prisma, dunefsky):
        step()
