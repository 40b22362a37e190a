"""Cutaway's own form of a circuit: a folder of manifest.json and safetensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.scores import Scores
from cutaway.errors import BadFormat
from cutaway.results import Provenance, load_folder, save_folder

if TYPE_CHECKING:
    from cutaway.circuits.circuit import Circuit

KIND = "cutaway circuit"
_ARRAYS = ("values", "nodes", "examples", "node_examples", "positions", "inputs", "kept")


def save(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write a circuit with its scores to a folder, whole or not at all; what is read back is bitwise the same."""
    head: dict[str, Any] = {
        "kind": KIND, "graph": circuit.graph.to_dict(), "grain": circuit.grain, "ablation": circuit.ablation,
        "name": circuit.name, "selection": circuit.selection, "notes": list(circuit.notes),
        "groups": list(circuit.groups), "extra": circuit.extra,
        "provenance": None if circuit.provenance is None else circuit.provenance.to_dict(),
        "scores": None if circuit.scores is None else circuit.scores.head(),
    }  # fmt: skip
    tensors = {"membership": torch.from_numpy(np.ascontiguousarray(circuit.membership))}
    if circuit.positions is not None:
        tensors["membership_by_position"] = torch.from_numpy(np.ascontiguousarray(circuit.positions))
    if circuit.scores is not None:
        for name in _ARRAYS:
            array = getattr(circuit.scores, name)
            if array is not None:
                tensors[f"scores.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
        for layer, array in circuit.scores.neurons.items():
            tensors[f"scores.neurons.{layer}"] = torch.from_numpy(np.ascontiguousarray(array))
    return save_folder(path, head, tensors)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save` wrote, as the fields of a circuit.

    Raises BadFormat where the folder holds no circuit, CorruptFile where a file was changed.
    """
    saved = load_folder(path)
    head, tensors = saved.manifest, saved.tensors
    if head.get("kind") != KIND:
        what = head.get("kind", "something else")
        raise BadFormat(f"{path} holds {what!r}, not a circuit.", "Pass what Circuit.save wrote.")
    try:
        graph = Graph.from_dict(head["graph"])
        by_position = tensors.get("membership_by_position")
        return {
            "graph": graph, "membership": tensors["membership"].numpy(),
            "scores": _scores(graph, head["scores"], tensors), "grain": head["grain"], "ablation": head["ablation"],
            "name": head["name"], "selection": head["selection"], "notes": tuple(head["notes"]),
            "provenance": _provenance(head["provenance"]), "groups": tuple(head["groups"]), "extra": dict(head["extra"]),
            "positions": None if by_position is None else by_position.numpy(),
        }  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise BadFormat(f"The circuit in {path} cannot be read: {error!r}.", "Make it again.") from error


def _provenance(data: dict[str, Any] | None) -> Provenance | None:
    return None if data is None else Provenance.from_dict(data)


def _scores(graph: Graph, head: dict[str, Any] | None, tensors: dict[str, torch.Tensor]) -> Scores | None:
    if head is None:
        return None
    arrays = {n: tensors[f"scores.{n}"].numpy() for n in _ARRAYS if f"scores.{n}" in tensors}
    prefix = "scores.neurons."
    neurons = {int(n.removeprefix(prefix)): t.numpy() for n, t in tensors.items() if n.startswith(prefix)}
    return Scores(
        graph, method=head["method"], source=head["source"], groups=tuple(head["groups"]), notes=tuple(head["notes"]),
        clusters=None if head["clusters"] is None else tuple(head["clusters"]),
        provenance=_provenance(head["provenance"]), neurons=neurons, **arrays,
    )  # fmt: skip
