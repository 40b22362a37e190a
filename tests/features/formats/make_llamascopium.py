"""Makes fixtures/llamascopium.zip with llamascopium's own classes and writers (2.0.0b34).

Run with a Python that has llamascopium, or by `alone.py`, which tells how. Average lengths that were never measured
are whatever memory held (the package saves `torch.empty`), so that the archive is not the same each time.
"""

from __future__ import annotations

import itertools
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from llamascopium.models.clt import CLTConfig, CrossLayerTranscoder
from llamascopium.models.crosscoder import Crosscoder, CrosscoderConfig
from llamascopium.models.sae import SAEConfig, SparseAutoEncoder
from llamascopium.models.sparse_dictionary import SparseDictionary

sys.path.insert(0, str(Path(__file__).parent))
from packing import Packer

D, F, N, L = 4, 10, 4, 3
POST = "blocks.1.hook_resid_post"
TYPES = {"f32": torch.float32, "f64": torch.float64}
ACTS = ("relu", "jumprelu", "topk", "batchtopk")


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random numbers for all parameters; thresholds around .4."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7
        parameter.data = (values - 1 if "threshold" in name else values).to(parameter.dtype)


def drawn(seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Values [N d] of one place, of a length that is not sqrt(d)."""
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (3 * x + 0.5).to(dtype)


def add(
    pack: Packer, name: str, made: SparseDictionary, dtype: torch.dtype, seed: int, as_pt: bool = False
) -> None:
    """One case: values scaled, encoded, decoded and scaled back by the package, one row at a time for batch top-k."""
    fill(made, seed)
    cfg = made.cfg
    if cfg.norm_activation == "dataset-wise":
        made.set_dataset_average_activation_norm(
            {hook: 4.0 + 1.25 * i for i, hook in enumerate(dict.fromkeys(cfg.associated_hook_points))}
        )
    hooks_in, hooks_out = cfg.hooks_in, cfg.hooks_out
    batch = {h: drawn(seed + i, dtype) for i, h in enumerate(dict.fromkeys(cfg.associated_hook_points))}
    zs, ys = [], []
    for row in range(N):
        part = {h: x[row : row + 1] for h, x in batch.items()}
        scaled, factors = made.normalize_activations(part, return_scale_factor=True)
        z = made.encode(made.prepare_input(scaled)[0])
        y = made.decode(z)
        zs.append(z)
        if cfg.sae_type == "sae":
            ys.append(torch.stack([y / factors[hooks_out[0]]]))
        elif cfg.sae_type == "clt":
            ys.append(torch.stack([y[j] / factors[h] for j, h in enumerate(hooks_out)]))
        else:
            ys.append(torch.stack([y[:, j] / factors[h] for j, h in enumerate(hooks_out)]))
    z, y = torch.cat(zs), torch.cat(ys, 1)
    x = [batch[h] for h in hooks_in]
    if cfg.sae_type == "sae":
        z_all, reads = [z], [[0]]
    elif cfg.sae_type == "clt":
        z_all, reads = [z[:, i] for i in range(L)], [[i] for i in range(L)]
    else:
        z_all, reads = [z[:, i] for i in range(len(hooks_in))], [list(range(len(hooks_in)))] * len(hooks_in)
        if cfg.act_fn == "relu":
            z_all, reads = z_all[:1], reads[:1]

    def save(folder: Path) -> None:
        if as_pt:
            made.save_checkpoint(folder / "sae_weights.pt")
        else:
            made.save_pretrained(folder)
        cfg.save_hyperparameters(folder)

    pack.case(name, save, x, z_all, list(y), reads=reads)


def common(act: str, norm: str, weighted: bool, dtype: torch.dtype, **more: Any) -> dict[str, Any]:
    """Settings of all kinds."""
    return {
        "d_model": D, "expansion_factor": F / D, "act_fn": act, "norm_activation": norm, "top_k": 4,
        "sparsity_include_decoder_norm": weighted, "dtype": dtype, "device": "cpu", **more,
    }  # fmt: skip


def singles(pack: Packer) -> None:
    """Autoencoders and transcoders: nonlinearities, norms, lengths of decoders, gated linear units, no bias."""
    n = itertools.count()
    for act, norm, weighted in itertools.product(
        ACTS, ("inference", "dataset-wise", "token-wise"), (True, False)
    ):
        for kind in TYPES if norm == "dataset-wise" else ("f32",):
            cfg = SAEConfig(
                hook_point_in=POST, hook_point_out=POST, **common(act, norm, weighted, TYPES[kind])
            )
            name = f"sae-{act}-{norm}{'-weighted' if weighted else ''}-{kind}"
            add(pack, name, SparseAutoEncoder(cfg), TYPES[kind], 10 * next(n))
    ends = {"hook_point_in": "blocks.2.ln2.hook_normalized", "hook_point_out": "blocks.2.hook_mlp_out"}
    for act, norm in itertools.product(ACTS, ("inference", "dataset-wise")):
        cfg = SAEConfig(**ends, **common(act, norm, True, torch.float64))
        add(
            pack, f"transcoder-{act}-{norm}-weighted-f64", SparseAutoEncoder(cfg), torch.float64, 10 * next(n)
        )
    for norm, kind in itertools.product(("inference", "dataset-wise"), TYPES):
        cfg = SAEConfig(
            **ends, use_glu_encoder=True, use_decoder_bias=False, **common("relu", norm, False, TYPES[kind])
        )
        add(pack, f"transcoder-glu-{norm}-{kind}", SparseAutoEncoder(cfg), TYPES[kind], 10 * next(n))
    cfg = SAEConfig(
        hook_point_in=POST, hook_point_out=POST, **common("jumprelu", "inference", False, torch.float32)
    )
    add(pack, "sae-jumprelu-pt-f32", SparseAutoEncoder(cfg), torch.float32, 10 * next(n), as_pt=True)


def several(pack: Packer) -> None:
    """Across layers, and crosscoders of three places."""
    n = itertools.count(1000)
    ins = [f"blocks.{i}.ln2.hook_normalized" for i in range(L)]
    outs = [f"blocks.{i}.hook_mlp_out" for i in range(L)]
    for act, norm, weighted in itertools.product(ACTS, ("inference", "dataset-wise"), (True, False)):
        for kind in TYPES if weighted else ("f32",):
            cfg = CLTConfig(
                hook_points_in=ins, hook_points_out=outs, **common(act, norm, weighted, TYPES[kind])
            )
            name = f"clt-{act}-{norm}{'-weighted' if weighted else ''}-{kind}"
            add(pack, name, CrossLayerTranscoder(cfg), TYPES[kind], 10 * next(n))
    posts = [f"blocks.{i}.hook_resid_post" for i in range(L)]
    for act, norm, kind in itertools.product(
        ("relu", "jumprelu", "topk"), ("inference", "dataset-wise"), TYPES
    ):
        cfg = CrosscoderConfig(hook_points=posts, **common(act, norm, True, TYPES[kind]))
        add(pack, f"crosscoder-{act}-{norm}-{kind}", Crosscoder(cfg), TYPES[kind], 10 * next(n))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    versions = {name: version(name) for name in ("llamascopium", "torch", "safetensors")}
    packer = Packer("llamascopium", "original package", versions)
    singles(packer)
    several(packer)
    packer.pack()
