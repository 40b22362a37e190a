"""A model's files, looked at before anything is loaded from them: configuration, integrity, foreign code, size."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cutaway.errors import CorruptFile, NoWeights, OutOfMemory, UnsafeFile
from cutaway.network.adapters import CONFIGURATION, require_peft
from cutaway.network.memory import available_bytes
from cutaway.network.sentences import sentence

#: What to do about a model that brings code.
TRUST = "If you trust it, pass trust_remote_code=True (--trust-remote-code)."


def check_folder(folder: Path, trust_remote_code: bool) -> None:
    """Look at a model folder before anything is loaded from it: configuration, weights, their integrity, foreign code."""
    config_file = folder / "config.json"
    if not config_file.exists() and (files := sorted(p.name for p in folder.glob("*.gguf"))):
        raise NoWeights(
            f"{folder} has no config.json, but GGUF files: {', '.join(files[:8])}.",
            f"Name the one that is meant: {folder / files[0]}.",
        )
    if not config_file.exists():
        raise NoWeights(
            f"{folder} has no config.json.", "Give a folder that save_pretrained wrote, or a Hub id."
        )
    try:
        config = json.loads(config_file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{config_file} is not JSON: {sentence(error)}", "Restore the file.") from error
    if not isinstance(config, dict):
        raise CorruptFile(
            f"{config_file} holds {type(config).__name__} instead of a configuration.", "Restore the file."
        )
    if config.get("auto_map") and not trust_remote_code:
        raise UnsafeFile(
            f"{folder} brings its own code ({', '.join(sorted(config['auto_map']))}), which is not run.",
            TRUST,
        )
    weights = sorted(folder.glob("*.safetensors"))
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    beside = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    pickles = [p for p in pickles if p.name not in beside]
    if not weights and not pickles:
        raise NoWeights(
            f"{folder} holds a configuration but no weights.",
            "Put model.safetensors (or pytorch_model.bin) beside it.",
        )
    if (folder / CONFIGURATION).exists():
        require_peft(folder)  # transformers would leave the adapter out without a word
    check_shards(folder)
    for file in weights:
        check_safetensors(file)
    if not weights:
        for file in pickles:
            check_pickle(file)


def check_shards(folder: Path) -> None:
    """Raise `CorruptFile` unless every file that an index of weights names is there."""
    for index in sorted(folder.glob("*.index.json")):
        try:
            named = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFile(f"{index} is no index of weights.", "Download or save it again.") from error
        if missing := [name for name in named if not (folder / str(name)).exists()]:
            rest = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise CorruptFile(
                f"{folder} lacks {', '.join(missing[:5])}{rest} of the {len(named)} files that {index.name} names.",
                "Download or save them again.",
            )


def header_of(file: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors: name -> dtype, shape, place.

    Raises `CorruptFile` unless the file is as long as its header says.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        raw = stream.read(length) if length < size else b""
    try:
        header = {k: v for k, v in json.loads(raw).items() if k != "__metadata__"}
        end = max((v["data_offsets"][1] for v in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(
            f"{file} is not a safetensors file: its header cannot be read.", "Download or save it again."
        ) from error
    if size < 8 + length + end:
        raise CorruptFile(
            f"{file} is truncated: {size} bytes of {8 + length + end}.", "Download or save it again."
        )
    return header


def check_safetensors(file: Path) -> None:
    """Raise `CorruptFile` unless a safetensors file is as long as its header says."""
    header_of(file)


#: Types of safetensors that are turned into the type that is asked for.
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def numbers_in(folder: Path) -> dict[torch.dtype, int]:
    """How many numbers of each type the safetensors files of a folder hold; bytes, under uint8, of all other types."""
    counts: Counter[torch.dtype] = Counter()
    index = folder / "model.safetensors.index.json"
    named = (
        set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    )
    for file in sorted(folder / name for name in named):
        for tensor in header_of(file).values() if file.exists() else ():
            start, end = tensor["data_offsets"]
            kind = _FLOATS.get(tensor["dtype"])
            counts[kind or torch.uint8] += end - start if kind is None else math.prod(tensor["shape"])
    return dict(counts)


def check_fits_memory(
    what: str,
    sizes: Mapping[torch.dtype, int],
    asked: torch.dtype | None,
    device: torch.device,
    budget: int | None = None,
) -> None:
    """Raise `OutOfMemory` where so many numbers of each type, in the type that is asked for, are more than is free.

    budget: bytes that they may take, in place of what is free; the error says what would be enough.
    """

    def bytes_as(dtype: torch.dtype | None) -> int:
        kinds = ((kind if dtype is None or kind == torch.uint8 else dtype, n) for kind, n in sizes.items())
        return sum(n * kind.itemsize for kind, n in kinds)

    needed, free = bytes_as(asked), available_bytes(device) if budget is None else budget
    if needed <= free:
        return
    half = bytes_as(torch.bfloat16)
    if budget is not None:
        less = " With dtype='bfloat16' they take " + _size(half) + "." if half < needed else ""
        raise OutOfMemory(
            f"The weights of {what} take {_size(needed)}, and the budget is {_size(budget)}.",
            f"A budget of {_up(needed)} of memory would be enough.{less}",
        )
    smaller = f"dtype='bfloat16', which takes {_size(half)}, or with " if half <= free else ""
    raise OutOfMemory(
        f"The weights of {what} take {_size(needed)}, and {_size(free)} are free on {device}.",
        f"Open it with {smaller}device_map='auto', which leaves a part of them on disk "
        '(pip install "cutaway[accelerate]").',
    )


def _up(count: int) -> str:
    """Bytes as a budget names them, no less than they are."""
    return f"{-(-count // 2**20) + 1}MiB"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.2f} MiB"


def check_pickle(file: Path) -> None:
    """Raise `UnsafeFile` if a `.bin` or `.pt` file holds anything but tensors; nothing in it is run."""
    try:
        torch.load(file, map_location="meta", weights_only=True)
    except Exception as error:
        text = str(error)
        if "Weights only load failed" in text or "Unsupported" in text or "GLOBAL" in text:
            raise UnsafeFile(
                f"{file} is a pickle that would run code when loaded; it was not loaded.",
                "Convert it to safetensors where you trust it.",
            ) from error
        raise CorruptFile(f"{file} cannot be read: {sentence(text)}", "Download or save it again.") from error
