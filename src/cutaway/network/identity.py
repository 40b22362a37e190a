"""Who a network is: a hash of its configuration and its weights that is the same on every machine."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from torch import Tensor, nn

_SAMPLE = 4096
_GLANCE = 64
_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def weights_hash(model: nn.Module) -> str:
    """A SHA-256 over every weight's name, shape, type, integer checksum and a sample of its bytes, and the configuration.

    The checksum is a sum of the weights' bit patterns as integers, so that any single change shows and the order of
    summation does not.
    """
    digest = hashlib.sha256(told_of(model).encode())
    if switches := adapter_state(model):
        digest.update(repr(switches).encode())
    for name, tensor in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        if tensor.device.type != "meta":
            _add(digest, tensor.detach())
    return digest.hexdigest()


def told_of(model: nn.Module) -> str:
    """A model's configuration as text, without what says nothing of the network; empty where it has none."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return ""
    passing = ("_name_or_path", "transformers_version", "dtype")
    plain = {k: v for k, v in config.to_dict().items() if k not in passing}
    return json.dumps(plain, sort_keys=True, default=str)


def _add(digest: object, tensor: Tensor) -> None:
    flat = tensor.contiguous().reshape(-1)
    if flat.numel() == 0:
        return
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    bits = flat.view(_INTEGER[flat.element_size()])
    step = max(1, bits.numel() // _SAMPLE)
    digest.update(str(_total(bits)).encode())  # type: ignore[attr-defined]
    digest.update(bits[::step].cpu().numpy().tobytes())  # type: ignore[attr-defined]


def _total(bits: Tensor) -> int:
    """The sum of whole numbers; on a processor by NumPy, which takes a tenth of torch's time where it has to widen them."""
    if bits.device.type == "cpu":
        return int(bits.numpy().sum(dtype=np.int64))
    return int(bits.sum(dtype=torch.int64))


#: What adapters keep beside weights: which are active, how much they count, whether they are switched off or merged.
_SWITCHES = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling", "enabled")


def adapter_state(model: nn.Module) -> list[tuple[str, str, str]]:
    """Every adapter's switches, by module: (module, switch, its value); nothing for a model without adapters.

    They change what a network computes, and no tensor of it.
    """
    return [
        (name, switch, repr(vars(module)[switch]))
        for name, module in model.named_modules()
        if any(s in vars(module) for s in _SWITCHES[:2])
        for switch in _SWITCHES
        if switch in vars(module)
    ]


def weights_sample(model: nn.Module) -> bytes:
    """A few numbers of every weight, so that a change that torch does not count (through `.data`) shows."""
    digest = hashlib.sha256()
    for _, tensor in sorted(dict(model.named_parameters()).items()):
        if tensor.device.type != "meta" and tensor.numel():
            try:
                flat = tensor.detach().reshape(-1)
                digest.update(flat[:: max(1, flat.numel() // _GLANCE)].float().cpu().numpy().tobytes())
            except (RuntimeError, NotImplementedError):  # a quantised tensor that only its own layer can read
                continue
    return digest.digest()


def weights_version(model: nn.Module) -> int:
    """A number that changes when weights are replaced, moved or changed in place by torch; it costs no look at them.

    It is made of each tensor's identity, address and version counter, and of adapters' switches. A change through
    `.data`, which torch does not count, is not seen: `net.forget()` is for that, and asking for `net.hash` finds it, too.
    """
    tensors: list[Tensor | None] = []
    switches: list[str] = []
    modules, known = [model], {id(model)}
    # the tables themselves, because torch's walk over names costs several times as much
    for module in modules:
        tensors += module._parameters.values()
        tensors += module._buffers.values()
        own = vars(module)
        if _SWITCHES[0] in own or _SWITCHES[1] in own:
            switches += [repr(own.get(switch)) for switch in _SWITCHES]
        children = [m for m in module._modules.values() if m is not None and id(m) not in known]
        known.update(map(id, children))
        modules += children
    there = [t for t in tensors if t is not None]
    try:
        return hash((*switches, *[(id(t), t.data_ptr(), t._version) for t in there]))
    except (RuntimeError, ValueError, NotImplementedError):  # some tensor has no storage yet, or no counter
        return hash((*switches, *map(_version, there)))


def _version(tensor: Tensor) -> tuple[object, ...]:
    try:
        return id(tensor), tensor.data_ptr(), tensor.dtype, tensor._version
    # no storage yet, no counter, or a type of its own
    except (RuntimeError, ValueError, NotImplementedError):
        return id(tensor), tensor.dtype
