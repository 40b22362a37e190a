"""Open a model: load it safely, observe it once, certify what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cutaway.errors import BadInput, require_known
from cutaway.network.cache import cache_folder
from cutaway.network.core import Core
from cutaway.network.examining import examine_model
from cutaway.network.gguf import is_gguf
from cutaway.network.loading import dtype_of, load_model, load_tokenizer
from cutaway.network.network import Network
from cutaway.network.opened import Opened
from cutaway.network.products import ANYWAY, MIXED, check_products, multiply_coarsely
from cutaway.network.remembered import Known, keep, key_of, recalled
from cutaway.results import strict_as


@dataclass(frozen=True)
class Scheme:
    """Who knows the networks of one kind of name, as `"module:function"`, imported when such a name is opened.

    Attributes:
        path: gives the folder of a name.
        load: gives model and tokenizer of a name that has no folder.
        made: the sign by which one tells such a name.
    """

    path: str
    load: str
    made: str


#: Names that begin with `SCHEME:` and who knows them.
SCHEMES = {
    "zoo": Scheme("cutaway.zoo.loaders:path", "cutaway.zoo.loaders:load", made="~"),
    "sentences": Scheme("", "cutaway.network.sentence_encoder:load", made=""),
}

#: The options of `open_network`, for the error about one that is unknown: those that `Opened` notes.
OPTIONS = tuple(f.name for f in fields(Opened) if f.name not in ("model", "reason"))


@strict_as("open")
def open_network(
    model: str | Path | nn.Module,
    tokenizer: Any = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    certify: bool = True,
    remember: bool = True,
    example: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> Network:
    """Open a network, exported as `cutaway.open`.

    Args:
        model: a Hub id, a local folder (with an adapter in it, the network that the adapter names, with it merged), a GGUF
            file, `"zoo:NAME"` for one that is shipped, `"sentences:FOLDER|one text|another"` for a sentence encoder that is
            held against some texts, or a module already in hand (whose weights, hooks and settings are left as they are).
        tokenizer: one in hand, or where to load it from; without it, the one beside the weights if there is one.
        device, dtype, device_map: where the weights are put; a module in hand stays where it is. `dtype="mixed"` is float32
            with matrix products in bfloat16, where the processor has these (`network/products.py`): up to twice as fast, and
            what that does to a behaviour is measured and said.
        revision: a branch, tag or commit on the Hub.
        trust_remote_code: let the model's repository run its own code. Off: such a model is refused.
        certify: check the anatomy by numeric identities (a few short forward passes).
        remember: take anatomy and certificate from an earlier opening of the same weights by the same code, where there was
            one, and keep them for the next (`network/cache.py` says where).
        example: one batch of keyword arguments, for a module whose forward is not a transformers model's.
        load: options that are handed to transformers' `from_pretrained`, such as
            `{"attn_implementation": "eager"}` or `{"ignore_mismatched_sizes": True}`.

    Raises `NotFound`, `NoWeights`, `CorruptFile`, `UnsafeFile`, `NotFinite`, `OutOfMemory`, `BadInput`, and `UnknownOption`
    for an option that there is not.
    """
    require_known(unknown, OPTIONS, "open")
    if isinstance(model, nn.Module):
        loading = {
            "device": device, "dtype": dtype, "device_map": device_map, "revision": revision, "load": load
        }  # fmt: skip
        if given := [name for name, value in loading.items() if value is not None]:
            raise BadInput(
                f"{' and '.join(given)}: for loading; this module is already in hand.",
                "Move it first: model.to(...).",
            )
        name = getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
        beside = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        return examine(getattr(model, "_orig_mod", model), beside, name, certify, example, remember)
    if not isinstance(model, str | Path) or not str(model).strip():
        raise BadInput(
            f"{model!r} is not a model.",
            "Give a folder, a Hub id, a name such as 'zoo:tales', or a torch module.",
        )
    name = str(model)
    opened = Opened(
        model=str(Path(name).resolve()) if _scheme(name) is None and Path(name).exists() else name,
        tokenizer=tokenizer
        if isinstance(tokenizer, str)
        else getattr(tokenizer, "name_or_path", None) or None,
        revision=revision,
        device=None if device is None else str(device),
        dtype=_type_named(dtype),
        device_map=device_map,
        trust_remote_code=trust_remote_code,
        certify=certify,
        remember=remember,
        example=example,
        load=dict(load or {}),
    )
    return _load(name, tokenizer, replace(opened, reason=_reason(opened, tokenizer)))


def _load(name: str, tokenizer: Any, opened: Opened) -> Network:
    """Load what `open_network` was asked for by name, and examine it."""
    scheme = _scheme(name)
    if isinstance(tokenizer, str):
        tokenizer = load_tokenizer(tokenizer, opened.trust_remote_code)
    if scheme is not None and scheme.made in name:
        if opened.dtype in (MIXED, ANYWAY):
            check_products(torch.device(opened.device or "cpu"), opened.dtype == ANYWAY)
        model, beside = _function(scheme.load)(name)
        model = model.to(device=opened.device, dtype=None if opened.dtype is None else dtype_of(opened.dtype))
        return _as_asked(examine_model(model, tokenizer or beside, name, opened))
    source = name if scheme is None else str(_function(scheme.path)(name.partition(":")[2]))
    model = load_model(source, opened)
    if tokenizer is None:
        tokenizer = load_tokenizer(source, opened.trust_remote_code, opened.revision)
    if scheme is None and not Path(source).exists():  # a branch moves on, its commit does not
        commit = getattr(getattr(model, "config", None), "_commit_hash", None)
        opened = replace(opened, revision=commit or opened.revision)
    shown = name if scheme is not None or not Path(name).exists() else Path(name).resolve().name
    return _as_asked(_known_or_examined(model, tokenizer, shown, opened))


def _as_asked(core: Core) -> Network:
    """The network that was examined, with coarser products where that was asked for."""
    if core.opened.dtype in (MIXED, ANYWAY):
        multiply_coarsely(core.model, core.anatomy.head.unembed if core.anatomy.head else None)
        core.forget()
    return Network(core)


def _type_named(dtype: str | torch.dtype | None) -> str | None:
    """A type as `Opened` notes it. Raises `BadInput` where there is none of that name."""
    if dtype is None or dtype in (MIXED, ANYWAY):
        return dtype  # type: ignore[return-value]
    return str(dtype_of(dtype)).removeprefix("torch.")


def _known_or_examined(model: nn.Module, tokenizer: Any, name: str, opened: Opened) -> Core:
    """What is known of the network from an earlier opening; otherwise it is examined, and that is remembered."""
    asked = opened.remember and opened.certify and opened.example is None and cache_folder() is not None
    key = key_of(model) if asked else None
    if key is not None and (known := recalled(model, key)) is not None:
        core = Core(model, tokenizer, known.anatomy, known.certificate, name, opened, remembered=True)
        core.fact_of_weights("hash", lambda: known.hash)
        return core
    core = examine_model(model, tokenizer, name, opened)
    if key is not None and core.certificate.made:
        keep(key, Known(core.anatomy, core.certificate, core.hash))
    return core


def folder_of(name: str) -> Path | None:
    """Where the weights of a name lie, for looking at them; None for one that is made, or is to be downloaded."""
    scheme = _scheme(name)
    if scheme is not None and scheme.made in name:
        return None
    place = Path(name) if scheme is None else Path(str(_function(scheme.path)(name.partition(":")[2])))
    return place if place.is_dir() or (place.is_file() and is_gguf(place)) else None


def _scheme(name: str) -> Scheme | None:
    """Who knows the name; None for a folder or a Hub id."""
    return SCHEMES.get(name.partition(":")[0]) if ":" in name else None


def _function(where: str) -> Callable[..., Any]:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


def _reason(opened: Opened, tokenizer: Any) -> str:
    """Why a network that is opened by name cannot be opened elsewhere; empty where it can."""
    if tokenizer is not None and opened.tokenizer is None:
        return "This network was opened with a tokenizer in hand, which another process does not have."
    plain = (type(None), bool, int, float, str, dict, list)
    if held := [name for name, value in opened.load.items() if not isinstance(value, plain)]:
        return f"This network was loaded with {', '.join(held)} in hand, which another process does not have."
    return ""


def examine(
    model: nn.Module,
    tokenizer: Any,
    name: str,
    certified: bool = True,
    example: Mapping[str, Any] | None = None,
    remember: bool = True,
) -> Network:
    """Discover and certify a module in hand.

    Raises `NotFinite` where a weight is NaN or infinite and the network is to be certified.
    """
    reason = f"This {type(model).__name__} was a module in hand, which no other process has."
    opened = Opened(
        type(model).__name__, certify=certified, remember=remember, example=example, reason=reason
    )
    return Network(examine_model(model, tokenizer, name, opened))
