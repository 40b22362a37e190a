"""Finished stages of a piece of work on disk, so that what was stopped or killed goes on where it was.

A stage is one file, written whole or not at all, and named by a hash of all that its numbers depend on: what is not of the
very same question is not found. Nothing is unpickled: arrays and JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from cutaway.errors import BadInput, SaveFailed
from cutaway.results.atomic import atomic_write
from cutaway.results.plain import to_json
from cutaway.results.provenance import versions

T = TypeVar("T")
_NAMED = 16


@dataclass(frozen=True)
class Stages:
    """A folder of finished stages. Hand it down as `Work(stages=Stages(folder))`.

    Attributes:
        folder: where they lie; made when the first is written.
        of: a hash of the question that they belong to; "" where none is bound yet.
        patience: what took fewer seconds is made again rather than kept.
        verb: what is done.
        said: the question, as it is written down beside them, in a file for each verb.

    >>> import tempfile
    >>> stages = Stages(Path(tempfile.mkdtemp())).bound("trace", {"network": "3f2a", "seed": 0})
    >>> make = lambda: print("made") or np.arange(3)
    >>> for _ in range(2):
    ...     scores = stages.once("scores", make, lambda x: {"scores": x}, lambda kept: kept["scores"])
    made
    >>> scores
    array([0, 1, 2])
    """

    folder: Path
    of: str = ""
    patience: float = 0.0
    verb: str = ""
    said: str = ""

    def bound(self, verb: str, question: Mapping[str, Any]) -> Stages:
        """The stages of one question. Raises `BadInput` where the folder was begun for another one, and says what differs.

        question: all that the numbers depend on, by name: hashes of the network and the data, options, the seed. Within a
        question that is bound already it is a part of it.
        """
        said = {"verb": verb, **{name: _digest(value) for name, value in question.items()}}
        if self.of:
            return replace(self, of=_digest([self.of, said]))
        said["version"] = versions()["cutaway"]
        written = to_json({"format": "cutaway-stages", "question": said})
        bound = replace(self, of=_digest(said), verb=verb, said=written)
        bound._claim(said)
        return bound

    def _claim(self, said: dict[str, Any]) -> None:
        """Compare what is asked with what the folder was begun for."""
        try:
            there = json.loads(self._manifest.read_text(encoding="utf-8"))["question"]
        except (OSError, ValueError, KeyError, TypeError):
            if (
                not self.patience
            ):  # somebody asked for this folder: whether it can be written is known beforehand
                self._write_down()
            return
        if there != said:
            names = [name for name in (*said, *there) if there.get(name) != said.get(name)]
            raise BadInput(
                f"{self.folder} holds the stages of another question: {', '.join(dict.fromkeys(names))} differ.",
                "Ask the same question again, name another folder, or remove this one.",
            )

    @property
    def _manifest(self) -> Path:
        return self.folder / f"{_slug(self.verb)}.json"

    def _write_down(self) -> None:
        """Write down what is asked, where that is not done."""
        if self.said and not self._manifest.exists():
            atomic_write(self._manifest, self.said)

    def once(
        self,
        name: str,
        make: Callable[[], T],
        save: Callable[[T], Mapping[str, Any]],
        load: Callable[[dict[str, Any]], T],
        of: object = None,
    ) -> T:
        """What `make` gives: read back where it was made before, else made and kept.

        Args:
            name: of the stage, for whoever looks into the folder.
            make: makes it.
            save: it as arrays, tensors and plain data, by name.
            load: it again, from the same.
            of: what it depends on beside the question.
        """
        kept = self.find(name, of)
        if kept is not None:
            return load(kept)
        began = time.monotonic()
        made = make()
        if time.monotonic() - began >= self.patience:
            self.put(name, save(made), of)
        return made

    def find(self, name: str, of: object = None) -> dict[str, Any] | None:
        """What was kept of a stage; None where nothing was, or it is not as it was written."""
        return _read(self._path(name, of))

    def put(self, name: str, values: Mapping[str, Any], of: object = None) -> None:
        """Keep a finished stage. Where the disk refuses the work goes on, with a warning."""
        try:
            self._write_down()
            atomic_write(self._path(name, of), _packed(values))
        except SaveFailed as error:
            warnings.warn(f"A finished stage is not kept: {error.problem}", stacklevel=2)

    def _path(self, name: str, of: object) -> Path:
        return self.folder / f"{_slug(name)}-{_digest([self.of, name, of])[:_NAMED]}.safetensors"

    def part(self, name: str, of: str) -> Path:
        """A folder inside for a part that keeps its own journal; `of`: a hash of what it depends on."""
        return self.folder / f"{_slug(name)}-{_digest([self.of, of])[:_NAMED]}"

    @property
    def begun(self) -> bool:
        """Is anything kept there?"""
        return self.folder.is_dir() and any(p.suffix != ".json" for p in self.folder.iterdir())


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40] or "stage"


def _digest(value: object) -> str:
    """A hash of plain data, dataclasses and arrays."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: object) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key in value:
            digest.update(f"{key}:".encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            _feed(digest, item)
    elif value is None or isinstance(value, str | int | float | bool):
        digest.update(repr(value).encode())
    else:
        try:
            digest.update(to_json(value).encode())
        except TypeError:  # an object that nothing is known of: the same only if it says so
            digest.update(repr(value).encode())


def _packed(values: Mapping[str, Any]) -> bytes:
    """Arrays, tensors and plain data as one safetensors file."""
    arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
    tensors = {k: v.detach().cpu().contiguous() for k, v in values.items() if isinstance(v, torch.Tensor)}
    plain = {k: v for k, v in values.items() if k not in arrays and k not in tensors}
    tensors |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
    tensors = {k: t.clone() for k, t in tensors.items()}
    said = json.dumps({"plain": plain, "arrays": {k: list(v.shape) for k, v in arrays.items()}})
    return to_bytes(
        tensors, {"said": said, "sha256": _digest([said, *(tensors[k] for k in sorted(tensors))])}
    )


def _read(path: Path) -> dict[str, Any] | None:
    """What was packed there; None where there is nothing, or not what was written."""
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = json.loads(head["said"])
        if head["sha256"] != _digest([head["said"], *(tensors[k] for k in sorted(tensors))]):
            return None
        values: dict[str, Any] = {k: t.numpy().reshape(said["arrays"][k]) if k in said["arrays"] else t
                                  for k, t in tensors.items()}  # fmt: skip
        return values | said["plain"]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
