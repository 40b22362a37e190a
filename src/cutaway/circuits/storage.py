"""Cutaway's own form of a circuit: a folder of manifest.json and safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.methods import known_options
from cutaway.circuits.recipe import GraphFile, TraceRecipe
from cutaway.circuits.scores import Scores
from cutaway.errors import BadFormat
from cutaway.results import Provenance, head, pack, read, save_folder, unpack

_ARRAYS = ("values", "nodes", "examples", "node_examples", "positions", "inputs", "kept")
_PACKED, _LARGE = "scores.examples.edges", "scores.examples.edges.sizes"
#: Scores of single examples are kept to three digits where they are more than this.
_MANY = 2_000_000


def save(path: str | os.PathLike[str], circuit: Mapping[str, Any]) -> Path:
    """Write the fields of a circuit to a folder, whole or not at all; what is read back is bitwise the same.

    But where the scores of single examples are more than two million, these are kept to three digits. Their means, the
    circuit and its tests are not touched by that; intervals of scores move by some ten-thousandths of their width.
    """
    scores, recipe = circuit["scores"], circuit["recipe"]
    file, tensors = pack(circuit["file"])
    plain = {name: circuit[name] for name in ("grain", "ablation", "name", "selection", "notes", "groups")}
    manifest = head(
        "circuit", circuit["provenance"], graph=circuit["graph"].to_dict(), **plain, file=file,
        recipe=None if recipe is None else recipe.to_dict(), scores=None if scores is None else scores.head(),
    )  # fmt: skip
    arrays = {"membership": circuit["membership"], "membership_by_position": circuit["positions"]}
    if scores is not None:
        arrays |= {f"scores.{name}": getattr(scores, name) for name in _ARRAYS}
        arrays |= _packed(circuit["graph"].allowed, scores.examples)
        arrays |= {f"scores.neurons.{layer}": array for layer, array in scores.neurons.items()}
    tensors |= {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items() if a is not None}
    return save_folder(path, manifest, tensors)


def _packed(allowed: np.ndarray, examples: np.ndarray | None) -> dict[str, np.ndarray | None]:
    """Scores of single examples [n writers readers] as [n edges], or as they are where others than edges have some."""
    if examples is None or examples[:, ~allowed].any():
        return {}
    edges = examples[:, allowed]
    if edges.size <= _MANY or edges.dtype.itemsize <= 2:
        return {"scores.examples": None, _PACKED: edges}
    sizes = np.maximum(np.abs(edges).max(1, keepdims=True), np.finfo(np.float32).tiny)
    return {"scores.examples": None, _PACKED: (edges / sizes).astype(np.float16), _LARGE: sizes}


def _unpacked(allowed: np.ndarray, arrays: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The inverse of `_packed`."""
    if _PACKED not in arrays:
        return {}
    edges = arrays[_PACKED].numpy()
    if _LARGE in arrays:
        edges = edges.astype(arrays[_LARGE].numpy().dtype) * arrays[_LARGE].numpy()
    examples = np.zeros((len(edges), *allowed.shape), dtype=edges.dtype)
    examples[:, allowed] = edges
    return {"examples": examples}


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save` wrote, now or in the version before (0), as the fields of a circuit.

    Raises BadFormat where the folder holds no circuit, CorruptFile where a file was changed.
    """
    saved, version = read(path, "circuit")
    manifest, tensors = saved.manifest, saved.tensors
    try:
        graph = Graph.from_dict(manifest["graph"])
        by_position = tensors.get("membership_by_position")
        recipe, file = _extra(manifest["extra"]) if version == 0 else (manifest["recipe"], manifest["file"])
        return {
            **{name: manifest[name] for name in ("grain", "ablation", "name", "selection")},
            "graph": graph, "membership": tensors["membership"].numpy(), "notes": tuple(manifest["notes"]),
            "scores": _scores(graph, manifest["scores"], tensors), "groups": tuple(manifest["groups"]),
            "provenance": _provenance(manifest["provenance"]),
            "positions": None if by_position is None else by_position.numpy(),
            "recipe": None if recipe is None else TraceRecipe.from_dict(recipe),
            "file": None if file is None else unpack(GraphFile, file, tensors),
        }  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise BadFormat(f"The circuit in {path} cannot be read: {error!r}.", "Make it again.") from error


def _extra(extra: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Recipe and file of the version before, which kept both in one bag."""
    recipe = extra.get("trace")
    if recipe is not None:
        options = {"steps": recipe["steps"], "threshold": recipe["threshold"], **recipe["more"]}
        given = known_options(recipe["method"], {k: v for k, v in options.items() if v is not None})
        recipe = {"method": recipe["method"], "select": recipe["select"], "options": given}
    if "cfg" not in extra:
        return recipe, None
    neurons = extra.get("neurons") or {}
    kept = {name: extra.get(name) for name in ("cfg", "nodes_in_graph", "logits")}
    return recipe, {
        **kept, "dtype": extra.get("dtype", ""), "neurons": neurons.get("in"), "neurons_scores": neurons.get("scores"),
        "neuron_tensors": {k: torch.tensor(v) for k, v in extra.items() if k.startswith("neurons_")} or None,
    }  # fmt: skip


def _provenance(data: dict[str, Any] | None) -> Provenance | None:
    return None if data is None else Provenance.from_dict(data)


def _scores(graph: Graph, plain: dict[str, Any] | None, tensors: dict[str, torch.Tensor]) -> Scores | None:
    if plain is None:
        return None
    arrays = {n: tensors[f"scores.{n}"].numpy() for n in _ARRAYS if f"scores.{n}" in tensors}
    arrays |= _unpacked(graph.allowed, tensors)
    prefix = "scores.neurons."
    neurons = {int(n.removeprefix(prefix)): t.numpy() for n, t in tensors.items() if n.startswith(prefix)}
    return Scores(
        graph, method=plain["method"], source=plain["source"], groups=tuple(plain["groups"]), notes=tuple(plain["notes"]),
        clusters=None if plain["clusters"] is None else tuple(plain["clusters"]),
        provenance=_provenance(plain["provenance"]), neurons=neurons, **arrays,
    )  # fmt: skip
