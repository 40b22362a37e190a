"""Makes fixtures/circuit_tracer.zip with circuit-tracer's own classes and writers (0.5.0).

Run with a Python that has circuit-tracer, or by `alone.py`, which tells how.
"""

from __future__ import annotations

import itertools
import sys
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as functional
import yaml
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet

sys.path.insert(0, str(Path(__file__).parent))
from packing import Packer

D, F, N = 4, 10, 4
TYPES = {"f32": torch.float32, "f64": torch.float64}
HOOKS = {
    "mid": ("hook_resid_mid", "hook_mlp_out"),
    "normed": ("ln2.hook_normalized", "hook_mlp_out"),
    "inner": ("mlp.hook_in", "mlp.hook_out"),
}


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random numbers for all parameters; thresholds above zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = (values.abs() * 0.6 if "threshold" in name else values * 0.7).to(parameter.dtype)


def config(kind: str, hooks: str) -> str:
    """What config.yaml says."""
    read, write = HOOKS[hooks]
    return yaml.safe_dump(
        {
            "model_name": "gpt2", "model_kind": kind, "feature_input_hook": read,
            "feature_output_hook": write, "scan": "somebody/somewhere",
        }
    )  # fmt: skip


def a_set(layers: int, jump: bool, skip: bool, dtype: torch.dtype, seed: int, hooks: str) -> TranscoderSet:
    """A set of transcoders, one a layer."""
    made = {
        i: SingleLayerTranscoder(
            D, F, JumpReLU(torch.zeros(F, dtype=dtype), 0.1) if jump else functional.relu, i,
            skip_connection=skip, device=torch.device("cpu"), dtype=dtype,
        )
        for i in range(layers)
    }  # fmt: skip
    for i, one in made.items():
        fill(one, seed + i)
    return TranscoderSet(made, *HOOKS[hooks])


def rows(layers: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Values [L N d] of all layers."""
    return torch.randn(layers, N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def sets(pack: Packer) -> None:
    """A transcoder a layer: two nonlinearities, with and without a skip connection, three hooks."""
    for n, (jump, skip, kind, hooks) in enumerate(
        itertools.product((False, True), (False, True), TYPES, ("mid", "normed"))
    ):
        add_set(pack, f"set-{'jump' if jump else 'relu'}{'-skip' if skip else ''}-{hooks}-{kind}", 3, jump, skip,
                TYPES[kind], n, hooks)  # fmt: skip
    add_set(pack, "set-inner-f32", 2, True, True, torch.float32, 40, "inner")
    add_set(pack, "set-one-f32", 1, True, False, torch.float32, 41, "mid")
    add_set(pack, "set-bare-f32", 3, False, False, torch.float32, 42, "mid", bare=True)
    for jump in (False, True):
        add_set(
            pack, f"set-{'jump' if jump else 'relu'}-bf16", 2, jump, True, torch.bfloat16, 50 + jump, "mid"
        )


def add_set(
    pack: Packer, name: str, layers: int, jump: bool, skip: bool, dtype: torch.dtype, seed: int, hooks: str,
    bare: bool = False, **more: str,
) -> None:  # fmt: skip
    """One case of a set; half precision is stored and computed with in single."""
    made = a_set(layers, jump, skip, dtype, 100 * seed, hooks)

    def save(folder: Path) -> None:
        made.to_safetensors(str(folder))
        if not bare:
            (folder / "config.yaml").write_text(config("transcoder_set", hooks))
        for file, text in more.items():
            (folder / file.replace("_", "-").replace("-yaml", ".yaml")).write_text(text)

    x = rows(layers, torch.float32 if dtype == torch.bfloat16 else dtype, seed)
    stored, _ = made, save
    if dtype == torch.bfloat16:
        save_first = {key: value.clone() for key, value in made.state_dict().items()}
        stored = a_set(layers, jump, skip, torch.float32, 0, hooks)
        stored.load_state_dict(save_first)
    z = [stored[i].encode(x[i]) for i in range(layers)]
    y = [stored[i].decode(z[i], x[i]) for i in range(layers)]
    pack.case(name, save, list(x), z, y, reads=[[i] for i in range(layers)])


def across(pack: Packer) -> None:
    """Across layers: two nonlinearities, one to four layers."""
    for n, (act, layers, kind, hooks) in enumerate(
        itertools.product(("relu", "jump_relu"), (1, 2, 4), TYPES, ("mid", "normed"))
    ):
        dtype = TYPES[kind]
        made = CrossLayerTranscoder(
            layers, F, D, activation_function=act, lazy_decoder=False, device=torch.device("cpu"), dtype=dtype
        )
        fill(made, 1000 + n)
        x = rows(layers, dtype, n)
        z = [made.apply_activation_function(i, x[i] @ made.W_enc[i].T + made.b_enc[i]) for i in range(layers)]
        own = made.encode(x)
        assert all(torch.allclose(own[i], z[i].squeeze(0)) for i in range(layers))
        y = made.decode(own)

        def save(folder: Path, made: CrossLayerTranscoder = made, hooks: str = hooks) -> None:
            made.to_safetensors(str(folder))
            (folder / "config.yaml").write_text(config("cross_layer_transcoder", hooks))

        name = f"clt-{act.replace('_', '')}-{layers}-{hooks}-{kind}"
        pack.case(name, save, list(x), list(own), list(y), reads=[[i] for i in range(layers)])


def mwhanna(pack: Packer) -> None:
    """Sets with wandb's settings beside them, whose name one repository spells otherwise."""
    settings = yaml.safe_dump(
        {
            "d_model": {"value": D},
            "d_feature": {"value": F},
            "batch_size": {"value": 128},
            "lr": {"value": 2e-4},
        }
    )
    for n, (jump, file) in enumerate(itertools.product((False, True), ("wandb", "wanb"))):
        name = f"mwhanna-{'jump' if jump else 'relu'}-{file}-f32"
        add_set(
            pack, name, 2, jump, False, torch.float32, 70 + n, "inner", **{f"{file}_config_yaml": settings}
        )


if __name__ == "__main__":
    versions = {name: version(name) for name in ("circuit-tracer", "torch", "safetensors")}
    packer = Packer("circuit_tracer", "original package", versions)
    torch.set_grad_enabled(False)
    sets(packer)
    across(packer)
    mwhanna(packer)
    packer.pack()
