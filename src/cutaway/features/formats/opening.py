"""Dictionaries from files of any known format, and to files of those that can be written."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cutaway.errors import BadInput, did_you_mean
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format, recognised

#: The modules that hold rows of the table, one for each family of formats.
FAMILIES = (
    "own", "saelens", "gemma_scope", "gemma_clt", "dictionary_learning", "sparsify", "openai", "circuit_tracer",
    "llamascopium", "llama_scope", "torch_files", "clt_forge", "crosslayer_transcoder", "crosslayer_coding", "crosscoders",
    "transcoder_circuits", "prisma", "temporal", "lorsa",
)  # fmt: skip


@cache
def formats() -> dict[str, Format]:
    """Every format by its name, in the order of `FAMILIES`.

    >>> "saelens" in formats(), len(formats()) >= 24
    (True, True)
    """

    def rows() -> Iterator[Format]:
        for family in FAMILIES:
            yield from importlib.import_module(f"cutaway.features.formats.{family}").FORMATS

    return {row.name: row for row in rows()}


def read(path: str | Path, *, format: str | None = None, **given: Any) -> Dictionary:
    """The dictionary in a folder or file, recognised by its files and keys; tensors are mapped, and read when they are used.

    format: which one (a name of `formats()`), where files could be of several. given: what the format cannot say by
    itself, such as k of a file that does not record it.

    Raises `NotFound`, `BadFormat` (with the reason and what to do), `CorruptFile`, `UnsafeFile`, `UnknownOption`.
    """
    source = DictionaryFiles.of(path)
    return recognised(source, formats(), format).opened(source, **given)


def write(dictionary: Dictionary, path: str | Path, *, format: str = "saelens") -> Path:
    """Write a dictionary to a new folder in a format that others read, whole or not at all; gives the folder.

    Raises `BadInput` for a format that is only read, or that cannot hold this dictionary; `SaveFailed`.
    """
    table = formats()
    if format not in table:
        raise BadInput(f"There is no format {format!r}.", did_you_mean(format, table))
    writer = table[format].write
    if writer is None:
        names = ", ".join(name for name, row in table.items() if row.write is not None)
        raise BadInput(f"{format} is read here, not written.", f"Written are {names}.")
    writer(dictionary, Path(path))
    return Path(path)
