"""What the scripts share that make fixtures with the original packages: a case in a folder, with what the package computes.

Run a `make_*.py` in an environment that has the packages named in `versions.json`; the tests need none of them.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent / "fixtures"
D, F, ROWS = 6, 16, 8


def family(name: str, packages: tuple[str, ...]) -> Path:
    """The folder of a family, emptied, with the versions of the packages that fill it."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    versions = {package: version(package) for package in packages} | {"python": sys.version.split()[0]}
    (folder / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    return folder


def case(
    folder: Path,
    name: str,
    make: Callable[[Path], tuple[Tensor, Tensor, Tensor]],
    *,
    format: str,
    by: str = "package",
    path: str = "dictionary",
    **more: Any,
) -> None:
    """One case: `make` fills the folder that it is given and returns rows, activations and reconstructions.

    by: "package", where the package wrote the files, or "published writer", where a script follows what it publishes.
    """
    place = folder / name
    (place / "dictionary").mkdir(parents=True)
    rows, latents, back = make(place / "dictionary")
    tensors = {"rows": rows, "latents": latents, "reconstruction": back}
    save_file(
        {k: v.detach().contiguous().clone() for k, v in tensors.items()}, place / "expected.safetensors"
    )
    (place / "case.json").write_text(
        json.dumps({"format": format, "by": by, "path": path, **more}, indent=1) + "\n"
    )


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers from a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def fill(module: torch.nn.Module, seed: int) -> None:
    """Every parameter of a module drawn, so that nothing is zero or one by chance."""
    with torch.no_grad():
        for i, (name, value) in enumerate(sorted(module.named_parameters())):
            size = 0.3 if value.ndim == 1 else 0.6
            new = drawn(seed * 100 + i, *value.shape, dtype=value.dtype) * size
            value.copy_(new.abs() if "threshold" in name else new)
