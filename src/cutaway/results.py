"""Where a result came from, and how it is put on disk: whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cutaway.errors import BadFormat, CorruptFile, NotFinite, SaveFailed

MANIFEST = "manifest.json"
_TENSORS = "tensors.safetensors"
_PACKAGES = ("cutaway", "torch", "transformers", "numpy")


class Identified(Protocol):
    """What provenance needs to know of a network."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def hash(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> Any: ...  # noqa: D102
    @property
    def dtype(self) -> Any: ...  # noqa: D102


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers; 'not installed' where a package is not.

    >>> sorted(versions())
    ['cutaway', 'numpy', 'python', 'torch', 'transformers']
    """
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@dataclass(frozen=True)
class Provenance:
    """What is needed to repeat a result: which network, which behaviour, with what, from which seed, and how
    long.
    """

    network: str
    network_hash: str
    behaviour_hash: str = ""
    versions: dict[str, str] = field(default_factory=versions)
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    seconds: float = 0.0
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def of(cls, net: Identified, behaviour_hash: str = "", seed: int = 0, seconds: float = 0.0) -> Provenance:
        """The provenance of work done now on this network."""
        dtype = str(net.dtype).removeprefix("torch.")
        return cls(net.name, net.hash, behaviour_hash, versions(), seed, str(net.device), dtype, seconds)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Provenance:
        """The inverse of `to_dict`; BadFormat when the data is no provenance."""
        try:
            return cls(**data)
        except TypeError as error:
            raise BadFormat(
                f"This is not the data of a provenance: {error}.", "Pass what to_dict gave."
            ) from error


def _plain(value: Any) -> Any:
    """What JSON can hold, of the types that results hold."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON of plain data, dataclasses, arrays and tensors. Raises NotFinite on NaN or infinity: JSON has
    none.

    >>> to_json({"a": np.float32(0.5)}, indent=None)
    '{"a": 0.5}'
    """
    try:
        return json.dumps(value, default=_plain, indent=indent, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NotFinite(
            f"NaN or infinity cannot be written as JSON: {error}.", "Write None where there is no figure."
        ) from error


def _failed(path: Path, error: OSError) -> SaveFailed:
    reason = error.strerror or type(error).__name__
    return SaveFailed(
        f"{path} could not be written: {reason}.",
        "The result is still in memory and nothing half-written is left; save it to another place.",
    )


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file whole or not at all: to a temporary file beside it, then renamed. Makes the parent
    folders.

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

    An older result at `path` is replaced only at the end. Raises SaveFailed on any error of the disk, and
    when `path` is a folder that is not empty and holds no file `mark`: it is not one of ours to replace.
    """
    target = Path(path)
    if (
        target.exists()
        and not (target / mark).is_file()
        and (not target.is_dir() or any(target.iterdir()))
    ):
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
    """A result as read back from its folder; `manifest` without the list of files."""

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
    """Save a result as a folder: `manifest.json`, `tensors.safetensors`, `NAME.csv` for each table, extra
    files.

    The manifest lists every file with its SHA-256. The folder appears whole or not at all (SaveFailed); an
    older result in its place is replaced.
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

    Raises BadFormat when the folder holds no readable manifest, CorruptFile when a file is missing or not as
    it was.
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
