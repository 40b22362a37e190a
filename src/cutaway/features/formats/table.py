"""The table of formats: how each is recognised, read and written. Recognised by its files and keys, never by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutaway.errors import BadFormat, UnknownOption, did_you_mean
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats.source import DictionaryFiles


@dataclass(frozen=True)
class Format:
    """One row.

    Attributes:
        name: what it is called here, and with `format=`.
        says: whose it is, in words.
        known: is this a source of that format?
        read: the dictionary that a source holds; it is called as read(source, **given) with what `takes` names. Call
            `opened`, which checks this.
        write: writes a dictionary to a folder, and raises `BadInput` for one that the format cannot hold; None where it is
            only read.
        refuses: why it cannot be read, and what to do; "" for formats that are read.
        takes: what a file of this format may not say and the caller may, by keyword, each with what it means; e.g. Qwen
            Scope's k, which stands only in the name of its repository. A reader that needs one and is not given it refuses.
    """

    name: str
    says: str
    known: Callable[[DictionaryFiles], bool]
    read: Callable[..., Dictionary]
    write: Callable[[Dictionary, Path], None] | None = None
    refuses: str = ""
    takes: Mapping[str, str] = field(default_factory=dict)

    def opened(self, source: DictionaryFiles, **given: Any) -> Dictionary:
        """The dictionary of a source, and what the caller knows of it; None counts as not given.

        Raises `UnknownOption` for a keyword that this format does not take, `BadFormat` where settings or tensors are of
        no use, and what reading raises.
        """
        known = {name: value for name, value in given.items() if value is not None}
        for name in known:
            if name not in self.takes:
                means = ", ".join(f"{key} ({what})" for key, what in self.takes.items())
                raise UnknownOption(
                    f"{name}= says nothing about a dictionary of {self.says}.",
                    f"It takes {means}." if means else "Leave it out; its files say everything.",
                )
        try:
            return self.read(source, **known)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
            raise BadFormat(
                f"{source.path} cannot be read as {self.says}: {str(error).splitlines()[0] if str(error) else error!r}.",
                "A setting or a tensor of it may be damaged; fetch it again.",
            ) from error


def recognised(source: DictionaryFiles, formats: dict[str, Format], asked: str | None = None) -> Format:
    """The format of a source, or the one that is asked for.

    Raises `BadFormat` where none fits (with what was found), or more than one does (with their names).
    """
    if asked is not None:
        if asked not in formats:
            raise BadFormat(f"There is no format {asked!r}.", did_you_mean(asked, formats))
        return formats[asked]
    fitting = [row for row in formats.values() if row.known(source)]
    if not fitting:
        first = source.tensor_files[0]
        keys = ", ".join(sorted(source.keys(first))[:8])
        folders = [*source.path.glob("*/*.safetensors")] if source.path.is_dir() else []
        inside = sorted({str(file.parent) for file in folders})
        if inside:
            raise BadFormat(
                f"{source.path} is no dictionary, but a folder with {len(inside)} in it.",
                f"Give one of them: {', '.join(inside[:4])}{', ...' if len(inside) > 4 else ''}.",
            )
        raise BadFormat(
            f"{source.path} is of no known format: {first} holds {keys}.",
            f"Known are {', '.join(formats)}; say which with format=.",
        )
    if len(fitting) > 1:
        names = " and ".join(row.name for row in fitting)
        raise BadFormat(f"{source.path} may be {names}.", "Say which with format=.")
    return fitting[0]
