"""What probing costs: every residual site of a 12-layer, 768-wide network beside scikit-learn, on the same activations.

GPT-2-small's shape with random weights and three labels: a hidden class of the last token, of the one before, and the sign
of a noisy sum of hidden weights of the last four. Cutaway fits, for every site and label, 20 penalties with exact
leave-one-out for the real labels, a control task and 100 permutations of the labels, sites side by side as `probe` does it.
On some of the sites scikit-learn does the same work (`RidgeCV`, all labellings at once), and its `LogisticRegressionCV`
(20 penalties, 5 folds, run until it converges) the real labels alone, each with one thread and with all cores; the faster of
the two is compared. Then a sweep over 144 heads and 16 positions, in one pass that keeps sums only.

    python benchmarks/probes.py [--examples 2000] [--sites 4] [--repeats 3] [--no-sweep] [--json] [--out FILE]
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
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from threadpoolctl import threadpool_limits
from torch import Tensor

import cutaway
from cutaway.probes import ProbeData, ProbeOptions, probe
from cutaway.probes.fits.side_by_side import side_by_side
from cutaway.probes.reading.activations import collect
from cutaway.probes.reading.places import Cell, plan
from cutaway.results import Work, atomic_write
from cutaway.statistics.fits import ridge, single_precision

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
    return {
        "last token": hidden[ids[:, -1]],
        "token before": hidden[ids[:, -2]],
        "noisy sum": np.asarray(data.labels),
    }


def targets(labels: np.ndarray, last: np.ndarray) -> Tensor:
    """The real labels, a control task by last token, and permutations, as +1 and -1: [n 102]."""
    rng = np.random.default_rng(1)
    control = rng.integers(0, 2, VOCABULARY)[last]
    permuted = [rng.permutation(labels) for _ in range(PERMUTATIONS)]
    return torch.as_tensor(2.0 * np.stack([labels, control, *permuted], 1) - 1)


def timed(work: Any) -> tuple[np.ndarray, Any]:
    """Seconds of the processor (all threads of this process) and of the clock, and what the work gave."""
    began = np.array([time.process_time(), time.perf_counter()])
    out = work()
    return np.array([time.process_time(), time.perf_counter()]) - began, out


def right(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which examples are classified right, as 0 and 1."""
    return ((scores > 0) == (labels > 0)).astype(float)


def ours(x: Tensor, y: Tensor, penalties: Tensor, by: str = "correlation") -> ridge.PenaltyPath:
    """All penalties, leave-one-out, all labellings; weights refined for the real one, as `probe` does it."""
    return single_precision.solve(x, y, penalties, refine=1, by=by)  # type: ignore[arg-type]


def residual_sites(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and held-out accuracies of each kind of work, by label."""
    net = network()
    data = examples(options.examples + HELD_OUT, TOKENS)
    places = plan(net, data, ["resid_pre.0", "resid_mid", "resid_post"], ("layer",), -1)
    reading, kept = timed(lambda: collect(net, data, places, Work()))
    last = np.array(data.inputs)[:, -1]
    penalties = torch.tensor(ridge.PENALTIES).double() * options.examples
    chosen = np.linspace(2, len(places.cells) - 1, options.sites).astype(int).tolist()
    split = [_standardised(kept.cell(cell), options.examples) for cell in places.cells]
    out = {}
    for name, labels in tasks(data).items():
        y, held = targets(labels[: options.examples], last[: options.examples]), labels[options.examples :]
        done = [
            timed(lambda: side_by_side(lambda x: ours(x[0], y, penalties), split))  # noqa: B023
            for _ in range(options.repeats)
        ]
        seconds = np.array([took for took, _ in done]) / len(split)
        print(name, "Cutaway", seconds.round(3).tolist(), flush=True)
        rows = []
        for i in chosen:
            train, test = split[i]
            found = done[0][1][i]
            mine = right((test @ found.weights[:, 0] + found.bias[0]).numpy(), held - 0.5)
            rows.append({"site": str(places.cells[i].site), "Cutaway right": mine})
            rows[-1] |= peers(train, y, test, held, penalties)
            if i == chosen[0]:
                plain = LogisticRegressionCV(Cs=20, cv=5, max_iter=10_000)
                rows[-1]["as it comes"] = timed(lambda: plain.fit(train.numpy(), y[:, 0].numpy() > 0))[0][1]  # noqa: B023
            print(name, rows[-1]["site"], {k: rows[-1][k] for k in (RIDGE, LOGISTIC)}, flush=True)
        out[name] = {"seconds": seconds, "chance": max(held.mean(), 1 - held.mean()), "rows": rows}
    return {"reading": reading, "sites": len(places.cells), "labels": out}


def _standardised(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    x = x.double()
    mean, scale = x[:n].mean(0), x[:n].std(0)
    z = (x - mean) / scale
    return z[:n], z[n:]


def peers(x: Tensor, y: Tensor, test: Tensor, held: np.ndarray, penalties: Tensor) -> dict[str, Any]:
    """scikit-learn on the same activations: seconds of the processor and the clock by setting, what is right, and the
    largest difference of the coefficients from ours at the penalty that squared error chooses."""
    features, labels, unseen = x.numpy(), y.numpy(), test.numpy()
    cores = os.cpu_count() or 1
    together, slow = {}, {}
    for threads in (1, cores):
        with threadpool_limits(threads):
            together[threads], model = timed(
                lambda: RidgeCV(alphas=penalties.numpy(), alpha_per_target=True).fit(features, labels)
            )
    with warnings.catch_warnings(record=True) as said, threadpool_limits(1):
        warnings.simplefilter("always")
        for jobs in (1, cores):  # folds in processes of their own, which are already there
            Parallel(n_jobs=jobs)(delayed(int)(i) for i in range(jobs))
            logistic = LogisticRegressionCV(Cs=20, cv=5, max_iter=10_000, n_jobs=jobs)
            slow[jobs], best = timed(lambda: logistic.fit(features, labels[:, 0] > 0))  # noqa: B023
    theirs = model.coef_[0]
    mine = ours(x, y[:, :1], penalties, "error").weights[:, 0].numpy()
    return {
        RIDGE: together, LOGISTIC: slow,
        "difference": float(np.abs(theirs - mine).max() / np.abs(theirs).max()),
        "unconverged": sum(issubclass(w.category, ConvergenceWarning) for w in said),
        f"{RIDGE} right": right(unseen @ theirs + model.intercept_[0], held - 0.5),
        f"{LOGISTIC} right": right(best.decision_function(unseen), held - 0.5),
    }  # fmt: skip


def sweep(n: int, positions: int = 16) -> dict[str, Any]:
    """144 heads at 16 positions from sums alone: seconds, what was kept, and what keeping everything would have taken."""
    net, data = network(), examples(n, positions, seed=2)
    data = data.with_labels(tasks(data)["last token"], "binary", ("0", "1"))
    options = ProbeOptions(memory=0, folds=3, control_tasks=0, untrained=False, baselines=False)
    took, found = timed(lambda: probe(net, data, at="z", by=("layer", "head", "position"), options=options))
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


def fastest(row: dict[str, Any], peer: str) -> float:
    """Seconds of the clock that a peer takes on a site with one thread or with all cores, whichever is faster."""
    return float(min(seconds[1] for seconds in row[peer].values()))


def ratios(task: dict[str, Any], peer: str) -> np.ndarray:
    """By how much longer a peer takes than Cutaway's mean per site: [repeats, rows], by the clock."""
    return np.array([[fastest(r, peer) / mine[1] for r in task["rows"]] for mine in task["seconds"]])


def page(result: dict[str, Any], swept: dict[str, Any] | None, options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    tasks = result["labels"]
    every = [r for task in tasks.values() for r in task["rows"]]
    unconverged, cores = sum(r["unconverged"] for r in every), os.cpu_count() or 1
    lines = [
        "# What probing costs",
        "",
        f"Made by `python benchmarks/probes.py` on {cores} cores. GPT-2-small's shape (12 layers, width 768), random "
        f"weights, {options.examples} examples, {result['sites']}",
        f"residual sites (the embedding, and each layer's middle and end), {options.repeats} repeats. "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}.",
        f"Reading the activations of {options.examples + HELD_OUT} examples took {result['reading'][1]:.0f} s, once for all "
        "that follows.",
        "",
        f"Cutaway: 20 penalties with exact leave-one-out for {PERMUTATIONS + 2} labellings (real, control task, "
        f"{PERMUTATIONS} permutations), all {result['sites']} sites, as many",
        f"side by side as there are cores. `{RIDGE}`: the same work, all labellings at once. `{LOGISTIC}`: the real "
        "labels alone; 20 penalties,",
        f"5 folds, everything else as it comes, but for `max_iter`, raised until it converges ({unconverged} convergence "
        "warnings). Both with one thread and with all",
        f"cores (`{RIDGE}` by its matrix products, `{LOGISTIC}` by folds, `n_jobs={cores}`), the faster one counts, on "
        f"{options.sites} of the sites. Features are standardised, in float64.",
        "",
        "Seconds of the clock per site; ratio of the means, with its range over sites and repeats:",
        "",
        f"| label | Cutaway | `{RIDGE}` | ratio | `{LOGISTIC}` | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    mine = {name: float(task["seconds"][:, 1].mean()) for name, task in tasks.items()}
    theirs = {
        peer: {name: float(np.mean([fastest(r, peer) for r in task["rows"]])) for name, task in tasks.items()}
        for peer in (RIDGE, LOGISTIC)
    }
    for name, task in tasks.items():
        cells = [name, f"{mine[name]:.3f}"]
        for peer in (RIDGE, LOGISTIC):
            span = ratios(task, peer)
            ratio = theirs[peer][name] / mine[name]
            cells += [f"{theirs[peer][name]:.2f}", f"{ratio:.1f} [{span.min():.1f}, {span.max():.1f}]"]
        lines.append(f"| {' | '.join(cells)} |")
    whole = {peer: sum(theirs[peer].values()) / sum(mine.values()) for peer in theirs}
    busy = sum(float(task["seconds"][:, 0].mean()) for task in tasks.values())
    alone = {
        peer: sum(np.mean([r[peer][1][0] for r in t["rows"]]) for t in tasks.values()) / busy
        for peer in theirs
    }
    plain = [r["as it comes"] for r in every if "as it comes" in r]
    first = [float(t["seconds"][:, 1].mean()) for t in tasks.values()]
    lines += [
        "",
        f"All labels together: {whole[RIDGE]:.1f} times less than `{RIDGE}` (asked: 5), {whole[LOGISTIC]:.1f} times less "
        f"than `{LOGISTIC}` (asked: 20). By processor time, with one",
        f"thread for scikit-learn: {alone[RIDGE]:.1f} and {alone[LOGISTIC]:.1f} times. `{LOGISTIC}` as it comes (one job, "
        "as many threads in its",
        f"matrix products as there are cores) took {', '.join(f'{t:.1f}' for t in plain)} s on the first of the sites: "
        f"{sum(plain) / sum(first):.0f} times as long.",
        "",
        f"Held-out accuracy on the sites beside ({HELD_OUT} examples); differences in points, with their standard error "
        "over examples:",
        "",
        f"| label | larger class | Cutaway | `{RIDGE}` | difference | `{LOGISTIC}` | difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, task in tasks.items():
        rows = task["rows"]
        cells = [name, f"{task['chance']:.3f}", f"{np.mean([r['Cutaway right'] for r in rows]):.3f}"]
        for peer in (RIDGE, LOGISTIC):
            apart, error = gap(rows, peer)
            cells += [f"{np.mean([r[f'{peer} right'] for r in rows]):.3f}", f"{apart:+.2f} ± {error:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"`{RIDGE}` chooses its penalty by squared error, Cutaway by correlation (for classes). At the penalty that squared"
        f" error chooses, coefficients differ by at most {max(r['difference'] for r in every):.1e} of the largest.",
    ]
    return "\n".join(lines + (_sweep_lines(swept) if swept else [])) + "\n"


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
    parser.add_argument("--repeats", type=int, default=3, help="of Cutaway's work on all sites")
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "probes.md")
    options = parser.parse_args()
    swept = None if options.no_sweep else sweep(options.examples)
    result = residual_sites(options)
    text = page(result, swept, options)
    print(
        json.dumps({"residual": result, "sweep": swept}, default=np.ndarray.tolist) if options.json else text
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, text)


if __name__ == "__main__":
    main()
