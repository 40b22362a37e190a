"""Adapters (LoRA) that were saved apart from the network that they change: merged into it, or refused with what to do."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from cutaway.errors import BadInput, CorruptFile, NoWeights
from cutaway.network.sentences import sentence

CONFIGURATION = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no network of its own."""
    return (folder / CONFIGURATION).is_file() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """The network that an adapter changes, as it was named when it was made: a folder or a Hub id.

    Raises `CorruptFile` where the configuration cannot be read or names none, `NoWeights` without the adapter's weights.
    """
    file = folder / CONFIGURATION
    try:
        told: Any = json.loads(file.read_text())
        base = told["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(
            f"{file} does not say which network the adapter changes.", "Restore the file."
        ) from error
    if not isinstance(base, str) or not base:
        raise BadInput(
            f"{file} names no network that the adapter changes.",
            'Write its folder or Hub id there as "base_model_name_or_path".',
        )
    if not (folder / "adapter_model.safetensors").exists():
        raise NoWeights(
            f"{folder} holds an adapter's configuration but no adapter_model.safetensors.",
            "Save the adapter with safetensors: model.save_pretrained(folder).",
        )
    return base


def require_peft(folder: Path) -> None:
    """Raise `BadInput` where the package `peft`, which reads adapters, is missing."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"{folder} holds an adapter, and the package peft, which reads them, is missing.",
            'Install it: pip install "cutaway[adapters]".',
        ) from error


def merged(model: nn.Module, folder: Path) -> nn.Module:
    """The network with the adapter's changes in its weights.

    Raises `BadInput` where it does not fit the network, and for adapters that no weights can stand for, such as prompts.
    """
    import peft

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            changed: Any = peft.PeftModel.from_pretrained(model, str(folder))  # type: ignore[arg-type]
        if lost := next((w.message for w in said if "missing adapter keys" in str(w.message)), None):
            raise ValueError(str(lost))
    except Exception as error:
        raise BadInput(
            f"The adapter in {folder} does not fit {type(model).__name__}: {sentence(error)}",
            f"Look at what {folder / CONFIGURATION} names as the network that it changes.",
        ) from error
    if not hasattr(changed.base_model, "merge_and_unload"):
        kind = changed.active_peft_config.peft_type
        raise BadInput(
            f"The adapter in {folder} ({getattr(kind, 'value', kind)}) cannot be merged into weights.",
            "Load it with peft, and pass the model in: cutaway.open(peft_model, tokenizer).",
        )
    try:
        return changed.merge_and_unload(safe_merge=True).eval()
    except Exception as error:
        raise BadInput(
            f"The adapter in {folder} could not be merged: {sentence(error)}",
            "Load it with peft, and pass the model in: cutaway.open(peft_model, tokenizer).",
        ) from error
