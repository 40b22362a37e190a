"""MIB's submission folders: METHOD_ABLATION_LEVEL/TASK_MODEL/, with importances, or one circuit for each size.

The circuit track takes, for every task and model, either one graph file whose scores rank the edges
(`importances.json` or `importances.pt`), or a series of circuits of at most 0.1, 0.2, 0.5, 1, 2, 5, 10, 20 and 50 % of the
edges as graph files (Mueller et al. 2025).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.faithfulness import SHARES, circuits_by_size
from cutaway.circuits.formats.reading import read, write
from cutaway.errors import BadFormat, BadInput

_LEVELS = ("edge", "node", "neuron")
_FOLDER = re.compile(r"^(?P<task>.+)_(?P<model>[^_]+)$")
_NAMES = ("importances.json", "importances.pt")


def folder_name(method: str, ablation: str, level: str = "edge") -> str:
    """The name of a submission's folder.

    >>> folder_name("EAP-IG", "patching")
    'EAP-IG_patching_edge'
    """
    if level not in _LEVELS:
        raise BadInput(f"{level!r} is no level of MIB.", f"Use one of {', '.join(_LEVELS)}.")
    return f"{method}_{ablation}_{level}"


def write_importances(
    circuits: Mapping[tuple[str, str], Circuit], folder: str | os.PathLike[str], suffix: str = ".json"
) -> list[Path]:
    """Write TASK_MODEL/importances for each (task, model): the scores of all edges.

    Raises BadInput where a circuit has no scores, or its graph is not a plain transformer's.
    """
    if suffix not in (".json", ".pt"):
        raise BadInput(f"{suffix!r} is no suffix of a graph file.", "Use .json or .pt.")
    written = []
    for (task, model), circuit in circuits.items():
        if circuit.scores is None:
            raise BadInput(
                f"The circuit of {task} on {model} has no scores.", "Trace it, or submit circuits by size."
            )
        written.append(write(circuit, Path(folder) / f"{task}_{model}" / f"importances{suffix}"))
    return written


def read_importances(folder: str | os.PathLike[str]) -> dict[tuple[str, str], Circuit]:
    """Read every TASK_MODEL/importances of a submission; BadFormat where there is none."""
    circuits: dict[tuple[str, str], Circuit] = {}
    root = Path(folder)
    for place in sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []:
        match = _FOLDER.match(place.name)
        file = next((place / n for n in _NAMES if (place / n).is_file()), None)
        if match and file is not None:
            circuits[match["task"], match["model"]] = read(file)
    if not circuits:
        raise BadFormat(f"{root} holds no submission.", "It must hold TASK_MODEL/importances.json or .pt.")
    return circuits


def write_by_size(circuit: Circuit, folder: str | os.PathLike[str], suffix: str = ".json") -> list[Path]:
    """Write one pruned circuit for each of MIB's sizes below all edges: 1.json (0.1 %) to 9.json (50 %).

    Raises BadInput where the circuit has no scores.
    """
    if circuit.scores is None:
        raise BadInput("The circuit has no scores, so there is no order of edges.", "Trace it.")
    masks = circuits_by_size(circuit.scores, SHARES[:-1])
    return [write(circuit.with_edges(m), Path(folder) / f"{i}{suffix}") for i, m in enumerate(masks, 1)]


def read_by_size(folder: str | os.PathLike[str]) -> list[Circuit]:
    """Read a series of circuits in the order of their numbers; BadFormat where there is none."""
    files = [p for p in Path(folder).glob("*") if p.suffix in (".json", ".pt") and p.stem.isdigit()]
    if not files:
        raise BadFormat(f"{folder} holds no series of circuits.", "Its files must be 1.json, 2.json, ...")
    return [read(p) for p in sorted(files, key=lambda p: int(p.stem))]
