"""What the documentation shows, runs: every Python block of Markdown pages, every docstring example."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import cutaway
from cutaway.errors import CutawayError

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p for p in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if p.exists())
FENCE = re.compile(r"^```python(?P<mark>[^\n]*)\n(?P<code>.*?)^```\s*$", re.DOTALL | re.MULTILINE)
NO_RUN = re.compile(r"no-run: *(?P<reason>\S.*)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    mark: str
    code: str


def blocks(page: Path) -> list[Block]:
    """The Python blocks of a page, each with the line on which its code begins."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: m.start("code")].count("\n") + 1, m["mark"].strip(), m["code"])
        for m in FENCE.finditer(text)
    ]


def modules() -> list[str]:
    found = pkgutil.walk_packages(cutaway.__path__, prefix="cutaway.")
    return ["cutaway", *(m.name for m in found if not m.name.endswith("__main__"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one page share their names, in order. A block marked `python no-run: REASON` is only
    compiled.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks(page):
        code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
        if block.mark.startswith("no-run"):
            assert NO_RUN.match(block.mark), (
                f"{page.name}:{block.line}: a block that is not run needs a reason"
            )
            continue
        exec(code, names)


ROW = re.compile(r"^\| (?P<theirs>.*?) \| `(?P<ours>[^|]*)` \|$", re.MULTILINE)


@pytest.mark.parametrize("page", ["from-transformerlens.md", "from-nnsight.md"])
def test_rows_of_lines_beside_ours_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our side of each row, one after the other, behind the page's own beginning."""
    monkeypatch.chdir(tmp_path)
    path = ROOT / "docs" / page
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks(path):
        if not block.mark:
            exec(compile(block.code, str(path), "exec"), names)
    rows = [m["ours"] for m in ROW.finditer(path.read_text(encoding="utf-8"))]
    assert len(rows) >= 20
    for code in rows:
        exec(compile(code, f"{page}: {code}", "exec"), names)


def test_a_daily_task_takes_no_more_lines_than_with_transformerlens() -> None:
    """Statements on both sides, without imports; a comment, a blank line and how a line is broken do not count."""
    page = blocks(ROOT / "docs" / "daily.md")
    theirs = [i for i, block in enumerate(page) if block.mark == "no-run: TransformerLens"]
    assert len(theirs) >= 13
    for i in theirs:
        assert lines_of(page[i - 1].code) <= lines_of(page[i].code), f"daily.md:{page[i - 1].line}"


@pytest.mark.skipif(
    "CUTAWAY_SMOLLM2" not in os.environ, reason="CUTAWAY_SMOLLM2 names no folder of a real network"
)
def test_the_daily_tasks_run_on_a_network_of_135_million_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks(ROOT / "docs" / "daily.md"):
        if not block.mark or "conversations" in block.mark:
            code = block.code.replace('"zoo:tales"', repr(os.environ["CUTAWAY_SMOLLM2"]))
            exec(compile(code, f"daily.md:{block.line}", "exec"), names)


@pytest.mark.skipif("CUTAWAY_MINILM" not in os.environ, reason="CUTAWAY_MINILM names no folder of an encoder")
def test_the_daily_tasks_that_an_encoder_has_run_on_minilm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It predicts no tokens, so what reads logits is refused in a sentence; the rest is as anywhere."""
    monkeypatch.chdir(tmp_path)
    net = cutaway.open(os.environ["CUTAWAY_MINILM"])
    text, other = "The bank raised its rates.", "The bank of the river flooded."
    texts = [text, other, "Rates fell.", "The river rose again."]
    assert "resid_post" in str(net.run(text, keep="resid_post"))
    assert len(cutaway.patterns(net, text).heads) == 72
    assert cutaway.side_by_side(net, text, other).plot().data
    assert cutaway.top_examples(net, texts, of="n1.7", k=3).texts == 4
    cutaway.activations(net, texts, at="resid_post.2", folder="stored")
    assert cutaway.load("stored").array("resid_post.2").shape[1] == net.d_model
    assert net.weights("W_Q", layer=2, head=1).shape[0] == net.d_model
    assert cutaway.difference_of_means(net, texts[:1] * 5, texts[1:2] * 5, at="resid_post.1").vector.any()
    for refused in (
        lambda: net.loss(texts),
        lambda: cutaway.induction_heads(net),
        lambda: net.gradients(text),
    ):
        with pytest.raises(CutawayError):
            refused()


def lines_of(code: str) -> int:
    """How many statements there are, those inside of others as well."""
    tree = ast.parse(code)
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert failed == 0, f"{failed} examples of {name} failed; see the captured output"
