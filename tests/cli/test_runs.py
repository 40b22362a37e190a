"""The folder of runs: one dated folder each, a page that lists them, and nothing overwritten unasked."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from cutaway.cli.main import app
from cutaway.cli.screen import Screen, opening
from cutaway.reports import RunRecord, claimed, note_run, runs_in, write_index

runner = CliRunner()
PATCH = ["patch", "zoo:tales", "-b", "pronoun", "--at", "mlp_write", "--by", "layer", "--n", "8"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [str(attributes["href"]) for tag, attributes in self.tags if tag == "a"]


def a_run(runs: Path, name: str, headline: str = "found", when: str = "2026-11-29T10:00:00+00:00") -> Path:
    folder = claimed(runs / name)
    (folder / "report.html").write_text("here")
    note_run(folder, RunRecord(when, "patch", "zoo:tales", "pronoun", headline, "supported"))
    return folder


def test_a_run_has_a_dated_folder_a_line_on_the_page_and_a_word_how_to_open_it(tmp_path: Path) -> None:
    done = runner.invoke(app, PATCH)
    assert done.exit_code == 0, done.output
    (folder,) = [p for p in (tmp_path / "cutaway-runs").iterdir() if p.is_dir()]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-patch-tales-pronoun-mlp_write", folder.name)
    assert (folder / "report.html").is_file()
    relative = f"cutaway-runs/{folder.name}/report.html"
    assert re.search(rf"open it.*{re.escape(relative)}", done.stderr)
    page = Tags((tmp_path / "cutaway-runs" / "index.html").read_text())
    assert page.links() == [f"./{folder.name}/report.html"]
    for word in (
        "patch",
        "zoo:tales",
        "pronoun, mlp_write",
        "Restoring mlp_write in layer",
    ):
        assert word in page.text


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    assert [claimed(tmp_path / "runs" / "now").name for _ in range(3)] == ["now", "now-2", "now-3"]


def test_what_exists_is_not_overwritten_unless_one_says_so(tmp_path: Path) -> None:
    assert runner.invoke(app, [*PATCH, "-o", "out"]).exit_code == 0
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    refused = runner.invoke(app, [*PATCH, "-o", "out", "--direction", "corrupt"])
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert runner.invoke(app, [*PATCH, "-o", "out", "--direction", "corrupt", "--overwrite"]).exit_code == 0
    assert (tmp_path / "out" / "manifest.json").read_bytes() != before
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        PATCH,
        ["lens", "zoo:tales", "Mary was sad because"],
        ["stream", "zoo:tales", "Mary was sad because", "-t", " she"],
        ["probe", "zoo:tales", "--data", "no.csv", "--label", "x"],
        ["zoo", "bench", "induction-gpt2"],
        ["zoo", "make", "induction-gpt2"],
        ["explain", "zoo:tales", "-b", "pronoun"],
    ],
    ids=lambda words: words[1] if words[0] == "zoo" else words[0],
)
@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_every_command_leaves_the_folder_of_something_else_alone(
    words: list[str], more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs: no network is opened for it."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("one")
    monkeypatch.setattr("cutaway.cli.question.network", lambda *_: pytest.fail("a network was opened"))
    done = runner.invoke(app, [*words, "-o", "thesis", *more])
    assert done.exit_code == 2
    assert "thesis" in done.stderr
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_run_does_not_overwrite_a_file_unasked(tmp_path: Path) -> None:
    words = ["run", "zoo:tales", "Mary was sad because", "--save", "run.safetensors"]
    (tmp_path / "run.safetensors").write_text("mine")
    assert runner.invoke(app, words).exit_code == 2
    assert (tmp_path / "run.safetensors").read_text() == "mine"
    assert runner.invoke(app, [*words, "--overwrite"]).exit_code == 0


def test_the_page_is_right_after_folders_were_deleted_and_of_what_cannot_be_read(tmp_path: Path) -> None:
    for i in range(3):
        a_run(tmp_path, f"run-{i}", f"result {i}", f"2026-11-29T10:00:0{i}+00:00")
    shutil.rmtree(tmp_path / "run-1")
    (tmp_path / "notes").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "run.json").write_text('{"format": "cutaway-run-1", "when": ["x"], "verb": null}')
    page = Tags(write_index(tmp_path).read_text())
    assert page.links()[-2:] == ["./run-2/report.html", "./run-0/report.html"]
    assert "result 1" not in page.text
    assert not any("notes" in link or "broken" in link for link in page.links())


def test_hostile_names_and_headlines_stay_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    name = "a\"><img src=x onerror=alert(1)>'&#x6a;javascript:alert(1)"
    a_run(tmp_path, name, evil)
    note_run(claimed(tmp_path / "javascript:alert(1)"), RunRecord(evil, evil, evil, evil, evil, evil))
    page = Tags(write_index(tmp_path).read_text())
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object"} == set()
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert all(link.startswith("./") for link in page.links())
    assert (
        unquote(page.links()[-1]) == f"./{name}/report.html"
        or unquote(page.links()[0]) == f"./{name}/report.html"
    )
    assert page.text.count(evil) >= 4


def test_runs_that_end_at_once_are_all_on_the_page(tmp_path: Path) -> None:
    def one(i: int) -> None:
        a_run(tmp_path, "same-second", f"result {i}")
        write_index(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(24)))
    page = Tags((tmp_path / "index.html").read_text())
    assert len(page.links()) == len(set(page.links())) == 24
    assert len(runs_in(tmp_path)) == 24
    assert not list(tmp_path.glob("*.part"))


def test_a_run_that_cannot_be_saved_leaves_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cutaway-runs").write_text("in the way")
    done = runner.invoke(app, [*PATCH, "--json"])
    assert done.exit_code == 0, done.output
    assert "temporary folder" in done.stderr
    assert all(Path(path).exists() for path in json.loads(done.stdout)["saved"])


def test_how_to_open_a_page_by_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path("cutaway-runs/a b/report.html")
    monkeypatch.setattr("sys.platform", "darwin")
    assert opening(page) == "open 'cutaway-runs/a b/report.html'"
    monkeypatch.setattr("sys.platform", "win32")
    assert opening(page).startswith('start "" "')
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert opening(page) == ""
    Screen(False).saved(page)
    assert "open it in a browser: cutaway-runs/a b/report.html" in capsys.readouterr().err


def test_on_a_terminal_the_page_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    screen = Screen(False)
    screen.remarks = Console(file=StringIO(), force_terminal=True, color_system="truecolor")
    screen.saved(tmp_path / "report.html")
    assert "\x1b]8;" in screen.remarks.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert (tmp_path / "report.html").as_uri() in screen.remarks.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
