"""What a terminal shows: claims whole, numbers whole, and "strongest" only of what is ordered."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cutaway.claims import Claim, Evidence
from cutaway.cli import shown


def printed(*items: object, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    for item in items:
        console.print(item)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_claim_is_never_cut_off(width: int) -> None:
    statement = (
        "The network uses ‘gender’ as it is encoded at resid_post.3: "
        + "moving it there moves the output " * 4
        + "END."
    )
    claim = Claim(
        statement,
        "supported",
        (Evidence("x", value=0.5, passed=True, sentence="So it is."),),
        (),
        ("A note " * 20 + "LAST",),
    )
    text = " ".join(printed(claim, width=width).replace("│", " ").split())
    assert " ".join(statement.split()) in text
    assert "LAST" in text
    assert text.count("supported") == 1


def test_numbers_are_shown_whole_in_a_narrow_window() -> None:
    names = ["layer", "mean", "low", "high", "p", "q", "n", *(f"a rather long heading {i}" for i in range(4))]
    frame = pd.DataFrame(
        [[i, 0.123456, 0.1, 0.2, 0.01, 0.000333, 64, 0.25, 0.75, 0.125, 0.625] for i in range(3)],
        columns=names,
    )
    frame.insert(0, "form", ["When {A} and {B} went to the {place}, {A} gave it to"] * 3)
    text = printed(shown.frame_table(frame, "the 3 strongest of 9"))
    assert "…" not in text
    for cell in ("0.123", "0.1 to 0.2", "0.000333"):
        assert text.count(cell) == 3
    assert "more columns in a wider window" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    few = printed(
        shown.frame_table(pd.DataFrame({"mean": [1.0], "low": [np.nan], "high": [np.nan], "n": [3]}))
    )
    assert "nan" not in few


def test_only_what_is_ordered_is_called_the_strongest() -> None:
    frame = pd.DataFrame({"part": [f"m{i}" for i in range(20)], "mean": np.arange(20.0)})
    plain = SimpleNamespace(headline="So it is", to_pandas=lambda: frame)
    ordered = SimpleNamespace(
        headline="So it is", to_pandas=lambda: frame, top=lambda n: frame.iloc[::-1].head(n)
    )
    assert "the first 12 of 20" in " ".join(printed(*shown.terminal(plain)).split())
    text = printed(*shown.terminal(ordered))
    assert "the 12 strongest of 20" in " ".join(text.split())
    assert text.index("MLP 19") < text.index("MLP 18")
    assert "MLP 0 " not in text
