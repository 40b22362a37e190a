"""Effects on disk: a folder of manifest.json and safetensors, or one netCDF file; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from cutaway.effects.compact import compact, whole
from cutaway.errors import BadFormat, CorruptFile
from cutaway.results import KINDS, Provenance, atomic_write, finite, head, kind_of, read, save_folder
from cutaway.results.values import fits

_KIND = "effects"


def save(path: Path, data: xr.Dataset, provenance: Provenance) -> Path:
    """Write a dataset and its provenance; the form is chosen by the suffix (`.nc` is netCDF, else a folder)."""
    if path.suffix == ".nc":
        return atomic_write(path, _netcdf(data, provenance))
    every = {str(name): np.ascontiguousarray(array.values) for name, array in data.data_vars.items()}
    arrays, said = compact(every, float(data.attrs.get("gap", np.nan)))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return save_folder(path, manifest(data, provenance) | {"compact": said}, tensors)


def load(path: Path) -> tuple[xr.Dataset, Provenance]:
    """Read what `save` wrote."""
    if path.suffix == ".nc":
        return _from_netcdf(path)
    saved, _ = read(path, _KIND)  # the layout is that of version 0, whose coordinates spell parts in words
    return from_parts(saved.manifest, saved.tensors)


def manifest(data: xr.Dataset, provenance: Provenance) -> dict[str, Any]:
    """The plain part: dimensions, coordinates, attributes, provenance."""
    return head(
        _KIND,
        provenance,
        dims={str(name): [str(d) for d in array.dims] for name, array in data.data_vars.items()},
        coords={str(name): [list(map(str, c.dims)), c.values.tolist()] for name, c in data.coords.items()},
        attrs=dict(data.attrs),
    )


#: What effects say of all their cells.
_ATTRIBUTES: dict[str, Any] = {
    "site": str, "direction": str, "gap": float, "clean_metric": float, "corrupted_metric": float, "intervals": str,
}  # fmt: skip


def from_parts(said: dict[str, Any], arrays: dict[str, torch.Tensor]) -> tuple[xr.Dataset, Provenance]:
    """Dataset and provenance of a manifest and its tensors. Raises `BadFormat` when they are not those of effects."""
    _require_effects(said)
    try:
        plain = {name: tensor.numpy() for name, tensor in arrays.items()}
        found = whole(plain, said.get("compact", {}), said["attrs"].get("gap", np.nan))
        variables = {name: (dims, found[name]) for name, dims in said["dims"].items()}
        if lacking := [
            name
            for name, hint in _ATTRIBUTES.items()
            if not fits(said["attrs"].get(name), hint, finite=False)
        ]:
            raise BadFormat(f"These effects do not say their {lacking[0]}.", "Make them again.")
        coords = {name: (tuple(dims), np.array(values)) for name, (dims, values) in said["coords"].items()}
        return xr.Dataset(variables, coords, said["attrs"]), Provenance.from_dict(said["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadFormat(f"These effects cannot be read: {error!r}.", "Make them again.") from error


def _require_effects(said: Mapping[str, Any]) -> None:
    name, version = kind_of(said)
    if name != _KIND or version > KINDS[_KIND].version:
        remedy = "Pass what Effects.save wrote."
        raise BadFormat(f"This is {name!r} of format {version}, not effects that can be read.", remedy)


def _netcdf(data: xr.Dataset, provenance: Provenance) -> bytes:
    attrs = {k: int(v) if isinstance(v, bool) else v for k, v in data.attrs.items()}
    attrs |= {"kind": _KIND, "version": KINDS[_KIND].version}
    plain = data.assign_attrs(attrs | {"provenance": json.dumps(finite(provenance.to_dict()))})
    plain = plain.assign({n: a.astype("int8") for n, a in plain.data_vars.items() if a.dtype == bool})
    plain.attrs["sha256"] = _digest(plain)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "effects.nc"
        try:
            plain.to_netcdf(file)
        except (ImportError, ValueError) as error:
            remedy = "Install netCDF4 or h5netcdf, or save to a folder."
            raise BadFormat(f"netCDF cannot be written here: {error}", remedy) from error
        return file.read_bytes()


def _digest(data: xr.Dataset) -> str:
    """The hash of a dataset's arrays, coordinates and attributes."""
    digest = hashlib.sha256()
    for name in sorted(map(str, data.variables)):
        values = np.asarray(data[name].values)
        content = values.tobytes() if values.dtype.kind in "biuf" else repr(values.tolist()).encode()
        digest.update(f"{name} {data[name].dims} {values.shape}".encode() + content)
    said = {str(k): v for k, v in data.attrs.items() if k != "sha256"}
    digest.update(repr(sorted((k, str(v)) for k, v in said.items())).encode())
    return digest.hexdigest()


def _from_netcdf(path: Path) -> tuple[xr.Dataset, Provenance]:
    try:
        with xr.open_dataset(path) as file:
            data = file.load()
        attrs = dict(data.attrs)
        seal = attrs.pop("sha256", None)  # files of the version before have none
        version = attrs.pop("version", None)
        said = {"kind": attrs.pop("kind", None)} | ({} if version is None else {"version": int(version)})
        _require_effects(said)
        provenance = Provenance.from_dict(json.loads(attrs.pop("provenance")))
    except (OSError, ValueError, KeyError) as error:
        raise BadFormat(f"{path} cannot be read as netCDF: {error}", "Make the effects again.") from error
    if seal is not None and seal != _digest(data):
        raise CorruptFile(
            f"{path} is not as it was saved.", "Copy the file again, or make the effects again."
        )
    bools = {n: data[n].astype(bool) for n in ("known_zero", "not_finite")}
    data = data.assign(bools)
    data.attrs = attrs | {"complete": bool(attrs["complete"])}
    return data, provenance
