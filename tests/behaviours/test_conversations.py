"""Behaviours asked in conversation: through the chat template, answered at the assistant's first token."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

import cutaway
from cutaway.behaviours import read, write
from cutaway.errors import BadFormat, BadInput, UnknownOption
from cutaway.network import Network

TEMPLATE = (
    "[BOS] {% for m in messages %}{% if m['role'] == 'judge' %}{{ raise_exception('no judges') }}{% endif %}"
    "[ {{ m['role'] }} ] {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}[ assistant ]{% endif %}"
)
WORDS = "[UNK] [BOS] [ ] user assistant system where is France Spain Italy Paris Madrid Rome short"
ROWS = [
    {"clean": "where is France", "corrupted": "where is Spain", "right": " Paris", "wrong": " Madrid"},
    {"clean": "where is Spain", "corrupted": "where is France", "right": " Madrid", "wrong": " Paris"},
]


@pytest.fixture
def talking(tiny_gpt2: GPT2LMHeadModel) -> Network:
    """Its tokenizer adds [BOS] to a text, and its template writes one itself."""
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS.split())}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", bos_token="[BOS]")
    tokenizer.chat_template = TEMPLATE
    return cutaway.open(tiny_gpt2, tokenizer)


def lines(path: Path, rows: list[dict[str, object]], **header: object) -> Path:
    first = [{"behaviour": "places"} | header] if header else []
    path.write_text("".join(json.dumps(row) + "\n" for row in [*first, *rows]))
    return path


def test_prompts_go_through_the_template_as_chat_does(talking: Network, tmp_path: Path) -> None:
    rows = [row | {"spans": {"land": row["clean"].split()[-1]}} for row in ROWS]
    b = cutaway.behaviour(lines(tmp_path / "a.jsonl", rows), talking, chat=True, force=True)
    said = talking.chat("where is France")
    assert b.clean_ids[0] == tuple(said.ids[0].tolist())
    assert said.strings().count("[BOS]") == 1
    assert b.answer_pos == (-1, -1)
    assert b.right[0] == (WORDS.split().index("Paris"),)
    start, end = b.spans["land"][0]
    assert said.strings()[start:end] == ["France"]
    assert b.templated
    assert cutaway.performance(talking, b).accuracy.n == 2


def test_a_file_may_say_it_itself_and_messages_need_no_word(talking: Network, tmp_path: Path) -> None:
    plain = cutaway.behaviour(pd.DataFrame(ROWS), talking, chat=True, force=True)
    told = cutaway.behaviour(lines(tmp_path / "told.jsonl", ROWS, chat=True), talking, force=True)
    rows = [row | {s: [{"role": "user", "content": row[s]}] for s in ("clean", "corrupted")} for row in ROWS]
    spoken = cutaway.behaviour(lines(tmp_path / "spoken.jsonl", rows), talking, force=True)
    assert plain.clean_ids == told.clean_ids == spoken.clean_ids
    before = [{"role": "user", "content": "where is Italy"}, {"role": "assistant", "content": "Rome"}]
    longer = [row | {s: [*before, *row[s]] for s in ("clean", "corrupted")} for row in rows]
    turns = cutaway.behaviour(lines(tmp_path / "turns.jsonl", longer), talking, force=True)
    assert turns.clean_ids[0] == tuple(talking.chat(longer[0]["clean"]).ids[0].tolist())


def test_what_the_system_says(talking: Network, tmp_path: Path) -> None:
    said = tuple(talking.chat("where is France", system="short").ids[0].tolist())
    by_option = cutaway.behaviour(pd.DataFrame(ROWS), talking, system="short", force=True)
    by_file = cutaway.behaviour(lines(tmp_path / "a.jsonl", ROWS, system="short"), talking, force=True)
    assert by_option.clean_ids[0] == by_file.clean_ids[0] == said


def test_writing_and_reading_back_adds_nothing(talking: Network, tmp_path: Path) -> None:
    b = cutaway.behaviour(pd.DataFrame(ROWS), talking, chat=True, force=True)
    again = read(write(b, tmp_path / "b.jsonl"), talking)
    assert isinstance(again, cutaway.behaviours.Behaviour)
    assert again.clean_ids == b.clean_ids
    assert (again.hash, again.templated) == (b.hash, True)


def test_answers_with_a_space_are_asked_about(talking: Network) -> None:
    b = cutaway.behaviour(pd.DataFrame(ROWS), talking, chat=True, force=True)
    assert any("begin with a space" in note for note in b.notes)


def test_templates_and_prompts_that_fail_are_said(talking: Network, tmp_path: Path) -> None:
    judged = [ROWS[0], ROWS[1] | {"clean": [{"role": "judge", "content": "where is Spain"}]}]
    with pytest.raises(BadInput, match=r"Row 2 of 'a'.*no judges"):
        cutaway.behaviour(lines(tmp_path / "a.jsonl", judged), talking)
    ids = [{"clean": [3, 4], "corrupted": [3, 5], "right": 6, "wrong": 7}]
    with pytest.raises(BadFormat, match="no conversation"):
        cutaway.behaviour(lines(tmp_path / "ids.jsonl", ids), talking, chat=True)
    talking.tokenizer.chat_template = None
    with pytest.raises(BadInput, match=r"Row 1 .*no chat template"):
        cutaway.behaviour(pd.DataFrame(ROWS), talking, chat=True)
    with pytest.raises(UnknownOption, match="chatt"):
        cutaway.behaviour(lines(tmp_path / "b.jsonl", ROWS), talking, chatt=True)


def test_a_reply_goes_on_to_its_end(talking: Network) -> None:
    said = talking.chat("where is France")
    free = talking.generate(said, 6, eos_token_id=-1)
    assert free.ended == (False,)
    stop = free.new[0, 3].item()
    first = free.new[0].tolist().index(stop)
    done = talking.generate(said, 6, eos_token_id=stop)
    assert done.ended == (True,)
    assert done.new[0].tolist() == free.new[0, : first + 1].tolist()
    assert done.replies == (talking.tokenizer.decode(free.new[0, :first].tolist(), skip_special_tokens=True),)
    edits = [cutaway.Ablate("z", layer=1)]
    edited = talking.generate(said, 6, edits=edits, eos_token_id=-1)
    by_hand = talking.run(said, edits=edits).logits[0, -1].argmax()
    assert edited.new[0, 0] == by_hand
