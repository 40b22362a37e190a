"""What is written here, read by the original packages: run in an environment that has them, skipped elsewhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.features.formats.cases import CASES, FORMATS
from torch import Tensor

from cutaway.errors import BadInput


def written(name: str, folder: Path) -> Iterator[tuple[str, Path, Tensor, Tensor, Tensor]]:
    """Every case that a format holds, written in it: rows, activations, reconstructions. Most formats hold few."""
    row = FORMATS[name]
    assert row.write is not None
    for i, (title, case) in enumerate(CASES.items()):
        dictionary, rows = case.read(), case.expected["rows"]
        if rows.dtype in (torch.float16, torch.bfloat16):
            continue  # the package computes in this type
        place = folder / str(i) / "layers.0"
        with contextlib.suppress(BadInput):
            row.write(dictionary, place)
        if not place.exists():
            continue  # the format does not hold it
        latents = dictionary.encode(rows)
        yield title, place, rows, latents, dictionary.decode(latents, rows)


def agrees(title: str, found: tuple[Tensor, Tensor], latents: Tensor, back: Tensor) -> None:
    for mine, other in ((latents, found[0]), (back, found[1])):
        bound = 1e-12 if mine.dtype == other.dtype == torch.float64 else 1e-6
        assert float((mine - other).abs().max()) <= bound * float(mine.abs().max()), title
    assert torch.equal(latents != 0, found[0] != 0), title


def test_sae_lens_reads_what_is_written(tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="sae_lens is not installed")
    read = 0
    for title, place, rows, latents, back in written("saelens", tmp_path):
        sae: Any = sae_lens.SAE.load_from_disk(place)
        flat = sae.cfg.reshape_activations == "hook_z"
        given = (rows.unflatten(-1, (2, -1)) if flat else rows).to(sae.dtype)
        with torch.no_grad():
            codes, out = sae.encode(given), sae(given)
        agrees(title, (codes, out.flatten(-2) if flat else out), latents.to(sae.dtype), back.to(sae.dtype))
        read += 1
    assert read > 150


def test_sparsify_reads_what_is_written(tmp_path: Path) -> None:
    sparsify = pytest.importorskip("sparsify", reason="sparsify is not installed")
    read = 0
    for title, place, rows, latents, back in written("sparsify", tmp_path):
        coder = sparsify.SparseCoder.load_from_disk(place)
        with torch.no_grad():
            out = coder(rows)
        codes = torch.zeros_like(latents).scatter_(-1, out.latent_indices, out.latent_acts)
        agrees(title, (codes, out.sae_out), latents, back)
        read += 1
    assert read > 20


def test_dictionary_learning_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("dictionary_learning", reason="dictionary_learning is not installed")
    read = 0
    known = classes()
    for title, place, rows, latents, back in written("dictionary_learning", tmp_path):
        name = json.loads((place / "config.json").read_text())["trainer"]["dict_class"]
        kept = torch.load
        torch.load = lambda path, kept=kept: kept(path, weights_only=True)
        try:
            loaded = known[name].from_pretrained(str(place / "ae.pt"))
        finally:
            torch.load = kept
        loaded.float()
        with torch.no_grad():
            codes = loaded.encode(rows.float())
            agrees(title, (codes, loaded.decode(codes)), latents.float(), back.float())
        read += 1
    assert read > 60


def classes() -> dict[str, Any]:
    """The package's classes by name."""
    from importlib import import_module

    modules = ("dictionary", "trainers.top_k", "trainers.batch_top_k", "trainers.matryoshka_batch_top_k")
    return {k: v for name in modules for k, v in vars(import_module(f"dictionary_learning.{name}")).items()}


def test_an_npz_of_gemma_scope_is_what_its_formula_says(tmp_path: Path) -> None:
    """Its release has no package: the formula of its tutorial, in NumPy, on the file that is written."""
    read = 0
    for title, place, rows, latents, back in written("gemma-scope", tmp_path):
        with np.load(place / "params.npz", allow_pickle=False) as held:
            p = {key: held[key].astype(np.float64) for key in held.files}
        pre = rows.double().numpy() @ p["W_enc"] + p["b_enc"]
        codes = np.maximum(pre, 0) * (pre > p["threshold"])
        found = torch.from_numpy(codes), torch.from_numpy(codes @ p["W_dec"] + p["b_dec"])
        for mine, other in zip((latents, back), found, strict=True):
            bound = 1e-6 if rows.dtype == torch.float32 else 1e-12
            assert float((mine.double() - other).abs().max()) <= bound * float(mine.double().abs().max()), (
                title
            )
        read += 1
    assert read > 30
