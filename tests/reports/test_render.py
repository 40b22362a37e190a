from __future__ import annotations

import base64
import hashlib
import html
import importlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

from cutaway.claims import Claim, Control, Evidence
from cutaway.errors import SaveFailed, UnknownOption
from cutaway.figures import Grid, heatmap, show_token
from cutaway.reports import (
    ClaimTests,
    Facts,
    Figure,
    Heading,
    KeyFigure,
    Listing,
    Page,
    Pair,
    Pairs,
    Points,
    Said,
    Section,
    Table,
    Text,
    Token,
    Told,
    publish,
    render,
    write,
)  # fmt: skip
from cutaway.reports.drawn import embed_json
from cutaway.reports.render import SCRIPT

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
def moving(page: Page) -> str:
    return render(page, "inline")


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.fixture(scope="module")
def reader(text: str) -> Reader:
    return read(text)


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


def test_a_page_is_still_and_plotly_stands_in_it_once_on_request(text: str, moving: str, page: Page) -> None:
    assert "<script" not in text
    assert "script-src 'none'" in text
    assert len(text.encode()) < 100_000
    assert moving.count("Copyright 2012-") == 1
    beside = render(page, "beside")
    assert f'<script src="{SCRIPT}"></script>' in beside
    assert "script-src 'self'" in beside
    assert len(beside.encode()) < 200_000


def test_the_policy_allows_just_the_script_that_is_there(moving: str) -> None:
    script = next(s for s in read(moving).scripts if "Copyright 2012-" in s)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in moving
    assert "unsafe-inline" not in moving.split("script-src", 1)[1].split(";", 1)[0]


def test_another_way_to_be_interactive_is_refused_before_anything_is_saved(
    page: Page, tmp_path: Path
) -> None:
    with pytest.raises(UnknownOption, match="beside"):
        render(page, "besides")
    with pytest.raises(UnknownOption):
        publish(None, tmp_path / "new", interactive="online")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", ["text", "moving"])
def test_nasty_strings_are_text(which: str, request: pytest.FixtureRequest) -> None:
    reader = read(request.getfixturevalue(which))
    assert reader.problems == []
    assert not any(
        "alert" in (value or "")
        for tag, attrs in reader.tags
        for name, value in attrs.items()
        if name.startswith("on")
    )
    assert sum(tag == "script" for tag, _ in reader.tags) == (3 if which == "moving" else 0)
    shown = " ".join(reader.text)
    assert "alert('x')" in shown
    assert "{{ 7*7 }}" in shown
    assert "49" not in re.sub(r"\d*\.\d+|-?\d{3,}", "", shown)


def test_embedded_figures_parse_back(moving: str) -> None:
    embedded = [s for s in read(moving).scripts if s.startswith('{"data"')]
    assert len(embedded) == 2
    assert "<" not in embedded[0]
    figure = json.loads(embedded[0])
    assert figure["data"][0]["type"] == "heatmap"
    assert figure["layout"]["xaxis"]["ticktext"][1] == "&lt;s&gt;"


def test_every_drawing_is_named_and_every_id_is_there_once(reader: Reader) -> None:
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    drawings = [attrs for tag, attrs in reader.tags if tag == "svg"]
    assert len(drawings) == 4
    for attrs in drawings:
        assert attrs["role"] == "img"
        assert set((attrs["aria-labelledby"] or "").split()) <= set(ids)


def test_drawings_are_xml(text: str) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_the_table_behind_a_figure_has_its_numbers(reader: Reader, text: str) -> None:
    behind = text[text.index("<details>") : text.index("</details>")]
    cells = [html.unescape(c) for c in re.findall(r"<td>(.*?)</td>", behind)]
    assert cells[1:] == [
        "0 (0 to 0)",
        "1 (1 to 1)",
        "0.01 (0.01 to 0.01)",
        "0.5 (0.5 to 0.5)",
        "−0.25 (−0.25 to −0.25)",
        "",
    ]


def test_a_title_stands_once() -> None:
    def shown(title: str, caption: str, heading: str = "") -> str:
        figure = heatmap(Grid(np.ones((1, 1)), ["0"], ["a"]), title=title)
        text = render(Page("t", "k", None, "h", sections=[Section("s", heading, [Figure(figure, caption)])]))
        return text.split("<figcaption>")[1].split("</figcaption>")[0]

    assert "Head 2.0. Where it looks." in shown("Head 2.0", "Where it looks.")
    assert shown("head 2.0", "Where head 2.0 looks.").count("head 2.0") == 1
    assert "Head" not in shown("Head 2.0", "Where it looks.", "Head 2.0")


def test_sections_without_a_title_have_no_heading_and_a_headline_is_not_the_title_again() -> None:
    text = render(Page("The same", "k", None, "The same.", sections=[Section("s", "", [Text(("x",))])]))
    assert "<h2" not in text
    assert "<nav" not in text
    assert text.count("The same") == 2  # in the head and as heading


def test_a_page_that_would_be_heavy_leaves_out_words_and_small_cells_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.linspace(-1, 1, 144).reshape(12, 12)
    names = list(map(str, range(12)))
    blocks = [Figure(heatmap(Grid(values, names, names)), f"{n}.") for n in range(2)]
    page = Page("t", "k", None, "h", sections=[Section("s", "", blocks)])
    whole = render(page)
    monkeypatch.setattr(importlib.import_module("cutaway.reports.render"), "_HEAVY", 1)
    light = render(page)
    assert len(light) < 0.9 * len(whole)
    assert "<title>" not in light.split("<body")[1]
    assert "and 44 more, the smaller ones" in light
    assert "<title>" in whole
    assert "more, the smaller ones" not in whole


def test_json_round_trip() -> None:
    value = {"a": NASTY, "b": [1, None, "\u2029"]}
    text = str(embed_json(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_write_is_atomic_and_says_when_it_cannot(page: Page, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveFailed):
        write(page, tmp_path / "file" / "report.html")
    assert write(page, tmp_path / "report.html").stat().st_size < 100_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "report.html"]
    write(page, tmp_path / "report.html", "beside")
    assert (tmp_path / SCRIPT).stat().st_size > 1_000_000


def test_a_page_without_figures_needs_no_script() -> None:
    for way in (None, "inline", "beside"):
        assert "<script" not in render(Page("t", "k", None, "h"), way)


def test_told_sentences_link_to_their_evidence() -> None:
    said = (Said(NASTY, "proof", "refuted", "Why?"), Said("Nothing was asked."))
    sections = [
        Section("story", "Story", [Told(said, numbered=True, caption="c"), Heading(NASTY)]),
        Section("proof", "", []),
    ]
    reader = Reader()
    reader.feed(render(Page("t", "k", None, "h", sections=sections)))
    links = [attrs for tag, attrs in reader.tags if tag == "a" and attrs.get("href") == "#proof"]
    assert len(links) == 1
    assert any(attrs.get("class") == "badge badge-refuted" for _, attrs in reader.tags)
    assert [tag for tag, _ in reader.tags].count("ol") == 1
    assert "".join(reader.text).count(NASTY) == 2
    assert not reader.problems
