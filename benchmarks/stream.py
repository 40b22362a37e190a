"""What taking a stream apart costs, in one run, as ratios.

1. Decomposition by head over a batch against plain forward passes (GPT-2-small's shape, random weights; the kinds of work
   take turns in every repetition). Aim: at most 1.5 forwards.
2. The QK and OV circuits of every head: eigenvalues and composition scores from factored matrices, against forming the
   d x d products and working on those. The products are measured on a part and scaled up to the whole by count, because the
   whole would take an hour. Aim: less than a fifth.

    python benchmarks/stream.py [--repeats 7] [--threads 2] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import cutaway
from cutaway.results import atomic_write
from cutaway.stream import logit_attribution, read_stream
from cutaway.stream.composition import composition
from cutaway.stream.head_weights import HeadWeights, head_weights

AIMS = {
    "logit attribution by head, last position": 1.5,
    "logit attribution by head, every position": 1.5,
    "vectors of all heads, last position": 1.5,
    "vectors of all heads, every position": 1.5,
}


def model_of_gpt2_shape(layers: int, seed: int = 0) -> nn.Module:
    """GPT-2-small's shape with random weights."""
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=layers)).eval()


def decompositions(model: nn.Module, ids: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The bare forward, and decompositions of the same batch."""
    net = cutaway.open(model)
    generator = torch.Generator().manual_seed(1)
    right, wrong = torch.randint(0, 50257, (2, len(ids)), generator=generator)

    def bare() -> Any:
        with torch.no_grad():
            return model(input_ids=ids)

    return {
        "bare forward": bare,
        "bare forward again": bare,
        "logit attribution by head, last position": lambda: logit_attribution(
            net, ids, target=right, foil=wrong, pos=-1
        ),
        "logit attribution by head, every position": lambda: logit_attribution(
            net, ids, target=right, foil=wrong, pos=None
        ),
        "logit attribution by neuron, last position": lambda: logit_attribution(
            net, ids, target=right, foil=wrong, by="neuron", pos=-1
        ),
        "vectors of all heads, last position": lambda: read_stream(net, ids, by="head", pos=-1).stack_heads(),
        "vectors of all heads, every position": lambda: read_stream(net, ids, by="head").stack_heads(),
    }


def measure(kinds: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds and the ratio to the bare pass of the same repetition, kinds taking turns."""
    names = list(kinds)
    for name in names:
        kinds[name]()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            clock, processor = time.perf_counter(), time.process_time()
            kinds[name]()
            times[name].append((time.perf_counter() - clock, time.process_time() - processor))
    out = {}
    for name, values in times.items():
        row: dict[str, float] = {"milliseconds": 1000 * statistics.median(v[0] for v in values)}
        for which, key in ((0, ""), (1, "processor_")):
            ratios = [v[which] / b[which] for v, b in zip(values, times["bare forward"], strict=True)]
            row[f"{key}low"], row[f"{key}ratio"], row[f"{key}high"] = statistics.quantiles(ratios, n=4)
        out[name] = row
    return out


def circuits(model: nn.Module, some: int) -> dict[str, float]:
    """Seconds for all QK and OV eigenvalues and composition scores: factored (all of it, with reading the weights), and by
    d x d products (measured on `some` heads and pairs, scaled up by count)."""
    net = cutaway.open(model)
    _ = net.hash  # found once for all results of a network
    began = time.perf_counter()
    weights = head_weights(net)
    read = time.perf_counter() - began
    began = time.perf_counter()
    for w in weights:
        w.qk.eigenvalues()
        w.ov.eigenvalues()
    eigen = time.perf_counter() - began
    began = time.perf_counter()
    composition(net, weights=weights)
    composed = time.perf_counter() - began
    return {
        "reading the weights": read,
        "eigenvalues, factored": eigen,
        "composition, factored": composed,
    } | products(weights, some)


def products(weights: list[HeadWeights], some: int) -> dict[str, float]:
    """The same by d x d products, scaled up from a part."""
    heads = sum(len(w.o) for w in weights)
    pairs = sum(len(a.o) * len(b.o) for a in weights for b in weights if a.layer < b.layer)
    began = time.perf_counter()
    full = [(w.qk[h].full(), w.ov[h].full()) for w in weights[:some] for h in range(some)]
    formed = (time.perf_counter() - began) / len(full) * heads
    began = time.perf_counter()
    torch.linalg.eigvals(full[0][0])
    torch.linalg.eigvals(full[0][1])
    eigen = (time.perf_counter() - began) * heads
    began = time.perf_counter()
    for qk, ov in full:
        first = full[0][1]
        for other in (qk, qk.mT, ov):
            (first @ other).norm()
    composed = (time.perf_counter() - began) / len(full) * pairs
    return {
        "forming the products": formed,
        "eigenvalues of products": eigen,
        "composition by products": composed,
    }


def page(figures: dict[str, Any], parts: dict[str, float], what: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# What taking a stream apart costs",
        "",
        f"Made by `python benchmarks/stream.py`. GPT-2-small's shape ({what['layers']} layers, width 768), random weights,",
        f"{what['threads']} CPU threads. torch {torch.__version__}, transformers {transformers.__version__},",
        f"Python {platform.python_version()}, {platform.machine()}.",
        "",
        "## Decomposition by head",
        "",
        f"{what['rows']} rows of {what['tokens']} tokens; {what['repeats']} repetitions in which the kinds of work take",
        "turns.",
        "The ratio is the median over repetitions of the time to that of the bare pass beside it, with quartiles, by the",
        "clock and by the processor time of all threads, which other programs disturb less;",
        "`bare forward again` shows what the measure itself can tell apart. An attribution includes its forward pass.",
        "",
        "| work | median | ratio to a forward | quartiles | processor time | quartiles | aim |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, f in figures.items():
        aim = f"≤ {AIMS[name]:.1f}" if name in AIMS else ""
        cells = [name, f"{f['milliseconds']:.0f} ms"]
        for key in ("", "processor_"):
            cells += [f"{f[f'{key}ratio']:.2f}", f"{f[f'{key}low']:.2f} to {f[f'{key}high']:.2f}"]
        cells.append(aim)
        lines.append(f"| {' | '.join(cells)} |")
    factored = parts["reading the weights"] + parts["eigenvalues, factored"] + parts["composition, factored"]
    whole = (
        parts["forming the products"] + parts["eigenvalues of products"] + parts["composition by products"]
    )
    lines += [
        "",
        "## Circuits of all heads",
        "",
        f"Eigenvalues of all QK and OV circuits and all Q, K and V composition scores of {12 * what['layers']} heads.",
        f"By products: measured on {what['some'] ** 2} heads and pairs, scaled up by count.",
        "",
        "| part | seconds |",
        "| --- | --- |",
        *(f"| {name} | {seconds:.2f} |" for name, seconds in parts.items()),
        f"| **factored, all of it** | **{factored:.1f}** |",
        f"| **by d × d products, all of it** | **{whole:.0f}** |",
        "",
        f"Factored takes {factored / whole:.4f} of the time (aim: less than 0.2). Forming the products alone takes little;",
        "it is what is then done with them, eigenvalues of d × d matrices and products of pairs, that takes the time.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description="What taking a stream apart costs.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--some", type=int, default=3, help="the products are measured on this number, squared, of heads"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "stream.md"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = model_of_gpt2_shape(options.layers)
    ids = torch.randint(0, 50257, (options.rows, options.tokens), generator=torch.Generator().manual_seed(0))
    figures = measure(decompositions(model, ids), options.repeats)
    parts = circuits(model, options.some)
    what = {k: getattr(options, k) for k in ("layers", "rows", "tokens", "threads", "repeats", "some")}
    if options.json:
        print(json.dumps({"setting": what, "decomposition": figures, "circuits": parts}, indent=1))
    else:
        for name, f in figures.items():
            print(f"{name:45s} {f['milliseconds']:8.1f} ms   {f['ratio']:.2f} [{f['low']:.2f}, {f['high']:.2f}]   "
                  f"processor {f['processor_ratio']:.2f}")  # fmt: skip
        for name, seconds in parts.items():
            print(f"{name:45s} {seconds:8.2f} s")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, page(figures, parts, what))


if __name__ == "__main__":
    main()
