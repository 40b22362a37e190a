"""A training's checkpoint: one file of tensors and words, written whole or not at all, and checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from cutaway.errors import CorruptFile, SaveFailed
from cutaway.results import atomic_write, to_json

CHECKPOINT, QUESTION = "checkpoint.safetensors", "training.json"
_TAG = "cutaway-training"


@dataclass(frozen=True)
class TrainingFolder:
    """Where a training keeps what it has done.

    Attributes:
        path: the folder.
    """

    path: Path

    def begin(self, question: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Claim the folder for a question: the settings that it was begun with, or these where it is new.

        Raises `SaveFailed` where it holds the training of another question, or anything else; nothing is touched then.
        """
        asked = json.loads(to_json(question))
        try:
            there = json.loads((self.path / QUESTION).read_text(encoding="utf-8"))
            if there["format"] != _TAG:
                raise ValueError
        except FileNotFoundError:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise SaveFailed(
                    f"{self.path} exists and holds something else.",
                    "Choose a new folder; nothing in it was touched.",
                ) from None
            said = {"format": _TAG, "question": asked, "settings": dict(settings)}
            atomic_write(self.path / QUESTION, to_json(said))
            return dict(settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SaveFailed(
                f"{self.path / QUESTION} is not a training's.", "Choose a new folder."
            ) from error
        other = [
            name for name in {**asked, **there["question"]} if asked.get(name) != there["question"].get(name)
        ]
        if other:
            raise SaveFailed(
                f"{self.path} holds the training of another question: {', '.join(other)} differ.",
                "Ask the same question again, or choose a new folder; nothing in it was touched.",
            )
        return dict(there["settings"])

    def keep(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint in the place of the one before. Raises `SaveFailed`; the one before is then as it was."""
        words = to_json(said, indent=None)
        held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        atomic_write(self.path / CHECKPOINT, to_bytes(held, {"said": words, "sha256": _digest(words, held)}))

    def kept(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What was kept last; None where nothing was. Raises `CorruptFile` where it is not as it was written."""
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                head = file.metadata() or {}
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            if head["sha256"] != _digest(head["said"], tensors):
                raise ValueError("its checksum differs")
            return json.loads(head["said"]), tensors
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CorruptFile(
                f"{path} is not as it was written: {error}.", "Remove it to train from the beginning."
            ) from error

    def done(self) -> None:
        """Remove the checkpoint: what was trained is saved."""
        (self.path / CHECKPOINT).unlink(missing_ok=True)


def _digest(words: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(words.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
