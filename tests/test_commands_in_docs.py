"""Commands that the documentation shows are understood: every option exists, every value is of its kind."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cutaway.cli.main import app
from cutaway.errors import CutawayError, UnknownOption

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(?:sh|bash|console)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: What stands for what a reader has.
STANDS_FOR = {"MODEL": "zoo:tales", "B": "pronoun", "NAME": "pronoun", "TEXT": "Mary was sad because"}


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line that begins with the program's name, with lines that go on joined."""
    found = []
    for page in sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")]):
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("cutaway "):
                    found.append((page.name, " ".join(line.split())))
    return found


def test_there_are_commands() -> None:
    assert len(commands()) > 20


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda text: text[:60])
def test_a_command_is_understood(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening the network, or a file that only a reader has, is as far as it comes."""

    class Far(Exception):
        pass

    def far(*_: object, **__: object) -> None:
        raise Far

    monkeypatch.chdir(tmp_path)
    for where in ("cutaway.cli.question.network", "cutaway.calibration.verify", "cutaway.recipes.making.make",
                  "cutaway.calibration.bench.bench"):  # fmt: skip
        monkeypatch.setattr(where, far)
    words = [STANDS_FOR.get(word, word) for word in shlex.split(line, comments=True)[1:]]
    done = CliRunner().invoke(app, [*words, "--debug"])
    known = isinstance(done.exception, Far | CutawayError) or done.exit_code == 0
    assert known, done.output + done.stderr
    assert not isinstance(done.exception, UnknownOption)
