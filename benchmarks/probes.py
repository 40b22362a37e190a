"""What probing costs: every residual site of a 12-layer, 768-wide network beside scikit-learn, on the same activations.

GPT-2-small's shape with random weights; the label is a noisy sum of hidden weights of the last tokens. Cutaway fits, for
every site, 20 penalties with exact leave-one-out for the real labels, a control task and 100 permutations of the labels.
scikit-learn does the same work on some of the sites (`RidgeCV` with all labels at once, and label by label), and its
`LogisticRegressionCV` (20 penalties, 5 folds) the real labels alone. Work on a site takes turns, so that whatever else
the machine does falls on all alike. Then a sweep over 144 heads and 16 positions, in one pass that keeps sums only.

    python benchmarks/probes.py [--examples 2000] [--sites 2] [--threads 1] [--no-sweep] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import transformers
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from threadpoolctl import threadpool_limits
from torch import Tensor

import cutaway
from cutaway.probes import Options, ProbeData, probe, ridge
from cutaway.probes.activations import collect
from cutaway.probes.places import Cell, plan
from cutaway.results import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PERMUTATIONS = 100
VOCABULARY, TOKENS, HELD_OUT = 400, 4, 2000


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


def targets(labels: np.ndarray, last: np.ndarray) -> Tensor:
    """The real labels, a control task by last token, and permutations, as +1 and -1: [n 102]."""
    rng = np.random.default_rng(1)
    control = rng.integers(0, 2, VOCABULARY)[last]
    permuted = [rng.permutation(labels) for _ in range(PERMUTATIONS)]
    return torch.as_tensor(2.0 * np.stack([labels, control, *permuted], 1) - 1)


def timed(work: Any) -> tuple[float, Any]:
    """Seconds of the processor (all threads), which other programs disturb less than the clock, and what the work gave."""
    began = time.process_time()
    out = work()
    return time.process_time() - began, out


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(((scores > 0) == (labels > 0)).mean())


def ours(x: Tensor, y: Tensor, penalties: Tensor) -> ridge.Path:
    """All penalties, leave-one-out, all labels."""
    return ridge.path(ridge.factorise(x), y, penalties, fast=True)


def residual_sites(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and held-out accuracies of each kind of work."""
    net = network()
    data = examples(options.examples + HELD_OUT, TOKENS)
    places = plan(net, data, ["resid_pre.0", "resid_mid", "resid_post"], ("layer",), -1)
    reading, kept = timed(lambda: collect(net, data, places))
    labels, last = data.labels, np.array([row[-1] for row in data.inputs])
    y = targets(labels[: options.examples], last[: options.examples])
    penalties = torch.tensor(ridge.PENALTIES).double() * options.examples
    chosen = {int(i) for i in np.linspace(12, len(places.cells) - 1, options.sites)}
    rows, seconds, right = [], [], []
    for i, cell in enumerate(places.cells):
        train, test = _standardised(kept.cell(cell), options.examples)
        took, found = timed(lambda: ours(train, y, penalties))  # noqa: B023
        scores = (test @ found.weights[:, 0] + found.bias[0]).numpy()
        seconds.append(took)
        right.append(accuracy(scores, labels[options.examples :] - 0.5))
        if i in chosen:
            row = {"site": str(cell.site), "ours": took, "ours right": right[-1]}
            held = labels[options.examples :]
            rows.append(row | peers(train, y, test, held, penalties, found, len(rows) < options.logistic))
            print(json.dumps(rows[-1]), flush=True)
    return {
        "reading": reading, "sites": len(places.cells), "seconds": sum(seconds), "right": statistics.mean(right),
        "rows": rows,
    }  # fmt: skip


def _standardised(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    x = x.double()
    mean, scale = x[:n].mean(0), x[:n].std(0)
    z = (x - mean) / scale
    return z[:n], z[n:]


def peers(
    x: Tensor, y: Tensor, test: Tensor, held: np.ndarray, penalties: Tensor, found: ridge.Path, logistic: bool
) -> dict[str, float]:
    """scikit-learn on the same activations: seconds, accuracies, and the largest difference of the coefficients."""
    features, labels = x.numpy(), y.numpy()
    together, model = timed(lambda: RidgeCV(alphas=penalties.numpy(), alpha_per_target=True).fit(features, labels))
    one, _ = timed(lambda: RidgeCV(alphas=penalties.numpy()).fit(features, labels[:, 0]))
    slow: dict[str, float] = {}
    if logistic:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            took, best = timed(lambda: LogisticRegressionCV(Cs=20, cv=5).fit(features, labels[:, 0] > 0))
        right = accuracy(best.decision_function(test.numpy()), held - 0.5)
        slow = {"LogisticRegressionCV": took, "LogisticRegressionCV right": right}
    apart = np.abs(model.coef_.T - found.weights.numpy()).max() / np.abs(model.coef_).max()
    again, _ = timed(lambda: ours(x, y, penalties))
    return slow | {
        "ours again": again, "RidgeCV, all labels at once": together, "RidgeCV, one label": one,
        "difference": float(apart),
        "RidgeCV right": accuracy((test.numpy() @ model.coef_[0]) + model.intercept_[0], held - 0.5),
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
        "seconds": took, "cells": len(cells), "examples": n, "kept": found.data.attrs["kept"],
        "everything": len(cells) * 64 * 4 * n / 2**20, "best": float(scores.max()),
        "at the last position": float(np.mean([scores[_index(cells, c)] for c in last])),
        "at the first": float(np.mean([scores[_index(cells, c)] for c in cells if c.position == 0])),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def _index(cells: list[Cell], cell: Cell) -> int:
    return cells.index(cell)


def page(result: dict[str, Any], swept: dict[str, Any] | None, options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    rows = result["rows"]
    labels = PERMUTATIONS + 2
    lines = [
        "# What probing costs",
        "",
        f"Made by `python benchmarks/probes.py`. GPT-2-small's shape (12 layers, width 768), random weights, "
        f"{options.examples} examples,",
        f"{result['sites']} residual sites (the embedding, and each layer's middle and end), "
        f"{options.threads} CPU thread{'s' * (options.threads > 1)}.",
        "All figures are seconds of processor time, of all threads.",
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}.",
        "",
        f"All {result['sites']} sites, 20 penalties with exact leave-one-out, {labels} labellings (real, control task, "
        f"{PERMUTATIONS} permutations): {result['seconds']:.1f} s;",
        f"reading the activations took {result['reading']:.1f} s. Mean held-out accuracy {result['right']:.3f}.",
        "",
        "On the same activations, site by site, taking turns (ratios to the mean of Cutaway's two turns):",
        "",
        "| site | Cutaway, all labellings | `RidgeCV`, all at once | ratio | `RidgeCV`, label by label | ratio | "
        "`LogisticRegressionCV`, real labels | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ratios: dict[str, list[float]] = {"at once": [], "one by one": [], "logistic": []}
    for r in rows:
        mine = (r["ours"] + r["ours again"]) / 2
        loop = r["RidgeCV, one label"] * labels
        ratios["at once"].append(r["RidgeCV, all labels at once"] / mine)
        ratios["one by one"].append(loop / mine)
        last = ["", ""]
        if "LogisticRegressionCV" in r:
            ratios["logistic"].append(r["LogisticRegressionCV"] / mine)
            last = [f"{r['LogisticRegressionCV']:.1f}", f"{ratios['logistic'][-1]:.0f}"]
        cells = [
            r["site"], f"{mine:.2f}", f"{r['RidgeCV, all labels at once']:.2f}", f"{ratios['at once'][-1]:.1f}",
            f"{loop:.0f}", f"{ratios['one by one'][-1]:.0f}", *last,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    medians = {name: statistics.median(values) for name, values in ratios.items() if values}
    both = [r for r in rows if "LogisticRegressionCV right" in r]
    right = [statistics.mean(r[k] for r in rows) for k in ("ours right", "RidgeCV right")]
    here = [statistics.mean(r[k] for r in both) for k in ("ours right", "LogisticRegressionCV right")] if both else []
    lines += [
        "",
        f"Label by label is {labels} times the one fit that was timed. Medians: "
        + (f"{medians['logistic']:.0f} times less than `LogisticRegressionCV` (asked: 20)," if both else ""),
        f"{medians['at once']:.1f} times less than `RidgeCV` with all labels at once and {medians['one by one']:.0f} times "
        "less than label by label (asked: 5).",
        "",
        f"Held-out accuracy on these sites ({HELD_OUT} examples): Cutaway {right[0]:.3f}, `RidgeCV` {right[1]:.3f}.",
        *([f"Where `LogisticRegressionCV` ran: Cutaway {here[0]:.3f}, it {here[1]:.3f}."] if here else []),
        "Largest difference between Cutaway's and `RidgeCV`'s coefficients, as a share of the largest coefficient: "
        f"{max(r['difference'] for r in rows):.1e}.",
    ]
    if swept is not None:
        lines += [
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
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description="What probing costs beside scikit-learn.")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--sites", type=int, default=2, help="on how many sites scikit-learn works")
    parser.add_argument("--logistic", type=int, default=1, help="on how many of them LogisticRegressionCV works")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "probes.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
    swept = None if options.no_sweep else sweep(options.examples // 2)
    result = residual_sites(options)
    text = page(result, swept, options)
    print(json.dumps({"residual": result, "sweep": swept}) if options.json else text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, text)


if __name__ == "__main__":
    main()
