"""How well lenses read small trained networks, layer by layer, on held-out text.

`zoo:tales` on stories of its grammar, and, where the folder of real inputs is there (CUTAWAY_SHARED, or shared/ beside the
repository), stories260K on a novel. Each lens is fitted on one part of the text and read on another.

    python benchmarks/lenses.py [--steps 300] [--rows 1000] [--threads 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers

import cutaway
from cutaway.recipes.tales.scenes import stories
from cutaway.results import atomic_write
from cutaway.stream.lenses import (
    ConstantLens,
    LensTraining,
    LogitLens,
    Sampling,
    compare_lenses,
    jacobian_lens,
    rows_of,
    train_tuned_lens,
)

HERE = Path(__file__).resolve().parents[1]


def shared() -> Path:
    """The folder of real inputs, whether or not it is there."""
    return Path(os.environ.get("CUTAWAY_SHARED", HERE.parent / "shared"))


def networks(rows: int) -> Iterable[tuple[str, Any, Any]]:
    """(what it is read on, network, text) of every network that is there."""
    yield (
        "stories of its own grammar",
        cutaway.open("zoo:tales"),
        [s.text + " " for s in islice(stories("lens"), 4 * rows)],
    )
    model, text = shared() / "models" / "stories260K", shared() / "data" / "text" / "bronte.txt"
    if model.is_dir() and text.is_file():
        yield (
            "a nineteenth-century novel",
            cutaway.open(str(model)),
            text.read_text(encoding="utf-8")[: 1000 * rows],
        )


def section(on: str, net: Any, text: Any, options: argparse.Namespace) -> list[str]:
    """Fit every lens, read held-out rows, and put the figures into Markdown."""
    fit, held = rows_of(net, text, length=64, most=options.rows).split(0.2)
    held = held.first(64)
    seconds: dict[str, float] = {}

    def timed(name: str, make: Any) -> Any:
        began = time.perf_counter()
        made = make()
        seconds[name] = time.perf_counter() - began
        return made

    lenses = [
        LogitLens.of(net),
        timed("tuned", lambda: train_tuned_lens(net, fit, training=LensTraining(steps=options.steps))),
        timed("jacobian", lambda: jacobian_lens(net, fit, sampling=Sampling(rows=16))),
        ConstantLens.of(net, fit),
        timed(
            "future+1",
            lambda: train_tuned_lens(net, fit, training=LensTraining(steps=options.steps // 2, ahead=1)),
        ),
    ]
    report = compare_lenses(net, lenses, held)
    claim = report.claim("tuned", "logit")
    print(report, claim, sep="\n")
    name = net.name.rstrip("/").split("/")[-1]
    lines = [f"## {name}, read on {on}", ""]
    for what, title in (("kl", "KL from the output"), ("cross_entropy", "Cross-entropy"), ("bias", "Bias")):
        frame = report.wide(what)
        lines += [f"{title}, in nats:", "", f"| layer entered | {' | '.join(frame.columns)} |",
                  f"| --- |{' --- |' * len(frame.columns)}"]  # fmt: skip
        lines += [
            f"| {i} | {' | '.join('' if v != v else f'{v:.3f}' for v in row)} |"
            for i, row in frame.iterrows()
        ]
        lines.append("")
    gains = "; ".join(f"{e.name}: {e.estimate}" for e in claim.evidence)
    lines += [
        f"The network's own cross-entropy is {report.own_cross_entropy.mean():.3f}. {fit.n} rows of 64 tokens to fit on, "
        f"{held.n} held out.",
        f"Tuned lens: {options.steps} steps, {seconds['tuned']:.0f} s. Jacobian lens: 16 rows, {seconds['jacobian']:.0f} s. "
        f"Future lens: {seconds['future+1']:.0f} s.",
        "",
        f"*{claim.verdict}*: {claim.statement} Nats nearer to the output, with 95 % intervals: {gains}.",
        "",
    ]
    return lines


def main() -> None:
    """Fit, read, write the page."""
    parser = argparse.ArgumentParser(description="How well lenses read small trained networks.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=HERE / "docs" / "benchmarks" / "lenses.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        "# How well lenses read",
        "",
        "Made by `python benchmarks/lenses.py`. Layer l is the stream that enters layer l; the last row is the network's",
        "output, where every lens but the constant and the future one is the network itself. The constant lens says the",
        "same whatever the stream: a lens above it reads worse than one that does not look. The future lens reads the token",
        "after the next one. "
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}.",
        "",
    ]
    for on, net, text in networks(options.rows):
        lines += section(on, net, text, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, "\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
