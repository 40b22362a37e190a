"""Sets of texts as rows of token ids: lists, files, frames and datasets, read in one way."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cutaway.errors import BadFormat, BadInput, NotFound, did_you_mean, nearest
from cutaway.network.core import Core
from cutaway.network.inputs import Tokens
from cutaway.results import listed

#: Texts, rows of token ids, a file (.txt: one text a line; .csv, .json, .jsonl: a column), a frame or a dataset.
TextSet = Any
_FILES = (".txt", ".csv", ".json", ".jsonl")


def texts_in(source: TextSet, column: str = "text") -> list[Any]:
    """The texts, or rows of token ids, of a set: as they are, without a look at a network.

    source: a list; a `Path` to a file of texts (.txt: one a line, empty lines left out; .csv, .json, .jsonl: the column); a
    pandas frame, a Hugging Face dataset or a list of mappings with that column.

    Raises NotFound for a missing file or column, BadFormat for a file that cannot be read, BadInput for an empty set and for
    what is none.

    >>> texts_in(["one", "two"])
    ['one', 'two']
    """
    if isinstance(source, Path):
        found = _from_file(source, column)
    elif isinstance(source, Tokens):
        found = [source.row_ids(i) for i in range(source.n)]
    elif torch.is_tensor(source):
        found = source.tolist() if source.ndim == 2 else [source.tolist()]
    elif hasattr(source, "columns") and hasattr(source, "to_dict"):
        found = _column(source.to_dict("records"), column, "the frame")
    elif isinstance(source, Mapping):
        raise BadInput(
            f"A mapping of {', '.join(map(str, source))[:60]} is no set of texts.",
            "Choose a split of the dataset, e.g. data['train'], or give a list.",
        )
    elif isinstance(source, str | bytes) or not isinstance(source, Iterable):
        raise BadInput(
            f"{source!r:.60} is no set of texts.",
            "Give a list of texts, or a file: pathlib.Path('texts.txt').",
        )
    else:
        rows = listed(source, "The texts")
        found = _column(rows, column, "the dataset") if rows and isinstance(rows[0], Mapping) else rows
    if not found:
        raise BadInput("The set holds no text.", "Give at least one.")
    return found


def _column(rows: Sequence[Any], column: str, where: str) -> list[Any]:
    texts = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping) or column not in row:
            there = list(map(str, row)) if isinstance(row, Mapping) else []
            raise NotFound(
                f"Row {number} of {where} has no column {column!r}.",
                did_you_mean(column, there)
                if there
                else "Give rows with that column, or name another: column='...'.",
            )
        texts.append(row[column])
    return texts


def lines_of(path: Path) -> Iterator[tuple[int, Any]]:
    """Each line of a file with its number from 1, one after the other: the text of a .txt, what a line of a .jsonl says.

    A blank line is an empty text in a .txt, and nothing in a .jsonl.

    Raises NotFound for a missing file, BadFormat for one that cannot be read.
    """
    _require_file(path)
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if path.suffix == ".txt":
                    yield number, line.rstrip("\n")
                elif line.strip():
                    yield number, json.loads(line)
    except (OSError, ValueError) as error:
        where = f"line {number} of {path}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise _unreadable(where, error) from error


def _from_file(path: Path, column: str) -> list[Any]:
    if path.suffix not in _FILES:
        raise BadFormat(f"{path.name} is no file of texts.", f"Give one that ends in {', '.join(_FILES)}.")
    if path.suffix == ".txt":
        return [line for _, line in lines_of(path) if line.strip()]
    if path.suffix == ".jsonl":
        whole = [item for _, item in lines_of(path)]
    else:
        _require_file(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
            if path.suffix == ".csv":
                return _column(list(csv.DictReader(text.splitlines(keepends=True))), column, path.name)
            whole = json.loads(text)
        except (OSError, ValueError, csv.Error) as error:
            raise _unreadable(str(path), error) from error
    if not isinstance(whole, list):
        raise BadFormat(f"{path} holds no list.", "Give a list of texts, or of objects with that column.")
    return whole if all(isinstance(item, str) for item in whole) else _column(whole, column, path.name)


def _require_file(path: Path) -> None:
    if not path.is_file():
        near = nearest(path.name, [file.name for file in path.absolute().parent.glob("*")])
        raise NotFound(f"There is no file {path}.", f"Did you mean {near[0]}?" if near else "Check the path.")


def _unreadable(where: str, error: Exception) -> BadFormat:
    return BadFormat(
        f"{where[0].upper()}{where[1:]} cannot be read: {error}.", "Save it as UTF-8, one text a line."
    )


def rows_in(net: Core, texts: Sequence[Any]) -> list[list[int]]:
    """The token ids of each text, as the network is given them, special tokens included.

    Raises BadInput for an empty text, TooLong for one beyond the context (it says which).
    """
    for number, text in enumerate(texts, 1):
        if text is None or (
            not isinstance(text, str) and not isinstance(text, Sequence) and not hasattr(text, "tolist")
        ):
            raise BadInput(f"Text {number} of the set is {text!r:.40}.", "Give text, or token ids.")
        if len(text) == 0 or (isinstance(text, str) and not text.strip()):
            raise BadInput(f"Text {number} of the set is empty.", "Leave it out.")
    rows = net.texts.tokens_of(list(texts))
    net.texts.check_length(max(map(len, rows)))
    return rows


def digest(texts: Sequence[Any]) -> str:
    """What tells a set of texts from others: SHA-256, hexadecimal."""
    found = hashlib.sha256()
    for text in texts:
        found.update(
            (text if isinstance(text, str) else repr(list(text))).encode("utf-8", "surrogatepass") + b"\0"
        )
    return found.hexdigest()


def batches(net: Core, rows: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The numbers of the rows in batches of at most so many: rows of like length together, and where this network does not
    bear padding, of one length.
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    pads = net.certificate.pads_right is not False and net.interface.masks or net.certificate.pads_right
    found: list[list[int]] = []
    for i in order:
        fits = found and len(found[-1]) < most
        if fits and (pads or len(rows[found[-1][-1]]) == len(rows[i])):
            found[-1].append(i)
        else:
            found.append([i])
    return found
