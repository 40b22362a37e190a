"""Anatomy and certificate of a network that was opened before, by what the network is now.

The key is made of the weights as they lie in memory, not of files: a file that was changed under the same size and date, or
weights that were changed after loading, are another network. Besides, the key holds the configuration, the code of every
module and of Cutaway, the versions of torch and transformers, and the device. What the key cannot hold is not remembered:
code that is not torch's or transformers', modules with hooks or forwards of their own, weights that are elsewhere.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from cutaway.network import products
from cutaway.network.anatomy import (
    Anatomy,
    Attention,
    AttentionTap,
    FunctionCall,
    FunctionTaps,
    Head,
    HeadOutTap,
    Layer,
    Mlp,
    NormedTap,
    Port,
    PortTap,
    RouterTap,
    Stack,
    Stretch,
    Sublayer,
    SumTap,
)
from cutaway.network.cache import recall, remember
from cutaway.network.certificate import Certificate, Check
from cutaway.network.identity import adapter_state, told_of
from cutaway.network.products import CoarseConv1D, CoarseLinear
from cutaway.network.sites import Site

KIND = "opening"
_CLASSES: dict[str, type] = {
    c.__name__: c
    for c in (
        Anatomy, Attention, AttentionTap, FunctionCall, FunctionTaps, Head, HeadOutTap, Layer, Mlp, NormedTap, Port, PortTap,
        RouterTap, Stack, Stretch, Sublayer, SumTap, Certificate, Check, Site,
    )
}  # fmt: skip
#: Attention functions whose code is torch's or transformers'.
_KERNELS = ("eager", "sdpa", "flash_attention_2", "flex_attention", None)
#: Numbers that are summed up together, so that the order of a weight's numbers shows.
_WIDTH = 4096


@dataclasses.dataclass(frozen=True)
class Known:
    """What was found out about a network when it was opened before.

    Attributes:
        anatomy: where each site lives.
        certificate: what was checked.
        hash: the network's.
    """

    anatomy: Anatomy
    certificate: Certificate
    hash: str


def key_of(model: nn.Module) -> str | None:
    """What a network is, for what opening finds out about it; None where that cannot be told."""
    code = _code(model)
    config = getattr(model, "config", None)
    kernel = getattr(config, "_attn_implementation", None)
    if code is None or kernel not in _KERNELS or config is None:
        return None
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    digest = hashlib.sha256()
    said = [
        _own_code(), torch.__version__, transformers.__version__, platform.python_version(), code, kernel, str(device.type),
        where, torch.backends.cpu.get_cpu_capability(), torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(), str(torch.get_default_dtype()), told_of(model), adapter_state(model),
    ]  # fmt: skip
    digest.update(json.dumps(said, default=str).encode())
    for name, tensor in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        if tensor.device.type == "meta":
            return None
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}{tensor.device.type}".encode())
        try:
            _add(digest, tensor.detach())
        except (
            RuntimeError,
            NotImplementedError,
            TypeError,
        ):  # a quantised tensor that only its own layer can read
            return None
    return digest.hexdigest()


def _add(digest: Any, tensor: Tensor) -> None:
    """Every bit of a tensor, as sums in two directions, at the speed of memory: each change of a number shows, and so does
    an exchange of two.
    """
    if not tensor.numel():
        return
    size = tensor.element_size() * tensor.numel()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    plain = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    whole = size // (8 * _WIDTH) * (8 * _WIDTH)
    if whole:
        table = plain[:whole].view(np.int64).reshape(-1, _WIDTH)
        digest.update(table.sum(0).tobytes() + table.sum(1).tobytes())
    digest.update(plain[whole:].tobytes())


def _code(model: nn.Module) -> list[str] | None:
    """The classes of a network's modules with a hash of the files that they are in; None for code of other origin."""
    for module in model.modules():
        own = vars(module)
        if "forward" in own or own.get("_forward_hooks") or own.get("_forward_pre_hooks"):
            return None
    kinds = {type(m) for m in model.modules()}
    told = {f"{kind.__module__}.{kind.__qualname__}": _source(kind) for kind in kinds}
    return None if None in told.values() else [f"{name} {told[name]}" for name in sorted(told)]


def _source(kind: type) -> str | None:
    """A hash of the file that a module's class is in; None where its code or its forward is of other origin."""
    homes = [str(Path(p.__file__ or "").parent) for p in (torch, transformers)]
    if kind in (CoarseLinear, CoarseConv1D):
        return _digest(products.__file__)
    forward = inspect.unwrap(getattr(kind, "forward", object))
    where = getattr(getattr(forward, "__code__", None), "co_filename", "")
    if kind.__module__.partition(".")[0] not in ("torch", "transformers") or not where.startswith(
        tuple(homes)
    ):
        return None
    try:
        return _digest(inspect.getfile(kind))
    except (OSError, TypeError):
        return None


@functools.cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


@functools.cache
def _own_code() -> str:
    """A hash of the code by which networks are opened."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256("".join(map(_digest, map(str, files))).encode()).hexdigest()


def recalled(model: nn.Module, key: str) -> Known | None:
    """What was remembered of the network of that key; None where nothing was, or where it does not fit the model."""
    plain = recall(KIND, key)
    try:
        anatomy, certificate = _read(plain["anatomy"]), _read(plain["certificate"])
        known = Known(anatomy, certificate, plain["hash"])
        fits = isinstance(anatomy, Anatomy) and isinstance(certificate, Certificate)
        return known if fits and isinstance(known.hash, str) and _fits(model, plain["anatomy"]) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def keep(key: str, known: Known) -> bool:
    """Remember what was found out; False where it holds tensors or computed weights, which belong to this one model."""
    if known.anatomy.bare:
        return False
    try:
        plain = {
            "anatomy": _write(known.anatomy),
            "certificate": _write(known.certificate),
            "hash": known.hash,
        }
    except TypeError:
        return False
    return remember(KIND, key, plain)


def _fits(model: nn.Module, plain: Any) -> bool:
    """Whether every module that an anatomy names is there."""
    names = {name for name, _ in model.named_modules()}
    todo = [plain]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if value.get("is") in ("Port", "AttentionTap", "Layer", "Sublayer", "Attention") and (
                value["path"] not in names
            ):
                return False
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
    return True


def _write(value: Any) -> Any:
    """Data of the kinds that an anatomy holds, as JSON takes them. Raises `TypeError` for any other, such as tensors."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_write(v) for v in value]
    if isinstance(value, Mapping):
        return {"is": "map", "of": [[_write(k), _write(v)] for k, v in value.items()]}
    name = type(value).__name__
    if _CLASSES.get(name) is type(value):
        return {"is": name} | {f.name: _write(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{name} is not remembered")


def _read(plain: Any) -> Any:
    """The inverse of `_write`; only the classes of an anatomy are made."""
    if isinstance(plain, list):
        return tuple(_read(v) for v in plain)
    if not isinstance(plain, dict):
        return plain
    if plain["is"] == "map":
        return {_read(k): _read(v) for k, v in plain["of"]}
    return _CLASSES[plain["is"]](**{k: _read(v) for k, v in plain.items() if k != "is"})
