from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from cutaway.behaviours import GENERATORS, Behaviour, FactTable, answer_logits
from cutaway.behaviours.generators import docstring, facts, greater_than, indirect_object, induction, pronoun
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import fill
from cutaway.errors import BadBehaviour, BadInput
from cutaway.network import Network

NetOf = Callable[[str], Network]
REFUSED = {("stories", "facts"), ("stories", "docstring"), ("stories", "cities"), ("tales", "cities")}
CASES = [(t, g) for t in ("gpt2", "tales", "stories") for g in GENERATORS if (t, g) not in REFUSED]
#: Which of a generator's answers or words each span must hold, read off the prompt.
SPAN_NAMES = {
    "ioi": {"IO", "S1", "S2"},
    "greater-than": {"event", "YY"},
    "agreement": {"subject"},
    "pronoun": {"name"},
    "induction": {"previous", "successor", "last"},
    "facts": {"subject"},
    "docstring": {"previous", "answer", "last"},
    "list-copying": {"before", "item", "last"},
    "cities": {"city", "asked"},
}


def make(net: Network, name: str, n: int = 40, seed: int = 0) -> Behaviour:
    return GENERATORS[name](net, n=n, seed=seed)


def shown(net: Network, b: Behaviour, row: int, span: str) -> str:
    start, end = b.spans[span][row]
    return net.decode(list(b.clean_ids[row][start:end])).strip()


@pytest.mark.parametrize(("tokenizer", "name"), CASES, ids=lambda x: x)
def test_pairs_are_aligned_named_and_answerable(net_of: NetOf, tokenizer: str, name: str) -> None:
    net = net_of(tokenizer)
    b = make(net, name)
    assert b.n == 40
    assert b.aligned
    assert len(set(zip(b.clean_ids, b.corrupted_ids, strict=True))) == b.n
    assert set(b.spans) >= SPAN_NAMES[name]
    for row in range(b.n):
        assert not set(b.right[row]) & set(b.wrong[row])
        assert b.clean_ids[row] != b.corrupted_ids[row]
        for span in b.spans:
            word = shown(net, b, row, span)
            assert word
            assert b.from_text is False or word in b.clean[row]
    if b.from_text:
        assert b.clean_tokens(net).row_ids(0) == net.encode(b.clean[0]).row_ids(0)
    if (tokenizer, name) == ("stories", "agreement"):
        assert any("first token" in note for note in b.notes)
    else:
        assert b.single_token
    assert answer_logits(net, b[:4]).shape == (4, net.d_vocab)


@pytest.mark.parametrize(("tokenizer", "name"), CASES, ids=lambda x: x)
def test_the_same_seed_gives_the_same_pairs_and_the_halves_share_nothing(
    net_of: NetOf, tokenizer: str, name: str
) -> None:
    net = net_of(tokenizer)
    b, again, other = make(net, name), make(net, name), make(net, name, seed=1)
    assert b.hash == again.hash
    assert b.held == again.held
    assert b.hash != other.hash
    seen, unseen = b.discovery, b.held_out
    assert seen.n + unseen.n == b.n
    assert min(seen.n, unseen.n) >= b.n // 5
    prompts = [{*half.clean_ids, *half.corrupted_ids} for half in (seen, unseen)]
    assert not prompts[0] & prompts[1]
    if b.split_by == "template":
        assert not set(seen.template) & set(unseen.template)


def test_answers_follow_from_the_named_words(net_of: NetOf) -> None:
    net = net_of("gpt2")
    b = make(net, "ioi")
    for row in range(b.n):
        io, s1, s2 = (shown(net, b, row, name) for name in ("IO", "S1", "S2"))
        assert s1 == s2 != io
        assert b.right_text[row] == (f" {io}",)
        assert b.wrong_text[row] == (f" {s1}",)
        assert b.corrupted[row].count(io) == 2
    b = make(net, "pronoun")
    for row in range(b.n):
        name = shown(net, b, row, "name")
        assert b.right_text[row] == ((" she",) if name in W.FEMALE else (" he",))
    b = make(net, "agreement")
    plurals = {plural for _, plural in W.NUMBER_PAIRS}
    for row in range(b.n):
        plural = shown(net, b, row, "subject") in plurals
        assert (b.right_text[row][0] in (" are", " were")) == plural
    for name, span in (("induction", "successor"), ("list-copying", "item"), ("docstring", "answer")):
        b = make(net, name)
        for row in range(b.n):
            assert shown(net, b, row, span) == b.right_text[row][0].strip()
    b = make(net, "greater-than")
    for row in range(b.n):
        year = shown(net, b, row, "YY")
        assert all(y > year for y in b.right_text[row])
        assert all(y <= year for y in b.wrong_text[row])
        assert len(b.right[row]) == len(b.right_text[row])
        assert f"{b.clean[row][-2:]}01" in b.corrupted[row]
    capitals = dict(W.CAPITALS)
    b = make(net, "facts")
    for row in range(b.n):
        assert b.right_text[row] == (f" {capitals[shown(net, b, row, 'subject')]}",)


def test_induction_repeats_a_sequence_and_needs_no_tokenizer(wordless: Network) -> None:
    b = induction(wordless, n=30, length=8)
    assert b.single_token
    assert not b.from_text
    for row in range(b.n):
        ids, changed = b.clean_ids[row], b.corrupted_ids[row]
        k = len(ids) - 8
        assert ids[:k] == ids[8:]
        assert b.right[row] == (ids[k],)
        assert b.wrong[row] == (changed[k],)
        assert [i for i in range(len(ids)) if ids[i] != changed[i]] == [k]
        assert len(set(ids[:8])) == 8
    assert b.clean[0] == " ".join(map(str, b.clean_ids[0]))


def test_abc_corruption_has_three_other_names(net_of: NetOf) -> None:
    net = net_of("gpt2")
    b = indirect_object(net, n=20, corruption="abc")
    assert b.aligned
    for row in range(b.n):
        assert shown(net, b, row, "IO") not in b.corrupted[row].replace(",", " ").replace(".", " ").split()
    with pytest.raises(BadInput, match="no corruption 'xyz'"):
        indirect_object(net, corruption="xyz")  # pyright: ignore[reportArgumentType]


def test_greater_than_is_asked_by_digits_where_a_tokenizer_has_only_those(
    net_of: NetOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = net_of("stories")
    b = make(net, "greater-than")
    for row in range(b.n):
        tens = shown(net, b, row, "YY")[0]
        assert [*b.wrong_text[row], tens, *b.right_text[row]] == list("0123456789")
        assert b.clean[row].endswith(b.corrupted[row][-2:])
        assert f"{b.clean[row][-2:]}01" in b.corrupted[row]
    module = sys.modules["cutaway.behaviours.generators.greater_than"]
    monkeypatch.setattr(module, "single_digits", lambda *_: False)
    with pytest.raises(BadBehaviour, match=r"cuts ' 1732' into \['▁', '1', '7', '3', '2'\]"):
        greater_than(net)


def test_what_a_tokenizer_cannot_do_is_said_with_its_words(net_of: NetOf) -> None:
    stories = net_of("stories")
    with pytest.raises(BadBehaviour, match="not single: load, size"):
        docstring(stories)
    with pytest.raises(BadBehaviour, match="not single: capital, language"):
        GENERATORS["cities"](stories)
    with pytest.raises(BadBehaviour, match="not single: Paris"):
        facts(stories)
    with pytest.raises(BadBehaviour, match=r"needs 6 names.*Lily, Tim, Timmy"):
        indirect_object(stories, corruption="abc")
    with pytest.raises(BadBehaviour, match="as many tokens"):
        pronoun(stories, female=["Lily"], male=["Christopher"])


def test_words_need_a_tokenizer(wordless: Network) -> None:
    for name in set(GENERATORS) - {"induction"}:
        with pytest.raises(BadInput, match="without a tokenizer"):
            GENERATORS[name](wordless, n=4)


@pytest.mark.parametrize("name", list(GENERATORS))
def test_no_examples_are_refused(net_of: NetOf, name: str) -> None:
    with pytest.raises(BadInput, match="0 examples"):
        GENERATORS[name](net_of("gpt2"), n=0)


def test_fewer_pairs_than_asked_are_said(net_of: NetOf) -> None:
    net = net_of("gpt2")
    b = facts(net, n=64, table=FactTable.of("c", W.CAPITALS[:4], ["The capital of {subject} is"]))
    assert b.n < 64
    assert "64 were asked for" in b.notes[0]
    with pytest.raises(BadBehaviour, match="Only 2 pairs"):
        facts(net, n=64, table=FactTable.of("c", W.CAPITALS[:2], ["The capital of {subject} is"]))


def test_facts_of_a_table(net_of: NetOf) -> None:
    net = net_of("gpt2")
    long = [("gold", "Au rum"), ("iron", "Fe"), ("silver", "Ag entum"), ("lead", "Pb"), ("tin", "Sn metal")]
    table = FactTable.of("signs", long * 2, ["The sign of {subject} is", "{subject} is written"])
    with pytest.raises(BadBehaviour, match="single tokens"):
        facts(net, n=8, table=table)
    b = facts(net, n=8, table=table, first_token=True)
    assert not b.single_token
    assert any("first token" in note for note in b.notes)
    with pytest.raises(BadBehaviour, match="is empty"):
        facts(net, table=FactTable("none", ()))
    with pytest.raises(BadBehaviour, match="No two subjects"):
        facts(net, table=FactTable.of("one", [("France", "Paris"), ("Italy", "Paris")], ["{subject}:"]))


def test_induction_bounds(wordless: Network) -> None:
    with pytest.raises(BadInput, match="2 tokens"):
        induction(wordless, length=2)
    with pytest.raises(BadBehaviour, match="vocabulary offers 97"):
        induction(wordless, length=97)


def test_fill_names_the_places_of_words() -> None:
    text, spans = fill("{A} met {B}. {A2} ran", {"A": "Al", "B": "Bo", "A2": "Al"}, {"A2": "again", "B": ""})
    assert text == "Al met Bo. Al ran"
    assert {name: text[a:b] for name, (a, b) in spans.items()} == {"A": "Al", "again": "Al"}
    assert spans["again"] == (11, 13)
