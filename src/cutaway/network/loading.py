"""Load a model and its tokenizer from a folder or the Hub, after looking at the files: nothing in them is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cutaway.errors import BadInput, CorruptFile, CutawayError, NotFound, UnsafeFile
from cutaway.network.adapters import base_of, is_adapter, merged, require_peft
from cutaway.network.files import TRUST, check_fits_memory, check_folder, numbers_in
from cutaway.network.gguf import check_gguf, is_gguf, reader_of
from cutaway.network.opened import Opened
from cutaway.network.products import ANYWAY, MIXED, check_products
from cutaway.network.sentences import sentence


def load_model(source: str, opened: Opened) -> nn.Module:
    """Load with transformers, in the class that the configuration names, after checking the files.

    source: a folder, a GGUF file or a Hub id; a folder with an adapter is merged into the network that it names. opened: how
    it is to be loaded.

    Raises `NotFound`, `NoWeights`, `CorruptFile`, `UnsafeFile`, `BadInput`, and `OutOfMemory` for what does not fit.
    """
    import transformers

    folder, device_map = Path(source), opened.device_map
    if folder.is_dir() and is_adapter(folder):
        require_peft(folder)
        return merged(load_model(base_of(folder), opened), folder)
    if folder.is_dir():
        check_folder(folder, opened.trust_remote_code)
    elif is_gguf(source) and folder.is_file():
        pass
    elif source.startswith((".", "/", "~")) or folder.exists():
        raise NotFound(
            f"{source} is not a folder.",
            "Give a folder with config.json and weights, a GGUF file, or a Hub id.",
        )
    device = opened.device if device_map is None else None
    if device is not None:
        _check_device(device)
    if opened.dtype in (MIXED, ANYWAY):
        check_products(torch.device(device or "cpu"), opened.dtype == ANYWAY)
    if device_map is None:
        _check_memory(folder, opened)
    files = _files(opened.trust_remote_code, opened.revision)
    if is_gguf(source):
        source, files["gguf_file"] = str(folder.parent), folder.name
    taken = [*files, "revision", "dtype", "torch_dtype", "device_map", "output_loading_info"]
    if twice := [name for name in opened.load if name in taken]:
        raise BadInput(f"load={{{twice[0]!r}: ...}} is an option of open itself.", f"Write {twice[0]}=....")
    settings: dict[str, Any] = {"ignore_mismatched_sizes": True, **opened.load, **files}
    settings["output_loading_info"] = True
    settings["dtype"] = dtype_of(opened.dtype) if opened.dtype is not None else "auto"
    if device_map is not None:
        settings["device_map"] = device_map
    method = None
    try:
        config = transformers.AutoConfig.from_pretrained(source, **files)
        method = _quantisation(config)
        _check_quantisation(transformers, source, method)
        loaded = _loader(transformers, config).from_pretrained(source, **settings)
    except CutawayError:
        raise
    except Exception as error:
        raise _loading_error(source, error, method) from error
    model, info = loaded if isinstance(loaded, tuple) else (loaded, {})
    _check_complete(source, info, asked="ignore_mismatched_sizes" in opened.load)
    if device is not None:
        model = model.to(device)
    return model.eval()


def _check_memory(place: Path, opened: Opened) -> None:
    """Raise `OutOfMemory` where the weights, as headers tell their size, do not fit; of a Hub id nothing is known yet."""
    asked = None if opened.dtype is None else dtype_of(opened.dtype)
    if sizes := numbers_at(place):
        check_fits_memory(str(place), sizes, asked, torch.device(opened.device or "cpu"))


def numbers_at(place: Path) -> dict[torch.dtype, int]:
    """How many numbers of each type the weights there are, as headers tell; nothing where that is no folder and no file."""
    if place.is_file():  # GGUF: whatever the file's kind, it is turned back into full numbers
        return {torch.float32: check_gguf(place)}
    return numbers_in(place) if place.is_dir() else {}


def _quantisation(config: Any) -> str | None:
    """The kind of quantisation that a configuration names; None where it names none."""
    told = getattr(config, "quantization_config", None)
    told = told if isinstance(told, Mapping) else getattr(told, "__dict__", None) or {}
    return getattr(told.get("quant_method"), "value", told.get("quant_method"))


def _check_quantisation(transformers: Any, source: str, method: str | None) -> None:
    """Refuse a kind of quantisation that transformers does not know: it would pass over it in silence."""
    known = transformers.quantizers.auto.AUTO_QUANTIZER_MAPPING
    if method is not None and method not in known and not str(method).startswith("bitsandbytes"):
        raise BadInput(
            f"{source} says that its weights are quantised by {method!r}, which transformers does not know.",
            "Use a newer transformers, or the network as it was before it was quantised.",
        )


#: By these words quantisers say that they want another device.
_DEVICES = ("GPU", "XPU", "CUDA", "mps")


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
    """A type by its name; float32 for weights whose products alone are coarser (`network.products`).

    Raises `BadInput` where there is none of that name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in (MIXED, ANYWAY):
        return torch.float32
    kind = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else None
    if not isinstance(kind, torch.dtype):
        raise BadInput(f"{dtype!r} is not a type.", "Use float32, float16, bfloat16, float64 or mixed.")
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
    """The tokenizer beside the weights (of an adapter, else that of its network; of a GGUF file, the one in it), or None."""
    import transformers

    folder = Path(source)
    if is_gguf(source) and folder.is_file():
        return _gguf_tokenizer(folder)
    if folder.is_dir() and is_adapter(folder) and not (folder / "tokenizer_config.json").exists():
        return load_tokenizer(base_of(folder), trust_remote_code, revision)
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


def _gguf_tokenizer(file: Path) -> Any:
    """The tokenizer that a GGUF file holds; None where it holds none. Raises `CorruptFile` where it cannot be read."""
    import transformers

    if reader_of(file).get_field("tokenizer.ggml.model") is None:
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:
        raise CorruptFile(
            f"The tokenizer in {file} cannot be read: {sentence(error)}",
            "Pass the one of the network as it was published: tokenizer=...",
        ) from error


def _loading_error(source: str, error: Exception, method: str | None = None) -> CutawayError:
    """What went wrong in transformers, and what to do. method: by which the weights are quantised."""
    text = str(error).strip()
    first = sentence(error)
    needs_device = any(word in text for word in _DEVICES)
    if method is not None and (needs_device or isinstance(error, ImportError)):
        first = first.removesuffix(" Please use a different quantizer.")
        means = (
            "Open it with device='cuda' where there is one" if needs_device else "Install what is named there"
        )
        return BadInput(
            f"The weights in {source} are quantised by {method}, which cannot be read here: {first}",
            f"{means}, or use the network as it was before it was quantised.",
        )
    if "trust_remote_code" in text:
        return UnsafeFile(f"{source} brings its own code, which is not run.", TRUST)
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
