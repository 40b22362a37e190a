"""Where a recipe works: progress, and checkpoints that survive a kill at any moment."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cutaway.errors import CorruptFile
from cutaway.results import Work, atomic_write


@dataclass(frozen=True)
class Workshop:
    """Where a recipe keeps its checkpoints, and the work that hears of its progress and may stop it.

    Attributes:
        folder: of the checkpoints; made when the first is kept.
        work: told of every step.
    """

    folder: Path
    work: Work = field(default_factory=Work)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep a checkpoint (tensors and plain data), whole or not at all.

        Raises SaveFailed when the disk is full; the older checkpoint of that name is then as it was.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        atomic_write(self._path(name), buffer.getvalue())

    def load(self, name: str) -> dict[str, Any] | None:
        """The checkpoint of that name, None where there is none; CorruptFile when it cannot be read."""
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:
            raise CorruptFile(
                f"The checkpoint {path} cannot be read: {str(error).splitlines()[0]}",
                "Remove it; the recipe then starts from nothing.",
            ) from error

    def discard(self) -> None:
        """Remove the checkpoints, and the folder if nothing else is in it."""
        for path in self.folder.glob("*.checkpoint"):
            path.unlink()
        for path in self.folder.glob(".*.checkpoint.*.part"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.checkpoint"
