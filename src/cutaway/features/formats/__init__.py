"""Formats of dictionaries: recognised by files and keys, read lazily, written whole or not at all."""

from cutaway.features.formats.opening import formats, read, write
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format, recognised

__all__ = ["Format", "DictionaryFiles", "formats", "read", "recognised", "write"]
