"""The files of a dictionary, looked into without running anything that they hold, tensors mapped rather than read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cutaway.errors import BadFormat, CorruptFile, NotFound, UnsafeFile, did_you_mean
from cutaway.network.files import check_safetensors

#: Names of files that hold tensors.
TENSORS = (".safetensors", ".npz", ".pt", ".pth")
_CONFIGS = (".json", ".yaml", ".yml")


@dataclass(frozen=True, eq=False)
class DictionaryFiles:
    """A folder, or one file of tensors, as formats look at it.

    Attributes:
        path: what was given.
        folder: where its files lie.
        files: names of the files in it, sub-folders included to a depth of two, or of the one file and the configurations
            beside it.
    """

    path: Path
    folder: Path
    files: tuple[str, ...]
    _held: dict[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, path: str | Path) -> DictionaryFiles:
        """What lies at a path. Raises `NotFound` where nothing does, `BadFormat` where no file holds tensors."""
        place = Path(path).expanduser()
        if not place.exists():
            near = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
            raise NotFound(f"There is nothing at {place}.", did_you_mean(place.name, near))
        if place.is_file():
            beside = [p.name for p in sorted(place.parent.iterdir()) if p.suffix in _CONFIGS and p.is_file()]
            names = (place.name, *beside)
        else:
            found = [p for depth in ("*", "*/*", "*/*/*") for p in sorted(place.glob(depth)) if p.is_file()]
            names = tuple(str(p.relative_to(place)) for p in found if p.suffix in (*TENSORS, *_CONFIGS))
        if not any(Path(name).suffix in TENSORS for name in names):
            raise BadFormat(
                f"{place} holds no file of tensors.",
                f"A dictionary's folder has one that ends in {', '.join(TENSORS)}.",
            )
        return cls(place, place.parent if place.is_file() else place, names)

    def has(self, *names: str) -> bool:
        """Are these files there?"""
        return all(name in self.files for name in names)

    def like(self, pattern: str) -> list[str]:
        """Files whose name fits a pattern with `*`, in order of the numbers in them."""
        import fnmatch
        import re

        chosen = [name for name in self.files if fnmatch.fnmatchcase(name, pattern)]
        return sorted(chosen, key=lambda name: [int(n) for n in re.findall(r"\d+", name)] or [0])

    @property
    def tensor_files(self) -> list[str]:
        """Files of tensors, those named by the path only where it is one."""
        return [name for name in self.files if Path(name).suffix in TENSORS]

    def config(self, name: str) -> dict[str, Any]:
        """A configuration, JSON or YAML; {} where it is not there. Raises `CorruptFile` where it cannot be read."""
        if name not in self.files:
            return {}
        text = (self.folder / name).read_text(encoding="utf-8", errors="replace")
        try:
            if name.endswith(".json"):
                found = json.loads(text)
            else:
                import yaml

                found = yaml.safe_load(text)
        except ValueError as error:
            raise CorruptFile(f"{self.folder / name} cannot be read: {error}.", "Fetch it again.") from error
        except Exception as error:  # yaml's own errors, among them for tags that would build objects
            raise UnsafeFile(
                f"{self.folder / name} is no plain YAML: {str(error).splitlines()[0]}.",
                "Fetch it from another place.",
            ) from error
        return dict(found) if isinstance(found, Mapping) else {}

    def tensors(self, name: str) -> Mapping[str, Any]:
        """What a file holds by key: tensors, which are mapped and not read where the file allows it, and of `.pt` files also
        plain numbers and words; mappings inside are flattened with dots.

        Raises `CorruptFile` where it cannot be read, `UnsafeFile` where only unpickling would read it.
        """
        if name not in self._held:
            self._held[name] = _READERS[Path(name).suffix](self.folder / name)
        return self._held[name]

    def keys(self, name: str) -> frozenset[str]:
        """The keys of a file."""
        if name.endswith(".safetensors"):
            from cutaway.network.files import header_of

            return frozenset(header_of(self.folder / name))
        return frozenset(self.tensors(name))

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of a file, without reading it where it is a safetensors file."""
        if name.endswith(".safetensors"):
            from cutaway.network.files import header_of

            return {key: tuple(row["shape"]) for key, row in header_of(self.folder / name).items()}
        return {
            key: tuple(value.shape) for key, value in self.tensors(name).items() if torch.is_tensor(value)
        }


def _safetensors(file: Path) -> Mapping[str, Any]:
    check_safetensors(file)
    try:
        opened = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CorruptFile(f"{file} cannot be read: {error}.", "Fetch it again.") from error
    return _Mapped(opened)


class _Mapped(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each mapped when it is asked for."""

    def __init__(self, opened: Any) -> None:
        self.opened, self.names = opened, tuple(opened.keys())

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.names:
            raise KeyError(key)
        return self.opened.get_tensor(key)

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _npz(file: Path) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(file):
        raise CorruptFile(f"{file} is no .npz, or truncated.", "Fetch it again.")
    try:
        with np.load(file, allow_pickle=False) as held:
            return {key: torch.from_numpy(held[key]) for key in held.files}
    except (ValueError, TypeError, OSError, zipfile.BadZipFile, EOFError) as error:
        if "pickle" in str(error).lower():
            raise UnsafeFile(
                f"{file} holds pickled objects, which would run code.", "Save its arrays with numpy.savez."
            ) from error
        raise CorruptFile(f"{file} cannot be read: {error}.", "Fetch it again.") from error


def _pt(file: Path) -> Mapping[str, Any]:
    with file.open("rb") as opened:
        begins = opened.read(4)
    if not begins or (begins.startswith(b"PK") and not zipfile.is_zipfile(file)):
        raise CorruptFile(f"{file} is truncated.", "Fetch it again.")
    try:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # torch raises whatever it met
        if "weights_only" in str(error) or "Weights only" in str(error) or "Unsupported" in str(error):
            raise UnsafeFile(
                f"{file.name} holds Python objects beside its tensors, which only running its code would read.",
                f"Its owner can write it anew: `import torch; from safetensors.torch import save_file; x = torch.load("
                f"'{file.name}', weights_only=False); save_file(x['state_dict'] if 'state_dict' in x else x.state_dict() if "
                f"hasattr(x, 'state_dict') else x, '{file.with_suffix('.safetensors').name}')`.",
            ) from error
        raise CorruptFile(
            f"{file} cannot be read: {str(error).splitlines()[0]}.", "Fetch it again."
        ) from error
    if not isinstance(held, Mapping):
        raise BadFormat(f"{file} holds {type(held).__name__}, not tensors by name.", "Save a state_dict.")
    return dict(_flat(held, ""))


def _flat(held: Mapping[Any, Any], prefix: str) -> Any:
    for key, value in held.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_READERS = {".safetensors": _safetensors, ".npz": _npz, ".pt": _pt, ".pth": _pt}
