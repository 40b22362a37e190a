"""What circuits cost: attribution of every edge and running a circuit, beside a bare forward, at GPT-2-small's shape.

Random weights, 16 pairs of 16 tokens. The kinds of work take turns in every repetition; each figure is the median over
repetitions of the ratio to the bare forward of the same repetition, by the clock and by processor time. Peak memory is what
the process holds at most while it does the work, the network included.

    python benchmarks/circuits.py [--repeats 5] [--threads 2] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import cutaway
from cutaway.behaviours import Behaviour, answer_logits
from cutaway.circuits import EdgeBench, score, wiring
from cutaway.circuits.selection import prune, top_n
from cutaway.results import atomic_write

#: As measured elsewhere on 2 cores for the same pairs: (times a bare forward, gigabytes at most).
PEERS = {
    "EAP": ("EAP-IG package 28, auto-circuit 15", 4.4),
    "EAP-IG, 5 steps": ("EAP-IG package 64 s, auto-circuit 60 s", 4.4),
    "a circuit of 5 % of the edges": ("EAP-IG package 5.9, auto-circuit 5.1", 4.4),
}
AIMS = {"EAP": 3.5, "a circuit of 5 % of the edges": 2.0}


def pairs(n: int, tokens: int) -> Behaviour:
    """Pairs of random ids that differ at two positions."""
    rng = np.random.default_rng(0)
    clean = [tuple(int(t) for t in rng.integers(1, 50_000, tokens)) for _ in range(n)]
    corrupted = [(*ids[:2], (ids[2] + 7) % 50_000, (ids[3] + 7) % 50_000, *ids[4:]) for ids in clean]
    return Behaviour(
        "random ids", tuple(map(str, clean)), tuple(map(str, corrupted)), tuple(clean), tuple(corrupted),
        tuple((int(t),) for t in rng.integers(1, 20_000, n)), tuple((int(t),) for t in rng.integers(20_000, 50_000, n)),
    )  # fmt: skip


def told_apart(net: cutaway.Network, drawn: Behaviour) -> Behaviour:
    """The same pairs with the answers that this network tells apart most, so that there is a gap to share out."""
    change = answer_logits(net, drawn, "clean") - answer_logits(net, drawn, "corrupted")
    right, wrong = (tuple((t,) for t in pick(-1).tolist()) for pick in (change.argmax, change.argmin))
    blank = dict.fromkeys(("right_full", "wrong_full", "right_text", "wrong_text"), ())
    return replace(drawn, right=right, wrong=wrong, **blank)


def work(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """The kinds of work by name, and what is said about them."""
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=options.layers)).eval()
    net = cutaway.open(model)
    started = time.perf_counter()
    found = wiring(net)
    seconds = time.perf_counter() - started
    behaviour = told_apart(net, pairs(options.pairs, options.tokens))
    ids = behaviour.clean_tokens(net).ids
    scores = score(net, behaviour, method="eap", examples=False)
    circuit = prune(found.graph, top_n(found.graph, scores.values, int(0.05 * found.graph.n_edges)))
    bench = EdgeBench.of(net, behaviour)
    bench.metric([circuit])

    def bare() -> Any:
        with torch.no_grad():
            return model(input_ids=ids)

    kinds: dict[str, Callable[[], Any]] = {
        "bare forward": bare,
        "EAP": lambda: score(net, behaviour, method="eap", examples=False),
        "EAP-IG, 5 steps": lambda: score(net, behaviour, examples=False),
        "a circuit of 5 % of the edges": lambda: bench.metric([circuit]),
    }
    return kinds, {"edges": found.graph.n_edges, "circuit": int(circuit.sum()), "wiring": seconds}


def peak(function: Callable[[], Any]) -> float:
    """Gigabytes that the process holds at most while it works; NaN where the system does not say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        function()
        line = next(ln for ln in Path("/proc/self/status").read_text().splitlines() if ln.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    except OSError:
        function()
        return float("nan")


def measure(kinds: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds, median ratios to the bare forward beside it (clock, processor), peak memory."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, function in kinds.items():
            gc.collect()
            clock, processor = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - clock, time.process_time() - processor))
    bare = times["bare forward"]
    figures = {}
    for name, function in kinds.items():
        row = {"seconds": statistics.median(t[0] for t in times[name])}
        for which, key in ((0, "ratio"), (1, "processor_ratio")):
            row[key] = statistics.median(t[which] / b[which] for t, b in zip(times[name], bare, strict=True))
        figures[name] = row | {"gigabytes": peak(function)}
    return figures


def page(figures: dict[str, dict[str, float]], setting: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# What circuits cost",
        "",
        "Made by `python benchmarks/circuits.py`. GPT-2-small's shape with random weights "
        f"({setting['layers']} layers, {setting['edges']} edges), {setting['pairs']} pairs of {setting['tokens']} tokens, "
        f"{setting['threads']} CPU threads; {setting['repeats']} repetitions in which the kinds of work take turns. torch "
        f"{torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}.",
        "",
        "Ratios are medians over repetitions, to the bare forward of the same repetition. Attribution "
        "scores every edge; the "
        f"circuit has {setting['circuit']} edges, its ablated values are computed once beforehand. Peak "
        "memory is that of the "
        "whole process, network included. Finding and checking how the network's parts read takes "
        f"{setting['wiring']:.1f} s "
        "once. The two packages that do the same were not installable here; their figures were measured "
        "on 2 cores for as many "
        "pairs.",
        "",
        "| work | seconds | bare forwards | by processor time | peak memory | aim | published packages |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, f in figures.items():
        aim = f"≤ {AIMS[name]:g}" if name in AIMS else ""
        peers, memory = PEERS.get(name, ("", 0.0))
        other = f"{peers}; {memory:g} GB" if peers else ""
        lines.append(
            f"| {name} | {f['seconds']:.2f} | {f['ratio']:.2f} | {f['processor_ratio']:.2f} | "
            f"{f['gigabytes']:.2f} GB | {aim} | "
            f"{other} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description="What circuits cost beside a bare forward.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "circuits.md",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kinds, told = work(options)
    figures = measure(kinds, options.repeats)
    setting = {k: getattr(options, k) for k in ("layers", "pairs", "tokens", "threads", "repeats")} | told
    if options.json:
        print(json.dumps({"setting": setting, "figures": figures}, indent=1))
    else:
        for name, f in figures.items():
            print(
                f"{name:34s} {f['seconds']:7.2f} s   {f['ratio']:6.2f} bare forwards   "
                f"processor {f['processor_ratio']:6.2f}   {f['gigabytes']:.2f} GB"
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, page(figures, setting))


if __name__ == "__main__":
    main()
