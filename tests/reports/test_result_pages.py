"""What results share on a page, in a notebook and as plain data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.reports import Page, Table, display_result, page_of, table_of
from cutaway.results import Provenance, described

SOURCE = Provenance("a <net>", "0" * 64)


@dataclass(frozen=True)
class Weather:
    """A result that is enough of one."""

    kind: ClassVar[str] = "weather"

    wind: np.ndarray
    provenance: Provenance = SOURCE
    headline: str = "It is < calm"

    def to_dict(self) -> dict[str, Any]:
        return described(self, "wind", rows=self.to_pandas())

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame({"at": ["noon", "night"], "hour": [12, 24], "wind": self.wind})

    def plot(self) -> Any:
        return None

    def page(self) -> Page:
        return page_of(
            self, "Weather", "The weather", [table_of(self.to_pandas(), "Wind.", ".1f", numeric=(2,))]
        )

    def save(self, path: str | os.PathLike[str], /) -> Path:
        return Path(path)

    def _repr_html_(self) -> str:
        return display_result(self, ["by <hour>"], self.to_pandas())


RESULT = Weather(np.array([0.25, np.nan]))


def test_a_result_described_is_plain_data_between_its_network_and_its_source() -> None:
    said = RESULT.to_dict()
    assert list(said) == ["network", "wind", "rows", "provenance"]
    assert said["network"] == "a <net>"
    assert said["wind"] == [0.25, None]
    assert said["rows"][1] == {"at": "night", "hour": 24, "wind": None}
    assert said["provenance"]["network_hash"] == "0" * 64


def test_a_page_ends_its_headline_once_and_says_how_it_was_made() -> None:
    page = RESULT.page()
    assert page.headline == "It is < calm."
    assert page_of(Weather(RESULT.wind, headline="Calm."), "k", "t", []).headline == "Calm."
    assert [section.name for section in page.sections] == ["part-0", "source"]
    (table,) = page.sections[0].blocks
    assert table == Table(
        ("at", "hour", "wind"), (("noon", "12", "0.2"), ("night", "24", "nan")), "Wind.", frozenset({2})
    )


def test_a_display_escapes_and_may_have_another_headline() -> None:
    shown = RESULT._repr_html_()
    assert "It is &lt; calm" in shown
    assert "by &lt;hour&gt;" in shown
    assert "a &lt;net&gt;" in shown
    assert "Storm" in display_result(RESULT, headline="Storm")
