"""Makes the fixtures of formats whose packages do not install: files and results by the published writers' rules.

Each function says which published code it follows; the arithmetic here is written from what that code does, not copied.
Run: `python tests/features/formats/make_published.py`.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from packing import Packer

D, F, N, L = 4, 10, 4, 3
TYPES = {"f32": torch.float32, "f64": torch.float64}
PAIRS = [(i, j) for i in range(L) for j in range(i, L)]


class Draw:
    """Random numbers of one case, in its type."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype

    def __call__(self, *shape: int, scale: float = 0.7) -> Tensor:
        return (torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale).to(self.dtype)

    def rows(self, n: int = L, count: int = N) -> list[Tensor]:
        """Values of n places, for so many tokens."""
        return [self(count, D, scale=1.5) for _ in range(n)]


def files(tensors: dict[str, Tensor] | None = None, name: str = "", **texts: str) -> Callable[[Path], None]:
    """A writer of one file of tensors and of texts, whose names are given with __ for a dot."""

    def save(folder: Path) -> None:
        if tensors is not None and name.endswith(".pt"):
            torch.save(tensors, folder / name)
        elif tensors is not None:
            save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / name)
        for file, text in texts.items():
            (folder / file.replace("__", ".")).write_text(text)

    return save


def jump(pre: Tensor, threshold: Tensor) -> Tensor:
    """Above its threshold, strictly."""
    return pre * (pre > threshold)


def gemma(pack: Packer) -> None:
    """JumpReLUMultiLayerSAE of Gemma Scope 2's notebook: mask * relu(pre); x @ affine; w_dec [F L d] a file."""
    own = [[i] for i in range(L)]
    for n, (affine, negative, backward, kind) in enumerate(
        itertools.product((False, True), (False, True), (False, True), TYPES)
    ):
        draw = Draw(n, TYPES[kind])
        x, layers = draw.rows(), []
        for i in range(L):
            held = {"w_enc": draw(D, F), "b_enc": draw(F), "b_dec": draw(D), "w_dec": draw(F, L, D)}
            held["threshold"] = draw(F, scale=0.5) if negative else draw(F, scale=0.5).abs()
            if not backward:
                held["w_dec"][:, :i] = 0
            if affine:
                held["affine_skip_connection"] = draw(D, D)
            layers.append(held)
        z = []
        for held, rows in zip(layers, x, strict=True):
            pre = rows @ held["w_enc"] + held["b_enc"]
            z.append((pre > held["threshold"]) * pre.relu())
        y = []
        for j in range(L):
            out = sum(z[i] @ layers[i]["w_dec"][:, j] for i in range(L)) + layers[j]["b_dec"]
            y.append(out + x[j] @ layers[j]["affine_skip_connection"] if affine else out)
        config = {
            "hf_hook_point_in": "model.layers.{layer}.pre_feedforward_layernorm.output",
            "hf_hook_point_out": "model.layers.{layer}.post_feedforward_layernorm.output",
            "model_name": "gemma-3-1b-pt", "architecture": "jump_relu",
        }  # fmt: skip

        def save(folder: Path, layers: list[Any] = layers, config: dict[str, str] = config) -> None:
            for i, held in enumerate(layers):
                save_file(held, folder / f"params_layer_{i}.safetensors")
            (folder / "config.json").write_text(json.dumps(config))

        words = [w for w, on in (("affine", affine), ("negative", negative), ("backward", backward)) if on]
        pack.case("-".join(["gemma", *words, kind]), save, x, z, y, reads=own)


def forge(pack: Packer) -> None:
    """CLT of CLT-Forge, clt.py: encode(x * in), triu pairs, biases summed by target, / out; ranks cut along F."""
    for n, (crossing, scaled, ranks, kind) in enumerate(
        itertools.product((True, False), (True, False), (0, 2), TYPES)
    ):
        draw = Draw(200 + n, TYPES[kind])
        pairs = PAIRS if crossing else [(i, i) for i in range(L)]
        held = {
            "W_enc": draw(L, D, F), "b_enc": draw(L, F), "W_dec": draw(len(pairs), F, D), "b_dec": draw(len(pairs), D),
            "log_threshold": draw(L, F) - 1, "estimated_norm_scaling_factor_in": draw(L).abs() + 0.3 if scaled else
            torch.ones(L, dtype=TYPES[kind]), "estimated_norm_scaling_factor_out": draw(L).abs() + 0.3 if scaled else
            torch.ones(L, dtype=TYPES[kind]), "feature_count": torch.zeros(L, F, dtype=torch.long),
        }  # fmt: skip
        x = draw.rows()
        inner, outer = held["estimated_norm_scaling_factor_in"], held["estimated_norm_scaling_factor_out"]
        z = [
            jump((x[i] * inner[i]) @ held["W_enc"][i] + held["b_enc"][i], held["log_threshold"][i].exp())
            for i in range(L)
        ]
        y = [
            sum(z[i] @ held["W_dec"][k] + held["b_dec"][k] for k, (i, j) in enumerate(pairs) if j == t)
            / outer[t]
            for t in range(L)
        ]
        config = {
            "device": "cpu", "dtype": str(TYPES[kind]), "seed": 1, "model_name": "gpt2", "d_in": D, "d_latent": F,
            "n_layers": L, "jumprelu_bandwidth": 1.0, "jumprelu_init_threshold": 0.03, "normalize_decoder": False,
            "dead_feature_window": 250, "cross_layer_decoders": crossing, "context_size": 16, "l0_coefficient": 2.0,
            "feature_sharding": bool(ranks),
        }  # fmt: skip
        text = {"cfg__json": json.dumps(config)}

        def save(folder: Path, held: dict[str, Tensor] = held, ranks: int = ranks, text: Any = text) -> None:
            if not ranks:
                files(held, "clt_weights.safetensors", **text)(folder)
            for r in range(ranks):
                part = slice(r * F // ranks, (r + 1) * F // ranks)
                cut = {
                    k: v[..., part] if k in ("W_enc", "b_enc", "log_threshold", "feature_count") else v
                    for k, v in held.items()
                }
                cut["W_dec"] = held["W_dec"][:, part]
                files(cut, f"rank{r}_clt_weights.safetensors", **text)(folder)

        words = ["clt" if crossing else "plt", *(["scaled"] if scaled else []), *(["ranks"] if ranks else [])]
        pack.case("-".join(["forge", *words, kind]), save, x, z, y, reads=[[i] for i in range(L)])


def topk(pre: Tensor, k: int) -> Tensor:
    """The k largest of each row, those above zero."""
    best, at = pre.topk(k, -1)
    return torch.zeros_like(pre).scatter(-1, at, best.relu())


def goreg(pack: Packer) -> None:
    """CrossLayerTranscoder of crosslayer-transcoder, model/clt.py, topk.py, jumprelu.py, standardize.py."""
    kinds = ("ReLU", "JumpReLU", "PerLayerTopK", "BatchTopK", "PerLayerBatchTopK")
    for n, (act, crossing, standard, kind) in enumerate(
        itertools.product(kinds, (True, False), ("", "Dimensionwise", "Layerwise"), TYPES)
    ):
        if standard == "Layerwise" and act not in ("JumpReLU", "ReLU"):
            continue
        draw = Draw(500 + n, TYPES[kind])
        held = {"encoder.W": draw(L, D, F), "encoder.b": draw(L, F), "decoder.b": draw(L, D)}
        for j in range(L):
            if crossing:
                held[f"decoder.W_{j}"] = draw(j + 1, F, D)
        if not crossing:
            held["decoder.W"] = draw(L, F, D)
        args: dict[str, Any] = {}
        threshold = draw(L, F, scale=0.5)
        if act == "JumpReLU":
            held["nonlinearity.theta"] = threshold[None]
            held["nonlinearity.bandwidth"] = torch.tensor(1.0)
            args = {"theta": 0.03, "bandwidth": 1.0, "n_layers": L, "d_features": F}
        elif act != "ReLU":
            args = {"k": 3, "e": 0.01, "n_layers": L}
        if act == "BatchTopK":
            held["nonlinearity.threshold"] = torch.tensor([0.4], dtype=TYPES[kind])
        if act == "PerLayerBatchTopK":
            held["nonlinearity.threshold"] = torch.tensor([0.4, -0.2, 0.7], dtype=TYPES[kind])
        x = draw.rows()
        shape = (L, D) if standard == "Dimensionwise" else (L,)
        means = {side: draw(*shape) for side in ("input", "output")}
        stds = {side: draw(*shape).abs() + 0.3 for side in ("input", "output")}
        if standard:
            for side in means:
                held |= {f"{side}_standardizer.mean": means[side], f"{side}_standardizer.std": stds[side]}
        z = []
        for i in range(L):
            rows = (x[i] - means["input"][i]) / stds["input"][i] if standard else x[i]
            pre = rows @ held["encoder.W"][i] + held["encoder.b"][i]
            z.append(
                {
                    "ReLU": lambda pre, i: pre.relu(),
                    "JumpReLU": lambda pre, i, t=threshold: pre * ((pre > t[i]) & (pre > 0)),
                    "PerLayerTopK": lambda pre, i: topk(pre, 3),
                    "BatchTopK": lambda pre, i, h=held: jump(
                        pre, h["nonlinearity.threshold"][0].clamp(min=0)
                    ),
                    "PerLayerBatchTopK": lambda pre, i, h=held: jump(
                        pre, h["nonlinearity.threshold"][i].clamp(min=0)
                    ),
                }[act](pre, i)
            )
        y = []
        for j in range(L):
            out = (
                sum(z[i] @ held[f"decoder.W_{j}"][i] for i in range(j + 1))
                if crossing
                else z[j] @ held["decoder.W"][j]
            )
            out = out + held["decoder.b"][j]
            y.append(out * stds["output"][j] + means["output"][j] if standard else out)
        home = "crosslayer_transcoder.model"

        def part(path: str, home: str = home, **init: Any) -> dict[str, Any]:
            return {"class_path": f"{home}.{path}", "init_args": init}

        init = {
            "nonlinearity": part(f"topk.{act}", **args),
            "encoder": part("clt.Encoder", d_acts=D, d_features=F, n_layers=L),
            "decoder": part(
                "clt.CrosslayerDecoder" if crossing else "clt.Decoder", d_acts=D, d_features=F, n_layers=L
            ),
            "input_standardizer": part(f"standardize.{standard}InputStandardizer") if standard else None,
            "output_standardizer": part(f"standardize.{standard}OutputStandardizer") if standard else None,
        }
        config = {"model": {**part("clt.CrossLayerTranscoder", **init), "is_folded": not standard}}
        words = [act.lower(), "clt" if crossing else "plt", *([standard.lower()] if standard else []), kind]
        pack.case("-".join(words), files(held, "checkpoint.safetensors", config__yaml=yaml.safe_dump(config)), x, z, y,
                  reads=[[i] for i in range(L)])  # fmt: skip


def tigges(pack: Packer) -> None:
    """CrossLayerTranscoder of crosslayer-coding, models/decoder.py, theta.py; statistics of manifest_activation_store.py."""
    for n, (tying, act, standard, kind) in enumerate(
        itertools.product(("none", "per_source", "per_target"), ("relu", "jumprelu"), (False, True), TYPES)
    ):
        draw = Draw(900 + n, TYPES[kind])
        held = {f"encoder_module.encoders.{i}.weight": draw(F, D) for i in range(L)}
        held |= {f"encoder_module.encoders.{i}.bias_param": draw(F) for i in range(L)}
        modules = [f"{i}->{j}" for i, j in PAIRS] if tying == "none" else [str(i) for i in range(L)]
        for name in modules:
            held[f"decoder_module.decoders.{name}.weight"] = draw(D, F)
            held[f"decoder_module.decoders.{name}.bias_param"] = draw(D)
        scaled = tying != "none" and act == "relu"
        skips = tying == "none" and not standard
        for j in range(L):
            if scaled:
                held[f"decoder_module.feature_scale.{j}"] = draw(F)
                held[f"decoder_module.feature_offset.{j}"] = torch.zeros(F, dtype=TYPES[kind])
            if skips:
                held |= {f"decoder_module.skip_weights.{i}->{j}": draw(D, D) * (i == j) for i in range(j + 1)}
        if act == "jumprelu":
            held["theta_manager.log_threshold"] = draw(L, F) - 1
        x = draw.rows()
        row = {
            i: {
                side: {"mean": draw(D).tolist(), "std": (draw(D).abs() + 0.3).tolist()}
                for side in ("inputs", "targets")
            }
            for i in range(L)
        }

        def numbers(i: int, side: str, row: Any = row, kind: str = kind) -> tuple[Tensor, Tensor]:
            mean, std = (torch.tensor(row[i][side][key], dtype=torch.float64) for key in ("mean", "std"))
            return mean.to(TYPES[kind]), (std + 1e-6).to(TYPES[kind])

        z = []
        for i in range(L):
            mean, std = numbers(i, "inputs")
            rows = (x[i] - mean) / std if standard else x[i]
            pre = (
                rows @ held[f"encoder_module.encoders.{i}.weight"].T
                + held[f"encoder_module.encoders.{i}.bias_param"]
            )
            z.append(
                pre.relu() if act == "relu" else pre * (pre >= held["theta_manager.log_threshold"][i].exp())
            )
        y = []
        for j in range(L):
            total: Any = 0
            for i in range(j + 1):
                name = {"none": f"{i}->{j}", "per_source": str(i), "per_target": str(j)}[tying]
                a = z[i] * held[f"decoder_module.feature_scale.{j}"] if scaled else z[i]
                total = total + a @ held[f"decoder_module.decoders.{name}.weight"].T
                if tying != "per_target" or i == j:
                    total = total + held[f"decoder_module.decoders.{name}.bias_param"]
            if skips:
                total = total + x[j] @ held[f"decoder_module.skip_weights.{j}->{j}"].T
            mean, std = numbers(j, "targets")
            y.append(total * std + mean if standard else total)
        config = {
            "num_features": F, "num_layers": L, "d_model": D, "model_name": "gpt2", "activation_fn": act,
            "normalization_method": "mean_std" if standard else "none", "decoder_tying": tying,
            "enable_feature_scale": scaled, "enable_feature_offset": scaled, "skip_connection": skips,
            "tl_input_template": "blocks.{}.ln2.hook_normalized", "tl_output_template": "blocks.{}.hook_mlp_out",
        }  # fmt: skip
        texts = {"cfg__json": json.dumps(config)}
        if standard:
            texts["norm_stats__json"] = json.dumps(row)
        words = [tying.replace("_", ""), act, *(["standard"] if standard else []), kind]
        pack.case(
            "-".join(words), files(held, "clt.safetensors", **texts), x, z, y, reads=[[i] for i in range(L)]
        )


def kissane(pack: Packer) -> None:
    """CrossCoder of crosscoder-model-diff-replication, crosscoder.py: relu(sum over models + b_enc)."""
    for n, (name, kind) in enumerate(itertools.product(("cc_weights", "3"), TYPES)):
        draw = Draw(1300 + n, TYPES[kind])
        held = {"W_enc": draw(2, D, F), "W_dec": draw(F, 2, D), "b_enc": draw(F), "b_dec": draw(2, D)}
        x = draw.rows(2)
        z = (sum(x[m] @ held["W_enc"][m] for m in range(2)) + held["b_enc"]).relu()
        y = [z @ held["W_dec"][:, m] + held["b_dec"][m] for m in range(2)]
        config = json.dumps(
            {"hook_point": "blocks.14.hook_resid_pre", "dict_size": F, "d_in": D, "enc_dtype": "fp32"}
        )
        file = "cfg__json" if name == "cc_weights" else f"{name}_cfg__json"
        pack.case(
            f"kissane-{name}-{kind}", files(held, f"{name}.pt", **{file: config}), x, [z], y, reads=[[0, 1]]
        )


def learned(pack: Packer) -> None:
    """CrossCoder and BatchTopKCrossCoder of crosscoder_learning, dictionary.py; rows one at a time without a threshold."""
    codes = ("CROSSCODER", "SAE", "MIXED", "NONE", "DECOUPLED")
    for n, (code, set_, kind) in enumerate(itertools.product(("", *codes), (True, False), TYPES)):
        if not code and not set_:
            continue
        draw = Draw(1500 + n, TYPES[kind])
        held = {"encoder.weight": draw(L, D, F), "encoder.bias": draw(F), "decoder.weight": draw(L, F, D),
                "decoder.bias": draw(L, D)}  # fmt: skip
        x = draw.rows(count=40)  # enough for latents that only one of the lengths lets through
        f = (sum(x[m] @ held["encoder.weight"][m] for m in range(L)) + held["encoder.bias"]).relu()
        norms = held["decoder.weight"].norm(dim=2)
        by = {
            "": norms[:1], "CROSSCODER": norms.sum(0, keepdim=True), "SAE": norms.pow(2).sum(0, keepdim=True).sqrt(),
            "MIXED": norms.pow(2).sum(0, keepdim=True).sqrt() + 0.1 * norms.sum(0, keepdim=True),
            "NONE": torch.ones_like(norms[:1]), "DECOUPLED": norms,
        }[code]  # fmt: skip
        z = [f]
        if code:
            held["k"] = torch.tensor(4, dtype=torch.int)
            held["code_normalization_id"] = torch.tensor(codes.index(code) + 1)
            size = (L,) if code == "DECOUPLED" else ()
            held["threshold"] = torch.full(size, 1.2 if set_ else -1.0, dtype=torch.float32)
            masks = [
                f * b > 1.2 if set_ else torch.zeros_like(f).scatter(-1, (f * b).topk(4).indices, 1.0) > 0
                for b in by
            ]
            z = [f * mask for mask in masks]
        y = [
            z[m if len(z) > 1 else 0] @ held["decoder.weight"][m] + held["decoder.bias"][m] for m in range(L)
        ]
        config = {
            "activation_dim": D,
            "dict_size": F,
            "num_encoder_layers": L,
            "code_normalization": code or "CROSSCODER",
        }
        words = ["learned", code.lower() or "relu", *([] if set_ else ["unset"]), kind]
        as_pt = n % 3 == 0
        pack.case(
            "-".join(words), files(held, "ae.pt" if as_pt else "model.safetensors", config__json=json.dumps(config)), x, z,
            y, reads=[[0, 1, 2]] * len(z),
        )  # fmt: skip


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    versions = {name: version(name) for name in ("torch", "safetensors")}
    makers = {
        "gemma_clt": gemma, "clt_forge": forge, "crosslayer_transcoder": goreg, "crosslayer_coding": tigges,
        "crosscoders": kissane, "crosscoders_learned": learned,
    }  # fmt: skip
    for family, make in makers.items():
        packer = Packer(family, "published writer", versions)
        make(packer)
        packer.pack()
