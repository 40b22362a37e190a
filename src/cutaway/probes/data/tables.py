"""From a file, a frame, a dataset or plain lists to `ProbeData`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cutaway.errors import BadFormat, BadInput, NotFound, nearest, require_known
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.labels import LABEL_KINDS, Kind, encode_labels
from cutaway.results import listed, strict
from cutaway.results.values import within

if TYPE_CHECKING:
    from cutaway.network import Network

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_TEXTS = ("text", "prompt", "sentence", "clean", "input", "ids")

_KEYWORDS = ("columns", "kind", "net", "per_token", "n", "seed")


@dataclass(frozen=True)
class Columns:
    """Which column of a table says what. Empty: there is none.

    Attributes:
        label: the label; a list of labels per row with `per_token`, one for each of the network's tokens.
        text: the text, or token ids; empty takes the first there is of text, prompt, sentence, clean, input, ids.
        span: the word (or [word, which occurrence], or a token range [a, b]) that the label is about.
        group, source, type, also: see `ProbeData`.
    """

    label: str = "label"
    text: str = ""
    span: str = ""
    group: str = ""
    source: str = ""
    type: str = ""
    also: tuple[str, ...] = ()


@strict
def probe_data(
    source: Any,
    *,
    columns: Columns | str = "label",
    kind: Kind | None = None,
    net: Network | None = None,
    per_token: bool = False,
    n: int | None = None,
    seed: int = 0,
    **more: Any,
) -> ProbeData:
    """Labelled examples from a `.csv`, `.json` or `.jsonl` file, a pandas frame, a Hugging Face dataset, or a list of
    (text, label) pairs or mappings.

    Args:
        source: where they come from.
        columns: a `Columns`, or the name of the label's column, with `text=`, `group=`, `span=`, ...
            beside it; `label=` names the label's column, too.
        kind: binary, multiclass, continuous or multilabel; found from the labels where not given.
        net: needed for spans named by words.
        per_token: each label is a list, one entry per token of its input (None: no label there).
        n: at most so many rows, drawn with `seed`.

    Raises `NotFound` for a missing file or column, `BadFormat` for a file that cannot be read, `BadInput` for labels
    that are missing, of one class, or not of their kind, `UnknownOption` for a misspelt name.

    >>> print(probe_data([("it is warm", "yes"), ("it is cold", "no")]))
    label: 2 examples in 2 inputs, binary (no 1, yes 1)
    """
    names = _columns(columns, more)
    if kind is not None and kind not in LABEL_KINDS:
        raise BadInput(f"There are no labels of kind {kind!r}.", f"Use one of {', '.join(LABEL_KINDS)}.")
    if per_token and names.span:
        raise BadInput("Labels are given for each token and for spans at once.", "Use per_token, or a span.")
    frame = _frame(source, names)
    if n is not None:
        within("n", n, (1, math.inf))
    if n is not None and n < len(frame):
        chosen = np.sort(np.random.default_rng(seed).choice(len(frame), n, replace=False))
        frame = frame.iloc[chosen].reset_index(drop=True)
    text = names.text or next((c for c in _TEXTS if c in frame), "")
    for wanted in (text, names.label, names.span, names.group, names.source, names.type, *names.also):
        if wanted and wanted not in frame:
            offers = ", ".join(map(repr, nearest(wanted, map(str, frame.columns)) or map(str, frame.columns)))
            remedy = f"There is {offers}."
            if len(frame.columns) == 1 and any(mark in str(frame.columns[0]) for mark in ";\t"):
                remedy += " Columns must be parted by commas."
            raise NotFound(f"There is no column {wanted!r}.", remedy)
    if not text:
        columns_there = ", ".join(map(str, frame.columns))
        raise NotFound(f"No column holds texts: there is {columns_there}.", "Name it: text='...'.")
    inputs = [_input(value, row) for row, value in enumerate(frame[text])]
    values = [_plain(v) for v in frame[names.label]]
    rows, spans = np.arange(len(frame)), None
    if per_token:
        rows, spans, values = _per_token(values, _lengths(net, inputs))
    elif names.span:
        spans = tuple(_span(net, inputs[i], _plain(v), i) for i, v in enumerate(frame[names.span]))
    labels, label_kind, classes = encode_labels(values, names.label, kind)

    def column(name: str) -> tuple[Any, ...] | None:
        if not name:
            return None
        cells = [_plain(frame[name].iloc[r]) for r in rows]
        if several := [cell for cell in cells if isinstance(cell, list | dict | set)]:
            what = f"The column {name!r} holds {several[0]!r:.40}."
            raise BadInput(what, "Give one text or number per row there.")
        lacking = sum(cell is None or cell != cell or cell == "" for cell in cells)
        if lacking and name in (names.group, names.source):
            remedy = "Say for every row what it belongs to; a row of its own gets a name of its own."
            raise BadInput(f"{lacking} of {len(cells)} rows have no entry in the column {name!r}.", remedy)
        return tuple(cells)

    return ProbeData(
        inputs, labels, label_kind, classes, names.label, rows, spans,
        column(names.group), column(names.source), column(names.type),
        {a: np.asarray(column(a)) for a in names.also},
    )  # fmt: skip


def _columns(columns: Columns | str, more: Mapping[str, Any]) -> Columns:
    known = [f.name for f in fields(Columns)]
    require_known(more, [*known, *_KEYWORDS], "probe_data")
    if isinstance(columns, Columns):
        return replace(columns, **more)
    names = {"label": columns, **more}
    if isinstance(names.get("also"), str):
        names["also"] = (names["also"],)
    return Columns(**names)


def _frame(source: Any, names: Columns) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        frame = source.reset_index(drop=True)
    elif isinstance(source, str | os.PathLike):
        frame = _file(Path(source))
    elif hasattr(source, "to_pandas"):
        frame = source.to_pandas()
    elif isinstance(source, Sequence) and source and all(isinstance(r, Mapping) for r in source):
        frame = pd.DataFrame(list(source))
    elif isinstance(source, Sequence) and all(isinstance(r, tuple | list) and len(r) == 2 for r in source):
        texts, labels = [r[0] for r in source], [r[1] for r in source]
        frame = pd.DataFrame({"text": texts, names.label: pd.Series(labels, dtype=object)})
    else:
        frame = _rows(source)
    if not len(frame):
        raise BadInput("There are no rows.", "Give at least a few labelled texts.")
    return frame


def _rows(source: Any) -> pd.DataFrame:
    """What else can be gone through; an array without axes has an `__iter__` and cannot."""
    try:
        if isinstance(source, bytes):
            raise TypeError
        return pd.DataFrame(listed(source, "The rows"))
    except (TypeError, ValueError):
        remedy = "Give a file (.csv, .json, .jsonl), a frame, a dataset, or a list of (text, label)."
        raise BadInput(f"A {type(source).__name__} is no source of labelled texts.", remedy) from None


def _file(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", "Give a .csv, .json or .jsonl file.")
    try:
        if path.suffix == ".csv":
            return _table(path)
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".jsonl", ".json"):
            try:
                rows = json.loads(text)
            except ValueError:
                rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            return pd.DataFrame(rows if isinstance(rows, list) else [rows])
    except (ValueError, UnicodeDecodeError, OSError) as error:
        utf8 = isinstance(error, UnicodeDecodeError)
        remedy = "Save it as UTF-8." if utf8 else "Give one object a line, or a table."
        raise BadFormat(f"{path} cannot be read: {error}", remedy) from error
    raise BadFormat(f"{path} is of a type that is not read.", "Give a .csv, .json or .jsonl file.")


def _table(path: Path) -> pd.DataFrame:
    """A CSV file with its cells as they are written: a column holds numbers only if each cell is written as one (007 is
    none), and only an empty cell is missing."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return pd.DataFrame({name: _cells(str(name), [str(c) for c in frame[name]]) for name in frame.columns})


def _cells(name: str, cells: list[str]) -> list[Any]:
    there = [c for c in cells if c]
    if name in _TEXTS or not there:
        return cells
    if all(_NUMBER.fullmatch(c) for c in there):
        whole = all(c.lstrip("+-").isdigit() for c in there)
        return [(int(c) if whole else float(c)) if c else None for c in cells]
    return cells


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _input(value: Any, row: int) -> Any:
    value = _plain(value)
    if isinstance(value, str) and value:
        return value
    ids = list(value) if isinstance(value, list | tuple) else []
    if ids and all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        return ids
    remedy = "Give a text that is not empty, or a list of token ids."
    raise BadInput(f"The text of row {row} is {value!r:.60}.", remedy)


def _lengths(net: Network | None, inputs: list[Any]) -> list[int] | None:
    """How many tokens each input has; None where only the network could tell."""
    if all(isinstance(i, list) for i in inputs):
        return [len(i) for i in inputs]
    if net is None or net.tokenizer is None:
        return None
    tokens = net.encode(inputs)
    return [len(tokens.row_ids(r)) for r in range(tokens.n)]


def _per_token(
    values: list[Any], lengths: list[int] | None
) -> tuple[np.ndarray, tuple[tuple[int, int], ...], list[Any]]:
    """Rows, one-token spans and labels of every labelled token."""
    rows, spans, labels = [], [], []
    for row, value in enumerate(values):
        if not isinstance(value, list | tuple):
            what = f"The label of row {row} is {value!r:.40}, not a list of one label per token."
            raise BadInput(what, "Leave per_token off, or give a list for each text.")
        if lengths is not None and len(value) != lengths[row]:
            raise BadInput(
                f"Row {row} has {len(value)} labels for {lengths[row]} tokens.",
                "Give one for each of the network's tokens (None where there is none); net.token_strings shows them.",
            )
        for position, label in enumerate(value):
            if label is not None and label == label:
                rows.append(row)
                spans.append((position, position + 1))
                labels.append(label)
    return np.array(rows, dtype=int), tuple(spans), labels


def _span(net: Network | None, text: Any, value: Any, row: int) -> tuple[int, int]:
    """A token range: as given, or of a word (its first occurrence, or [word, which])."""
    two = isinstance(value, list | tuple) and len(value) == 2
    if two and all(isinstance(v, int) for v in value):
        return int(value[0]), int(value[1])
    word, count = (value[0], int(value[1])) if two else (value, 1)
    if not isinstance(word, str) or not isinstance(text, str):
        remedy = "Give a word of the text, or a token range [a, b]."
        raise BadInput(f"The span of row {row} is {value!r:.60}.", remedy)
    if net is None:
        raise BadInput("Spans named by words need the network's tokenizer.", "Pass net=...")
    from cutaway.behaviours.tokenizing import encode, token_spans

    start = -1
    for _ in range(count):
        start = text.find(word, start + 1)
        if start < 0:
            raise BadInput(f"{word!r} does not stand {count} times in row {row}.", "Name words of the text.")
    (ids,) = encode(net, [text])
    return token_spans(net, text, ids, {"span": (start, start + len(word))})["span"]
