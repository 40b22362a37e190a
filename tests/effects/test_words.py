"""What is said beside effects: that pairs or answers may be exchanged, columns that say nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import cutaway
from cutaway.effects.words import doubt, empty_columns
from cutaway.network import Network


@pytest.fixture(scope="module")
def tales() -> Network:
    return cutaway.open("zoo:tales")


def test_answers_the_wrong_way_round_are_said(tales: Network) -> None:
    asked = {"clean": "Mary was sad because", "corrupted": "Tom was sad because", "by": ["layer"]}
    right = cutaway.patch(tales, **asked, answers=(" she", " he"))
    assert right.doubt == ""
    assert "exchanged" not in repr(right) + right.page().lead
    wrong = cutaway.patch(tales, **asked, answers=(" he", " she"))
    assert wrong.doubt.startswith("The network does not prefer the right answer after the clean prompts")
    assert wrong.doubt in repr(wrong)
    assert wrong.doubt in wrong.page().lead


@pytest.mark.parametrize(
    ("metric", "clean", "corrupted", "said"),
    [
        ("logit_diff", 0.5, 1.2, True), ("logit_diff", 1.2, 0.5, False), ("log_prob", -3.0, -1.0, True),
        ("log_prob", -1.0, -3.0, False), ("cross_entropy", 3.0, 1.0, True), ("cross_entropy", 1.0, 3.0, False),
        ("my own", 1.0, 3.0, False),
    ],
)  # fmt: skip
def test_which_end_is_to_be_the_better_one(metric: str, clean: float, corrupted: float, said: bool) -> None:
    assert bool(doubt({"metric": metric, "clean_metric": clean, "corrupted_metric": corrupted})) is said


def test_columns_that_say_nothing_are_left_out() -> None:
    frame = pd.DataFrame(
        {"mean": [1.0], "low": [np.nan], "high": [np.nan], "q": [np.nan], "p": [1.0], "known_zero": [False]}
    )
    assert empty_columns(frame) == ["known_zero", "low", "high", "q", "p"]
    assert empty_columns(frame.assign(low=0.5, high=1.5, q=0.01)) == ["known_zero"]
