"""Files and folders written whole or not at all, and read back with their hashes checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cutaway.errors import BadFormat, CorruptFile, SaveFailed
from cutaway.results.plain import to_json

MANIFEST = "manifest.json"
_TENSORS = "tensors.safetensors"


def _failed(path: Path, error: OSError) -> SaveFailed:
    reason = error.strerror or type(error).__name__
    return SaveFailed(
        f"{path} could not be written: {reason}.",
        "The result is still in memory and nothing half-written is left; save it to another place.",
    )


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file whole or not at all: to a temporary file beside it, then renamed. Makes the parent folders.

    Raises SaveFailed when the disk is full or read-only; an older file of that name is then as it was.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise _failed(target, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], mark: str = MANIFEST) -> Iterator[Path]:
    """A temporary folder to fill, renamed to `path` when the block ends well, removed when it does not.

    An older result at `path` is replaced only at the end. Raises SaveFailed on any error of the disk, and when `path` is a
    folder that is not empty and holds no file `mark`: it is not one of ours to replace.
    """
    target = Path(path)
    if target.exists() and not (target / mark).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise SaveFailed(
            f"{target} exists and is not a saved result.", "Choose a new folder, or remove that one yourself."
        )
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        os.chmod(work, 0o777 & ~_umask())
        yield work
        _swap_in(work, target)
    except OSError as error:
        raise _failed(target, error) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _swap_in(work: Path, target: Path) -> None:
    """Rename `work` to `target`; what was there is put back when that fails, and removed when it succeeds."""
    if not target.exists():
        os.rename(work, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    os.rename(target, old / "was")
    try:
        os.rename(work, target)
    except OSError:
        os.rename(old / "was", target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class Saved:
    """A result as read back from its folder.

    Attributes:
        path: the folder.
        manifest: without the list of files.
        tensors: by name.
        tables: by name.
        files: the names of the extra files.
    """

    path: Path
    manifest: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    tables: dict[str, pd.DataFrame]
    files: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """The content of one of the extra files."""
        return (self.path / name).read_bytes()


def save_folder(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    files: Mapping[str, bytes | str] | None = None,
) -> Path:
    """Save a result as a folder: `manifest.json`, `tensors.safetensors`, `NAME.csv` for each table, extra files.

    The manifest lists every file with its SHA-256. The folder appears whole or not at all (SaveFailed); an older result in
    its place is replaced.
    """
    parts: dict[str, bytes] = {}
    if tensors:
        parts[_TENSORS] = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
    for name, table in (tables or {}).items():
        parts[f"{name}.csv"] = table.to_csv(index=False).encode("utf-8")
    for name, content in (files or {}).items():
        if name in parts or name == MANIFEST or Path(name).name != name:
            raise SaveFailed(
                f"A file of a result cannot be called {name!r}.", "Use a plain name that is not taken."
            )
        parts[name] = content.encode("utf-8") if isinstance(content, str) else content
    listing = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    head = to_json({**manifest, "tables": sorted(tables or {}), "sha256": listing})
    with atomic_folder(path) as work:
        for name, content in parts.items():
            atomic_write(work / name, content)
        atomic_write(work / MANIFEST, head)
    return Path(path)


def load_folder(path: str | os.PathLike[str]) -> Saved:
    """Read a saved result back.

    Raises BadFormat when the folder holds no readable manifest, CorruptFile when a file is missing or not as it was.
    """
    folder = Path(path)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listing, tables = manifest.pop("sha256"), manifest.pop("tables")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFormat(
            f"{folder} is not a saved result: {error!r}.", "Pass a folder with a manifest.json."
        ) from error
    for name, digest in listing.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise CorruptFile(f"{file} is missing.", "Copy the whole folder, or make the result again.")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise CorruptFile(
                f"{file} is not as it was saved.", "Copy the folder again, or make the result again."
            )
    try:
        tensors = load_file(folder / _TENSORS) if _TENSORS in listing else {}
    except SafetensorError as error:
        raise CorruptFile(
            f"{folder / _TENSORS} cannot be read: {error}.", "Make the result again."
        ) from error
    frames = {name: pd.read_csv(folder / f"{name}.csv") for name in tables}
    extra = tuple(n for n in listing if n != _TENSORS and n.removesuffix(".csv") not in tables)
    return Saved(folder, manifest, tensors, frames, extra)
