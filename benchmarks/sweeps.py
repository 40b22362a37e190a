"""What a patching sweep costs, beside TransformerLens, nnsight and a loop of bare forwards, in one run.

GPT-2-small's shape with random weights, 8 pairs of 15 tokens, logit difference at the last position: layer by position on
the stream (180 cells) and layer by head (144 cells), with pairs that differ at the first token (nothing is known to be
zero) and at token 9. Each library runs in a process of its own, in its own environment; they take turns, and only one works
at a time. Peers are measured where an interpreter that has them is named.

    python benchmarks/sweeps.py [--peers /path/to/python] [--repeats 3] [--threads 2] [--no-curve] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from cutaway.results import atomic_write
from side_by_side import Process

HERE = Path(__file__).resolve().parent
ROWS, TOKENS, LATE = 8, 15, 9
CELLS = {"residual": 12 * TOKENS, "heads": 144}
AIMS = {("residual", 0): 7, ("residual", LATE): 20, ("heads", 0): 4, ("heads", LATE): 8}
NAIVE_CELLS = 12
LENGTHS = (16, 32, 64, 128)
CURVE_LAYERS = [0, 4, 8]


class Worker(Process):
    """A library in a process of its own."""

    def __init__(self, python: str, name: str, threads: int) -> None:
        super().__init__([python, str(HERE / "sweeps_workers.py"), name, str(threads)])
        self.version = self.ready["ready"]

    def ask(self, *request: Any) -> dict[str, Any]:
        """Have it do one thing, and wait for it."""
        return self.send(request)


def start(options: argparse.Namespace) -> dict[str, Worker]:
    """Our worker, and those of the peers that the named interpreter has."""
    workers = {"cutaway": Worker(sys.executable, "cutaway", options.threads)}
    for name in ("transformerlens", "nnsight") if options.peers else ():
        workers[name] = Worker(options.peers, name, options.threads)
    return workers


def measure(workers: dict[str, Worker], repeats: int, peer_repeats: int) -> dict[str, Any]:
    """Seconds of every sweep by every library, taking turns; what plans said; peaks of memory."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    for repeat in range(repeats):
        for kind in CELLS:
            for name, worker in workers.items():
                if name != "cutaway" and repeat >= peer_repeats:
                    continue
                for first in (0, LATE) if name == "cutaway" else (0,):
                    answer = worker.ask("sweep", kind, ROWS, TOKENS, first)
                    seconds.setdefault(f"{name} {kind} {first}", []).append(answer["seconds"])
                    peaks[name] = answer["peak_mib"]
            bare = workers["cutaway"].ask("naive", kind, ROWS, TOKENS, 0, NAIVE_CELLS)["seconds"]
            seconds.setdefault(f"naive {kind} 0", []).append(bare * CELLS[kind] / NAIVE_CELLS)
    own = workers["cutaway"]
    plans = {
        f"{kind} {first}": own.ask("predict", kind, ROWS, TOKENS, first) | own.ask("rate", ROWS * TOKENS)
        for kind in CELLS
        for first in (0, LATE)
    }
    return {"seconds": seconds, "peaks": peaks, "plans": plans}


def curve(worker: Worker) -> list[dict[str, float]]:
    """One pair, prompts of growing length: our sweep beside bare forwards (some of them, scaled up)."""
    found = []
    for tokens in LENGTHS:
        bare = worker.ask("naive", "residual", 1, tokens, 0, NAIVE_CELLS)["seconds"]
        bare *= len(CURVE_LAYERS) * tokens / NAIVE_CELLS
        for first in (0, tokens - 6):
            own = worker.ask("sweep", "residual", 1, tokens, first, CURVE_LAYERS)["seconds"]
            found.append({"tokens": tokens, "first": first, "naive": bare, "own": own, "ratio": bare / own})
    return found


def spread(values: list[float]) -> str:
    """Median and range."""
    if len(values) == 1:
        return f"{values[0]:.1f} s"
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def page(data: dict[str, Any], versions: dict[str, str], options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    seconds = data["seconds"]
    lines = [
        "# What a sweep costs", "",
        f"Made by `python benchmarks/sweeps.py`. GPT-2-small's shape, random weights, {ROWS} pairs of {TOKENS} tokens,",
        f"logit difference at the last position, {options.threads} CPU threads, float32; {options.repeats} repetitions,",
        f"median and range; the peers, which take longest, in {options.peer_repeats} of them, in turn with the others.",
        f"{', '.join(versions.values())}; torch {torch.__version__}, transformers",
        f"{transformers.__version__}, Python {platform.python_version()}, {platform.machine()}.", "",
        "Cutaway's time is everything from the ids to the metric of every cell and example: both runs of the prompts, the",
        "trial of the rules, the base run, all waves. The loop of bare forwards is timed on "
        f"{NAIVE_CELLS} cells and scaled up.", "",
        "| sweep | pairs differ at | Cutaway | loop of bare forwards | " + " | ".join(
            f"{versions[n]}" for n in versions if n != "cutaway") + (" | " if len(versions) > 1 else "")
        + "ratio to bare loop | ratio to TransformerLens | aim |",
    ]  # fmt: skip
    lines.append("|" + " --- |" * (7 + len(versions) - 1))
    for (kind, first), aim in AIMS.items():
        own = seconds[f"cutaway {kind} {first}"]
        bare = seconds[f"naive {kind} 0"]
        cells = [f"{kind}, {CELLS[kind]} cells", f"token {first}", spread(own), spread(bare)]
        cells += [spread(seconds[f"{n} {kind} 0"]) for n in versions if n != "cutaway"]
        cells.append(f"{statistics.median(b / o for b, o in zip(bare, own, strict=True)):.1f}×")
        lens = seconds.get(f"transformerlens {kind} 0")
        ratios = [statistics.median(lens) / o for o in own] if lens else []
        cells.append(
            f"{statistics.median(ratios):.1f}× ({min(ratios):.1f} to {max(ratios):.1f})" if ratios else ""
        )
        lines.append(f"| {' | '.join([*cells, f'≥ {aim}×'])} |")
    lines += ["", "Peak memory of each process: " + ", ".join(
        f"{versions[n]} {m:,.0f} MiB" for n, m in data["peaks"].items()) + ".", "",
        "## What a plan says, and what the run takes", "",
        "Needed operations as a share of the naive loop's; the rate at which the run did them beside the rate of one matrix",
        f"product of the MLP's shape ({ROWS * TOKENS} × 768 × 3072) on this machine.", "",
        "| sweep | pairs differ at | operations | predicted | measured | predicted / measured | share of that rate |",
        "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for key, plan in data["plans"].items():
        kind, first = key.split()
        achieved = plan["operations"] / plan["seconds"] / plan["rate"]
        lines.append(
            f"| {kind} | token {first} | {plan['share']:.1%} | {plan['predicted']:.1f} s | {plan['seconds']:.1f} s | "
            f"{plan['predicted'] / plan['seconds']:.2f} | {achieved:.0%} |"
        )
    if data.get("curve"):
        layers = ", ".join(map(str, CURVE_LAYERS))
        lines += ["", "## Longer prompts", "", f"One pair, position by position on the stream of layers {layers}.", "",
                  "| tokens | pairs differ at | cells | loop of bare forwards | Cutaway | ratio |",
                  "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        lines += [
            f"| {c['tokens']:.0f} | token {c['first']:.0f} | {len(CURVE_LAYERS) * c['tokens']:.0f} | {c['naive']:.1f} s | "
            f"{c['own']:.1f} s | {c['ratio']:.1f}× |"
            for c in data["curve"]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description="What a patching sweep costs.")
    parser.add_argument("--peers", default="", help="an interpreter that has transformer_lens and nnsight")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--peer-repeats", type=int, default=1, help="repetitions in which the peers take part"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-curve", action="store_true", help="leave the longer prompts out")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks" / "sweeps.md")
    options = parser.parse_args()
    workers = start(options)
    try:
        data = measure(workers, options.repeats, options.peer_repeats)
        data["curve"] = [] if options.no_curve else curve(workers["cutaway"])
        versions = {name: worker.version for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    text = page(data, versions, options)
    print(json.dumps(data, indent=1) if options.json else text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, text)


if __name__ == "__main__":
    main()
