"""Fixtures of SAELens, written by sae_lens: every architecture with every way to norm rows, in single and double."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from making import ROWS, D, F, case, drawn, family, fill
from sae_lens import SAE
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import load_file, save_file
from torch import Tensor

FOLDER = family("saelens", ("sae-lens", "torch", "safetensors", "transformer-lens"))
ABOUT = {
    "model_name": "gpt2",
    "hook_name": "blocks.3.hook_resid_post",
    "dataset_path": "some/text",
    "context_size": 64,
    "prepend_bos": True,
}
NORMS = ("none", "constant_norm_rescale", "layer_norm", "expected_average_only_in", "covariance_whitening")
FACTOR = 2.37


def built(architecture: str, seed: int, training: bool = False, **config: Any) -> Any:
    cls, config_cls = (get_sae_training_class if training else get_sae_class)(architecture)
    about = {**ABOUT, **config.pop("about", {})}
    made = cls(config_cls(d_in=config.pop("d_in", D), d_sae=F, metadata=SAEMetadata(**about), **config))
    fill(made, seed)
    return made


def whitening(dtype: torch.dtype) -> dict[str, Tensor]:
    matrix = drawn(77, D, D, dtype=torch.float64) + 2 * torch.eye(D, dtype=torch.float64)
    return {
        "mean": drawn(78, D, dtype=torch.float64),
        "matrix": matrix,
        "inverse_matrix": matrix.inverse().contiguous(),
    }


def evaluated(sae: Any, seed: int, width: int = D) -> tuple[Tensor, Tensor, Tensor]:
    rows = drawn(seed, ROWS, width, dtype=sae.dtype) * 1.7 + 0.3
    with torch.no_grad():
        if sae.cfg.reshape_activations == "hook_z":
            heads = rows.unflatten(-1, (2, -1))
            latents = sae.encode(heads)
            return rows, latents, sae.decode(latents).flatten(-2)
        latents = sae.encode(rows)
        back = sae(rows) if "transcoder" in sae.cfg.architecture() else sae.decode(latents)
    return rows, latents, back


def saved(sae: Any, norm: str, seed: int, inference: bool = False):
    """Save it, beside it what its training would have left; then load it, fold as SAELens does, and evaluate it."""

    def make(place: Path) -> tuple[Tensor, Tensor, Tensor]:
        (sae.save_inference_model if inference else sae.save_model)(place)
        stats = whitening(sae.dtype)
        if norm == "expected_average_only_in":
            (place / "activation_scaler.json").write_text(
                json.dumps({"scaling_factor": FACTOR, "has_whitening": False})
            )
        if norm == "covariance_whitening":
            save_file(stats, place / "activation_whitening.safetensors")
        loaded = SAE.load_from_disk(place)
        if norm == "expected_average_only_in":
            loaded.fold_activation_norm_scaling_factor(FACTOR)
        if norm == "covariance_whitening":
            loaded.fold_activation_whitening(stats["mean"], stats["matrix"], stats["inverse_matrix"])
        return evaluated(loaded, seed, loaded.cfg.d_in)

    return make


def six() -> None:
    kinds: dict[str, dict[str, Any]] = {
        "standard": {},
        "jumprelu": {},
        "gated": {},
        "topk": {"k": 3},
        "abstopk": {"k": 3},
        "topk-rescaled": {"k": 3, "rescale_acts_by_decoder_norm": True},
    }
    seed = 0
    for name, extra in kinds.items():
        for norm in NORMS:
            for dtype in ("float32", "float64"):
                for centred in (
                    (True, False) if norm in ("none", "covariance_whitening") else (seed % 2 == 0,)
                ):
                    seed += 1
                    sae = built(
                        name.split("-")[0],
                        seed,
                        normalize_activations=norm,
                        dtype=dtype,
                        apply_b_dec_to_input=centred,
                        **extra,
                    )
                    title = f"{name}-{norm}-{dtype}{'' if centred else '-uncentred'}"
                    case(FOLDER, title, saved(sae, norm, seed), format="saelens")
    for name in ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"):
        for norm in ("none", "layer_norm", "constant_norm_rescale"):
            for dtype in ("float32", "float64"):
                seed += 1
                about = {
                    "hook_name": "blocks.3.ln2.hook_normalized",
                    "hook_name_out": "blocks.3.hook_mlp_out",
                }
                sae = built(
                    name,
                    seed,
                    d_out=4,
                    normalize_activations=norm,
                    dtype=dtype,
                    apply_b_dec_to_input=False,
                    about=about,
                )
                case(FOLDER, f"{name}-{norm}-{dtype}", saved(sae, norm, seed), format="saelens")
    for name in ("standard", "jumprelu", "gated"):
        seed += 1
        sae = built(name, seed, reshape_activations="hook_z", about={"hook_name": "blocks.3.attn.hook_z"})
        case(FOLDER, f"{name}-heads-float32", saved(sae, "none", seed), format="saelens")
    for dtype in ("float16", "bfloat16"):
        seed += 1
        case(
            FOLDER,
            f"standard-none-{dtype}",
            saved(built("standard", seed, dtype=dtype), "none", seed),
            format="saelens",
        )


def trained() -> None:
    """What training saves: checkpoints, and the inference files that they become."""
    for i, (name, extra) in enumerate(
        {
            "batchtopk": {"k": 3.0},
            "batchtopk-plain": {"k": 3.0, "rescale_acts_by_decoder_norm": False},
            "matryoshka_batchtopk": {"k": 3, "matryoshka_widths": [4, F]},
            "topk": {"k": 3},
            "abstopk": {"k": 3},
            "jumprelu": {},
            "gated": {},
            "standard": {},
        }.items()
    ):
        seed = 900 + i
        sae = built(name.split("-")[0], seed, training=True, **extra)
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold = torch.tensor(0.41, dtype=torch.double)
        case(FOLDER, f"trained-{name}", saved(sae, "none", seed, inference=True), format="saelens")

        def checkpoint(place: Path, sae: Any = sae, seed: int = seed) -> tuple[Tensor, Tensor, Tensor]:
            with tempfile.TemporaryDirectory() as folder:
                sae.save_inference_model(folder)
                loaded = SAE.load_from_disk(folder)
            sae.save_model(place)
            save_file({"sparsity": torch.full((F,), -1.0)}, place / "sparsity.safetensors")
            return evaluated(loaded, seed)

        case(FOLDER, f"checkpoint-{name}", checkpoint, format="saelens")


def scaled_checkpoint() -> None:
    """A checkpoint of rows that were scaled, whose threshold is in units of its decoder's norms."""
    for i, rescaled in enumerate((True, False)):
        seed = 950 + i
        norm = "expected_average_only_in"
        name = f"checkpoint-batchtopk-scaled{'' if rescaled else '-plain'}"
        sae = built(
            "batchtopk", seed, True, k=3.0, rescale_acts_by_decoder_norm=rescaled, normalize_activations=norm
        )
        sae.topk_threshold = torch.tensor(0.41, dtype=torch.double)

        def make(place: Path, sae: Any = sae, seed: int = seed) -> tuple[Tensor, Tensor, Tensor]:
            sae.save_model(place)
            (place / "activation_scaler.json").write_text(
                json.dumps({"scaling_factor": FACTOR, "has_whitening": False})
            )
            sae.fold_activation_norm_scaling_factor(FACTOR)
            with tempfile.TemporaryDirectory() as folder:
                sae.save_inference_model(folder)
                return evaluated(SAE.load_from_disk(folder), seed)

        case(FOLDER, name, make, format="saelens")


def refused() -> None:
    """Architectures that no row can be encoded by."""
    built("matching_pursuit", 1).save_model(FOLDER / "refused" / "matching_pursuit")
    built("temporal", 1, bottleneck_factor=4, n_heads=2).save_model(FOLDER / "refused" / "temporal")


def old() -> None:
    """Configurations of versions 3 to 5, which sae_lens still reads; its tensors have not changed."""
    settings: dict[str, dict[str, Any]] = {
        "three": {
            "hook_point": "blocks.2.hook_resid_pre",
            "hook_point_layer": 2,
            "activation_fn_str": "relu",
        },
        "three-normed": {
            "hook_point": "blocks.2.hook_mlp_out",
            "activation_fn_str": "relu",
            "normalize_activations": True,
        },
        "four": {
            "hook_name": "blocks.2.hook_resid_post",
            "hook_layer": 2,
            "architecture": "standard",
            "activation_fn_str": "relu",
            "normalize_activations": False,
            "sae_lens_training_version": "3.9.1",
        },
        "five-topk": {
            "hook_name": "blocks.2.hook_resid_post",
            "architecture": "standard",
            "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": 4},
            "normalize_activations": "none",
        },
        "five-jumprelu": {
            "hook_name": "blocks.2.hook_resid_post",
            "architecture": "jumprelu",
            "activation_fn_str": "relu",
            "normalize_activations": "none",
            "apply_b_dec_to_input": False,
        },
        "five-gated": {
            "hook_name": "blocks.2.hook_resid_post",
            "architecture": "gated",
            "activation_fn_str": "relu",
            "normalize_activations": "layer_norm",
        },
        "five-heads": {
            "hook_name": "blocks.2.attn.hook_z",
            "architecture": "standard",
            "activation_fn_str": "relu",
            "normalize_activations": "none",
        },
        "five-ones": {
            "hook_name": "blocks.2.hook_resid_post",
            "architecture": "standard",
            "activation_fn_str": "relu",
            "normalize_activations": "constant_norm_rescale",
        },
    }
    for i, (name, extra) in enumerate(settings.items()):
        kind = extra.get("architecture", "standard")
        sae = built("topk" if "topk" in name else kind, 700 + i, **({"k": 4} if "topk" in name else {}))
        config = {
            "d_in": D,
            "d_sae": F,
            "dtype": "torch.float32" if name == "three" else "float32",
            "device": "cpu",
            "model_name": "gpt2-small",
            "context_size": 128,
            "dataset_path": "some/text",
            **extra,
        }

        def make(
            place: Path,
            sae: Any = sae,
            config: dict[str, Any] = config,
            name: str = name,
            seed: int = 700 + i,
        ):
            sae.save_model(place)
            if name == "five-ones":
                file = place / "sae_weights.safetensors"
                save_file({**load_file(file), "scaling_factor": torch.ones(F)}, file)
            (place / "cfg.json").write_text(json.dumps(config))
            loaded = SAE.load_from_disk(place)
            if config.get("normalize_activations") is True:
                loaded.fold_activation_norm_scaling_factor(FACTOR)
            return evaluated(loaded, seed)

        given = {"scale": FACTOR} if extra.get("normalize_activations") is True else {}
        case(FOLDER, f"old-{name}", make, format="saelens-old", by="published writer", given=given)


if __name__ == "__main__":
    six()
    trained()
    scaled_checkpoint()
    refused()
    old()
