"""What a patching sweep costs on a real network, beside TransformerLens, nnsight and a loop of bare forwards, in one run.

SmolLM2-135M-Instruct and GPT-2-small's shape with random weights, 8 pairs of 17 tokens, logit difference at the last
position: layer by position on the stream, and layer by head, with pairs that differ at the first token (nothing is known to
be zero) and at token 11. Each library runs in a process of its own, in its own environment; they take turns, and only one
works at a time. Peers are measured where an interpreter that has them is named.

    python benchmarks/real.py --smollm2 FOLDER [--peers PYTHON] [--repeats 3] [--some 24] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from cutaway.results import atomic_write
from side_by_side import Process

HERE = Path(__file__).resolve().parent
ROWS, TOKENS, LATE = 8, 17, 11
KINDS = ("residual", "heads")
PEERS = ("transformerlens", "nnsight")
AIM = 0.9


class Worker(Process):
    """A library with a network, in a process of its own."""

    def __init__(self, python: str, library: str, network: str, threads: int) -> None:
        quiet = os.environ | {"CUTAWAY_CACHE": "off", "OMP_NUM_THREADS": str(threads)}
        command = [python, str(HERE / "real_workers.py"), library, network, str(threads)]
        super().__init__(command, quiet, quiet=True)
        self.version, self.opened = self.ready["ready"], self.ready["opened"]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have it do one thing, and wait for it."""
        return self.send({"do": do, **arguments})


def measure(network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every sweep of one network by every library, in turn."""
    workers = {"cutaway": Worker(sys.executable, "cutaway", network, options.threads)}
    for name in PEERS if options.peers else ():
        workers[name] = Worker(options.peers, name, network, options.threads)
    own, seed = workers["cutaway"], 0
    data: dict[str, Any] = {"versions": {n: w.version for n, w in workers.items()}, "sweeps": {}, "peaks": {}}
    data["opened"] = {name: worker.opened for name, worker in workers.items()}
    try:
        for kind in KINDS:
            for first in (LATE, 0):
                case = {"kind": kind, "rows": ROWS, "tokens": TOKENS, "first": first}
                rounds = []
                for repeat in range(options.repeats):
                    seed += 1
                    bare = own.ask("bare", **case, seed=seed, some=options.some)
                    new = own.ask("sweep", **case, seed=seed, new=True)
                    seed += 1  # other prompts of the same shape: the baselines are new, the rules are known
                    later = own.ask("sweep", **case, seed=seed, new=False)
                    again = own.ask("bare", **case, seed=seed, some=options.some)
                    bare = {name: (bare[name] + again[name]) / 2 for name in ("seconds", "processor")}
                    found = {"bare": bare, "new": new, "later": later}
                    for name in PEERS if repeat < options.peer_repeats else ():
                        if name in workers:
                            found[name] = workers[name].ask("sweep", **case, seed=seed, some=options.some)
                            data["peaks"][name] = max(data["peaks"].get(name, 0.0), found[name]["peak"])
                    data["peaks"]["cutaway"] = max(
                        data["peaks"].get("cutaway", 0.0), new["peak"], later["peak"]
                    )
                    rounds.append(found)
                seed += 1
                said = own.ask("predict", **case, seed=seed)
                data["sweeps"][f"{kind} {first}"] = {"rounds": rounds, "said": said}
    finally:
        for worker in workers.values():
            worker.close()
    return data


def spread(values: list[float], unit: str = "×", digits: int = 1) -> str:
    """Median and range."""
    middle = f"{statistics.median(values):.{digits}f}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratios(rounds: list[dict[str, Any]], over: str, under: str, what: str = "seconds") -> list[float]:
    """How many times longer one took than the other, in each round in which both took part."""
    return [r[over][what] / r[under][what] for r in rounds if over in r and under in r]


def table(data: dict[str, Any]) -> list[str]:
    """The sweeps of one network."""
    lines = [
        "| sweep | pairs differ at | bare forwards | Cutaway | ratio | "
        "allowed by waves, and with both runs | share of these | by processor time | "
        "network never swept before | TransformerLens / Cutaway | nnsight / Cutaway |",
        "|" + " --- |" * 11,
    ]
    for key, found in data["sweeps"].items():
        kind, first = key.split()
        rounds, allowed = found["rounds"], [found["said"][name] for name in ("allowed", "allowed with runs")]
        clock, spent = ratios(rounds, "bare", "later"), ratios(rounds, "bare", "later", "processor")
        cells = [kind, f"token {first}"]
        cells += [spread([r[name]["seconds"] for r in rounds], " s") for name in ("bare", "later")]
        cells += [spread(clock), ", ".join(f"{a:.1f}×" for a in allowed)]
        cells += [", ".join(f"{statistics.median(r) / a:.0%}" for a in allowed) for r in (clock, spent)]
        cells += [spread(ratios(rounds, "bare", "new"))]
        cells += [spread(peers) if (peers := ratios(rounds, name, "later")) else "" for name in PEERS]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def predictions(data: dict[str, Any]) -> list[str]:
    """What plans said and runs took."""
    lines = [
        "| sweep | pairs differ at | seconds said / taken | processor time said / taken | memory said / taken |",
        "|" + " --- |" * 5,
    ]
    for key, found in data["sweeps"].items():
        kind, first = key.split()
        said = found["said"]
        cells = [kind, f"token {first}"]
        for name, unit in (("seconds", "s"), ("processor", "s"), ("memory", "MiB")):
            a, b = said[f"said {name}"], said[name]
            digits = 0 if unit == "MiB" else 1
            cells.append(f"{a:.{digits}f} / {b:.{digits}f} {unit}: {a / max(b, 1e-9):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(found: dict[str, dict[str, Any]], options: argparse.Namespace, load: tuple[float, float]) -> str:
    """The figures as Markdown."""
    versions = ", ".join(next(iter(found.values()))["versions"].values())
    quiet = (
        "a quiet machine" if max(load) <= options.threads + 0.5 else "a machine that was busy with other work"
    )
    together = min(options.repeats, options.peer_repeats)
    lines = [
        "# A sweep on a real network", "",
        f"Made by `python benchmarks/real.py`. {ROWS} pairs of {TOKENS} tokens, logit difference at the last position,",
        f"float32, {options.threads} threads, {options.repeats} rounds (peers in {together}), median and range.",
        f"{versions}; torch {torch.__version__}, transformers {transformers.__version__},",
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores;",
        f"load {load[0]:.1f} before and {load[1]:.1f} after: {quiet}.", "",
        "Cutaway's time is everything from the ids to the metric of every cell and example: both runs of the prompts, the",
        "base run, all waves; on prompts that it has not seen, of a shape that it has. *Network never swept before*: the",
        f"trial of the rules counts as well. The loop of bare forwards and the peers are timed on about {options.some}",
        "cells and scaled up. *Allowed* is the ratio of the operations of the loop of bare forwards, with all logits, to",
        "those that the plan's waves need, and with the two runs of the prompts, which nothing can do without; the aim is",
        f"{AIM:.0%} of it.", "",
    ]  # fmt: skip
    for network, data in found.items():
        title = "GPT-2-small's shape, random weights" if network == "gpt2" else "SmolLM2-135M-Instruct"
        lines += [f"## {title}", "", *table(data), ""]
        peaks = []
        for name, told in data["versions"].items():
            if name in data["peaks"]:
                most, more = data["peaks"][name], data["peaks"][name] - data["opened"][name]
                peaks.append(f"{told} {most:,.0f} MiB ({more:,.0f} more than after opening)")
        lines += [
            f"Most resident memory of each process (VmHWM): {', '.join(peaks)}. That of Cutaway runs the loops of bare",
            "forwards as well, with all logits.",
            "",
            *predictions(data),
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description="What a patching sweep costs on a real network.")
    parser.add_argument(
        "--smollm2", default="", help="the folder of SmolLM2-135M-Instruct; without it GPT-2's shape alone"
    )
    parser.add_argument("--peers", default="", help="an interpreter that has transformer_lens and nnsight")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-repeats", type=int, default=1, help="rounds in which the peers take part")
    parser.add_argument("--some", type=int, default=24, help="cells of a loop of forwards that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--quick", action="store_true", help="one round on few cells; nothing is written unless --out is"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.some = 1, 4
    began, load = time.perf_counter(), os.getloadavg()[0]
    networks = [*([options.smollm2] if options.smollm2 else []), "gpt2"]
    found = {network: measure(str(Path(network).expanduser()), options) for network in networks}
    text = page(found, options, (load, os.getloadavg()[0]))
    print(json.dumps(found, indent=1) if options.json else text)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if options.out is not None or not options.quick:
        atomic_write(options.out or HERE.parent / "docs" / "benchmarks" / "real.md", text)


if __name__ == "__main__":
    main()
