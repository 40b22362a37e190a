"""Results as folders: a manifest that lists every file with its hash, and itself; read back with all of them checked.

What the manifest lists belongs to the result and is replaced with it. Whatever else lies in the folder is the user's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cutaway.errors import BadFormat, CorruptFile, SaveFailed
from cutaway.results.atomic import atomic_folder, atomic_write, recover
from cutaway.results.plain import to_json

MANIFEST = "manifest.json"
_TENSORS = "tensors.safetensors"
_REPORT = "report.html"


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
        """The content of one of the extra files. Raises `BadFormat` for any other."""
        if name not in self.files:
            raise BadFormat(f"{self.path} lists no file {name!r}.", "Make the result again.")
        return (self.path / name).read_bytes()


def save_folder(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    files: Mapping[str, bytes | str] | None = None,
    parts: Mapping[str, Callable[[Path], Any]] | None = None,
) -> Path:
    """Save a result as a folder: `manifest.json`, `tensors.safetensors`, `NAME.csv` for each table, extra files.

    The manifest lists every file with its SHA-256, and itself. The folder appears whole or not at all (SaveFailed); an older
    result in its place is replaced, and what else lies there stays.

    parts: results inside this one, by the name of their folder (`maps/z`): what saves each to a folder.
    """
    contents: dict[str, bytes] = {}
    if tensors:
        contents[_TENSORS] = save(
            {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        )
    for name, table in (tables or {}).items():
        contents[f"{name}.csv"] = table.to_csv(index=False).encode("utf-8")
    for name, content in (files or {}).items():
        if name in contents or name == MANIFEST or not _plain(name):
            raise SaveFailed(
                f"A file of a result cannot be called {name!r}.", "Use a plain name that is not taken."
            )
        contents[name] = content.encode("utf-8") if isinstance(content, str) else content
    listing = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    said = {**manifest, "tables": sorted(tables or {}), "parts": sorted(parts or {}), "pages": []}
    with atomic_folder(path, belongs) as work:
        for name, content in contents.items():
            atomic_write(work / name, content)
        for name, save_part in (parts or {}).items():
            save_part(work / name)
        atomic_write(work / MANIFEST, _sealed(said, listing))
    return Path(path)


def write_manifest(
    folder: str | os.PathLike[str], manifest: Mapping[str, Any], listing: Mapping[str, str]
) -> Path:
    """Write the manifest of a folder whose files were written one after the other; `listing`: each file's SHA-256."""
    said = {"tables": [], "parts": [], "pages": [], **manifest}
    return atomic_write(Path(folder) / MANIFEST, _sealed(said, listing))


def read_manifest(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The manifest of a folder and its files' SHA-256, without reading the files.

    Raises `BadFormat` where there is none, `CorruptFile` where the manifest itself was changed.
    """
    place = Path(folder)
    said, listing = _head(place)
    seal = listing.pop(MANIFEST, None)
    if seal != _digest(said, listing):
        raise CorruptFile(f"{place / MANIFEST} is not as it was saved.", _AGAIN)
    return said, listing


def add_page(folder: str | os.PathLike[str], html: str, name: str = _REPORT) -> Path:
    """Write a page into a saved result, listed as its own, so that it goes when the result is replaced.

    Raises `SaveFailed` where a file of that name lies there that is not the result's, `BadFormat` where there is no result.
    """
    place = Path(folder)
    said, listing = _head(place)
    pages = said.get("pages", [])
    if name not in pages:
        if (place / name).exists():
            raise SaveFailed(
                f"{place / name} is not the result's to replace.", "Move it, or name another page."
            )
        atomic_write(place / MANIFEST, _sealed({**said, "pages": [*pages, name]}, listing))
    return atomic_write(place / name, html)


def copy_saved(folder: Path, path: str | os.PathLike[str]) -> Path:
    """Copy a result that lies in a folder of large files to another place, its manifest last; gives the place.

    Only what the manifest lists is copied. Where the place is the folder itself, nothing is done. Raises `SaveFailed` where
    something else lies there, or the disk refuses.
    """
    target = Path(path)
    if target.exists() and target.resolve() == folder.resolve():
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SaveFailed(f"{target} exists.", "Choose a new folder.")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in (*read_manifest(folder)[1], MANIFEST):
            shutil.copyfile(folder / name, target / name)
    except OSError as error:
        raise SaveFailed(f"{target} could not be written: {error}.", "Choose another place.") from error
    return target


def belongs(old: Path, new: Path) -> set[str]:
    """What in a folder belongs to the result that is saved there, by its manifest: `Ours` of `atomic_folder`."""
    try:
        said, listing = _head(old)
    except BadFormat as error:
        raise SaveFailed(
            f"{old} exists and is not a saved result.", "Choose a new folder, or remove that one yourself."
        ) from error
    names = {MANIFEST, *filter(_plain, listing), *filter(_plain, said.get("pages", []))}
    for part in said.get("parts", []):
        inside = old / part
        if ".." not in Path(part).parts and not Path(part).is_absolute() and (inside / MANIFEST).is_file():
            names |= {f"{part}/{name}" for name in belongs(inside, new)}
    return names


def remove_saved(path: str | os.PathLike[str]) -> None:
    """Remove a saved result that no longer belongs beside newer ones; whatever else lies in its folder stays.

    Nothing is done where there is none. Raises `SaveFailed` where the folder's manifest is not ours.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        return
    for name in belongs(folder, folder):
        (folder / name).unlink(missing_ok=True)
    for inside in sorted((p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        if not any(inside.iterdir()):
            inside.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()


def load_folder(path: str | os.PathLike[str]) -> Saved:
    """Read a saved result back.

    Raises BadFormat when the folder holds no readable manifest, CorruptFile when a file is missing or not as it was.
    """
    folder = Path(path)
    manifest, listing = _head(folder)
    tables = manifest.pop("tables")
    seal = listing.pop(MANIFEST, None)  # manifests of the version before have none
    if seal is not None and seal != _digest(manifest | {"tables": tables}, listing):
        raise CorruptFile(f"{folder / MANIFEST} is not as it was saved.", _AGAIN)
    for name, digest in listing.items():
        file = folder / name
        if not _plain(name) or file.is_symlink() or not file.is_file():
            raise CorruptFile(f"{file} is missing.", "Copy the whole folder, or make the result again.")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise CorruptFile(f"{file} is not as it was saved.", _AGAIN)
    strange = [name for name in tables if f"{name}.csv" not in listing]
    if strange:
        raise CorruptFile(f"{folder / MANIFEST} names a table {strange[0]!r} that it does not list.", _AGAIN)
    try:
        tensors = load_file(folder / _TENSORS) if _TENSORS in listing else {}
        frames = {name: _table(folder / f"{name}.csv") for name in tables}
    except (SafetensorError, ValueError) as error:
        raise CorruptFile(f"{folder} cannot be read: {error}.", "Make the result again.") from error
    extra = tuple(n for n in listing if n != _TENSORS and n.removesuffix(".csv") not in tables)
    manifest.pop("parts", None)
    manifest.pop("pages", None)
    return Saved(folder, manifest, tensors, frames, extra)


def _table(file: Path) -> pd.DataFrame:
    """A table; one without columns, which pandas refuses to read, is empty."""
    return pd.read_csv(file) if file.read_bytes().strip() else pd.DataFrame()


_AGAIN = "Copy the folder again, or make the result again."


def _plain(name: object) -> bool:
    """Is it the name of a file in the folder itself?"""
    return isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..")


def _head(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A manifest without its listing of files, and the listing."""
    recover(folder)
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listing, lists = said.pop("sha256"), [said["tables"], said.get("parts", []), said.get("pages", [])]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BadFormat(
            f"{folder} is not a saved result: {error!r}.", "Pass a folder with a manifest.json."
        ) from error
    texts = (
        [*listing.values(), *(name for names in lists for name in names)] if _lists(listing, lists) else [0]
    )
    if not all(isinstance(text, str) for text in texts):
        raise BadFormat(
            f"{folder} is not a saved result: its manifest lists no files.", "Pass a folder that was saved."
        )
    return said, listing


def _lists(listing: object, lists: list[Any]) -> bool:
    return isinstance(listing, dict) and all(isinstance(names, list) for names in lists)


def _digest(said: Mapping[str, Any], listing: Mapping[str, str]) -> str:
    """The hash of all that a manifest says, whatever the order and the spaces."""
    plain = json.loads(to_json({**said, "sha256": dict(listing)}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _sealed(said: Mapping[str, Any], listing: Mapping[str, str]) -> str:
    """The manifest's text, its own hash among those of the files."""
    files = {name: digest for name, digest in listing.items() if name != MANIFEST}
    return to_json({**said, "sha256": files | {MANIFEST: _digest(said, files)}})
