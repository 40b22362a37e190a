"""One step of training a dictionary: how long, and how much of it is the encoder's matrix product.

    python benchmarks/dictionary_step.py [--quick] [--activation topk] [--threads 2] [--processor]

The product's own time is taken between the steps, in the same moment, so that the share says little about what else the
machine does. "selection" is the choice of what fires beside the product; "rest" everything else: reconstruction, gradients,
Adam, and the revival of dead latents, as which a share of all is taken (--dead).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from cutaway.features.training import DictionaryRecipe, Trainee
from cutaway.features.training.objectives import rule_of
from cutaway.features.training.selection import chunks, scan

SIZES = ((128, 2048, 16, 4096), (512, 8192, 32, 4096), (768, 24576, 32, 2048))


#: What time is read from.
CLOCK: Callable[[], float] = time.perf_counter


def clock(call: Callable[[], object]) -> float:
    start = CLOCK()
    call()
    return CLOCK() - start


def measured(
    d: int, latents: int, k: int, batch: int, activation: str, dead: float, rounds: int
) -> list[str]:
    recipe = DictionaryRecipe(("here",), ("here",), activation=activation, latents=latents, k=k, batch=batch,
                    dead_after=10 * batch)  # fmt: skip
    trainee = Trainee(recipe, (d,), (d,))
    rows = torch.randn(batch, d, generator=torch.Generator().manual_seed(0))
    weight, bias = (trainee.parameters[f"encoders.0.{n}"].detach() for n in ("weight", "bias"))
    parts = list(chunks(batch, latents))
    buffer = torch.empty(parts[0].stop, latents)

    def product() -> None:
        for at in parts:
            torch.addmm(bias, rows[at], weight.T, out=buffer[: at.stop - at.start])

    trainee.step([rows], [rows], 0.1)
    state = trainee.state()
    state["since"][0, : round(dead * latents)] = 10 * batch
    trainee.load(state)
    times: dict[str, list[float]] = {"step": [], "product": [], "scan": []}
    for _ in range(rounds):
        rows = torch.randn(batch, d)
        rule = rule_of(recipe, trainee.extras(0), float(trainee.state()["bandwidths"][0]))
        times["product"].append(clock(product))
        times["scan"].append(clock(partial(scan, rows, weight, bias, rule)))
        times["step"].append(clock(partial(trainee.step, [rows], [rows], 0.1)))
    best = {name: min(values) for name, values in times.items()}
    middle = {name: statistics.median(values) for name, values in times.items()}
    rest = best["step"] - best["scan"]
    return [
        str(d), str(latents), str(k), f"{best['step'] * 1e3:.1f}", f"{best['product'] / best['step']:.0%}",
        f"{middle['product'] / middle['step']:.0%}", f"{(best['scan'] - best['product']) / best['step']:.0%}",
        f"{rest / best['step']:.0%}", f"{batch / best['step']:,.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer rounds, the last size left out")
    parser.add_argument("--activation", default="topk")
    parser.add_argument("--dead", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--processor", action="store_true", help="processor time of one thread: for a busy machine"
    )
    options = parser.parse_args()
    if options.processor:
        global CLOCK
        CLOCK, options.threads = time.thread_time, 1
    torch.set_num_threads(options.threads)
    print(f"{options.activation}, {options.threads} threads")
    print("| d | latents | k | ms a step | product | product (median) | selection | rest | tokens/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for d, latents, k, batch in SIZES[: 2 if options.quick else 3]:
        rounds = (10 if options.quick else 40) if latents < 8192 else (4 if options.quick else 10)
        print(
            "| "
            + " | ".join(measured(d, latents, k, batch, options.activation, options.dead, rounds))
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
