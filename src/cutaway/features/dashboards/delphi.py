"""An index as the cache that delphi (EleutherAI, `eai-delphi`) explains latents from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import BadInput, SaveFailed
from cutaway.features.index import FeatureIndex
from cutaway.features.index.store import write_arrays
from cutaway.results import atomic_folder, atomic_write, strict

#: Below this in size delphi keeps nothing; what half precision holds; the length of its examples, which divides a window's.
_LEAST, _MOST, _LENGTH = 1e-5, 65504.0, 32


@strict
def export_delphi(
    index: FeatureIndex, folder: str | os.PathLike[str], *, module: str = "", splits: int = 5, pad: int = 0
) -> Path:
    """Write an index as delphi's cache: `MODULE/FIRST_LAST.safetensors` and `MODULE/config.json`.

    Each file holds `locations` [n 3] (window, position in it, feature less FIRST), `activations` [n] in half precision, and
    `tokens` [windows length]. Windows that are shorter are filled up at their end; nothing is active there.

    Args:
        index: of the features.
        folder: new or empty.
        module: the name of the folder inside; default the site that is read.
        splits: files.
        pad: the token that fills windows up.

    Raises:
        BadInput: for a module that is no name of a folder, or activations that half precision does not hold.
        SaveFailed: where something lies there already, or the disk refuses.
    """
    name = module or index.sites[0].replace("/", "-")
    if Path(name).name != name or name in (".", ".."):
        raise BadInput(f"{name!r} cannot be a folder's name.", "Give another module=.")
    if isinstance(splits, bool) or splits < 1:
        raise BadInput(f"splits={splits!r} is no number of files.", "Give 1 or more.")
    sums = index.sums
    if max(float(sums.maxima.max(initial=0.0)), -float(sums.minima.min(initial=0.0))) > _MOST:
        raise BadInput(
            f"Activations above {_MOST:g} do not fit delphi's half precision.", "Scale the dictionary first."
        )
    tokens = padded_windows(index, pad)
    ends = np.linspace(0, len(index), min(splits, len(index)) + 1).astype(np.int64)
    with atomic_folder(folder, only_new) as place:
        for first, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            arrays = _split(index, first, end) | {"tokens": tokens}
            (place / name).mkdir(exist_ok=True)
            write_arrays(place / name / f"{first}_{end - 1}.safetensors", arrays)
        said = json.dumps(_config(index, tokens.shape, len(ends) - 1), indent=4)
        atomic_write(place / name / "config.json", said)
    return Path(folder)


def only_new(old: Path, _new: Path) -> set[str]:
    """`Ours` of a folder that must be new or empty: nothing in it is ours."""
    raise SaveFailed(
        f"{old} exists and holds something else.", "Choose a new folder; nothing in it was touched."
    )


def padded_windows(index: FeatureIndex, pad: int) -> NDArray[np.int64]:
    """[W length] the tokens of all windows, filled up to the same length."""
    table = index.rows
    lengths = np.diff(table.starts)
    longest = int(max(lengths.max(initial=1), index.asked.get("length") or 1))
    found = np.full((len(lengths), -(-longest // _LENGTH) * _LENGTH), pad, np.int64)
    found[np.arange(found.shape[1]) < lengths[:, None]] = table.ids
    return found


def _split(index: FeatureIndex, first: int, end: int) -> dict[str, NDArray[Any]]:
    table, parts, read = index.rows, [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float16)]
    for i in range(first, end):
        rows, values = index.entries(i)
        kept = np.abs(values) > _LEAST
        where = rows[kept]
        parts.append(np.stack([table.window[where], table.column[where], np.full(len(where), i - first)], 1))
        read.append(values[kept].astype(np.float16))
    locations = np.concatenate(parts)
    small = bool((locations[:, [0, 2]].max(initial=0) < 2**16) and locations[:, 1].max(initial=0) < 2**16)
    return {
        "locations": locations.astype(np.uint16 if small else np.uint32), "activations": np.concatenate(read),
    }  # fmt: skip


def _config(index: FeatureIndex, shape: tuple[int, ...], splits: int) -> dict[str, Any]:
    return {
        "dataset_repo": "", "dataset_split": "", "dataset_name": "", "dataset_column": "", "batch_size": 1,
        "cache_ctx_len": shape[1], "n_tokens": shape[0] * shape[1], "n_splits": splits,
        "model_name": index.provenance.network,
    }  # fmt: skip
