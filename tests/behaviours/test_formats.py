from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cutaway.behaviours import (
    Behaviour,
    FactTable,
    behaviour,
    custom,
    from_dataset,
    from_frame,
    generator,
    read,
    write,
)
from cutaway.behaviours.generators import agreement, facts, greater_than, indirect_object, induction, pronoun
from cutaway.errors import BadBehaviour, BadFormat, BadInput, NotFound, SaveFailed
from cutaway.network import Network

ROWS = [
    {"clean": "Mary was sad, so", "corrupted": "John was sad, so", "right": " she", "wrong": [" he", " it"]},
    {"clean": "John was late, so", "corrupted": "Mary was late, so", "right": [" he"], "wrong": " she"},
]


def lines(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def read_pairs(path: Path, net: Network, **more: int) -> Behaviour:
    found = read(path, net, **more)
    assert isinstance(found, Behaviour)
    return found


@pytest.mark.parametrize("make", [pronoun, agreement, indirect_object, greater_than, facts, induction])
def test_our_own_format_keeps_everything(
    gpt2_net: Network, tmp_path: Path, make: Callable[..., Behaviour]
) -> None:
    made = make(gpt2_net, n=24, seed=3)
    for part in (made, made.held_out):
        back = read_pairs(write(part, tmp_path / "b.jsonl"), gpt2_net)
        assert back.hash == part.hash
        assert back.split_by == part.split_by
        assert back.from_text == part.from_text
        if part.from_text:
            assert (back.clean, back.right_text) == (part.clean, part.right_text)


def test_another_tokenizer_reads_the_text_and_leaves_the_spans(
    gpt2_net: Network, stories: Network, tmp_path: Path
) -> None:
    made = pronoun(gpt2_net, n=12)
    back = read_pairs(write(made, tmp_path / "b.jsonl"), stories)
    assert back.clean == made.clean
    assert not back.spans
    assert stories.decode(list(back.right[0])).strip() == made.right_text[0][0].strip()


def test_hand_written_lines(gpt2_net: Network, tmp_path: Path) -> None:
    spans = [{"spans": {"name": "Mary", "end": ["s", 2]}}, {"spans": {"name": "John", "end": "so"}}]
    rows = [row | span | {"template": "t"} for row, span in zip(ROWS, spans, strict=True)]
    path = lines(tmp_path / "mine.jsonl", {"behaviour": "sad", "metric": "prob_diff", "seed": 4}, "", *rows)
    b = read_pairs(path, gpt2_net)
    assert (b.name, b.metric.name, b.n) == ("sad", "prob_diff", 2)
    assert b.wrong_text == ((" he", " it"), (" she",))
    assert [b.clean_ids[0][a:z] for a, z in (b.spans["name"][0],)] == [(gpt2_net.to_single_token("Mary"),)]
    assert b.spans["end"] == ((2, 3), (4, 5))
    ids = lines(tmp_path / "ids.jsonl", {"clean": [5, 6], "corrupted": [5, 7], "right": [8, 9], "wrong": 10})
    b = read_pairs(ids, gpt2_net)
    assert (b.right, b.wrong, b.from_text) == (((8, 9),), ((10,),), False)


def test_a_network_without_tokenizer_reads_ids_only(wordless: Network, tmp_path: Path) -> None:
    row = {"clean": [5, 6], "corrupted": [5, 7], "right": 8, "wrong": 10, "token_spans": {"x": [0, 1]}}
    b = read_pairs(lines(tmp_path / "ids.jsonl", row), wordless)
    assert b.spans == {"x": ((0, 1),)}
    with pytest.raises(BadInput, match="without a tokenizer"):
        read(lines(tmp_path / "text.jsonl", *ROWS), wordless)


def test_csv_and_auto_circuit(gpt2_net: Network, tmp_path: Path) -> None:
    made = pronoun(gpt2_net, n=12)
    for name in ("b.csv", "b.json"):
        back = read_pairs(write(made, tmp_path / name), gpt2_net)
        assert (back.clean_ids, back.right, back.wrong) == (made.clean_ids, made.right, made.wrong)
    assert read_pairs(tmp_path / "b.csv", gpt2_net).held == made.held
    (tmp_path / "hand.csv").write_text(
        "clean,corrupted,right,wrong,span:name\n"
        '"Mary was sad, so","John was sad, so", she, he| it,Mary\n'
        '"John was sad, so","Mary was sad, so", he, she,John\n'
    )
    b = read_pairs(tmp_path / "hand.csv", gpt2_net)
    assert b.wrong_text[0] == (" he", " it")
    assert b.spans["name"] == ((0, 1), (0, 1))
    theirs = {"prompts": [{"clean": "A B A", "corrupt": "A C A", "answers": [" B"], "wrong_answers": [" C"]}]}
    (tmp_path / "ac.json").write_text(json.dumps(theirs))
    assert read_pairs(tmp_path / "ac.json", gpt2_net).corrupted == ("A C A",)


def test_frames_and_datasets(gpt2_net: Network) -> None:
    frame = pd.DataFrame(ROWS)
    frame["comment"] = "left alone"
    frame["span:name"] = ["Mary", "John"]
    b = from_frame(frame, gpt2_net, "frame")
    assert (b.n, b.name, list(b.spans)) == (2, "frame", ["name"])
    with pytest.raises(BadFormat, match="needs clean, corrupted and right"):
        from_frame(pd.DataFrame({"text": ["a"]}), gpt2_net)
    assert from_dataset(ROWS, gpt2_net).n == 2
    with pytest.raises(BadInput, match="splits: train"):
        from_dataset({"train": ROWS}, gpt2_net)


def test_a_hugging_face_dataset(gpt2_net: Network) -> None:
    datasets = pytest.importorskip("datasets", reason="the optional package datasets is absent")
    rows = [
        row | {"right": [*row["right"]] if isinstance(row["right"], list) else [row["right"]]} for row in ROWS
    ]
    rows = [
        row | {"wrong": [*row["wrong"]] if isinstance(row["wrong"], list) else [row["wrong"]]} for row in rows
    ]
    b = behaviour(datasets.Dataset.from_list(rows), gpt2_net, force=True)
    assert b.wrong_text == ((" he", " it"), (" she",))


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("subject_verb/simple_test.json", 97),
        ("subject_verb/nounpp_train.json", 128),
        ("subject_verb/within_rc_test.json", 128),
        ("ioi.json", 128),
    ],
)
def test_real_contrast_pairs(gpt2_net: Network, shared: Path, file: str, least: int) -> None:
    b = read_pairs(shared / "data" / file, gpt2_net, n=128, aligned=True)
    assert b.n >= least
    assert b.aligned
    assert b.single_token or any("first token" in note for note in b.notes)
    assert read_pairs(shared / "data" / file, gpt2_net, n=128, aligned=True).hash == b.hash
    assert b.held_out.n + b.discovery.n == b.n
    if file == "ioi.json":
        for row in range(b.n):
            words = [
                gpt2_net.decode(list(b.clean_ids[row][slice(*b.spans[s][row])])) for s in ("IO", "S1", "S2")
            ]
            assert words[1].strip() == words[2].strip()
            assert b.right_text[row] == (" " + words[0].strip(),)


@pytest.mark.parametrize(
    ("file", "relation"),
    [
        ("lre_relations/factual/country_capital_city.json", "country capital city"),
        ("function_vectors/country-capital.json", "country-capital"),
        ("function_vectors/antonym.json", "antonym"),
        ("known_1000.json", "known_1000"),
    ],
)
def test_real_tables_of_facts(gpt2_net: Network, shared: Path, file: str, relation: str) -> None:
    table = read(shared / "data" / file, gpt2_net)
    assert isinstance(table, FactTable)
    b = behaviour(shared / "data" / file, gpt2_net, n=16, force=True)
    assert b.name == relation
    assert b.n == 16
    assert b.aligned
    assert b.single_token
    assert all(b.clean[i][slice(0, 1)] for i in range(b.n))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", BadBehaviour, "is empty"),
        ('{"clean": "a b", "corrupted": "a c"}', BadFormat, "Row 1 .* has no 'right'"),
        (
            '{"clean": "a b", "corrupted": "a c", "right": " d"}\n{"clean": ',
            BadFormat,
            "Line 2 .* is not JSON",
        ),
        (
            '{"clean": "a b", "corrupted": "a c", "right": " d"}\n[1]',
            BadFormat,
            "Line 2 .* is not a JSON object",
        ),
        (
            '{"clean": "a b", "corrupted": "a c", "right": " d", "wrong": " d"}',
            BadBehaviour,
            "right and as wrong",
        ),
        ('{"clean": "a b", "corrupted": "a b", "right": " d"}', BadBehaviour, "equal clean and corrupted"),
        ('{"clean": "a b", "corrupted": "a c", "right": []}', BadBehaviour, "no right answer"),
        ('{"clean": "a b", "corrupted": "a c", "right": ""}', BadFormat, "right answer is empty"),
        (
            '{"clean": "up to", "corrupted": "in to", "right": "day"}',
            BadBehaviour,
            "does not begin with a token of its own",
        ),
        ('{"clean": "", "corrupted": "a c", "right": " d"}', BadFormat, "'clean' is ''"),
        ('{"clean": 5, "corrupted": "a c", "right": " d"}', BadFormat, "'clean' is 5"),
        ('{"clean": "a b", "corrupted": [1, 2], "right": " d"}', BadFormat, "mixes"),
        ('{"clean": [1, 2], "corrupted": [1, 3], "right": " d"}', BadFormat, "token ids"),
        (
            '{"clean": "a b", "corrupted": "a c", "right": " d", "colour": 1}',
            BadFormat,
            "unknown field 'colour'",
        ),
        ('{"behaviour": "x", "metric": "nonsense"}', BadFormat, "metric 'nonsense'"),
        ('{"behaviour": "x", "part": "third"}', BadFormat, "part 'third'"),
        ('{"behaviour": "x"}', BadBehaviour, "no examples"),
        (
            '{"clean": "a b", "corrupted": "a c", "right": " d", "spans": {"x": "zebra"}}',
            BadFormat,
            "'zebra' does not stand 1 times",
        ),
        ('{"prompts": [{"clean": "a"}]}', BadFormat, "Prompt 1 .* has no 'answers'"),
        ('{"weather": "fine"}', BadFormat, "Row 1|neither contrast pairs nor a table"),
        ("[1, 2]", BadFormat, "neither contrast pairs nor a table"),
    ],
)
def test_bad_files(
    gpt2_net: Network, tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(error, match=message):
        read(path, gpt2_net)


def test_answers_the_tokenizer_lacks(stories: Network, tmp_path: Path) -> None:
    row = {"clean": "She was", "corrupted": "He was", "right": " \u6f22", "wrong": " sad"}
    found = read_pairs(lines(tmp_path / "a.jsonl", row), stories)  # known byte by byte
    assert not found.single_token
    row = {"clean": "The dog", "corrupted": "The dogs", "right": " runs", "wrong": " run"}
    with pytest.raises(BadBehaviour, match="No row of 'b' can be used: in 1"):
        read(lines(tmp_path / "b.jsonl", row), stories)


def test_an_unknown_answer(tales_net: Network, tmp_path: Path) -> None:
    row = {"clean": "Mary was", "corrupted": "John was", "right": " \u6f22", "wrong": " sad"}
    with pytest.raises(BadBehaviour, match="does not know the answer"):
        read(lines(tmp_path / "a.jsonl", row), tales_net)


def test_bad_writing(gpt2_net: Network, tmp_path: Path) -> None:
    b = pronoun(gpt2_net, n=8)
    with pytest.raises(BadFormat, match="names no known format"):
        write(b, tmp_path / "b.xlsx")
    with pytest.raises(BadFormat, match="your own"):
        write(b.with_metric(custom(lambda x, _: x[:, 0])), tmp_path / "b.jsonl")
    with pytest.raises(BadFormat, match="made of token ids"):
        write(induction(gpt2_net, n=4), tmp_path / "b.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveFailed):
        write(b, tmp_path / "file" / "b.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_the_one_door(gpt2_net: Network, tmp_path: Path) -> None:
    assert generator("Greater_Than") is greater_than
    assert generator("gendered pronoun") is pronoun
    with pytest.raises(NotFound, match="Did you mean pronoun"):
        behaviour("pronouns", gpt2_net)
    with pytest.raises(NotFound, match="no file"):
        behaviour(tmp_path / "missing.jsonl", gpt2_net)
    with pytest.raises(BadInput, match="no source"):
        behaviour(5, gpt2_net)
    with pytest.raises(BadInput, match="0 examples"):
        behaviour("ioi", gpt2_net, n=0)
    with pytest.raises(NotFound, match="no metric"):
        behaviour("ioi", gpt2_net, n=8, metric="logits", force=True)
    made = behaviour("ioi", gpt2_net, n=16, metric="prob_diff", force=True, corruption="abc")
    assert (made.n, made.metric.name) == (16, "prob_diff")
    assert behaviour(made, gpt2_net, n=4, force=True).n == 4
    rows = [("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Japan", "Tokyo"), ("Peru", "Lima")]
    table = FactTable.of("t", rows, ["The capital of {subject} is"])
    assert behaviour(table, gpt2_net, n=8, force=True).name == "t"
    assert behaviour(pd.DataFrame(ROWS), gpt2_net, force=True).n == 2
