"""The tokenizer gives one token to each word and loses nothing."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from cutaway import zoo
from cutaway.recipes.tales import prompts as P
from cutaway.recipes.tales.exam import BEHAVIOURS, questions
from cutaway.recipes.tales.grammar import entities
from cutaway.recipes.tales.scenes import stories
from cutaway.recipes.tales.tokenizer import StoryEncoder, train_tokenizer

TOKENIZER = AutoTokenizer.from_pretrained(zoo.path("tales"))


def _bare(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def test_words_of_the_behaviours_are_single_tokens() -> None:
    words = [
        *P.FEMALE,
        *P.MALE,
        *P.SURNAMES,
        *P.PLACES,
        *P.THINGS,
        *P.ADJECTIVES,
        *P.NUMBERS,
        *P.GAVE,
        *P.CITIES,
    ]
    words += [word for pair in P.NOUNS for word in pair] + [
        "he",
        "she",
        "him",
        "her",
        "his",
        "is",
        "are",
        "was",
        "were",
    ]
    assert {word: len(_bare(" " + word)) for word in words if len(_bare(" " + word)) != 1} == {}
    assert all(len(_bare(name)) == 1 for name in (*P.FEMALE, *P.MALE))  # at the beginning of a text, too
    assert {len(_bare(" " + name)) for name in entities()} == {2}


def test_years_are_a_century_and_two_digits() -> None:
    assert TOKENIZER.tokenize("The war lasted from 1732 to 17")[-4:] == ["Ġ17", "32", "Ġto", "Ġ17"]


def test_stories_round_trip_and_tokens_know_their_words() -> None:
    encode = StoryEncoder(TOKENIZER)
    for story in islice(stories(5), 500):
        ids, owner = encode(story)
        assert ids == [*TOKENIZER.encode(story.text), TOKENIZER.eos_token_id]
        assert TOKENIZER.decode(ids, skip_special_tokens=True) == story.text
        assert len(ids) == len(owner)
        assert owner[0] == owner[-1] == -1
        assert sorted(set(owner[1:-1])) == list(range(len(story.words)))


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet=[chr(c) for c in range(32, 127)] + ["\n"], max_size=60).filter(lambda t: "<" not in t)
)
def test_any_plain_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(_bare(text)) == text


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_contrast_pairs_have_equal_tokens(behaviour: str) -> None:
    for prompt in islice(questions(behaviour, 2), 60):
        assert len(_bare(prompt.text)) == len(_bare(prompt.corrupted))
        assert all(len(_bare(word)) == 1 for word in (*prompt.answers, *prompt.foils))


def test_a_prompt_gets_its_beginning_and_a_batch_its_padding() -> None:
    assert TOKENIZER("Mary")["input_ids"][0] == TOKENIZER.bos_token_id
    batch = TOKENIZER(["Mary", "Mary and John"], padding=True)
    assert batch["input_ids"][0][-1] == TOKENIZER.pad_token_id


def test_training_the_tokenizer_again_gives_the_shipped_one() -> None:
    assert train_tokenizer().get_vocab() == TOKENIZER.get_vocab()
