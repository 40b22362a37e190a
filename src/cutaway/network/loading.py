"""Load a model and its tokenizer from a folder or the Hub, after looking at the files: nothing in them is run."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cutaway.errors import BadInput, CorruptFile, CutawayError, NotFound, NoWeights, UnsafeFile
from cutaway.network.opened import Opened


def sentence(error: object) -> str:
    """The first line of an error, as a sentence that ends with a full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(" .:;,") + "."


def load_model(source: str, opened: Opened) -> nn.Module:
    """Load with transformers, in the class that the configuration names, after checking the files.

    source: a folder or a Hub id. opened: how it is to be loaded.

    Raises `NotFound`, `NoWeights`, `CorruptFile`, `UnsafeFile`, `BadInput`.
    """
    import transformers

    folder = Path(source)
    if folder.is_dir():
        check_folder(folder, opened.trust_remote_code)
    elif source.startswith((".", "/", "~")) or folder.exists():
        raise NotFound(
            f"{source} is not a folder.", "Give a folder with config.json and weights, or a Hub id."
        )
    device = opened.device if opened.device_map is None else None
    if device is not None:
        _check_device(device)
    files = _files(opened.trust_remote_code, opened.revision)
    taken = [*files, "revision", "dtype", "torch_dtype", "device_map", "output_loading_info"]
    if twice := [name for name in opened.load if name in taken]:
        raise BadInput(f"load={{{twice[0]!r}: ...}} is an option of open itself.", f"Write {twice[0]}=....")
    settings: dict[str, Any] = {"ignore_mismatched_sizes": True, **opened.load, **files}
    settings["output_loading_info"] = True
    settings["dtype"] = dtype_of(opened.dtype) if opened.dtype is not None else "auto"
    if opened.device_map is not None:
        settings["device_map"] = opened.device_map
    try:
        config = transformers.AutoConfig.from_pretrained(source, **files)
        loaded = _loader(transformers, config).from_pretrained(source, **settings)
    except CutawayError:
        raise
    except Exception as error:
        raise _loading_error(source, error) from error
    model, info = loaded if isinstance(loaded, tuple) else (loaded, {})
    _check_complete(source, info, asked="ignore_mismatched_sizes" in opened.load)
    if device is not None:
        model = model.to(device)
    return model.eval()


def _files(trust_remote_code: bool, revision: str | None) -> dict[str, Any]:
    """How transformers is told which files to take."""
    return {"trust_remote_code": trust_remote_code} | ({} if revision is None else {"revision": revision})


def _check_complete(source: str, info: Mapping[str, Any], asked: bool) -> None:
    """Raise `CorruptFile` where loading had to draw parameters at random, because a file lacks them or their shape."""
    missing, mismatched = info.get("missing_keys") or (), info.get("mismatched_keys") or ()
    missing, wrong = sorted(missing), sorted(k if isinstance(k, str) else k[0] for k in mismatched)
    wrong = [] if asked else wrong
    for names, what in ((missing, "lack"), (wrong, "hold in another shape")):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise CorruptFile(
                f"The weights in {source} {what} {shown}, which would be random numbers.",
                "Restore the files, or load the model yourself and pass it in if this is meant.",
            )


def _check_device(device: Any) -> None:
    """Raise `BadInput` unless numbers can be put on the device."""
    try:
        place = torch.device(device)
        torch.zeros(1, device=place)
    except Exception as error:
        raise BadInput(
            f"The device {device!r} is not available: {sentence(error)}", "Use device='cpu', or leave it out."
        ) from error
    if place.type == "meta":
        raise BadInput("The device 'meta' holds no numbers.", "Use device='cpu', or leave it out.")


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """A type by its name.

    Raises `BadInput` where there is none of that name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    kind = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else None
    if not isinstance(kind, torch.dtype):
        raise BadInput(f"{dtype!r} is not a type.", "Use float32, float16, bfloat16 or float64.")
    return kind


def _loader(transformers: Any, config: Any) -> Any:
    """The class that the configuration names; failing that, an automatic one."""
    for name in getattr(config, "architectures", None) or ():
        named = getattr(transformers, name, None)
        if named is not None:
            return named
    causal = transformers.AutoModelForCausalLM
    speaks = type(config) in causal._model_mapping or getattr(config, "auto_map", None)
    return causal if speaks else transformers.AutoModel


def load_tokenizer(source: str, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """The tokenizer beside the weights, or None where there is none."""
    import transformers

    folder = Path(source)
    names = "tokenizer.json tokenizer_config.json vocab.json tokenizer.model vocab.txt spiece.model"
    if folder.is_dir() and not any((folder / n).exists() for n in names.split()):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(source, **_files(trust_remote_code, revision))
    except Exception as error:
        if folder.is_dir():
            raise CorruptFile(
                f"The tokenizer in {source} cannot be read: {sentence(error)}",
                "Restore its files, or pass tokenizer=...",
            ) from error
        return None


_TRUST = "If you trust it, pass trust_remote_code=True (--trust-remote-code)."


def check_folder(folder: Path, trust_remote_code: bool) -> None:
    """Look at a model folder before anything is loaded from it: configuration, weights, their integrity, foreign code."""
    config_file = folder / "config.json"
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
            _TRUST,
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
    for file in weights:
        check_safetensors(file)
    if not weights:
        for file in pickles:
            check_pickle(file)


def check_safetensors(file: Path) -> None:
    """Raise `CorruptFile` unless a safetensors file is as long as its header says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        raw = stream.read(length) if length < size else b""
    try:
        header = json.loads(raw)
        end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(
            f"{file} is not a safetensors file: its header cannot be read.", "Download or save it again."
        ) from error
    if size < 8 + length + end:
        raise CorruptFile(
            f"{file} is truncated: {size} bytes of {8 + length + end}.", "Download or save it again."
        )


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


def _loading_error(source: str, error: Exception) -> CutawayError:
    text = str(error).strip()
    first = sentence(error)
    if "trust_remote_code" in text:
        return UnsafeFile(f"{source} brings its own code, which is not run.", _TRUST)
    if "couldn't connect" in text or "offline mode" in text:
        return NotFound(
            f"{source} is not a local folder, and the connection to the Hub failed.",
            "If it is on the Hub, check the connection; if it is a folder, check the path.",
        )
    if "is not a local folder and is not a valid model identifier" in text or "Can't load" in text:
        return NotFound(
            f"{source} was found neither as a folder nor on the Hub: {first}",
            "Check the name, or give a local folder.",
        )
    if isinstance(error, ImportError):
        return BadInput(f"{source} needs a package that is missing: {first}", "Install it and try again.")
    return BadInput(
        f"{source} could not be loaded: {first}",
        "Look at the files, or load the model yourself and pass it in.",
    )
