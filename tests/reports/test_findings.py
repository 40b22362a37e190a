"""A page leads with what was found, in one sentence with its figure; where nothing is told from chance, it says that."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cutaway
from cutaway.claims import Claim, Control, Evidence
from cutaway.control.nearer import nearer
from cutaway.control.steering import Steering
from cutaway.effects.findings import finding_of, runs_of_layers
from cutaway.effects.words import legend
from cutaway.figures import Grid
from cutaway.network.loss import Loss
from cutaway.reports import Figure, Page, render
from cutaway.results import Provenance
from cutaway.statistics import Estimate, Interval

SAID = {"direction": "restore", "complete": True}


def cells(means: dict[tuple[int, int], float], q: float = 0.001, half: float = 0.05) -> pd.DataFrame:
    """Cells by (layer, position), with intervals of a width; a q of NaN is one that cannot be told."""
    known = half if q == q else np.nan
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "position": place,
                "token": f" t{place}",
                "mean": mean,
                "low": mean - known,
                "high": mean + known,
                "q": q,
                "known_zero": False,
            }
            for (layer, place), mean in means.items()
        ]
    )


def said(frame: pd.DataFrame, n: int = 20, **more: Any) -> str:
    return finding_of([("", frame, n)], "resid_pre", SAID | more, ["layer", "position"])


def test_the_strongest_cell_is_named_with_its_figure_and_its_interval() -> None:
    found = said(cells({(0, 1): 0.1, (3, 2): 0.42, (9, 2): -0.2}))
    assert found.startswith("Restoring resid_pre at 't2' in layer 3 alone brings back 42 % of the gap")
    assert "(95 % interval 37 to 47 %); 3 of 3 cells are told from zero" in found
    assert "corrupting" not in found
    lost = said(cells({(3, 2): -0.42}), direction="corrupt")
    assert lost.startswith("Corrupting resid_pre at 't2' in layer 3 alone takes away 42 % of the gap")
    gained = said(cells({(3, 2): 0.42}), direction="ablate (zero)")
    assert "adds 42 % of the gap" in gained
    assert said(cells({(3, 2): 0.42}), complete=False).endswith("partial: stopped before the end")


def test_layers_that_do_alike_are_named_together_and_the_way_is_told() -> None:
    flat = {(layer, 4): 0.4 for layer in range(6)}
    assert "in any one of layers 0 to 5 brings back up to 40 % of the gap" in said(cells(flat))
    way = {(layer, 4): 1.0 for layer in range(3)} | {(layer, 7): 0.9 for layer in range(3, 6)}
    assert "at 't4' in layers 0 to 2, then at 't7' in layers 3 to 5 (up to 100 %)" in said(cells(way))


@pytest.mark.parametrize(
    ("frame", "n", "wanted"),
    [
        (cells({(0, 1): 0.9, (1, 1): 0.8}, q=0.4), 20, "No cell of 2 is told from chance"),
        (cells({(0, 1): 0.9}, q=0.4), 20, "The effect is not told from chance"),
        (cells({(0, 1): 0.9, (1, 1): 0.1}, half=2.0), 20, "No cell is told from chance over the templates"),
        (cells({(0, 1): 0.9, (1, 1): 0.1}, q=np.nan), 1, "One pair says nothing about others (at least 6"),
        (cells({(0, 1): 0.9, (1, 1): 0.1}, q=np.nan), 3, "No cell can be told from chance with 3 pairs"),
        (cells({(0, 1): 0.0, (1, 1): 0.0}), 20, "No cell changes anything"),
    ],
)
def test_what_is_not_told_from_zero_is_no_finding(frame: pd.DataFrame, n: int, wanted: str) -> None:
    assert said(frame, n).startswith(wanted)


def test_the_form_that_has_a_finding_is_the_one_that_is_told() -> None:
    nothing, something = cells({(0, 1): 0.9}, q=0.9), cells({(0, 1): 0.5})
    forms = [("often", nothing, 30), ("seldom", something, 8)]
    found = finding_of(forms, "resid_pre", SAID, ["layer", "position"])
    assert found.startswith("In the 8 pairs of the form “seldom”: restoring")


def test_neighbouring_layers_are_one_row_among_the_strongest() -> None:
    table = runs_of_layers(
        cells({(0, 1): 0.9, (1, 1): 0.91, (2, 1): 0.4, (4, 1): 0.9, (1, 2): 0.7}), ["layer", "position"], 3
    )
    assert table["layer"].tolist() == ["0 to 1", 4, 1]
    assert table["mean"].tolist() == [0.91, 0.9, 0.7]


def test_a_caption_leaves_the_signs_to_the_line_above_the_figure() -> None:
    grid = Grid(
        np.array([[0.5, np.nan]]),
        ["0"],
        ["‹a›", "b"],
        q=np.array([[0.5, 1.0]]),
        known_zero=np.zeros((1, 2), bool),
    )
    assert legend(grid) == "‹ › marks a token that differs from prompt to prompt."
    assert legend(replace(grid, columns=["a", "b"])) == ""


def test_the_heading_is_the_finding_and_what_was_asked_stands_below_it() -> None:
    text = render(Page("z of a net, 3 pairs", "k", "refuted", "Head 3.1 brings back 40 % of < the gap."))
    text = text.replace("\u00a0", " ")
    heading = html.unescape(re.sub(r"<[^>]+>", "", text.split("<h1")[1].split(">", 1)[1].split("</h1>")[0]))
    assert heading == "refuted Head 3.1 brings back 40 % of < the gap."
    assert '<p class="about">z of a net, 3 pairs</p>' in text
    assert "<title>Head 3.1 brings back 40 % of &lt; the gap.</title>" in text


def test_an_edit_that_is_not_told_to_change_the_loss_is_not_said_to() -> None:
    base = np.array([[np.nan, 1.0, 2.0], [np.nan, 2.0, 1.0], [np.nan, 1.5, 1.5], [np.nan, 1.0, 1.0]])
    noise = np.array([[0, 0.4, 0.4], [0, -0.4, -0.4], [0, 0.3, 0.3], [0, -0.3, -0.3]])
    tokens = (("a", "b", "c"),) * 4
    loss = Loss(tokens, base + noise, base, ("an edit",), Provenance("net", "0"))
    assert loss.headline.startswith("The edits are not told to change the loss")
    assert replace(loss, values=base + 1.0).headline.startswith("The edits raise the loss by +1.000")
    assert replace(loss, unedited=None).headline.startswith("Loss 1.")


def steering(places: np.ndarray, random: np.ndarray) -> Steering:
    """A result of two strengths besides 0 on some prompts."""
    n = places.shape[1]
    words, flat = tuple(("a",) * n for _ in range(3)), np.zeros((3, n))
    origin = Provenance("net", "0")
    prompts = tuple(f"p{i}" for i in range(n))
    return Steering("resid_post.0", 1.0, "all", (0.0, 1.0, 2.0), prompts, words, words, flat, flat + [[0], [0.1], [0.5]],
                    flat, flat, origin, places, random)  # fmt: skip


def test_steering_says_whether_what_was_asked_came_at_what_strength_and_cost() -> None:
    none, come = np.zeros((3, 8)), np.linspace(0.3, 0.5, 8)
    found = steering(np.stack([none[0], come / 4, come]), none)
    assert found.headline.startswith(
        "At strength 2 the text comes +0.40 of the way to the positive texts (a random direction: +0.00)"
    )
    assert "costs +0.50 nats a token (random: +0.00)" in found.headline
    assert found.page().headline == f"{found.headline}."
    assert "nearer" in found.to_pandas()
    as_random = steering(np.stack([none[0], come / 4, come]), np.stack([none[0], come / 4, come]))
    assert as_random.headline.startswith(
        "At no strength is the text told to come nearer to what was asked more"
    )
    few = steering(found.place[:, :2], found.random_place[:, :2])
    assert few.headline.startswith("2 prompts are too few to tell whether what was asked comes (at least 6")
    old = steering(np.zeros((0, 3)), np.zeros((0, 0)))
    assert old.headline.startswith("Whether what was asked came was not measured") or not old.prompts


def test_a_negative_strength_asks_for_the_negative_texts() -> None:
    at = np.stack([np.linspace(-0.6, -0.4, 8), np.zeros(8)])
    (one,) = nearer([-1.0, 0.0], at, np.zeros((0, 0)))
    assert (one.moved, one.told) == (0.5, True)


def test_the_figures_of_tests_say_what_they_are_numbers_of() -> None:
    figure = Estimate(0.9, Interval(0.8, 1.0), 10)
    tests = (Evidence("Kept", figure, of="of the gap kept"), Evidence("Sham"))
    claim = Claim("It holds.", "supported", tests, (Control("Random", figure, of="answers right"),))
    assert [row[2] for row in claim.rows()] == [
        "0.900 [0.800, 1.000] of the gap kept", "", "0.900 [0.800, 1.000] answers right",
    ]  # fmt: skip
    assert Claim.from_dict(claim.to_dict()) == claim


def test_a_patch_of_one_pair_says_that_it_is_one_pair() -> None:
    net = cutaway.open("zoo:tales")
    texts = {"clean": "Mary went to the garden because", "corrupted": "Tom went to the garden because"}
    found = cutaway.patch(net, **texts, answers=(" she", " he"))
    assert found.headline().startswith("One pair says nothing about others")
    printed = str(found)
    assert printed.startswith("One pair says nothing")
    assert " to " in printed.split("token\n")[1]
    page = found.page()
    assert page.headline == f"{found.headline()}."
    assert page.title.startswith("resid_pre, clean values put into the corrupted run, in ")
    signs = [
        str(a.text)
        for b in page.sections[0].blocks
        if isinstance(b, Figure)
        for a in b.figure.layout.annotations
    ]
    for sign in re.split(r"\u2003|<br>", " ".join(signs)):
        words = sign.replace("\u00a0", " ").strip(" –·")
        assert not words or words not in page.sections[0].blocks[0].caption  # type: ignore[union-attr]
