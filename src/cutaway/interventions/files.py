"""Interventions as files: JSON for what they say, safetensors for what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadFormat, BadInput, CorruptFile, NotFound, nearest
from cutaway.interventions.kinds import KINDS, Intervention
from cutaway.interventions.sources import Source
from cutaway.network.inputs import Tokens
from cutaway.network.run import Run
from cutaway.network.sites import Site

FORMAT = "cutaway-interventions-1"


def to_plain(change: Intervention, tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """An intervention as JSON data; its tensors go into `tensors`, and the data names them.

    Raises `BadInput` for `Apply`, whose function cannot be written down.
    """
    if not change.savable:
        raise BadInput(
            f"{type(change).__name__} holds a function, which cannot be saved.",
            "Use another intervention, or save your code.",
        )
    data: dict[str, Any] = {"kind": type(change).__name__}
    for f in fields(change):
        value = getattr(change, f.name)
        if value is not None:
            data[f.name] = _plain(value, tensors, f"{prefix}{f.name}")
    return data


def _plain(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    if isinstance(value, Mapping):
        value = Source.of(value)
    if isinstance(value, Run | Source):
        source = Source.of(value)
        if source.tensor is not None:
            return _plain(source.tensor, tensors, name)
        values = {str(site): _plain(t, tensors, f"{name}.{site}") for site, t in source.values.items()}
        sites = {str(site): list(astuple(site)) for site in source.values}
        rows, tokens = source.tokens, None
        if rows is not None:
            tokens = {
                part: _plain(getattr(rows, part), tensors, f"{name}.{part}") for part in ("ids", "mask")
            }
        columns = _plain(source.columns, tensors, f"{name}.columns")
        return {"values": values, "sites": sites, "tokens": tokens, "columns": columns}
    if torch.is_tensor(value):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Site):
        return {"site": list(astuple(value))}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, range):
        return list(value)
    if isinstance(value, tuple):
        return {"tuple": list(value)}
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def from_plain(data: dict[str, Any], tensors: dict[str, Tensor]) -> Intervention:
    """The intervention that JSON data and its tensors say.

    Raises `BadFormat` or `NotFound`.
    """
    kind = data.get("kind", "")
    if kind not in KINDS or kind == "Apply":
        offers = nearest(kind, KINDS) or list(KINDS)
        raise NotFound(f"There is no intervention called {kind!r} in a file.", f"Known: {', '.join(offers)}.")
    known = {f.name for f in fields(KINDS[kind])}
    unknown = set(data) - known - {"kind"}
    if unknown:
        raise BadFormat(
            f"{kind} has no field {', '.join(sorted(unknown))}.",
            f"Its fields are {', '.join(sorted(known))}.",
        )
    return KINDS[kind](**{k: _value(v, tensors) for k, v in data.items() if k != "kind"})


def _value(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        if value["tensor"] not in tensors:
            raise CorruptFile(f"The tensor {value['tensor']} is missing.", "Save the interventions again.")
        return tensors[value["tensor"]]
    if "site" in value:
        return Site(*value["site"])
    if "slice" in value:
        return slice(*value["slice"])
    if "tuple" in value:
        return tuple(value["tuple"])
    if "values" in value:
        values = {Site(*value["sites"][name]): _value(v, tensors) for name, v in value["values"].items()}
        tokens = value.get("tokens")
        rows = tokens and Tokens(_value(tokens["ids"], tensors), _value(tokens["mask"], tensors))
        return Source(values=values, tokens=rows, columns=_value(value.get("columns"), tensors))
    raise BadFormat(f"{value} is not understood.", "Save the interventions again.")


def save(changes: Sequence[Intervention] | Intervention, path: str | Path) -> Path:
    """Write interventions to a folder (`interventions.json` and `tensors.safetensors`), whole or not at all.

    Raises `BadInput` for what cannot be saved, `SaveFailed` where the folder cannot be written.
    """
    from cutaway.results import save_folder

    listed = [changes] if isinstance(changes, Intervention) else list(changes)
    tensors: dict[str, Tensor] = {}
    rows = [to_plain(c, tensors, f"{i}.") for i, c in enumerate(listed)]
    return Path(save_folder(path, {"format": FORMAT, "interventions": rows}, tensors=tensors))


def load(path: str | Path) -> list[Intervention]:
    """Read the interventions of a folder that `save` wrote.

    Raises `NotFound`, `CorruptFile`, `BadFormat`.
    """
    from safetensors.torch import load_file

    folder = Path(path)
    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise NotFound(f"{folder} holds no interventions.", "Give a folder that interventions.save wrote.")
    try:
        data = json.loads(manifest.read_text())
        weights = folder / "tensors.safetensors"
        tensors = load_file(str(weights)) if weights.exists() else {}
    except Exception as error:
        raise CorruptFile(f"{folder} cannot be read: {error}", "Save the interventions again.") from error
    if data.get("format") != FORMAT:
        raise BadFormat(
            f"{folder} is not in the format {FORMAT}.", "Give a folder that interventions.save wrote."
        )
    return [from_plain(row, tensors) for row in data["interventions"]]
