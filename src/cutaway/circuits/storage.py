"""Cutaway's own form of a circuit: a folder of manifest.json and safetensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.methods import option_names
from cutaway.circuits.scores import Scores
from cutaway.errors import BadFormat
from cutaway.results import Provenance, head, pack, read, save_folder, unpack

if TYPE_CHECKING:
    from cutaway.circuits.circuit import Circuit

_ARRAYS = ("values", "nodes", "examples", "node_examples", "positions", "inputs", "kept")


def save(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write a circuit with its scores to a folder, whole or not at all; what is read back is bitwise the same."""
    assert circuit.provenance is not None
    file, tensors = pack(circuit.file)
    manifest = head(
        circuit.kind, circuit.provenance, graph=circuit.graph.to_dict(), grain=circuit.grain, ablation=circuit.ablation,
        name=circuit.name, selection=circuit.selection, notes=list(circuit.notes), groups=list(circuit.groups),
        recipe=None if circuit.recipe is None else circuit.recipe.to_dict(), file=file,
        scores=None if circuit.scores is None else circuit.scores.head(),
    )  # fmt: skip
    arrays = {"membership": circuit.membership, "membership_by_position": circuit.positions}
    if circuit.scores is not None:
        arrays |= {f"scores.{name}": getattr(circuit.scores, name) for name in _ARRAYS}
        arrays |= {f"scores.neurons.{layer}": array for layer, array in circuit.scores.neurons.items()}
    tensors |= {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items() if a is not None}
    return save_folder(path, manifest, tensors)


def load(path: str | os.PathLike[str]) -> Circuit:
    """Read what `save` wrote, now or in the version before (0).

    Raises BadFormat where the folder holds no circuit, CorruptFile where a file was changed.
    """
    from cutaway.circuits.circuit import Circuit, GraphFile, TraceRecipe

    saved, version = read(path, "circuit")
    manifest, tensors = saved.manifest, saved.tensors
    try:
        graph = Graph.from_dict(manifest["graph"])
        by_position = tensors.get("membership_by_position")
        recipe, file = _extra(manifest["extra"]) if version == 0 else (manifest["recipe"], manifest["file"])
        return Circuit(
            graph, tensors["membership"].numpy(), _scores(graph, manifest["scores"], tensors), manifest["grain"],
            manifest["ablation"], manifest["name"], manifest["selection"], tuple(manifest["notes"]),
            _provenance(manifest["provenance"]), None if by_position is None else by_position.numpy(),
            tuple(manifest["groups"]), None if recipe is None else TraceRecipe.from_dict(recipe),
            None if file is None else unpack(GraphFile, file, tensors),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise BadFormat(f"The circuit in {path} cannot be read: {error!r}.", "Make it again.") from error


def _extra(extra: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Recipe and file of the version before, which kept both in one bag."""
    recipe = extra.get("trace")
    if recipe is not None:
        options = {"steps": recipe["steps"], "threshold": recipe["threshold"], **recipe["more"]}
        given = {k: v for k, v in options.items() if v is not None and k in option_names(recipe["method"])}
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
    prefix = "scores.neurons."
    neurons = {int(n.removeprefix(prefix)): t.numpy() for n, t in tensors.items() if n.startswith(prefix)}
    return Scores(
        graph, method=plain["method"], source=plain["source"], groups=tuple(plain["groups"]), notes=tuple(plain["notes"]),
        clusters=None if plain["clusters"] is None else tuple(plain["clusters"]),
        provenance=_provenance(plain["provenance"]), neurons=neurons, **arrays,
    )  # fmt: skip
