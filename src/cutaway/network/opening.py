"""Open a model: load it safely, observe it once, certify what was found."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from cutaway.errors import BadInput, CorruptFile, CutawayError, NotFinite, NotFound, NoWeights, UnsafeFile
from cutaway.network.anatomy import Anatomy
from cutaway.network.certification.certificate import TOLERANCE, Certificate, certify, uncertified
from cutaway.network.discovery.discover import discover
from cutaway.network.discovery.example import accepted, context, device_of, probe_inputs
from cutaway.network.discovery.trace import Recorder, Trace, record
from cutaway.network.execution.attention import configurations, scoped
from cutaway.network.execution.running import evaluating, find_item, logits_key
from cutaway.network.inputs import Inputs, pack, token_kwargs
from cutaway.network.network import Network


def open_network(
    model: str | Path | nn.Module,
    tokenizer: Any = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    trust_remote_code: bool = False,
    certify: bool = True,
    example: Mapping[str, Any] | None = None,
    **options: Any,
) -> Network:
    """Open a network, exported as `cutaway.open`.

    model: a Hub id, a local folder, `"zoo:NAME"` for one that is shipped, or a module already in hand (whose weights,
    hooks and settings are left as they are).
    tokenizer: one in hand; without it, the one beside the weights if there is one.
    device, dtype, device_map, options: for loading; a module in hand stays where it is.
    trust_remote_code: let the model's repository run its own code. Off: such a model is refused.
    certify: check the anatomy by numeric identities (a few short forward passes).
    example: one batch of keyword arguments, for a module whose forward is not a transformers model's.

    Raises `NotFound`, `NoWeights`, `CorruptFile`, `UnsafeFile`, `NotFinite`, `BadInput`.
    """
    if isinstance(model, nn.Module):
        if device is not None or dtype is not None or device_map is not None:
            raise BadInput(
                "device, dtype and device_map are for loading; this module is already in hand.",
                "Move it first: model.to(...).",
            )
        name = getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
        return examine(getattr(model, "_orig_mod", model), tokenizer, name, certify, example)
    if not isinstance(model, str | Path) or not str(model).strip():
        raise BadInput(
            f"{model!r} is not a model.",
            "Give a folder, a Hub id, a name such as 'zoo:tales', or a torch module.",
        )
    name = str(model)
    if name.startswith("zoo:") and "~" in name:  # a twin may have no folder: it is made from a seed
        from cutaway.zoo.loaders import load

        made, beside = load(name)
        made = made.to(device=device, dtype=None if dtype is None else _dtype(dtype))  # type: ignore[call-arg]
        return examine(made, tokenizer or beside, name, certify, example)
    source = _locate(name)
    loaded = load_model(source, device, dtype, device_map, trust_remote_code, options)
    if tokenizer is None:
        tokenizer = load_tokenizer(source, trust_remote_code)
    shown = name if name.startswith("zoo:") or not Path(name).is_dir() else Path(name).resolve().name
    return examine(loaded, tokenizer, shown, certify, example)


def _locate(name: str) -> str:
    if name.startswith("zoo:"):
        from cutaway.zoo.loaders import path

        return str(path(name.removeprefix("zoo:")))
    return name


def examine(
    model: nn.Module,
    tokenizer: Any,
    name: str,
    certified: bool = True,
    example: Mapping[str, Any] | None = None,
) -> Network:
    """Discover and certify a module in hand.

    Raises `NotFinite` where a weight is NaN or infinite and the network is to be certified.
    """
    if certified:
        check_finite(model)
    try:
        inputs = probe_inputs(model, example=None if example is None else dict(example))
    except BadInput:
        if example is not None:
            raise
        return Network(model, tokenizer, Anatomy((), {}, {}, None, in_place=True), uncertified(), name, None)
    with evaluating(model):
        trace = observe(model, inputs)
        anatomy = discover(model, trace, inputs.batch)
        certificate = _certify(model, anatomy, inputs) if certified and anatomy.stacks else uncertified()
    if not certificate.made:
        certificate = Certificate(
            (), {str(s): r for s, r in anatomy.refusals.items()}, False, None, None, made=False
        )
    net = Network(model, tokenizer, anatomy, certificate, name, example)
    net._examine = lambda other, label: examine(other, tokenizer, label, certified, example)
    return net


def check_finite(model: nn.Module) -> None:
    """Raise `NotFinite` naming the first parameter that holds NaN or infinity; offloaded ones are not looked at."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            continue
        if not parameter.is_floating_point() or parameter.device.type == "meta" or not parameter.numel():
            continue
        value = parameter.detach()
        try:
            least, most = torch.aminmax(value.float() if value.dtype.itemsize == 1 else value)
        except (NotImplementedError, RuntimeError):  # a quantised tensor that only its own layer can read
            continue
        if not (bool(torch.isfinite(least)) and bool(torch.isfinite(most))):
            raise NotFinite(
                f"The parameter {name} holds NaN or infinity.",
                "Restore the weights; to look at them as they are, open with certify=False.",
            )


class _Noting:
    """Shows the recorder what one module's registered attention function was given and gave."""

    wants = frozenset({"scores", "pattern"})
    active = True

    def __init__(self, recorder: Recorder, module: nn.Module) -> None:
        self.recorder, self.module = recorder, module
        self.fields: dict[str, Tensor] = {}

    def begin(self) -> None:
        self.fields = {}

    def see(self, name: str, value: Tensor) -> Tensor:
        self.fields[name] = value
        if name == "z":
            self.recorder.attention(self.module, self.fields)
        return value


def observe(model: nn.Module, inputs: Inputs) -> Trace:
    """One forward pass under observation, with the eager attention, whose softmax can be seen.

    A model that does not ask the registry for its attention function, or does not run with the eager one, is observed
    with the kernel that it will run with.
    """

    def forward(recorder: Recorder, eager: bool) -> Any:
        observers: dict[nn.Module, Any] = {m: _Noting(recorder, m) for m in model.modules()}
        with scoped(configurations(model), observers, eager=eager):
            return model(**inputs.kwargs)

    try:
        trace = record(model, lambda r: forward(r, eager=True))[0]
        return trace if trace.attention else record(model, lambda r: forward(r, eager=False))[0]
    except CutawayError:
        raise
    except Exception as error:
        try:
            return record(model, lambda r: forward(r, eager=False))[0]
        except Exception:
            raise BadInput(
                f"{type(model).__name__} could not be run on a short input: {_sentence(error)}",
                "Pass an example that it runs on: cutaway.open(model, example={...}).",
            ) from error


def _certify(model: nn.Module, anatomy: Anatomy, inputs: Inputs) -> Certificate:
    key = logits_key(anatomy)

    def forward(given: Inputs) -> Tensor | None:
        with torch.no_grad():
            output = model(**given.kwargs)
        return None if key is None else find_item(output, key)

    def pad(side: str) -> tuple[Inputs, Tensor] | None:
        names = accepted(model)
        if inputs.tokens is None or "attention_mask" not in names or "decoder_input_ids" in inputs.kwargs:
            return None
        longest = min(inputs.tokens.width + 3, context(model) or inputs.tokens.width + 3)
        if longest == inputs.tokens.width:
            return None
        rows = [inputs.tokens.row_ids(i) for i in range(inputs.tokens.n)]
        wide = pack(rows, rows[0][0], side, columns=longest)
        kwargs = token_kwargs(wide, names, device_of(model))
        rest = {k: v for k, v in inputs.kwargs.items() if k not in ("input_ids", "attention_mask")}
        return Inputs({**rest, **kwargs}, wide, inputs.batch), wide.mask

    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return certify(model, anatomy, inputs, forward, pad, TOLERANCE.get(dtype, 6e-2))


# loading ---------------------------------------------------------------------------------------------------------


def load_model(
    source: str,
    device: str | None,
    dtype: str | torch.dtype | None,
    device_map: Any,
    trust_remote_code: bool,
    options: Mapping[str, Any],
) -> nn.Module:
    """Load with transformers, in the class that the configuration names, after checking the files.

    Raises `NotFound`, `NoWeights`, `CorruptFile`, `UnsafeFile`, `BadInput`.
    """
    import transformers

    folder = Path(source)
    if folder.is_dir():
        check_folder(folder, trust_remote_code)
    elif source.startswith((".", "/", "~")) or folder.exists():
        raise NotFound(
            f"{source} is not a folder.", "Give a folder with config.json and weights, or a Hub id."
        )
    if device is not None and device_map is None:
        _check_device(device)
    settings: dict[str, Any] = {"trust_remote_code": trust_remote_code, "ignore_mismatched_sizes": True}
    settings |= {**options, "output_loading_info": True}
    settings["dtype"] = _dtype(dtype) if dtype is not None else "auto"
    if device_map is not None:
        settings["device_map"] = device_map
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        loader = _loader(transformers, config)
        loaded = loader.from_pretrained(source, **settings)
    except CutawayError:
        raise
    except Exception as error:
        raise _loading_error(source, error) from error
    model, info = loaded if isinstance(loaded, tuple) else (loaded, {})
    _check_complete(source, info, asked="ignore_mismatched_sizes" in options)
    if device is not None and device_map is None:
        model = model.to(device)
    return model.eval()


def _check_complete(source: str, info: Mapping[str, Any], asked: bool) -> None:
    """Raise `CorruptFile` where loading had to draw parameters at random, because a file lacks them or their shape."""
    missing = sorted(info.get("missing_keys") or ())
    wrong = (
        [] if asked else sorted(k if isinstance(k, str) else k[0] for k in info.get("mismatched_keys") or ())
    )
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
        found = torch.device(device)
        torch.zeros(1, device=found)
    except Exception as error:
        raise BadInput(
            f"The device {device!r} is not available: {_sentence(error)}",
            "Use device='cpu', or leave it out.",
        ) from error
    if found.type == "meta":
        raise BadInput("The device 'meta' holds no numbers.", "Use device='cpu', or leave it out.")


def _sentence(error: object) -> str:
    """The first line of an error, as a sentence that ends with a full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(" .:;,") + "."


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else None
    if not isinstance(found, torch.dtype):
        raise BadInput(f"{dtype!r} is not a type.", "Use float32, float16, bfloat16 or float64.")
    return found


def _loader(transformers: Any, config: Any) -> Any:
    """The class that the configuration names; failing that, an automatic one."""
    for name in getattr(config, "architectures", None) or ():
        found = getattr(transformers, name, None)
        if found is not None:
            return found
    if config.__class__ in transformers.AutoModelForCausalLM._model_mapping or getattr(
        config, "auto_map", None
    ):
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel


def load_tokenizer(source: str, trust_remote_code: bool) -> Any:
    """The tokenizer beside the weights, or None where there is none."""
    import transformers

    folder = Path(source)
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "tokenizer.model",
        "vocab.txt",
        "spiece.model",
    )
    if folder.is_dir() and not any((folder / n).exists() for n in names):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:
        if folder.is_dir():
            raise CorruptFile(
                f"The tokenizer in {source} cannot be read: {_sentence(error)}",
                "Restore its files, or pass tokenizer=...",
            ) from error
        return None


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
        raise CorruptFile(f"{config_file} is not JSON: {_sentence(error)}", "Restore the file.") from error
    if not isinstance(config, dict):
        raise CorruptFile(
            f"{config_file} holds {type(config).__name__} instead of a configuration.", "Restore the file."
        )
    if config.get("auto_map") and not trust_remote_code:
        raise UnsafeFile(
            f"{folder} brings its own code ({', '.join(sorted(config['auto_map']))}), which is not run.",
            "If you trust it, pass trust_remote_code=True (--trust-remote-code).",
        )
    weights = sorted(folder.glob("*.safetensors"))
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    pickles = [
        p
        for p in pickles
        if p.name not in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    ]
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
        raise CorruptFile(
            f"{file} cannot be read: {_sentence(text)}", "Download or save it again."
        ) from error


def _loading_error(source: str, error: Exception) -> CutawayError:
    text = str(error).strip()
    first = _sentence(error)
    if "trust_remote_code" in text:
        return UnsafeFile(
            f"{source} brings its own code, which is not run.",
            "If you trust it, pass trust_remote_code=True (--trust-remote-code).",
        )
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
