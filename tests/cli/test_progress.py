"""What somebody who waits is told: the price, how far it is, what is left, how to go on; and the same for other programs."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cutaway.cli import progress, saving
from cutaway.cli.common import STOPPED
from cutaway.cli.main import app
from cutaway.cli.progress import Headway, JsonEvents, LiveBar, PipedLines, Telling
from cutaway.results import Price, Progress

runner = CliRunner()
PATCH = ["patch", "zoo:tales", "-b", "pronoun", "--at", "z", "--by", "layer,head,position", "--n", "32"]


def told(kind: type[Telling], terminal: bool = False) -> tuple[Telling, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, highlight=False)
    return kind(console), out


def test_what_is_left_is_told_by_the_price_then_by_the_pace_then_by_the_steps() -> None:
    course = Headway()
    assert course.remaining(1.0, 0.0) is None
    course.hear(Progress("patching", 0, 1, 10.0, 100.0, Price(1000.0, 50.0)))
    assert course.remaining(10.0, 100.0) == pytest.approx(50.0)  # nothing is run yet: the price
    # a tenth is run at twice its pace: half trusted
    assert course.remaining(20.0, 200.0) == pytest.approx(900 * (0.5 * 0.1 + 0.5 * 0.05))
    assert course.remaining(60.0, 600.0) == pytest.approx(500 * 0.1)  # its own pace
    course.hear(Progress("fitting", 0, 40, 110.0, 1100.0))
    assert course.remaining(110.0, 1100.0) is None  # all that was foreseen is run, and no step is made
    course.hear(Progress("fitting", 10, 40, 130.0, 1100.0))
    assert course.remaining(130.0, 1100.0) == pytest.approx(60.0)


def test_in_a_pipe_the_price_comes_first_and_a_step_that_takes_long_is_not_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.3)
    listener, out = told(PipedLines)
    listener.kept = "kept-here"
    with listener:
        listener(Progress("patching", 0, 1, 0.0, 0.0, Price(1000.0, 50.0)))
        listener(Progress("patching", 1, 40, 0.1, 20.0))
        until = time.monotonic() + 20
        while out.getvalue().count("(1 of 40)") < 2 and time.monotonic() < until:
            time.sleep(0.05)
    lines = out.getvalue().splitlines()
    assert lines[0] == "patching: about 1,000 forward-equivalents, 50 seconds"
    assert "--resume kept-here" in lines[1]
    beats = [line for line in lines if "patching (1 of 40)" in line]
    assert len(beats) >= 2  # from the thread that tells the time
    assert all(" left" in line for line in beats)


def test_what_is_over_soon_is_not_announced() -> None:
    listener, out = told(PipedLines)
    with listener:
        listener(Progress("patching", 0, 1, 0.0, 0.0, Price(10.0, 0.2)))
        listener(Progress("reading", 0, 1, 0.0, 0.0, Price(10.0)))
    assert out.getvalue() == ""


def test_on_a_terminal_the_display_says_stage_steps_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    listener, out = told(LiveBar, terminal=True)
    with listener:
        listener(Progress("patching", 0, 1, 0.0, 0.0, Price(1000.0, 50.0)))
        listener(Progress("patching", 7, 40, 1.0, 20.0))
        time.sleep(0.3)
    assert "about 1,000 forward-equivalents, 50 seconds" in out.getvalue()
    assert "patching" in out.getvalue()
    assert "7 of 40" in out.getvalue()
    assert " left" in out.getvalue()


def test_events_are_lines_of_json_and_stages_are_told_once() -> None:
    listener, out = told(JsonEvents)
    with listener:
        listener(Progress("patching", 0, 1, 0.0, 0.0, Price(1000.0, 50.0, 60.0, 1 << 20, (("a", 1000.0),))))
        for done in range(1, 4):
            listener(Progress("patching", done, 3, 0.1, 20.0))
        listener(Progress("judging", 0, 1, 0.1, 20.0))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    price = events[0]
    assert (price["event"], price["forwards"], price["seconds"], price["memory"]) == (
        "price",
        1000.0,
        50.0,
        1 << 20,
    )
    assert price["parts"] == [{"stage": "a", "forwards": 1000.0}]
    stages = [(e["label"], e["total"]) for e in events if e["event"] == "stage"]
    assert stages == [("patching", 1), ("patching", 3), ("judging", 1)]
    assert any(e["event"] == "step" and e["done"] == 3 for e in events)
    assert events[-1]["event"] == "end"
    assert events[-1]["processor"] >= 0


def test_a_command_writes_events_to_stderr_and_its_result_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, [*PATCH[:6], "--by", "layer", "--json", "--json-progress"])
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    kinds = [e["event"] for e in events]
    assert kinds.count("price") == 1
    assert kinds.count("end") == 1
    assert any(e["event"] == "remark" and e["text"].startswith("saved") for e in events)
    assert not (tmp_path / "cutaway-runs" / "unfinished").exists()


def test_a_budget_that_is_too_small_is_refused_with_what_would_be_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["trace", "zoo:tales", "-b", "pronoun", "--n", "32", "--edges", "20"]
    done = runner.invoke(app, [*words, "--budget", "20forwards"])
    assert done.exit_code == STOPPED
    assert "too small for anything: nothing was run" in done.stderr
    assert "would be enough" in done.stderr
    assert not (tmp_path / "cutaway-runs").exists()


def test_a_stopped_command_names_the_folder_that_it_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(saving, "_PATIENCE", 0.0)
    whole = runner.invoke(app, [*PATCH, "--out", "whole", "--json", "--json-progress"])
    end = next(e for e in map(json.loads, whole.stderr.splitlines()) if e["event"] == "end")
    part = runner.invoke(app, [*PATCH, "--out", "part", "--budget", f"{0.7 * end['forwards']:.0f}forwards"])
    assert part.exit_code == STOPPED, part.output
    assert "marked as partial" in part.stderr
    folder = part.stderr.partition("--resume ")[2].split()[0].rstrip(".")
    assert Path(folder).is_dir()
    rest = runner.invoke(app, [*PATCH, "--out", "rest", "--resume", folder, "--json", "--json-progress"])
    assert rest.exit_code == 0, rest.output
    again = next(e for e in map(json.loads, rest.stderr.splitlines()) if e["event"] == "end")
    assert again["forwards"] < end["forwards"]
    both = [json.loads(each.stdout) for each in (rest, whole)]
    first, second = ({k: v for k, v in each.items() if k not in ("provenance", "saved")} for each in both)
    assert first == second
    other = runner.invoke(app, [*PATCH, "--seed", "1", "--out", "other", "--resume", folder])
    assert other.exit_code == 2
    assert "another question" in other.stderr


@pytest.mark.parametrize(
    "words", [["open", "zoo:tales"], ["sites", "zoo:tales"], ["run", "zoo:tales", "Mary was"]]
)
def test_a_network_that_is_larger_than_the_budget_is_refused_before_it_is_loaded(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutaway.network import opening

    monkeypatch.setattr(opening, "load_model", lambda *_: pytest.fail("loaded"))
    done = runner.invoke(app, [*words, "--budget", "1m,1MiB"])
    assert done.exit_code == 2
    assert "The weights of zoo:tales take 3.66 MiB, and the budget is 1.00 MiB." in done.stderr
    enough = done.stderr.partition("A budget of ")[2].split()[0]
    monkeypatch.undo()
    again = runner.invoke(app, [*words, "--budget", f"5m,{enough}", "--json"])
    assert again.exit_code == 0, again.output
    json.loads(again.stdout)


def test_opening_that_takes_longer_than_the_budget_says_what_would_be_enough() -> None:
    done = runner.invoke(app, ["open", "zoo:tales", "--budget", "0.001s"])
    assert done.exit_code == STOPPED
    assert "is spent: opening took" in done.stderr
    assert "would be enough" in done.stderr


def test_a_run_goes_on_as_far_as_its_budget_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    from cutaway.network import Network

    real = Network.generate

    def generate(self: Network, *values: object, **options: float) -> object:
        asked.append(options["max_time"])
        return real(self, *values, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "generate", generate)
    done = runner.invoke(app, ["run", "zoo:tales", "Mary was", "--new", "3", "--budget", "5m", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["continued"]
    assert 0 < asked[0] < 300
