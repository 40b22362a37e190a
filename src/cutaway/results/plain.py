"""Plain data: what JSON can hold, and the one rule for what it cannot."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch


def _plain(value: Any) -> Any:
    """What JSON can hold, of the types that results hold; of a table its rows."""
    if isinstance(value, pd.DataFrame):
        return value.to_dict("records")
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON of plain data, dataclasses, arrays and tensors; NaN and infinity become null, by the rule of `finite`.

    >>> to_json({"a": np.float32(0.5), "b": float("nan")}, indent=None)
    '{"a": 0.5, "b": null}'
    """
    return json.dumps(finite(value), indent=indent, allow_nan=False, ensure_ascii=False)


def finite(value: Any) -> Any:
    """The same data with None in place of NaN and infinity: the one rule for numbers that JSON does not have.

    >>> finite({"a": [1.0, float("nan")], "b": np.float32(0.5)})
    {'a': [1.0, None], 'b': 0.5}
    """
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if not isinstance(value, str | int | float | bool | type(None)):
        value = _plain(value)
        return finite(value) if isinstance(value, dict | list | float) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def described(result: Any, *fields: str, **content: Any) -> dict[str, Any]:
    """What `to_dict` of a result gives: its network, these fields of it as they are, more content, and its provenance."""
    named = {name: getattr(result, name) for name in fields}
    source = result.provenance
    return finite({"network": source.network, **named, **content, "provenance": source})
