"""Finished parts of a sweep on disk, so that a run that was stopped or killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cutaway.errors import BadInput, SaveFailed
from cutaway.results import atomic_write, to_json

if TYPE_CHECKING:
    from cutaway.results import Stages
    from cutaway.sweeps.engine import Job

_MANIFEST = "sweep.json"


@dataclass(eq=False)
class Journal:
    """A folder of finished parts: `sweep.json` says of which sweep, `part-N.safetensors` hold pairs and their metric.

    Attributes:
        folder: where it lies.
        count: how many parts are finished.
    """

    folder: Path
    count: int = 0

    @classmethod
    def open(cls, folder: Path, job: Job) -> Journal:
        """The journal of a sweep: begun, or taken up where it was left.

        Raises `BadInput` when the folder holds the parts of another sweep, `SaveFailed` when it cannot be written.
        """
        said = {"format": "cutaway-sweep", "identity": identity(job)}
        said |= {"cells": len(job.cells), "examples": job.experiment.tokens.n}
        manifest = folder / _MANIFEST
        if manifest.exists():
            try:
                there = json.loads(manifest.read_text(encoding="utf-8"))
            except ValueError:
                there = {}
            if there.get("identity") != said["identity"]:
                what = f"{folder} holds parts of another sweep (network, prompts, cells or values differ)."
                raise BadInput(what, "Name another folder, or remove this one.")
        else:
            atomic_write(manifest, to_json(said))
        numbers = [int(p.stem.partition("-")[2]) for p in folder.glob("part-*.safetensors")]
        return cls(folder, max(numbers, default=-1) + 1)

    def write(self, pairs: np.ndarray, scores: np.ndarray) -> None:
        """Add one part, whole or not at all."""
        part = {
            "pairs": np.ascontiguousarray(pairs, np.int64),
            "scores": np.ascontiguousarray(scores, np.float64),
        }
        content = save(part, {"sha256": _digest(part)})
        atomic_write(self.folder / f"part-{self.count}.safetensors", content)
        self.count += 1

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The parts that are there; one that cannot be read, or is not as it was written, counts as not run."""
        for path in sorted(self.folder.glob("part-*.safetensors")):
            try:
                with safe_open(path, "np") as file:
                    part = {name: file.get_tensor(name) for name in ("pairs", "scores")}
                    said = (file.metadata() or {}).get("sha256")
            except (OSError, SafetensorError, KeyError, ValueError):
                continue
            if said == _digest(part):
                yield part["pairs"], part["scores"]


class LateJournal:
    """A journal among the stages of a larger piece of work, begun once there is something in it that took long."""

    def __init__(self, stages: Stages, job: Job) -> None:
        self.stages, self.job, self.began = stages, job, time.monotonic()
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self.journal: Journal | None = None

    def _folder(self) -> Path:
        return self.stages.part("sweep", identity(self.job))

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What was finished before a stop."""
        if self.stages.begun and (folder := self._folder()).is_dir():
            self.journal = Journal.open(folder, self.job)
            yield from self.journal.parts()

    def write(self, pairs: np.ndarray, scores: np.ndarray) -> None:
        """Add one part; those of a sweep that is over soon are never written. Where the disk refuses, the sweep goes on."""
        self.waiting.append((pairs, scores))
        if time.monotonic() - self.began < self.stages.patience:
            return
        try:
            if self.journal is None:
                self.journal = Journal.open(self._folder(), self.job)
            while self.waiting:
                self.journal.write(*self.waiting[0])
                self.waiting.pop(0)
        except SaveFailed as error:
            warnings.warn(f"Finished cells are not kept: {error.problem}", stacklevel=2)
            self.began = math.inf
            self.waiting.clear()


def _digest(part: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(part):
        digest.update(f"{name} {part[name].dtype} {part[name].shape}".encode())
        digest.update(np.ascontiguousarray(part[name]).tobytes())
    return digest.hexdigest()


def identity(job: Job) -> str:
    """A hash of all that a sweep's numbers depend on: weights, prompts, cells, what is written, where the metric reads."""
    experiment, digest = job.experiment, hashlib.sha256()
    digest.update(experiment.net.hash.encode())
    for tensor in (experiment.tokens.ids, experiment.tokens.mask, experiment.positions):
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    for cell in job.cells:
        digest.update(repr(cell).encode())
    sources = {"": experiment.sources, **experiment.named}
    written = {(w.source, w.where) for cell in job.cells for w in cell}
    for key in sorted(written, key=str):
        value = sources[key[0]][key[1]].detach().float().cpu().contiguous().numpy()
        digest.update(str(key).encode())
        digest.update(value.tobytes())
    for cell, edits in job.live.items():
        digest.update(f"{cell} {edits!r}".encode())
    digest.update(np.ascontiguousarray(job.base).tobytes())
    return digest.hexdigest()
