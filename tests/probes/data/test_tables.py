"""From files, frames and lists to labelled examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.errors import BadFormat, BadInput, NotFound
from cutaway.probes import (
    Columns,
    probe_data,
)


def test_files_frames_and_datasets(tmp_path: Path) -> None:
    rows = [{"text": f"word {i}", "label": "ab"[i % 2], "group": i // 2, "length": i} for i in range(12)]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    columns = Columns("label", group="group", also=("length",))
    read = [
        probe_data(s, columns=columns)
        for s in (frame, rows, tmp_path / "a.csv", tmp_path / "a.jsonl", str(tmp_path / "a.json"))
    ]
    assert len({d.hash for d in read}) == 1
    assert read[0].classes == ("a", "b")
    assert read[0].groups == tuple(i // 2 for i in range(12))
    assert probe_data(frame, columns="length").kind == "continuous"
    assert probe_data(frame, columns="label", n=5).n == 5
    datasets = pytest.importorskip("datasets")
    assert probe_data(datasets.Dataset.from_pandas(frame), columns=columns).hash == read[0].hash
    with pytest.raises(NotFound, match="no column 'lable'"):
        probe_data(frame, columns="lable")
    with pytest.raises(NotFound, match="no file"):
        probe_data(tmp_path / "none.csv")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BadFormat):
        probe_data(tmp_path / "bad.json")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BadFormat, match="type that is not read"):
        probe_data(tmp_path / "a.txt")


def test_kinds_of_labels_are_found() -> None:
    assert probe_data([("a", True), ("b", False)]).kind == "binary"
    assert probe_data([("a", 0.5), ("b", 1.5)]).kind == "continuous"
    assert probe_data([("a", "x"), ("b", "y"), ("c", "z")]).kind == "multiclass"
    many = probe_data([("a", ["x", "y"]), ("b", ["y"]), ("c", ["x"])])
    assert many.kind == "multilabel"
    assert many.labels.tolist() == [[1, 1], [0, 1], [1, 0]]
    per_token = probe_data([([5, 6, 7], ["N", None, "V"]), ([5, 6], ["N", "V"])], per_token=True)
    assert per_token.n == 4
    assert per_token.spans == ((0, 1), (2, 3), (0, 1), (1, 2))


def test_spans_by_word(tiny_gpt2: GPT2LMHeadModel) -> None:
    net = cutaway.open("zoo:tales")
    rows = [
        {"text": "Mary was sad because", "label": 1, "word": "Mary"},
        {"text": "Tom was sad because", "label": 0, "word": "Tom"},
    ]
    data = probe_data(rows, span="word", net=net)
    assert data.spans == ((0, 1), (0, 1)) or all(b - a >= 1 for a, b in data.spans or ())
    with pytest.raises(BadInput, match="does not stand"):
        probe_data([{**rows[0], "word": "Zed"}, rows[1]], span="word", net=net)
    with pytest.raises(BadInput, match="tokenizer"):
        probe_data(rows, span="word")


@pytest.mark.parametrize(
    ("text", "label", "kind", "classes"),
    [
        ("text,l\na b,NA\nc d,None\ne f,NA\n", "l", "binary", ("NA", "None")),
        ("text,l\na b,01\nc d,1\ne f,01\n", "l", "binary", ("01", "1")),
        ("text,l\na b,TRUE\nc d,FALSE\n", "l", "binary", ("FALSE", "TRUE")),
        ("\ufefftext,l\n5,0.5\n6,1.5\n", "l", "continuous", ()),
    ],
)
def test_cells_of_a_csv_file_are_what_is_written(
    tmp_path: Path, text: str, label: str, kind: str, classes: tuple[str, ...]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    data = probe_data(path, columns=label)
    assert (data.kind, data.classes) == (kind, classes)


def test_what_could_mean_two_things_is_refused(net: cutaway.Network, tmp_path: Path) -> None:
    two = [("a", [1, 0]), ("b", [0, 1]), ("c", [1, 1])]
    with pytest.raises(BadInput, match="rows of 0 and 1"):
        probe_data(two)
    with pytest.raises(BadInput, match="no list of labels"):
        probe_data([("a", ["x"]), ("b", "y")])
    with pytest.raises(BadInput, match="2 labels for 3 tokens"):
        probe_data([([1, 2, 3], [0, 1])], per_token=True)
    with pytest.raises(BadInput, match="no option 'grup'"):
        probe_data([("a", 0), ("b", 1)], grup="x")
    rows = [{"text": "a", "label": 0, "g": "x"}, {"text": "b", "label": 1, "g": None}]
    with pytest.raises(BadInput, match="no entry in the column 'g'"):
        probe_data(rows, group="g")
    with pytest.raises(BadInput, match="kind 'bogus'"):
        probe_data([("a", 0), ("b", 1)], kind="bogus")  # type: ignore[arg-type]
    for nothing in (np.array(3), b"a 0", 3.0):
        with pytest.raises(BadInput, match="no source of labelled texts"):
            probe_data(nothing)
    path = tmp_path / "t.csv"
    path.write_text("text;label\na;1\n")
    with pytest.raises(NotFound, match="parted by commas"):
        probe_data(path)
