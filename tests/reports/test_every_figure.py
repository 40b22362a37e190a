"""Every figure of every kind of result: drawn still, named, with its numbers behind it, on a page that stays small."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import cutaway
from cutaway.figures import Picture
from cutaway.reports import Figure, render
from cutaway.results import KINDS

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

import fuzzing  # type: ignore[import-not-found]

#: What a page may weigh without the script [bytes].
MOST = 500_000


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A result of each kind that there is, saved."""
    return fuzzing.results(fuzzing.Bed.of(tmp_path_factory.mktemp("figures")))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_result_of_every_kind_has_a_still_page(kind: str, saved: dict[str, Path]) -> None:
    result = cutaway.load(saved[kind])
    page, drawn = result.page(), result.plot()
    assert isinstance(drawn, Picture)
    assert len(drawn.table())
    figures = [block for section in page.sections for block in section.blocks if isinstance(block, Figure)]
    text = render(page)
    assert len(text.encode()) < MOST
    assert "<script" not in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) <= len(drawings) <= 2 * len(figures)
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert list(shapes(root)), kind
    assert text.count("<summary>") == len(figures)
    assert page.headline.endswith(".")
    heading = html.unescape(re.sub(r"<[^>]+>", "", text.split("<h1")[1].split("</h1>")[0]))
    assert page.headline in heading.replace("\u00a0", " ")
    assert page.title
    assert page.title.rstrip(".") != page.headline.rstrip(".")
    for block in figures:
        for sign in signs_of(block):
            assert sign not in block.caption, kind
    for block in figures:
        assert isinstance(block.figure, Picture)
        assert len(block.figure.table())


def signs_of(block: Figure) -> list[str]:
    """What the line above a figure says of its signs."""
    said = [str(a.text) for a in block.figure.layout.annotations]  # type: ignore[attr-defined]
    signs = [
        sign.replace("\u00a0", " ").strip(" –·") for text in said for sign in re.split("\u2003|<br>", text)
    ]
    return [sign for sign in signs if ": " in sign or "cannot be told" in sign]


def shapes(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """What is really drawn."""
    return (item for item in root.iter() if item.tag.endswith(("path", "circle", "use", "image")))
