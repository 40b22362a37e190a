"""Files of contrast pairs and of facts, read by what they hold; and our own format, written."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators.facts import FactTable
from cutaway.behaviours.metrics import METRICS
from cutaway.behaviours.rows import FIELDS, Header, from_rows
from cutaway.behaviours.tables import fact_table, indirect_object_rows
from cutaway.errors import BadBehaviour, BadFormat, BadInput, NotFound
from cutaway.results import atomic_write, listed, to_json
from cutaway.results.values import fits, in_words, short

if TYPE_CHECKING:
    from cutaway.network import Network

Rows = list[dict[str, Any]]
#: What the first line of our own files may say.
_HEADER: dict[str, Any] = {
    "behaviour": str, "metric": str, "seed": int, "part": str, "split_by": str, "notes": Sequence[str],
    "chat": bool, "system": str, "templated": bool, "paired": bool,
}  # fmt: skip
_PREFIX_PAIRS = {
    "clean_prefix": "clean", "patch_prefix": "corrupted", "clean_answer": "right", "patch_answer": "wrong",
}  # fmt: skip


def read(
    path: str | os.PathLike[str], net: Network, n: int | None = None, seed: int = 0, aligned: bool = False,
    chat: bool = False, system: str | None = None,
) -> Behaviour | FactTable:  # fmt: skip
    """The behaviour in a file (.jsonl, .json, .csv), or its table of facts (for `generators.facts`).

    At most n pairs are drawn at random; with `aligned` only such as have as many clean as corrupted tokens. With `chat`, or
    where something is given for `system` to say, prompts go through the network's chat template. Raises NotFound
    when there is no such file, BadFormat when its content is none of the formats of docs/behaviours.md.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFound(f"There is no file {file}.", "Give the path of a .jsonl, .json or .csv file.")
    text = _text(file)
    if not text.strip():
        raise BadBehaviour(f"{file} is empty.", "Give at least one contrast pair.")
    header, whole = Header(file.stem), None if file.suffix == ".csv" else _whole(text)
    if file.suffix == ".csv":
        rows = _csv_rows(text)
    elif whole is None:
        header, rows = _lines(file, text)
    elif isinstance(whole, dict) and "prompts" in whole:
        rows = auto_circuit_rows(whole, file.stem)
    elif not (rows := indirect_object_rows(whole)):
        rows = whole if isinstance(whole, list) else []
        if not rows or not all(isinstance(row, dict) and "clean" in row for row in rows):
            return fact_table(whole, file.stem, seed)
    return from_rows(net, rows, spoken(header, chat, system), n, seed, aligned)


def spoken(header: Header, chat: bool, system: str | None) -> Header:
    """What is said of all rows, with whether they go through the chat template, and what the system says there."""
    says = header.system if system is None else system
    return replace(header, chat=header.chat or chat or says is not None, system=says)


def _text(file: Path) -> str:
    """What a file holds, every line end and odd separator as it is; BadFormat where it is no UTF-8."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFormat(f"{file} is no text in UTF-8: {error}.", "Save it as UTF-8.") from error
    except OSError as error:
        raise BadFormat(f"{file} cannot be read: {error}.", "Check its permissions.") from error


def _whole(text: str) -> Any:
    """The one JSON value that a text is, or None when it is not one (or a single line of JSON lines)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_line = isinstance(value, dict) and value.keys() & {"clean", "clean_prefix", "behaviour"}
    return None if is_line else value


def _lines(file: Path, text: str) -> tuple[Header, Rows]:
    """Header and rows of JSON lines: ours, or subject-verb pairs (`clean_prefix`, `patch_prefix`, ...)."""
    rows, header = [], Header(file.stem)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadFormat(
                f"Line {number} of {file} is not JSON: {error}.", "Write one JSON object a line."
            ) from error
        if not isinstance(row, dict):
            raise BadFormat(f"Line {number} of {file} is not a JSON object.", "Write one JSON object a line.")
        if "behaviour" in row and not rows:
            header = _header(file, row)
        elif _PREFIX_PAIRS.keys() <= row.keys():
            ours = {name: row[theirs] for theirs, name in _PREFIX_PAIRS.items()}
            rows.append(ours | {"template": row.get("case", "")})
        else:
            rows.append(row)
    return header, rows


def _header(file: Path, row: Mapping[str, Any]) -> Header:
    for key, hint in _HEADER.items():
        if key in row and not fits(row[key], hint):
            raise BadFormat(
                f"The first line of {file} says {key}={short(row[key])}.", f"Give {in_words(hint)}."
            )
    name = row.get("metric", "logit_diff")
    if name not in METRICS:
        raise BadFormat(
            f"The metric {name!r} of {file} is not one of ours.", f"Use one of {', '.join(METRICS)}."
        )
    part, by = str(row.get("part", "all")), row.get("split_by", "example")
    if part not in ("all", "discovery", "held-out") or by not in ("example", "template"):
        raise BadFormat(f"{file} says part {part!r}, split_by {by!r}.", "Leave them out of the first line.")
    notes = tuple(str(note) for note in row.get("notes", ()))
    spoken_ = bool(row.get("chat", False)), row.get("system"), bool(row.get("templated", False))
    paired = bool(row.get("paired", True))
    return Header(
        str(row["behaviour"]), METRICS[name], int(row.get("seed", 0)), notes, part, by, *spoken_, paired
    )


def _csv_rows(text: str) -> Rows:
    """Rows of a CSV: `clean,corrupted,right,wrong[,template][,answer_pos][,span:NAME]`; several answers as `a|b`."""
    try:
        return [_flat(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except csv.Error as error:
        raise BadFormat(f"This is no CSV: {error}.", "Write it as .jsonl.") from error


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table with one cell for each field, as `from_rows` takes it."""
    out: dict[str, Any] = {}
    spans: dict[str, Any] = {}
    for key, value in row.items():
        if value is None or value != value:
            continue
        if key is not None and str(key).startswith("span:"):
            spans[str(key).removeprefix("span:")] = value
        elif key in ("right", "wrong") and isinstance(value, str):
            out[key] = [answer for answer in value.split("|") if answer]
        elif key == "answer_pos":
            out[key] = _number(value)
        elif key == "held":
            out[key] = str(value).strip().lower() in ("1", "true", "yes")
        else:
            out[str(key)] = value
    return out | ({"spans": spans} if spans else {})


def _number(cell: Any) -> Any:
    """The whole number that a cell says; the cell itself where it says none."""
    try:
        number = int(cell)
    except (TypeError, ValueError, OverflowError):
        return cell
    return number if isinstance(cell, str) or number == cell else cell


def auto_circuit_rows(data: Mapping[str, Any], name: str) -> Rows:
    """Rows of auto-circuit's JSON: `{"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}, ...]}`."""
    rows = []
    if not fits(data["prompts"], Sequence[Mapping[str, Any]]):
        raise BadFormat(f"The prompts of {name!r} are no list of objects.", "Give clean, corrupt, answers.")
    for number, prompt in enumerate(data["prompts"], 1):
        missing = {"clean", "corrupt", "answers"} - set(prompt)
        if missing:
            raise BadFormat(
                f"Prompt {number} of {name!r} has no {sorted(missing)[0]!r}.", "Give clean, corrupt, answers."
            )
        row = {"clean": prompt["clean"], "corrupted": prompt["corrupt"], "right": prompt["answers"]}
        rows.append(row | {"wrong": prompt.get("wrong_answers", [])})
    return rows


def from_frame(
    frame: pd.DataFrame, net: Network, name: str = "frame", n: int | None = None, seed: int = 0, aligned: bool = False,
    chat: bool = False, system: str | None = None,
) -> Behaviour:  # fmt: skip
    """A behaviour from a pandas frame with the columns of the CSV format; answers may also be lists."""
    known = [c for c in frame.columns if c in FIELDS or str(c).startswith("span:")]
    if "clean" not in known or ("corrupted" in known and "right" not in known):
        raise BadFormat(
            f"The frame {name!r} has the columns {', '.join(map(str, frame.columns)) or '(none)'}.",
            f"It needs clean, corrupted and right (a plain list of prompts: clean); it may have {', '.join(FIELDS[3:])} "
            "and span:NAME.",
        )
    names, columns = list(map(str, known)), (frame[str(c)].tolist() for c in known)
    rows = [_flat(dict(zip(names, cells, strict=True))) for cells in zip(*columns, strict=True)]
    return from_rows(net, rows, spoken(Header(name), chat, system), n, seed, aligned)


def from_dataset(
    data: Any, net: Network, name: str = "dataset", n: int | None = None, seed: int = 0, aligned: bool = False,
    chat: bool = False, system: str | None = None,
) -> Behaviour:  # fmt: skip
    """A behaviour from a Hugging Face dataset (or anything that gives dictionaries when iterated over)."""
    if isinstance(data, Mapping):
        raise BadInput(
            f"{name!r} is a dictionary of splits: {', '.join(map(str, data))}.",
            "Choose one, e.g. data['train'].",
        )
    rows = listed(data, "The pairs")
    if rows and all(isinstance(row, str) for row in rows):
        rows = [{"clean": text} for text in rows]
    if odd := [row for row in rows if not isinstance(row, Mapping)]:
        raise BadInput(f"{name!r} holds {short(odd[0])}.", "Give dictionaries, or the name of a behaviour.")
    return from_frame(pd.DataFrame(rows), net, name, n, seed, aligned, chat, system)


def write(behaviour: Behaviour, path: str | os.PathLike[str]) -> Path:
    """Write a behaviour to .jsonl (everything), .csv or .json (auto-circuit's: prompts and answers only), atomically.

    A behaviour made of token ids (such as induction) can be written to .jsonl only. Raises BadFormat for other endings.
    """
    file = Path(path)
    makers = {".jsonl": _as_lines, ".csv": _as_csv, ".json": _as_auto_circuit}
    if file.suffix not in makers:
        raise BadFormat(f"{file.name!r} names no known format.", f"Use one of {', '.join(makers)}.")
    if not behaviour.from_text and file.suffix != ".jsonl":
        raise BadFormat(f"{behaviour.name!r} is made of token ids.", "Write it as .jsonl.")
    return atomic_write(file, makers[file.suffix](behaviour))


def _as_lines(b: Behaviour) -> str:
    head = (
        {
            "behaviour": b.name,
            "metric": b.metric.name,
            "seed": b.seed,
            "part": b.part,
            "split_by": b.split_by,
        }
        | ({"templated": True} if b.templated else {})
        | ({} if b.paired else {"paired": False})
    )
    if b.metric.name not in METRICS:
        raise BadFormat(
            f"The metric {b.metric.name!r} is your own and has no place in a file.", "Use with_metric first."
        )
    lines = [to_json(head | {"notes": list(b.notes)}, indent=None)]
    for i in range(b.n):
        columns = (b.clean, b.corrupted, b.right_text, b.wrong_text)
        columns = columns if b.from_text else (b.clean_ids, b.corrupted_ids, b.right, b.wrong)
        row: dict[str, Any] = {name: column[i] for name, column in zip(FIELDS[:4], columns, strict=True)}
        row |= {"template": b.template[i], "answer_pos": b.answer_pos[i], "held": b.held[i]}
        row |= {"clean_ids": b.clean_ids[i]} if b.from_text else {}
        lines.append(to_json(row | {"token_spans": {name: s[i] for name, s in b.spans.items()}}, indent=None))
    return "\n".join(lines) + "\n"


def _as_csv(b: Behaviour) -> str:
    if any("|" in answer for answers in (*b.right_text, *b.wrong_text) for answer in answers):
        raise BadFormat("An answer contains '|', which separates answers in a CSV.", "Write it as .jsonl.")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["clean", "corrupted", "right", "wrong", "template", "answer_pos", "held"])
    for i in range(b.n):
        answers = ("|".join(b.right_text[i]), "|".join(b.wrong_text[i]))
        writer.writerow([b.clean[i], b.corrupted[i], *answers, b.template[i], b.answer_pos[i], b.held[i]])
    return out.getvalue()


def _as_auto_circuit(b: Behaviour) -> str:
    columns = zip(b.clean, b.corrupted, b.right_text, b.wrong_text, strict=True)
    names = ("clean", "corrupt", "answers", "wrong_answers")
    return to_json({"prompts": [dict(zip(names, cells, strict=True)) for cells in columns]})
