"""Every command of the command line on a real network, each with its smallest useful call: what it announced and took.

Each runs in a process of its own with one thread, the slow ones within a budget; figures come from its events
(`--json-progress`). The section “Every verb on SmolLM2” of docs/costs.md is written anew.

    python benchmarks/commands.py FOLDER [--limit 120] [--only patch,trace] [--loaded]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
PAGE, HEADING = HERE / "docs" / "costs.md", "## Every verb on SmolLM2"
TEXT, OTHER = (
    "When Mary and John went to the park, John gave the ball to",
    "When Mary and John went to the park, Mary gave the ball to",
)
NAMES = ["Mary", "Anna", "Tom", "John", "Lisa", "Paul", "Kate", "Mark"]
IOI = ["-b", "ioi", "--n"]


def calls(folder: Path, circuit: str) -> dict[str, list[str]]:
    """Command -> its words after the network."""
    texts, labelled = folder / "texts.txt", folder / "labelled.csv"
    good, bad = folder / "good.txt", folder / "bad.txt"
    texts.write_text(
        "\n".join(f"{name} went to the park and sat on a bench." for name in NAMES), encoding="utf-8"
    )
    rows = [
        f"{name} was sad because,{'she' if name in ('Mary', 'Anna', 'Lisa', 'Kate') else 'he'}"
        for name in NAMES
    ]
    more = [
        row.replace("sad", feeling) for row in rows for feeling in ("sad", "glad", "tired", "late", "early")
    ]
    labelled.write_text("text,who\n" + "\n".join(more), encoding="utf-8")
    good.write_text("\n".join(f"{name} loved the film." for name in NAMES), encoding="utf-8")
    bad.write_text("\n".join(f"{name} hated the film." for name in NAMES), encoding="utf-8")
    target = ["--target", " Mary", "--foil", " John"]
    return {
        "open": [],
        "sites": [],
        "run": [TEXT],
        "behaviours": ["--n", "8"],
        "lens": [TEXT],
        "stream": [TEXT, *target],
        "patterns": [TEXT],
        "compare-prompts": [TEXT, OTHER],
        "expand": [TEXT, *target, "--depth", "1"],
        "loss": [TEXT],
        "attribution": [*IOI, "8"],
        "patch": [*IOI, "8", "--by", "layer"],
        "ablate": [*IOI, "8", "--at", "attn_write", "--by", "layer"],
        "paths": [*IOI, "8", "--from", "a10.h0", "--to", "logits"],
        "steer": [
            TEXT,
            "--positive",
            str(good),
            "--negative",
            str(bad),
            "--at",
            "resid_post.15",
            "--tokens",
            "8",
        ],
        "top-examples": ["--of", "n3.120", "--file", str(texts)],
        "activations": ["--at", "resid_post.5", "--file", str(texts)],
        "induction-heads": [],
        "trace": [*IOI, "8", "--edges", "300", "--out", circuit],
        "test": [circuit, *IOI, "8", "--no-controls"],
        "probe": ["--data", str(labelled), "--label", "who", "--set", "use=false"],
        "explain": [*IOI, "16"],
    }


def measured(model: str, words: list[str], name: str, where: Path, limit: float) -> dict[str, Any]:
    """What a command announced and took."""
    line = [sys.executable, "-m", "cutaway", name, model if name != "behaviours" else model, *words]
    forced = ["--force"] if "-b" in words else []
    events = ["--json-progress", "--budget", f"{limit:g}s"]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*line, *forced, *events], capture_output=True, text=True, cwd=where, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row: dict[str, Any] = {
        "name": name,
        "clock": time.perf_counter() - began,
        "processor": spent,
        "code": done.returncode,
    }
    for text in done.stderr.splitlines():
        if text.startswith('{"event"'):
            event = json.loads(text)
            if event["event"] in ("price", "end"):
                seen = row.setdefault(event["event"], event)  # of several prices the largest
                row[event["event"]] = (
                    event if event["event"] == "price" and event["forwards"] > seen["forwards"] else seen
                )
    if done.returncode not in (0, 130):
        row["said"] = done.stderr[-400:]
    return row


def told(forwards: float, seconds: float | None, processor: float | None) -> str:
    """Forward-equivalents, seconds and processor seconds in a cell."""
    more = "" if seconds is None else f", {seconds:.1f} s"
    return f"{forwards:,.0f} forwards{more}" + (
        "" if processor is None else f", {processor:.1f} s of processor time"
    )


def section(rows: list[dict[str, Any]], loaded: bool) -> str:
    """The section of the page."""
    lead = ("The smallest useful call of every command, 135 M parameters, one thread, with loading Python and the network; "
            "“announced” is what was said before it began, beside what was then used: forward-equivalents, seconds by the "
            "clock, seconds of processor time. Below 24 forwards nothing is timed beforehand.")  # fmt: skip
    lines = [HEADING, "", lead, ""]
    if loaded:
        lines += ["*Measured while others worked on the machine: seconds by the clock are too many.*", ""]
    lines += [
        "| command | announced | used | seconds by the clock, in all | processor seconds, in all |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        price, end = row.get("price"), row.get("end", {})
        said = used = ""
        if price is not None:
            said = told(price["forwards"], price["seconds"], price["processor"])
        if end:
            names = (("forwards", "at_forwards"), ("seconds", "at"), ("processor", "at_processor"))
            used = told(*(end[name] - (price or {}).get(at, 0.0) for name, at in names))
        more = " (stopped by the budget)" if row["code"] == 130 else "" if row["code"] == 0 else " (refused)"
        lines.append(
            f"| `{row['name']}` | {said} | {used} | {row['clock']:.0f}{more} | {row['processor']:.0f} |"
        )
    return "\n".join(lines) + "\n\nMade by `python benchmarks/commands.py FOLDER`.\n"


def main() -> None:
    """Run them one after the other, and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder or id of a real network")
    parser.add_argument("--limit", type=float, default=120.0, help="the budget of each command [s]")
    parser.add_argument("--only", default="", help="commands, with commas")
    parser.add_argument("--loaded", action="store_true", help="say that others worked on the machine")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        for name, words in calls(where, "circuit").items():
            if given.only and name not in given.only.split(","):
                continue
            rows.append(measured(given.model, words, name, where, given.limit))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if not given.only:
        text = PAGE.read_text(encoding="utf-8").partition(HEADING)[0].rstrip()
        PAGE.write_text(f"{text}\n\n{section(rows, given.loaded)}", encoding="utf-8")


if __name__ == "__main__":
    main()
