"""Lets modules of an original package be imported without what the package's top level asks for (other versions, services).

FOLDERS are separated as in PATH: unpacked wheels of circuit-tracer and llamascopium, then where their dependencies lie.
Makes fixtures: `python tests/features/formats/alone.py FOLDERS tests/features/formats/make_llamascopium.py`. Checks what is
written: `CUTAWAY_ORIGINALS=FOLDERS pytest -p tests.features.formats.alone tests/features/formats/test_layers_originals.py`.
"""

from __future__ import annotations

import os
import runpy
import sys
import types
from pathlib import Path

#: Packages, and those of their parts whose own `__init__` is passed over.
PARTS = {"circuit_tracer": ("", ".utils", ".transcoder"), "llamascopium": ("", ".models")}


def prepare(folders: str) -> None:
    """Put empty parts in the place of those that import too much; what lies below them is the package's own."""
    import torch

    for folder in folders.split(os.pathsep):
        sys.path.append(folder)
        for package, parts in PARTS.items():
            if (Path(folder) / package).is_dir():
                for part in parts:
                    module = types.ModuleType(f"{package}{part}")
                    module.__path__ = [str(Path(folder, package, *part.strip(".").split(".")))]
                    sys.modules[module.__name__] = module
    if "circuit_tracer.utils" in sys.modules:
        sys.modules["circuit_tracer.utils"].get_default_device = lambda: torch.device("cpu")  # type: ignore[attr-defined]


if __name__ == "__main__":
    prepare(sys.argv[1])
    runpy.run_path(sys.argv[2], run_name="__main__")
elif folders := os.environ.get("CUTAWAY_ORIGINALS"):
    prepare(folders)
