"""What Cutaway costs: forward passes through it against the bare Hugging Face forward, in one run.

GPT-2-small's shape with random weights (12 layers, width 768, 50257 tokens), 8 rows of 64 tokens. The kinds
of pass take turns in every repetition, so that whatever else the machine does falls on all alike; each
figure is the median over repetitions of the ratio to the bare pass of the same repetition, with quartiles.
Beside the time on the clock stands the processor time (of all threads), which other programs disturb less.

    python benchmarks/overhead.py [--repeats 30] [--threads 2] [--peers] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import gc
import importlib
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

AIMS = {"nothing kept": 1.02, "every residual and z kept": 1.10}


def model_of_gpt2_shape(layers: int, seed: int = 0) -> nn.Module:
    """GPT-2-small's shape with random weights."""
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=layers)).eval()


def passes(model: nn.Module, ids: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The bare forward, and the same through Cutaway."""
    net = cutaway.open(model)
    residuals = ["resid_pre", "resid_mid", "resid_post"]

    def bare() -> Any:
        with torch.no_grad():
            return model(input_ids=ids)

    return {
        "bare forward": bare,
        "bare forward again": bare,
        "nothing kept": lambda: net.run(ids),
        "every resid_post kept": lambda: net.run(ids, keep=["resid_post"]),
        "every residual and z kept": lambda: net.run(ids, keep=[*residuals, "z"]),
        "every residual, z and pattern kept": lambda: net.run(ids, keep=[*residuals, "z", "pattern"]),
        "logits of the last position only": lambda: net.run(ids, logits="last"),
    }


def peers(ids: torch.Tensor, model: nn.Module) -> dict[str, Callable[[], Any]]:
    """The same work in other libraries, where they are installed."""
    found: dict[str, Callable[[], Any]] = {}
    if lens := _module("transformer_lens"):
        bridge = lens.HookedTransformer.from_pretrained_no_processing(
            "gpt2", hf_model=model, tokenizer=None, fold_ln=False
        )
        wanted = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_z")
        found["TransformerLens: nothing kept"] = lambda: bridge(ids)
        found["TransformerLens: every residual and z kept"] = lambda: bridge.run_with_cache(
            ids, names_filter=lambda name: name.endswith(wanted)
        )
    if nnsight := _module("nnsight"):
        wrapped = nnsight.NNsight(model)

        def traced() -> Any:
            with torch.no_grad(), wrapped.trace(ids):
                return [layer.output[0].save() for layer in wrapped.transformer.h]

        found["nnsight: every resid_post kept"] = traced
    return found


def _module(name: str) -> Any:
    """A module if it is installed, else None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


Times = dict[str, list[tuple[float, float]]]


def measure(kinds: dict[str, Callable[[], Any]], repeats: int) -> Times:
    """Seconds on the clock and of the processor for each pass, kinds taking turns; the order turns too."""
    names = list(kinds)
    for name in names:
        kinds[name]()
    times: Times = {name: [] for name in names}
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            gc.disable()
            clock, processor = time.perf_counter(), time.process_time()
            kinds[name]()
            times[name].append((time.perf_counter() - clock, time.process_time() - processor))
            gc.enable()
    return times


def summary(times: Times) -> dict[str, dict[str, float]]:
    """Median seconds, and median and quartiles of the ratio to the bare pass of the same repetition."""
    bare = times["bare forward"]
    out = {}
    for name, values in times.items():
        row: dict[str, float] = {"milliseconds": 1000 * statistics.median(v[0] for v in values)}
        for which, key in ((0, "ratio"), (1, "processor_ratio")):
            ratios = [v[which] / b[which] for v, b in zip(values, bare, strict=True)]
            row[f"{key}_low"], row[key], row[f"{key}_high"] = statistics.quantiles(ratios, n=4)
        out[name] = row
    return out


def page(figures: dict[str, dict[str, float]], what: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# What reading costs",
        "",
        f"Made by `python benchmarks/overhead.py`. GPT-2-small's shape ({what['layers']} layers,",
        f"width 768, 50257 tokens), random weights, {what['rows']} rows of {what['tokens']} tokens,",
        f"{what['threads']} CPU threads; {what['repeats']} repetitions in which the passes take turns.",
        f"torch {torch.__version__}, transformers {transformers.__version__},",
        f"Python {platform.python_version()}, {platform.machine()}.",
        "",
        "The ratio is the median over repetitions of a pass's time to that of the bare pass beside it, with",
        "its quartiles, by the clock and by the processor time of all threads; `bare forward again` shows what",
        "the measure itself can tell apart.",
        "",
        "| pass | median | ratio to bare | quartiles | processor time | quartiles | aim |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, f in figures.items():
        cells = [name, f"{f['milliseconds']:.1f} ms"]
        for key in ("ratio", "processor_ratio"):
            cells += [f"{f[key]:.3f}", f"{f[f'{key}_low']:.3f} to {f[f'{key}_high']:.3f}"]
        cells.append(f"≤ {AIMS[name]:.2f}" if name in AIMS else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description="What Cutaway costs beside the bare forward.")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--aims", action="store_true", help="only the passes that have an aim")
    parser.add_argument(
        "--peers", action="store_true", help="also TransformerLens and nnsight, where installed"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "overhead.md",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = model_of_gpt2_shape(options.layers)
    ids = torch.randint(0, 50257, (options.rows, options.tokens), generator=torch.Generator().manual_seed(0))
    kinds = passes(model, ids)
    if options.aims:
        kinds = {name: kinds[name] for name in ("bare forward", "bare forward again", *AIMS)}
    if options.peers:
        kinds |= peers(ids, model)
    figures = summary(measure(kinds, options.repeats))
    what = {k: getattr(options, k) for k in ("layers", "rows", "tokens", "threads", "repeats")}
    if options.json:
        print(json.dumps({"setting": what, "figures": figures}, indent=1))
    else:
        for name, f in figures.items():
            clock = f"{f['ratio']:.3f} [{f['ratio_low']:.3f}, {f['ratio_high']:.3f}]"
            print(f"{name:45s} {f['milliseconds']:8.1f} ms   {clock}   processor {f['processor_ratio']:.3f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, page(figures, what))


if __name__ == "__main__":
    main()
