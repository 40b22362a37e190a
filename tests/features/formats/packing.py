"""Fixtures of formats: cases packed into one archive a family, and unpacked where a test or a script looks into them.

A case is a folder of files as its package writes them, and `expected.safetensors`: x.i, what place i held; z.s, activations
of source s; y.t, what was made of target t. cases.json tells how each was made, and with what versions.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

HERE = Path(__file__).parent / "fixtures"


class Packer:
    """Gathers the cases of a family in a temporary folder and packs them, bytes the same each time."""

    def __init__(self, family: str, by: str, versions: Mapping[str, str]) -> None:
        self.family, self.about = family, {"by": by, "versions": dict(versions), "cases": {}}
        self.root = Path(tempfile.mkdtemp())

    def case(
        self, name: str, save: Callable[[Path], Any], x: Sequence[Tensor], z: Sequence[Tensor], y: Sequence[Tensor],
        **about: Any,
    ) -> None:  # fmt: skip
        """One case: `save` writes its files; about: `reads`, which places each source reads, and what else is to be told."""
        folder = self.root / name
        (folder / "files").mkdir(parents=True)
        save(folder / "files")
        held = {f"x.{i}": v for i, v in enumerate(x)} | {f"z.{i}": v for i, v in enumerate(z)}
        held |= {f"y.{i}": v for i, v in enumerate(y)}
        save_file(
            {k: v.detach().contiguous().clone() for k, v in held.items()}, folder / "expected.safetensors"
        )
        self.about["cases"][name] = about

    def pack(self) -> None:
        """Write fixtures/FAMILY.zip."""
        (self.root / "cases.json").write_text(json.dumps(self.about, indent=1))
        HERE.mkdir(exist_ok=True)
        with zipfile.ZipFile(HERE / f"{self.family}.zip", "w", zipfile.ZIP_DEFLATED) as out:
            for path in sorted(p for p in self.root.rglob("*") if p.is_file()):
                info = zipfile.ZipInfo(path.relative_to(self.root).as_posix(), (2026, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                out.writestr(info, path.read_bytes())
        shutil.rmtree(self.root)
        print(
            self.family,
            len(self.about["cases"]),
            "cases,",
            (HERE / f"{self.family}.zip").stat().st_size,
            "bytes",
        )


def about(family: str) -> dict[str, Any]:
    """How the cases of a family were made."""
    with zipfile.ZipFile(HERE / f"{family}.zip") as held:
        return json.loads(held.read("cases.json"))


def unpacked(family: str, case: str, into: Path) -> tuple[Path, dict[str, Tensor]]:
    """The folder of a case's files, and what is expected of them."""
    with zipfile.ZipFile(HERE / f"{family}.zip") as held:
        for name in held.namelist():
            if name.startswith(f"{case}/"):
                held.extract(name, into)
    return into / case / "files", load_file(into / case / "expected.safetensors")
