"""Dataclasses to plain data and tensors and back: how results whose fields are arrays, text and numbers are stored.

A field is written by its value and read by its type: arrays and tensors go to the tensors' file under the path of their
field, everything else into the manifest. Tuples, lists, dicts and dataclasses are followed; keys of dicts may be tuples.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import numpy as np
import pandas as pd
import torch

from cutaway.errors import BadFormat
from cutaway.results.plain import finite

_ARRAY, _TENSOR, _TEXTS, _PAIRS, _TABLE = "array", "tensor", "texts", "pairs", "table"


def pack(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Plain data and tensors of a dataclass (or any value that it may hold)."""
    tensors: dict[str, torch.Tensor] = {}
    return _pack(value, "", tensors), tensors


def _pack(value: Any, at: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[at] = value
        return {_TENSOR: at}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUS":
            return {_TEXTS: value.tolist(), "shape": list(value.shape)}
        tensors[at] = torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)
        return {_ARRAY: at}
    if isinstance(value, pd.DataFrame):
        rows = value.astype(object).where(value.notna(), None)
        return {_TABLE: {str(c): rows[c].tolist() for c in rows.columns}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        begins = f"{at}." if at else ""
        names = [f.name for f in dataclasses.fields(value) if f.init]
        return {name: _pack(getattr(value, name), f"{begins}{name}", tensors) for name in names}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _pack(v, f"{at}.{key}", tensors) for key, v in value.items()}
        items = enumerate(value.items())
        return {
            _PAIRS: [[_pack(k, f"{at}.{i}k", tensors), _pack(v, f"{at}.{i}", tensors)] for i, (k, v) in items]
        }
    if isinstance(value, frozenset | set):
        return sorted(_pack(v, at, tensors) for v in value)
    if isinstance(value, tuple | list):
        return [_pack(v, f"{at}.{i}", tensors) for i, v in enumerate(value)]
    return finite(value)


def unpack(kind: type, plain: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `pack` for a dataclass; `BadFormat` where the data do not fit its fields."""
    try:
        return _unpack(kind, plain, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFormat(f"This is not the data of {kind.__name__}: {error!r}.", "Make it again.") from error


def _unpack(kind: Any, plain: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(plain, dict):
        if plain.keys() == {_TENSOR}:
            return tensors[plain[_TENSOR]]
        if plain.keys() == {_ARRAY}:
            return tensors[plain[_ARRAY]].numpy()
        if plain.keys() == {_TEXTS, "shape"}:
            return np.array(plain[_TEXTS], dtype=object).reshape(plain["shape"])
        if plain.keys() == {_TABLE}:
            return pd.DataFrame(plain[_TABLE])
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if plain is None:
            return None
        return _unpack(next(a for a in arguments if a is not type(None)), plain, tensors)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if hasattr(kind, "from_dict"):
            return kind.from_dict(plain)  # pyright: ignore[reportAttributeAccessIssue]
        hints = typing.get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.init and f.name in plain]
        return kind(**{name: _unpack(hints[name], plain[name], tensors) for name in names})
    if origin is dict:
        key, value = arguments
        if isinstance(plain, dict) and plain.keys() == {_PAIRS}:
            return {_unpack(key, k, tensors): _unpack(value, v, tensors) for k, v in plain[_PAIRS]}
        return {k: _unpack(value, v, tensors) for k, v in plain.items()}
    if origin is tuple:
        inner = arguments[:1] * len(plain) if arguments[-1:] == (Ellipsis,) else arguments
        return tuple(_unpack(a, v, tensors) for a, v in zip(inner, plain, strict=True))
    if origin in (list, frozenset, set):
        return origin(_unpack(arguments[0], v, tensors) for v in plain)
    if kind is float and plain is None:
        return float("nan")
    exact: Any = plain
    return kind(exact) if kind in (int, float, str) and exact is not None else exact
