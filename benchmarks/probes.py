"""What probing costs: every residual site of a 12-layer, 768-wide network beside scikit-learn, on the same activations.

GPT-2-small's shape with random weights and three labels: a hidden class of the last token, of the one before, and the sign
of a noisy sum of hidden weights of the last four. Cutaway fits, for every site and label, 20 penalties with exact
leave-one-out for the real labels, a control task and 100 permutations of the labels. On some of the sites scikit-learn does
the same work (`RidgeCV`, all labellings at once), and its `LogisticRegressionCV` (20 penalties, 5 folds, run until it
converges) the real labels alone. Work on a site takes turns, so that whatever else the machine does falls on all alike.
Then a sweep over 144 heads and 16 positions, in one pass that keeps sums only.

    python benchmarks/probes.py [--examples 2000] [--sites 4] [--threads 1] [--no-sweep] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import transformers
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from threadpoolctl import threadpool_limits
from torch import Tensor

import cutaway
from cutaway.probes import Options, ProbeData, probe, ridge, single
from cutaway.probes.activations import collect
from cutaway.probes.places import Cell, plan
from cutaway.results import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PERMUTATIONS = 100
VOCABULARY, TOKENS, HELD_OUT = 400, 4, 4000
RIDGE, LOGISTIC = "RidgeCV", "LogisticRegressionCV"


def network() -> cutaway.Network:
    """GPT-2-small's shape with random weights."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=12, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0)
    return cutaway.open(transformers.GPT2LMHeadModel(config).eval())


def examples(n: int, tokens: int, seed: int = 0) -> ProbeData:
    """Random tokens; the label is the sign of a noisy weighted sum of the last four tokens' hidden weights."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, VOCABULARY, size=(n, tokens))
    hidden = np.random.default_rng(9).normal(size=VOCABULARY)
    total = hidden[ids[:, -4:]] @ np.array([0.6, 0.8, 1.0, 1.6]) + 0.8 * rng.normal(size=n)
    return ProbeData(ids.tolist(), (total > 0).astype(int), name="sum")


def tasks(data: ProbeData) -> dict[str, np.ndarray]:
    """Labels of the same examples, 0 and 1."""
    ids = np.array(data.inputs)
    hidden = np.random.default_rng(8).permutation(VOCABULARY) % 2
    return {"last token": hidden[ids[:, -1]], "token before": hidden[ids[:, -2]], "noisy sum": np.asarray(data.labels)}


def targets(labels: np.ndarray, last: np.ndarray) -> Tensor:
    """The real labels, a control task by last token, and permutations, as +1 and -1: [n 102]."""
    rng = np.random.default_rng(1)
    control = rng.integers(0, 2, VOCABULARY)[last]
    permuted = [rng.permutation(labels) for _ in range(PERMUTATIONS)]
    return torch.as_tensor(2.0 * np.stack([labels, control, *permuted], 1) - 1)


def timed(work: Any) -> tuple[np.ndarray, Any]:
    """Seconds of the processor (all threads) and of the clock, and what the work gave."""
    began = np.array([time.process_time(), time.perf_counter()])
    out = work()
    return np.array([time.process_time(), time.perf_counter()]) - began, out


def on_all_cores(work: Any) -> Any:
    """What the work gives: for what is not compared."""
    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    with threadpool_limits(cores):
        torch.set_num_threads(cores)
        out = work()
    torch.set_num_threads(before)
    return out


def right(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which examples are classified right, as 0 and 1."""
    return ((scores > 0) == (labels > 0)).astype(float)


def ours(x: Tensor, y: Tensor, penalties: Tensor) -> ridge.Path:
    """All penalties, leave-one-out, all labellings; weights refined for the real one, as `probe` does it."""
    return single.solve(x, y, penalties, refine=1, by="correlation")


def residual_sites(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and held-out accuracies of each kind of work, by label."""
    net = network()
    data = examples(options.examples + HELD_OUT, TOKENS)
    places = plan(net, data, ["resid_pre.0", "resid_mid", "resid_post"], ("layer",), -1)
    reading, kept = timed(lambda: on_all_cores(lambda: collect(net, data, places)))
    last = np.array(data.inputs)[:, -1]
    penalties = torch.tensor(ridge.PENALTIES).double() * options.examples
    chosen = {int(i) for i in np.linspace(2, len(places.cells) - 1, options.sites)}
    out = {}
    for name, labels in tasks(data).items():
        y, held = targets(labels[: options.examples], last[: options.examples]), labels[options.examples :]
        seconds, rows, scored, chance = np.zeros(2), [], [], max(held.mean(), 1 - held.mean())
        for i, cell in enumerate(places.cells):
            train, test = _standardised(kept.cell(cell), options.examples)
            took, found = timed(lambda: ours(train, y, penalties))  # noqa: B023
            scores = (test @ found.weights[:, 0] + found.bias[0]).numpy()
            seconds += took
            scored.append(right(scores, held - 0.5))
            if i in chosen:
                row = {"site": str(cell.site), "Cutaway": took, "Cutaway right": scored[-1]}
                rows.append(row | peers(train, y, test, held, penalties, found))
                print(name, row["site"], *(f"{k} {rows[-1][k].round(3)}" for k in ("Cutaway", RIDGE, LOGISTIC)), flush=True)
        out[name] = {"seconds": seconds, "right": float(np.mean(scored)), "chance": chance, "rows": rows}
    return {"reading": reading, "sites": len(places.cells), "labels": out}


def _standardised(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    x = x.double()
    mean, scale = x[:n].mean(0), x[:n].std(0)
    z = (x - mean) / scale
    return z[:n], z[n:]


def peers(
    x: Tensor, y: Tensor, test: Tensor, held: np.ndarray, penalties: Tensor, found: ridge.Path
) -> dict[str, Any]:
    """scikit-learn on the same activations: seconds, what is right, and the largest difference of the coefficients."""
    features, labels, unseen = x.numpy(), y.numpy(), test.numpy()
    together, model = timed(lambda: RidgeCV(alphas=penalties.numpy(), alpha_per_target=True).fit(features, labels))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        slow, best = timed(lambda: LogisticRegressionCV(Cs=20, cv=5, max_iter=10_000).fit(features, labels[:, 0] > 0))
    again, _ = timed(lambda: ours(x, y, penalties))
    theirs = model.coef_[0]
    return {
        "Cutaway again": again, RIDGE: together, LOGISTIC: slow,
        "difference": float(np.abs(theirs - found.weights[:, 0].numpy()).max() / np.abs(theirs).max()),
        "unconverged": sum(issubclass(w.category, ConvergenceWarning) for w in said),
        f"{RIDGE} right": right(unseen @ theirs + model.intercept_[0], held - 0.5),
        f"{LOGISTIC} right": right(best.decision_function(unseen), held - 0.5),
    }  # fmt: skip


def sweep(n: int, positions: int = 16) -> dict[str, Any]:
    """144 heads at 16 positions from sums alone: seconds, what was kept, and what keeping everything would have taken."""
    net, data = network(), examples(n, positions, seed=2)
    options = Options(memory=0, folds=3, control_tasks=0, untrained=False, baselines=False)
    took, found = timed(lambda: probe(net, data, "z", ("layer", "head", "position"), options=options))
    cells = found.places.cells
    last = [c for c in cells if c.position == positions - 1]
    scores = found.data["score"].values.ravel()
    return {
        "seconds": took[1], "cells": len(cells), "examples": n, "kept": found.data.attrs["kept"],
        "everything": len(cells) * 64 * 4 * n / 2**20, "best": float(scores.max()),
        "at the last position": float(np.mean([scores[_index(cells, c)] for c in last])),
        "at the first": float(np.mean([scores[_index(cells, c)] for c in cells if c.position == 0])),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def _index(cells: list[Cell], cell: Cell) -> int:
    return cells.index(cell)


def gap(rows: list[dict[str, Any]], peer: str) -> tuple[float, float]:
    """Cutaway's accuracy less a peer's, mean over sites, and its standard error over the held-out examples, in points."""
    apart = 100 * np.mean([r["Cutaway right"] - r[f"{peer} right"] for r in rows], axis=0)
    return float(apart.mean()), float(apart.std() / len(apart) ** 0.5)


def ratios(rows: list[dict[str, Any]], peer: str) -> np.ndarray:
    """By how much longer a peer takes than the mean of Cutaway's two turns: [rows, processor and clock]."""
    return np.array([2 * r[peer] / (r["Cutaway"] + r["Cutaway again"]) for r in rows])


def page(result: dict[str, Any], swept: dict[str, Any] | None, options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    every = [r for task in result["labels"].values() for r in task["rows"]]
    unconverged = sum(r["unconverged"] for r in every)
    lines = [
        "# What probing costs",
        "",
        "Made by `python benchmarks/probes.py`. GPT-2-small's shape (12 layers, width 768), random weights, "
        f"{options.examples} examples,",
        f"{result['sites']} residual sites (the embedding, and each layer's middle and end), "
        f"{options.threads} CPU thread{'s' * (options.threads > 1)}.",
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}.",
        f"Reading the activations of {options.examples + HELD_OUT} examples took {result['reading'][1]:.0f} s, once for all "
        "that follows.",
        "",
        f"Cutaway: 20 penalties with exact leave-one-out for {PERMUTATIONS + 2} labellings (real, control task, "
        f"{PERMUTATIONS} permutations). `{RIDGE}`: the same",
        f"work, all labellings at once. `{LOGISTIC}`: the real labels alone; 20 penalties, 5 folds, everything else as "
        "it comes, but for",
        f"`max_iter`, raised until it converges ({unconverged} convergence warnings). Features are standardised, "
        "in float64.",
        "",
        "Seconds of processor time (of the clock) per site. Ratios are medians over the sites, of processor time (of the "
        "clock).",
        "",
        f"| label | all {result['sites']} sites, Cutaway | sites beside | Cutaway | `{RIDGE}` | ratio | `{LOGISTIC}` | "
        "ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, task in result["labels"].items():
        rows = task["rows"]
        cells = [name, _pair(task["seconds"], 1), str(len(rows)), _pair(_middle(rows, "Cutaway"), 3)]
        for peer in (RIDGE, LOGISTIC):
            cells += [_pair(_middle(rows, peer), 2), _pair(np.median(ratios(rows, peer), axis=0), 1)]
        lines.append(f"| {' | '.join(cells)} |")
    whole = {peer: np.median(ratios(every, peer), axis=0) for peer in (RIDGE, LOGISTIC)}
    lowest = {peer: ratios(every, peer)[:, 0] for peer in (RIDGE, LOGISTIC)}
    lines += [
        "",
        f"Over all labels: {_pair(whole[RIDGE], 1)} times less than `{RIDGE}` ({lowest[RIDGE].min():.1f} to "
        f"{lowest[RIDGE].max():.1f}; asked: 5), and {_pair(whole[LOGISTIC], 1)} times less than",
        f"`{LOGISTIC}` ({lowest[LOGISTIC].min():.1f} to {lowest[LOGISTIC].max():.1f}; asked: 20).",
        "",
        f"Held-out accuracy on the sites beside ({HELD_OUT} examples); differences in points, with their standard error "
        "over examples:",
        "",
        f"| label | larger class | Cutaway | `{RIDGE}` | difference | `{LOGISTIC}` | difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, task in result["labels"].items():
        rows = task["rows"]
        cells = [name, f"{task['chance']:.3f}", f"{np.mean([r['Cutaway right'] for r in rows]):.3f}"]
        for peer in (RIDGE, LOGISTIC):
            apart, error = gap(rows, peer)
            cells += [f"{np.mean([r[f'{peer} right'] for r in rows]):.3f}", f"{apart:+.2f} ± {error:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Largest difference between Cutaway's and `{RIDGE}`'s coefficients of the real labels, as a share of the largest "
        f"coefficient: {max(r['difference'] for r in every):.1e}.",
    ]
    return "\n".join(lines + (_sweep_lines(swept) if swept else [])) + "\n"


def _pair(values: np.ndarray, digits: int) -> str:
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f})"


def _middle(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.median([r[name] for r in rows], axis=0)


def _sweep_lines(swept: dict[str, Any]) -> list[str]:
    return [
        "",
        "## Thousands of sites in one pass",
        "",
        f"{swept['cells']} cells (144 heads at 16 positions, width 64), {swept['examples']} examples, 3 folds, "
        f"20 permutations: {swept['seconds']:.0f} s,",
        f"most of it the network itself. {swept['kept']}, whatever the number of examples; every activation would have "
        f"been {swept['everything']:.0f} MiB",
        f"for these, and {swept['everything'] / swept['examples'] * 100_000 / 1024:.0f} GiB for 100,000. Peak memory of "
        f"the process {swept['peak']:.0f} MiB. Held-out R²: best {swept['best']:.3f}, mean over heads",
        f"{swept['at the last position']:.3f} at the last position and {swept['at the first']:.3f} at the first.",
    ]


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description="What probing costs beside scikit-learn.")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--sites", type=int, default=4, help="on how many sites scikit-learn works")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "probes.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
    swept = None if options.no_sweep else on_all_cores(lambda: sweep(options.examples // 2))
    result = residual_sites(options)
    text = page(result, swept, options)
    print(json.dumps({"residual": result, "sweep": swept}, default=np.ndarray.tolist) if options.json else text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, text)


if __name__ == "__main__":
    main()
