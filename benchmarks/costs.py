"""What each verb costs: forward-equivalents, processor time, and memory, on a small network and a real one.

The verbs run one after the other, the cheap ones first, each once, on a behaviour of so many pairs. Processor time is that
of all threads, which other programs disturb less than the clock; forward-equivalents are counted by the library itself,
and are what to multiply for another number of pairs. What does not come to its end within the limit is said to take more.

    python benchmarks/costs.py [--real FOLDER] [--n 16] [--threads 2] [--limit 200] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
TEXT = "When Mary and John went to the park, John gave the ball to"
SMALL_TEXT = "Mary was sad because"


def verbs(net: Any, pairs: Any, text: str, target: str, foil: str) -> dict[str, Callable[[Any], Any]]:
    """Name of a verb with its options -> the call, in the order in which one works."""
    import cutaway
    from cutaway.stream.lenses import LogitLens

    heads = {"at": "z", "by": ("layer", "head")}
    return {
        "run": lambda work: net.run(text),
        "run, all sites kept": lambda work: net.run(text, keep="*"),
        "read_lens": lambda work: cutaway.read_lens(net, LogitLens.of(net), text),
        "logit_attribution by head": lambda work: cutaway.logit_attribution(net, text, target=target, foil=foil, by="head"),
        "patch by layer": lambda work: cutaway.patch(net, pairs, by="layer", work=work),
        "patch by layer, position": lambda work: cutaway.patch(net, pairs, by=("layer", "position"), work=work),
        "patch z by layer, head": lambda work: cutaway.patch(net, pairs, **heads, work=work),
        "ablate z by layer, head": lambda work: cutaway.ablate(net, pairs, **heads, how="mean", work=work),
        "trace, eap-ig": lambda work: cutaway.trace(net, pairs, edges=100, work=work),
        "path_patch into the logits": lambda work: cutaway.path_patch(net, pairs, to=["logits"], work=work),
        "explain, without controls": lambda work: cutaway.explain(net, pairs, controls=False, work=work),
    }  # fmt: skip


def behaviour(net: Any, model: str, n: int) -> Any:
    """What the network is asked."""
    import cutaway

    return cutaway.behaviour("pronoun" if model.startswith("zoo:") else "ioi", net, n=n, force=True)


def opened(model: str) -> tuple[Any, tuple[str, str, str]]:
    """A network, and a text with two answers."""
    import transformers

    import cutaway

    transformers.logging.disable_progress_bar()
    net = cutaway.open(model)
    return net, (SMALL_TEXT, " she", " he") if model.startswith("zoo:") else (TEXT, " Mary", " John")


def measured(model: str, n: int, limit: float) -> list[dict[str, Any]]:
    """The cost of every verb on a network, opening it first; within so many seconds on the clock in all."""
    import cutaway
    from cutaway.errors import Stopped
    from cutaway.results.meter import Meter, metered

    began, clock = time.process_time(), time.perf_counter()
    net, asked = opened(model)
    rows = [{"name": "open", "processor": time.process_time() - began, "forwards": None, "memory": peak()}]
    start = time.process_time()
    with metered(Meter()) as meter:
        pairs = behaviour(net, model, n)
    row = {"name": "behaviour, checked", "processor": time.process_time() - start, "forwards": meter.forwards}
    rows.append(row | {"memory": peak()})
    for name, call in verbs(net, pairs, *asked).items():
        start, left = time.process_time(), limit - (time.perf_counter() - clock)
        row: dict[str, Any] = {"name": name, "stopped": left <= 0}
        if left > 0:
            with metered(Meter()) as meter:
                try:
                    found = call(cutaway.Work(budget=cutaway.Budget(seconds=left)))
                    row["stopped"] = not getattr(found, "complete", True)
                except Stopped:
                    row["stopped"] = True
            row |= {"processor": time.process_time() - start, "forwards": meter.forwards, "memory": peak()}
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    size = sum(p.numel() for p in net.model.parameters()) / 1e6
    rows[0] |= {"network": f"{size:.0f} M parameters, {net.n_layers} layers, {net.n_heads} heads, width {net.d_model}",
                "pairs": f"{pairs.n} pairs of {max(map(len, pairs.clean_ids))} tokens at most"}  # fmt: skip
    return rows


def peak() -> float:
    """The largest memory of this process so far [MB]."""
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    )


_WHY = """# What it costs

Every verb says what it will take before it begins: forward-equivalents, worked out from the question, and the seconds that
they take at the pace just measured ([on the command line](cli.md#waiting-stopping-going-on); in Python the listener of a
`Work` hears a `Progress` with a `price`). `cutaway patch MODEL -b B --plan` and `cutaway.plan(net, pairs, ...)` say it, and
run nothing. `--budget 5m,4GiB` bounds any command; what is finished when it is spent is saved.

## Size, memory, GPU

- **Memory** is the weights (4 bytes a parameter in float32, 2 in bfloat16: `--dtype bfloat16`) plus what a batch keeps.
  Sweeps and circuits choose their batches by the memory that is free, and lower them when it runs out.
- **Size**: everything runs on any network that opens, at the price of its forward passes times the figures below. A model of
  135 M parameters is comfortable on two processor cores; with 1 B and more a sweep over heads wants a GPU.
- **GPU**: `--device cuda` (or `mps`). Nothing else changes; results do to the last digits. Reading attention patterns needs
  the eager kernel, which takes [rows × heads × tokens²] numbers.
- **Precision**: in bfloat16 a difference of two logits has two or three digits. Effects that are small beside the logits are
  better measured in float32.

## How seconds are foreseen

Seconds are of passes and of what they run: a network of a million parameters takes its time in calls, one of a hundred
million in products. A moment before a verb begins, a batch and single rows are timed (and, where gradients are to be
taken, a backward pass), by the clock and by processor time: the first tells how busy the machine is, the second does
not depend on it. A sweep that is planned, and a method of tracing whose circuit is given a size, are timed on pieces of
themselves. What is beside the network, such as fitting probes, is not in the first figure. So what each verb took is
kept in the user's cache folder, by the form of the network, device and threads, and corrects the next: runs of about
the same size count most, and no correction is below 0.3 or above 10 (`CUTAWAY_CACHE=off` switches it off). Memory is
told from few rows, too, by sweeps, tracing to a given size, activations and top examples; a budget in which nothing
fits is refused with what would be enough. While a verb runs, what is left is told by the pace of what is finished. How
far the figures hold is [measured](benchmarks/predicted.md).

## What verbs cost

A **forward-equivalent** is one prompt taken once through all layers ([design](design.md)). Their number grows with the
number of pairs, and for a sweep with its cells; a cell in layer 20 of 24 counts a sixth, because the layers before it are
not computed again. The figures are of single runs with {threads} on {machine}; seconds are *processor time* of all
threads, as others worked on the machine too. Memory is the largest of the process so far, with the libraries
themselves.
"""


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """One network's figures as a section of the page."""
    lines = [f"\n### {title}\n", f"{rows[0]['network']}; {rows[0]['pairs']}.\n",
             "| verb | forward-equivalents | processor seconds | memory so far |", "| --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        if "processor" not in row:
            lines.append(f"| {row['name']} | | not run within the limit | |")
            continue
        more = "more than " if row.get("stopped") else ""
        forwards = "" if row["forwards"] is None else f"{more}{row['forwards']:.0f}"
        lines.append(
            f"| {row['name']} | {forwards} | {more}{row['processor']:.1f} | {row['memory']:.0f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure both networks, each in a process of its own, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--real", default="", help="a folder or id of a real network; without it only the small one"
    )
    parser.add_argument("--n", type=int, default=16, help="pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=200.0, help="seconds on the clock for one network")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "docs" / "costs.md")
    given = parser.parse_args()
    if given.model:
        import torch

        torch.set_num_threads(given.threads)
        print(json.dumps(measured(given.model, given.n, given.limit)))
        return
    sections = []
    for model in ("zoo:tales", *([given.real] if given.real else ())):
        words = [
            "--model",
            model,
            "--n",
            str(given.n),
            "--threads",
            str(given.threads),
            "--limit",
            str(given.limit),
        ]
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        sections.append(
            table(model if model.startswith("zoo:") else Path(model).name, json.loads(done.stdout))
        )
    machine = f"{platform.machine()}, {platform.system()}"
    again = "\n\nMade by `python benchmarks/costs.py --real FOLDER`.\n"
    threads = f"{given.threads} thread{'s' if given.threads > 1 else ''}"
    page = _WHY.replace("{threads}", threads).replace("{machine}", machine)
    _, heading, commands = (
        given.out.read_text("utf-8").partition("\n## Every verb") if given.out.exists() else ("",) * 3
    )
    given.out.write_text(page + "\n".join(sections) + again + heading + commands, encoding="utf-8")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
