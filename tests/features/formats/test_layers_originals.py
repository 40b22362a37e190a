"""The original packages read what is written here, and agree. Skipped where they are not installed (see `alone.py`)."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.features.formats.layers import CASES, FORMATS, case, tolerance, values

from cutaway.errors import BadInput
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats.layered import folded


def package(module: str) -> Any:
    """A module of an original package, or skip."""
    return pytest.importorskip(
        module, reason=f"{module.partition('.')[0]} is not installed", exc_type=ImportError
    )


def compared(
    made: Dictionary, family: str, name: str, expected: dict[str, torch.Tensor], encode: Any, decode: Any
) -> None:
    """Activations and reconstructions by the package from our files, and by us, from the same rows."""
    rows = [values(family, name, expected, s) for s in range(len(made.encoders))]
    ours = [made.encode(rows[s], s) for s in range(len(rows))]
    theirs = encode(rows)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one != 0, other != 0)
        assert float((one - other).abs().max()) <= tolerance(other)
    for t, other in enumerate(decode(theirs, rows)):
        own = made.decode(ours, rows[min(t, len(rows) - 1)], target=t)
        assert float((own - other).abs().max()) <= tolerance(other)


def write(made: Dictionary, format: str, folder: Path) -> None:
    writer = FORMATS[format].write
    assert writer is not None
    writer(made, folder)


@pytest.mark.parametrize(
    ("family", "name"),
    [c for c in CASES if c[0] == "circuit_tracer" and not c[1].startswith("clt") and "bf16" not in c[1]],
)
@torch.no_grad()
def test_circuit_tracer_reads_our_sets(family: str, name: str, tmp_path: Path) -> None:
    module = package("circuit_tracer.transcoder.single_layer_transcoder")
    made, expected, _ = case(family, name, tmp_path)
    write(made, "circuit-tracer-set", tmp_path / "out")
    n = len(made.encoders)
    paths = {i: str(tmp_path / "out" / f"layer_{i}.safetensors") for i in range(n)}
    theirs = module.load_transcoder_set(
        paths, "", "", "", device=torch.device("cpu"), dtype=made.encoders[0].weight.dtype
    )
    compared(
        made, family, name, expected, lambda rows: list(theirs.encode(torch.stack(rows))),
        lambda z, rows: list(theirs.decode(torch.stack(z), torch.stack(rows))),
    )  # fmt: skip


ACROSS = [c for c in CASES if c[0] == "circuit_tracer" and c[1].startswith("clt")]
ACROSS += [c for c in CASES if c[0] == "gemma_clt" and "affine" not in c[1] and "backward" not in c[1]]
ACROSS += [c for c in CASES if c[0] == "clt_forge" and "clt" in c[1]]


@pytest.mark.parametrize(("family", "name"), ACROSS)
@torch.no_grad()
def test_circuit_tracer_reads_our_cross_layer_transcoders(family: str, name: str, tmp_path: Path) -> None:
    module = package("circuit_tracer.transcoder.cross_layer_transcoder")
    made, expected, _ = case(family, name, tmp_path)
    if family == "gemma_clt":  # its places are modules, which this format does not name
        bare = replace(made.writes[0], said="", site="")
        n = len(made.writes)
        made = replace(made, reads=((bare,),) * n, writes=(bare,) * n)
    made = folded(made) if any(e.gain is not None for e in made.encoders) else made
    write(made, "circuit-tracer-clt", tmp_path / "out")
    dtype = made.encoders[0].weight.dtype
    theirs = module.load_clt(str(tmp_path / "out"), device=torch.device("cpu"), dtype=dtype)
    assert theirs.n_layers == len(made.encoders), "the last layer is there too"

    def decode(z: list[torch.Tensor], _: list[torch.Tensor]) -> list[torch.Tensor]:
        return list(theirs.decode(torch.stack(z)))

    compared(made, family, name, expected, lambda rows: list(theirs.encode(torch.stack(rows))), decode)


@pytest.mark.parametrize(
    ("family", "name"),
    [c for c in CASES if c[0] == "llamascopium" and "dataset-wise" not in c[1] and "batchtopk" not in c[1]]
    + [c for c in CASES if c[0] == "llamascopium" and "relu-dataset-wise" in c[1] and "weighted" not in c[1]],
)
@torch.no_grad()
def test_llamascopium_reads_our_files(family: str, name: str, tmp_path: Path) -> None:
    module = package("llamascopium.models.sparse_dictionary")
    for other in ("sae", "clt", "crosscoder"):
        importlib.import_module(f"llamascopium.models.{other}")
    made, expected, _ = case(family, name, tmp_path)
    made = folded(made) if any(e.gain is not None for e in made.encoders) else made
    if made.kind == "crosscoder" and len(made.encoders) > 1:
        pytest.skip("crosscoders with thresholds are read and not written")
    try:
        write(made, "llamascopium", tmp_path / "out")
    except BadInput as error:
        pytest.skip(str(error))
    theirs = module.SparseDictionary.from_local(
        str(tmp_path / "out"), dtype=made.encoders[0].weight.dtype, device="cpu"
    )
    hooks_in, hooks_out = theirs.cfg.hooks_in, theirs.cfg.hooks_out
    kind = theirs.cfg.sae_type
    factors: dict[str, torch.Tensor] = {}
    latents: list[torch.Tensor] = []

    def encode(rows: list[torch.Tensor]) -> list[torch.Tensor]:
        parts = (
            [rows[0][:, i * 4 : i * 4 + 4] for i in range(len(hooks_in))] if kind == "crosscoder" else rows
        )
        batch = dict(zip(hooks_in, parts, strict=True))
        batch |= {hook: torch.ones_like(parts[0]) for hook in hooks_out if hook not in batch}
        scaled, found = theirs.normalize_activations(batch, return_scale_factor=True)
        factors.update(found)
        z = theirs.encode(theirs.prepare_input(scaled)[0])
        latents.append(z)
        return [z] if kind == "sae" else [z[:, 0]] if kind == "crosscoder" else list(z.unbind(1))

    def decode(_: list[torch.Tensor], __: list[torch.Tensor]) -> list[torch.Tensor]:
        y = theirs.decode(latents[-1])
        parts = [y] if kind == "sae" else list(y.unbind(1)) if kind == "crosscoder" else list(y)
        return [part / factors[hook] for part, hook in zip(parts, hooks_out, strict=True)]

    compared(made, family, name, expected, encode, decode)
