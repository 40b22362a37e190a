"""Fixtures of dictionary_learning, written by its classes as `trainSAE` saves them, in single and double precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from making import ROWS, D, F, case, drawn, family, fill
from torch import Tensor

FOLDER = family("dictionary_learning", ("dictionary-learning", "torch"))
K, FACTOR = 3, 5.5
CLASSES: dict[str, Any] = {
    "AutoEncoder": lambda: AutoEncoder(D, F),
    "AutoEncoderNew": lambda: AutoEncoderNew(D, F),
    "GatedAutoEncoder": lambda: GatedAutoEncoder(D, F),
    "JumpReluAutoEncoder": lambda: JumpReluAutoEncoder(D, F),
    "AutoEncoderTopK": lambda: AutoEncoderTopK(D, F, K),
    "BatchTopKSAE": lambda: BatchTopKSAE(D, F, K),
    "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(D, F, K, [4, 4, F - 8]),
}


def config(name: str, **more: Any) -> dict[str, Any]:
    trainer = {
        "dict_class": name,
        "trainer_class": "Trainer",
        "activation_dim": D,
        "dict_size": F,
        "layer": 4,
        "lm_name": "EleutherAI/pythia-70m",
        "submodule_name": "resid_post_layer_4",
        "lr": 1e-4,
        "seed": 0,
        **more,
    }
    return {"trainer": trainer, "buffer": {"ctx_len": 128, "io": "out", "d_submodule": D}}


def built(name: str, seed: int, dtype: torch.dtype, unit: bool) -> Any:
    made = CLASSES[name]()
    fill(made, seed)
    weight = made.decoder.weight if hasattr(made, "decoder") else None
    if unit and weight is not None:
        with torch.no_grad():
            weight /= weight.norm(dim=0, keepdim=True)
    if hasattr(made, "threshold") and made.threshold.ndim == 0:
        made.threshold.fill_(0.4)
    return made.to(dtype)


def evaluated(sae: Any, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    rows = drawn(seed, ROWS, D, dtype=dtype) * 1.5 + 0.2
    with torch.no_grad():
        latents = sae.encode(rows)
        return rows, latents, sae.decode(latents)


def loaded(name: str, file: Path, dtype: torch.dtype) -> Any:
    torch.load, kept = (lambda path: kept(path, weights_only=True)), torch.load
    try:
        sae = type(CLASSES[name]()).from_pretrained(str(file))
    finally:
        torch.load = kept
    if (
        dtype == torch.float64
    ):  # its classes load in single precision; the same numbers again, as they were saved
        sae.to(dtype)
        sae.load_state_dict(torch.load(file, weights_only=True))
        if name == "AutoEncoder":
            norms = sae.decoder.weight.data.norm(dim=0)
            if not torch.allclose(norms, torch.ones_like(norms)):
                sae.decoder.weight.data /= norms
                sae.encoder.weight.data *= norms[:, None]
                sae.encoder.bias.data *= norms
    return sae


def main() -> None:
    for seed, name in enumerate(CLASSES, 20):
        for dtype in (torch.float32, torch.float64):
            for unit in (True, False):
                for scaled in (False, True) if hasattr(CLASSES[name](), "scale_biases") else (False,):
                    word = str(dtype).removeprefix("torch.")
                    sae = built(name, seed, dtype, unit)

                    def make(
                        place: Path,
                        sae: Any = sae,
                        name: str = name,
                        dtype: torch.dtype = dtype,
                        seed: int = seed,
                        scaled: bool = scaled,
                    ):
                        if scaled:
                            sae.scale_biases(FACTOR)  # what training does before it saves
                        torch.save({k: v.cpu() for k, v in sae.state_dict().items()}, place / "ae.pt")
                        (place / "config.json").write_text(
                            json.dumps(config(name, **({"k": K} if "TopK" in name else {})))
                        )
                        return evaluated(loaded(name, place / "ae.pt", dtype), seed, dtype)

                    title = f"{name}-{word}{'-unit' if unit else ''}{'-scaled' if scaled else ''}"
                    case(FOLDER, title, make, format="dictionary_learning")
        backup(name, seed)


def backup(name: str, seed: int) -> None:
    """What training leaves while it runs, under the name of the final file: weights of normed rows beside their factor."""
    if not hasattr(CLASSES[name](), "scale_biases"):
        return

    def make(place: Path) -> tuple[Tensor, Tensor, Tensor]:
        sae = built(name, seed, torch.float32, True)
        optimiser = torch.optim.Adam(sae.parameters(), lr=1e-3)
        torch.save(
            {
                "step": 500,
                "ae": sae.state_dict(),
                "optimizer": optimiser.state_dict(),
                "config": config(name)["trainer"],
                "norm_factor": FACTOR,
            },
            place / "ae.pt",
        )
        (place / "config.json").write_text(json.dumps(config(name, **({"k": K} if "TopK" in name else {}))))
        sae.scale_biases(FACTOR)
        torch.save(sae.state_dict(), place.parent / "final.pt")
        made = evaluated(loaded(name, place.parent / "final.pt", torch.float32), seed, torch.float32)
        (place.parent / "final.pt").unlink()
        return made

    case(FOLDER, f"backup-{name}", make, format="dictionary_learning", by="published writer")


if __name__ == "__main__":
    main()
