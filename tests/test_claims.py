from __future__ import annotations

import json

import pytest
from rich.console import Console

from cutaway.claims import Claim, Control, Evidence
from cutaway.errors import BadFormat
from cutaway.statistics import Estimate, Interval

CLAIM = Claim(
    "Heads <9.6> and [bold]10.0[/bold] carry it.",
    "supported",
    (
        Evidence("faithfulness", Estimate(0.9, Interval(0.85, 0.95), 64), None, 0.8, True, "They keep 90 %."),
        Evidence("size", value=2, threshold=5, passed=True, sentence="Two heads."),
    ),
    (Control("random sets", Estimate(0.1, None, 64), "below 0.5", True, "Random heads keep 10 %."),),
    ("Only at the last position.",),
)


def test_a_claim_survives_json() -> None:
    assert Claim.from_dict(json.loads(json.dumps(CLAIM.to_dict()))) == CLAIM


def test_lists_become_tuples() -> None:
    claim = Claim("x", "refuted", [Evidence("a")], [], ["n"])  # pyright: ignore[reportArgumentType]
    assert claim.evidence == (Evidence("a"),)
    assert hash(claim)


def test_it_shows_itself_without_being_taken_for_markup() -> None:
    page = CLAIM._repr_html_()
    assert "&lt;9.6&gt;" in page
    assert "<9.6>" not in page
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(CLAIM)
    text = console.export_text()
    assert "[bold]10.0[/bold]" in text
    assert "0.900 [0.850, 0.950]" in text
    assert "SUPPORTED" in str(CLAIM)
    assert "note: Only at the last position." in str(CLAIM)


def test_bad_data() -> None:
    with pytest.raises(BadFormat, match="no verdict"):
        Claim("x", "maybe")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadFormat, match="not the data of a claim"):
        Claim.from_dict({"statement": "x"})
    with pytest.raises(BadFormat):
        Claim.from_dict(
            {"statement": "x", "verdict": "refuted", "evidence": [{"nam": 1}], "controls": [], "notes": []}
        )
