"""Circuits in files: Cutaway's own folders, the graph files of EAP-IG and MIB, MIB's submission folders."""

from cutaway.circuits.formats.reading import read, write

__all__ = ["read", "write"]
