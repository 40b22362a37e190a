"""One door to the formats: by suffix and content."""

from __future__ import annotations

import os
from pathlib import Path

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.formats import eap
from cutaway.errors import BadFormat, NotFound

#: What reads and writes a graph file, by its suffix.
_READERS = {".json": eap.read_json, ".pt": eap.read_pt}
_WRITERS = {".json": eap.write_json, ".pt": eap.write_pt}


def read(path: str | os.PathLike[str]) -> Circuit:
    """Read a circuit: a folder that Cutaway saved, a `.json` or a `.pt` graph file of EAP-IG or MIB.

    Raises NotFound where there is nothing, BadFormat where it is none of these, UnsafeFile where reading would run code.
    """
    target = Path(path)
    if not target.exists():
        raise NotFound(f"There is no file {target}.", "Give a folder, a .json or a .pt file.")
    if target.is_dir():
        return Circuit.load(target)
    if target.suffix in _READERS:
        return _READERS[target.suffix](target)
    raise BadFormat(f"{target} is of a type that is not read.", "Give a folder, a .json or a .pt file.")


def write(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write a circuit in the format of the suffix: `.json`, `.pt`, or a folder in Cutaway's own."""
    return _WRITERS.get(Path(path).suffix, Circuit.save)(circuit, Path(path))
