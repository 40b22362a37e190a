"""The grammar says the truth about its own text."""

from itertools import islice

import pytest

from cutaway.recipes.tales import prompts as P
from cutaway.recipes.tales.exam import BEHAVIOURS, questions
from cutaway.recipes.tales.grammar import GENDER, Story, Word, entities, question, reserved
from cutaway.recipes.tales.scenes import stories

SAMPLE = tuple(islice(stories(11), 3000))
NUMBER = {word: i + 1 for i, word in enumerate(P.NUMBERS)}


def _scenes(name: str) -> list[tuple[Word, ...]]:
    """The runs of words that one filling of a frame made."""
    out: list[list[Word]] = []
    for story in SAMPLE:
        previous = None
        for word in story.words:
            if word.labels["scene"] != name:
                previous = None
                continue
            key = {k: v for k, v in word.labels.items() if k not in ("slot", "determined", "quote")}
            if key != previous:
                out.append([])
            out[-1].append(word)
            previous = key
    return [tuple(words) for words in out]


def _bare(word: Word) -> str:
    return word.text.strip()


def test_same_seed_same_stories() -> None:
    assert [s.text for s in islice(stories(3), 50)] == [s.text for s in islice(stories(3), 50)]
    assert [s.text for s in islice(stories(3), 50)] != [s.text for s in islice(stories(4), 50)]


def test_text_is_the_words_and_reads_like_text() -> None:
    for story in SAMPLE:
        assert story.text == "".join(word.text for word in story.words)
        assert "  " not in story.text
        assert "{" not in story.text
        assert not story.text.startswith(" ")
        assert " ." not in story.text
        assert " ," not in story.text


def test_every_word_is_labelled() -> None:
    for story in SAMPLE:
        for word in story.words:
            assert {"scene", "slot", "determined", "quote"} <= set(word.labels)


def test_a_word_in_a_slot_is_the_slot_s_value() -> None:
    for story in SAMPLE:
        for word in story.words:
            slot = word.labels["slot"]
            if slot and slot != "verse":
                assert _bare(word) in str(word.labels[slot])


@pytest.mark.parametrize(("slot", "forms"), [("he", "he she"), ("him", "him her"), ("his", "his her")])
def test_pronouns_agree_with_the_gender_of_the_subject(slot: str, forms: str) -> None:
    male, female = forms.split()
    seen = 0
    for word in (w for s in SAMPLE for w in s.words if w.labels["slot"] == slot):
        assert word.text.strip() == (female if GENDER[str(word.labels["A"])] == "f" else male)
        assert word.labels["gender"] == GENDER[str(word.labels["A"])]
        seen += 1
    assert seen > 50


def test_the_receiver_is_the_one_who_does_not_give() -> None:
    for words in _scenes("ioi"):
        labels = words[0].labels
        assert {labels["S"], labels["IO"]} == {labels["A"], labels["B"]}
        assert labels["S"] != labels["IO"]
        assert [_bare(w) for w in words if w.labels["determined"]] == [labels["IO"]]
        assert labels["order"] == ("ABA" if labels["S"] == labels["A"] else "ABB")


def test_verbs_agree_with_their_noun_not_with_the_distractor() -> None:
    plural = {many for _, many in P.NOUNS}
    for words in _scenes("agreement"):
        verb = next(_bare(w) for w in words if w.labels["determined"])
        assert verb in (("are", "were") if words[0].labels["N"] in plural else ("is", "was"))


def test_wars_end_after_they_began_in_the_same_century() -> None:
    for words in _scenes("greater_than"):
        labels = words[0].labels
        centuries = [_bare(w) for w in words if w.labels["slot"] == "CC"]
        assert len(set(centuries)) == 1
        assert str(labels["ZZ"]) > str(labels["YY"])


def test_facts_are_always_the_same() -> None:
    assert len(entities()) == P.ENTITY_COUNT
    for words in _scenes("facts"):
        labels = words[0].labels
        for fact, value in entities()[str(labels["E"])].items():
            assert labels[fact] == value


def test_quotes_close_with_the_mark_that_opened_them() -> None:
    for story in SAMPLE:
        open_mark = ""
        for word in story.words:
            assert word.labels["quote"] == open_mark
            if _bare(word) in P.QUOTES:
                assert open_mark in ("", _bare(word))
                open_mark = "" if open_mark else _bare(word)
        assert open_mark == ""


def test_numbers_count() -> None:
    for words in _scenes("counting"):
        counted = [NUMBER[_bare(w)] for w in words if w.text.strip() in NUMBER]
        assert counted == list(range(counted[0], counted[0] + len(counted)))
    for words in _scenes("tally"):
        there = sum(_bare(w) == "a" for w in words if str(w.labels["slot"]).startswith("a"))
        assert [NUMBER[_bare(w)] for w in words if w.labels["slot"] == "n"] == [there]
    for words in _scenes("adding"):
        x, y, z = (NUMBER[str(words[0].labels[k])] for k in "xyz")
        assert x + y == z


def test_a_chant_repeats_itself() -> None:
    chants = [s for s in SAMPLE if s.words[0].labels["scene"] == "chant"]
    assert len(chants) > 50
    for story in chants:
        first: dict[object, str] = {}
        for word in story.words[2:]:
            assert first.setdefault(word.labels["beat"], word.text) == word.text
            assert word.labels["determined"] == (word.labels["time"] != 0)


def test_training_never_joins_reserved_names() -> None:
    people = {"ioi", "pronoun", "agreement", "quotation", "possession"}
    for story in SAMPLE:
        for word in story.words:
            if word.labels["scene"] in people:
                assert not reserved(str(word.labels["A"]), str(word.labels["B"]))


def test_no_test_prompt_is_a_training_text() -> None:
    """Reserved pairs keep the indirect-object prompts apart even when texts are short."""
    told = {story.text for story in islice(stories(0), 5000)}
    for prompt in islice(questions("ioi", 0), 200):
        assert reserved(prompt.slots["A"], prompt.slots["B"])
        assert not any(text.startswith(prompt.text) for text in told)


def test_every_frame_but_fillers_asks_something() -> None:
    for name, frames in P.FRAMES.items():
        for frame in frames:
            assert bool(question(frame)) == (name != "filler"), frame


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_prompts_are_contrast_pairs(behaviour: str) -> None:
    for prompt in islice(questions(behaviour, 1), 100):
        assert prompt.text != prompt.corrupted
        assert prompt.answers
        assert prompt.foils
        assert not set(prompt.answers) & set(prompt.foils)
        assert len(prompt.text.split()) == len(prompt.corrupted.split())


def test_story_text_is_derived() -> None:
    assert Story((Word("Mary", {}), Word(" ran", {}), Word(".", {}))).text == "Mary ran."
