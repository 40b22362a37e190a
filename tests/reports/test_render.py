from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from cutaway.claims import Claim, Control, Evidence
from cutaway.errors import SaveFailed
from cutaway.figures import Grid, heatmap, show_token
from cutaway.reports import (
    ClaimTests,
    Facts,
    Figure,
    KeyFigure,
    Listing,
    Page,
    Pair,
    Pairs,
    Points,
    Section,
    Table,
    Text,
    Token,
    render,
    write,
)  # fmt: skip
from cutaway.reports.render import embed_json

NASTY = "</script><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)> & \u2028 \"quoted\" {{ 7*7 }}"
VOID = {"meta", "br", "wbr", "img", "hr", "link", "input"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.problems: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)


@pytest.fixture(scope="module")
def page() -> Page:
    values = np.array([[0.5, -0.25, np.nan], [0.0, 1.0, 0.01]])
    grid = Grid(
        values,
        ["0", "1"],
        [show_token(NASTY), show_token("<s>"), show_token(" ok")],
        q=np.full((2, 3), 0.01),
        low=values,
        high=values,
    )
    claim = Claim(
        NASTY,
        "refuted",
        (Evidence("kept", value=0.1, passed=False, sentence=NASTY),),
        (Control("random", passed=None),),
        (NASTY,),
    )
    blocks = [
        Text((NASTY,)), Points(((NASTY, NASTY),)), Figure(heatmap(grid, title=show_token(NASTY)), NASTY),
        Figure(go.Figure(), "empty"),
        Table(("a", "b"), ((NASTY, "1"),), NASTY, frozenset({1})), ClaimTests(claim),
        Facts(((NASTY, NASTY),)), Listing(NASTY),
        Pairs((Pair((Token(NASTY, True), Token("\n")), (Token(" a"),), NASTY, "b", NASTY),), "caption"),
    ]  # fmt: skip
    return Page(
        NASTY,
        NASTY,
        "refuted",
        NASTY,
        NASTY,
        [KeyFigure(NASTY, NASTY, NASTY)],
        [Section("one", NASTY, blocks, NASTY)],
        NASTY,
    )


@pytest.fixture(scope="module")
def text(page: Page) -> str:
    return render(page)


@pytest.fixture(scope="module")
def reader(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def test_well_formed(reader: Reader) -> None:
    assert reader.problems == []
    assert reader.open == []


def test_nothing_is_loaded_from_anywhere(reader: Reader, text: str) -> None:
    for tag, attrs in reader.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}, (tag, attrs)
        for name in ("src", "srcset", "action", "data", "poster", "background"):
            assert name not in attrs or tag == "svg", (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#"), (tag, attrs)
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(
        attrs["content"] for tag, attrs in reader.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_plotly_is_there_once(text: str) -> None:
    assert text.count("Copyright 2012-") == 1


def test_nasty_strings_are_text(reader: Reader) -> None:
    assert not any(
        "alert" in (value or "")
        for tag, attrs in reader.tags
        for name, value in attrs.items()
        if name.startswith("on")
    )
    assert sum(tag == "script" for tag, _ in reader.tags) == 4
    shown = " ".join(reader.text)
    assert "alert('x')" in shown
    assert "{{ 7*7 }}" in shown
    assert "49" not in shown


def test_embedded_figures_parse_back(reader: Reader, page: Page) -> None:
    embedded = [s for s in reader.scripts if s.startswith('{"data"')]
    assert len(embedded) == 2
    assert "<" not in embedded[0]
    figure = json.loads(embedded[0])
    assert figure["data"][0]["type"] == "heatmap"
    assert figure["layout"]["xaxis"]["ticktext"][1] == "&lt;s&gt;"


def test_json_round_trip() -> None:
    value = {"a": NASTY, "b": [1, None, "\u2029"]}
    text = str(embed_json(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_write_is_atomic_and_says_when_it_cannot(page: Page, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveFailed):
        write(page, tmp_path / "file" / "report.html")
    assert write(page, tmp_path / "report.html").stat().st_size > 1_000_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "report.html"]


def test_a_page_without_figures_needs_no_script() -> None:
    text = render(Page("t", "k", None, "h"))
    assert "<script" not in text
