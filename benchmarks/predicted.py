"""What verbs announce beside what they then take: forward-equivalents, seconds by the clock and of processor time, memory.

Every verb that takes long is called as a new user calls it: with nothing remembered of the network in the process, and the
user's cache folder of earlier runs empty (“first”), then once more (“again”), when what an earlier run took is known. With
`--memory` each is run once more under a count of the bytes that tensors take, which slows it and so is not timed. Ratios are
what was used over what was announced; the load of the machine stands beside them.

    python benchmarks/predicted.py [FOLDER] [--n 16] [--threads 2] [--only patch,trace] [--memory] [--limit 600]

On 2 quiet cores zoo:tales takes 3 minutes, SmolLM2-135M about 40.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE / "docs" / "benchmarks" / "predicted.md"
NAMES = ("Mary", "Anna", "Tom", "John", "Lisa", "Paul", "Kate", "Mark")
#: What fits: seconds within 30 %, memory within 20 %.
SECONDS, MEMORY = 0.3, 0.2


def calls(model: str, n: int, where: Path) -> tuple[Any, dict[str, Callable[[Any], Any]]]:
    """The network, and by name of a verb with its options the call."""
    import numpy as np

    import cutaway
    from cutaway.circuits import CircuitLimits
    from cutaway.probes import ProbeData

    net = cutaway.open(model)
    small = model.startswith("zoo:")
    text, target, foil = ("Mary was sad because", " she", " he") if small else (
        "When Mary and John went to the park, John gave the ball to", " Mary", " John")  # fmt: skip
    pairs = cutaway.behaviour("pronoun" if small else "ioi", net, n=n, force=True)
    middle, last = net.n_layers // 2, net.n_layers - 1
    texts = [text.replace("Mary", name) for name in NAMES] * (n // 2)
    rows = [list(row) for row in (*pairs.clean_ids, *pairs.corrupted_ids)]
    data = ProbeData(rows, np.array([0] * pairs.n + [1] * pairs.n), name="side")
    circuit = cutaway.trace(net, pairs, method="eap", edges=100, force=True)
    vector = cutaway.difference_of_means(net, texts[:4], texts[4:8], at=f"resid_post.{middle}")
    heads: dict[str, Any] = {"at": "z", "by": ("layer", "head")}
    few = CircuitLimits(random=20, subsets=10, edges=20)
    c = cutaway
    return net, {
        "patch by layer, position": lambda w: c.patch(net, pairs, by=("layer", "position"), work=w),
        "patch z by layer, head": lambda w: c.patch(net, pairs, **heads, work=w),
        "ablate z by layer, head": lambda w: c.ablate(net, pairs, **heads, how="mean", work=w),
        "attribution_patch": lambda w: c.attribution_patch(net, pairs, steps=5, work=w),
        "path_patch into the logits": lambda w: c.path_patch(net, pairs, to=["logits"], work=w),
        "pair_effects of 8 heads": lambda w: c.pair_effects(
            net, pairs, which=[f"a{i}.h{h}" for i in (middle, last) for h in range(4)], work=w
        ),
        "trace, eap-ig": lambda w: c.trace(net, pairs, edges=100, force=True, work=w),
        "trace, mask-edges, 10 rounds": lambda w: c.trace(net, pairs, method="mask-edges", rounds=10, force=True, work=w),
        "trace, atp-star": lambda w: c.trace(net, pairs, method="atp-star", nodes=10, force=True, work=w),
        "test, without controls": lambda w: c.test(net, circuit, pairs, limits=few, controls=False, work=w),
        "probe, resid_post": lambda w: c.probe(net, data, at="resid_post", work=w),
        "steer, 16 tokens": lambda w: c.steer(net, texts[:8], vector, max_new_tokens=16, work=w),
        "top_examples": lambda w: c.top_examples(net, texts * 16, of=f"n{middle}.3", work=w),
        "activations": lambda w: c.activations(
            net, texts * 16, at="resid_post", folder=Path(tempfile.mkdtemp(dir=where)) / "acts", work=w
        ),
        "loss": lambda w: c.loss(net, texts * 16, work=w),
        "induction_heads": lambda w: c.induction_heads(net, length=16, n=n, work=w),
        "expand_paths": lambda w: c.expand_paths(net, text, target=target, foil=foil, depth=1, work=w),
        "explain, without controls": lambda w: c.explain(net, pairs, controls=False, force=True, work=w),
        "explain": lambda w: c.explain(net, pairs, force=True, work=w),
    }  # fmt: skip


def timed(net: Any, call: Callable[[Any], Any], limit: float) -> dict[str, Any]:
    """What one call announced, and what it took from then on."""
    import cutaway
    from cutaway.errors import Stopped

    said: dict[str, Any] = {}

    def hear(progress: Any) -> None:
        if progress.price is not None and not said:
            said.update(price=progress.price, forwards=progress.forwards)
            said.update(clock=time.perf_counter(), processor=time.process_time())
        if said and time.perf_counter() - said["clock"] > limit:
            work.stop()

    work = cutaway.Work(hear)
    net.forget()
    began, spent = time.perf_counter(), time.process_time()
    try:
        found = call(work)
        complete = bool(getattr(found, "complete", True)) and not work.stopped
    except Stopped:
        complete = False
    clock, processor = time.perf_counter(), time.process_time()
    price = said.get("price")
    row = {"complete": complete, "load": os.getloadavg()[0], "before": said.get("clock", clock) - began,
           "whole": {"clock": clock - began, "processor": processor - spent}}  # fmt: skip
    if price is None:
        return row
    used = {"forwards": work.meter.forwards - said["forwards"], "seconds": clock - said["clock"],
            "processor": processor - said["processor"]}  # fmt: skip
    told = {name: getattr(price, name) for name in ("forwards", "seconds", "processor", "memory")}
    return row | {"announced": told, "used": used}


def peaked(net: Any, call: Callable[[Any], Any]) -> int:
    """Bytes of tensors that a call takes at its peak."""
    from cutaway.network.allocations import peak_bytes

    net.forget()
    return peak_bytes(partial(call, None))


def measured(given: argparse.Namespace) -> list[dict[str, Any]]:
    """All verbs on one network."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["CUTAWAY_CACHE"] = place
        net, asked = calls(given.model, given.n, Path(place))
        for name, call in asked.items():
            if given.only and not name.startswith(tuple(given.only.split(","))):
                continue
            row = {"name": name, "first": timed(net, call, given.limit)}
            if row["first"]["complete"]:
                row["again"] = timed(net, call, given.limit)
                if given.memory:
                    row["peak"] = peaked(net, call)
            print(json.dumps(row, default=str), file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def _ratio(row: dict[str, Any], which: str, name: str) -> str:
    """Used over announced, in words; "" where there is none."""
    one = row.get(which, {})
    told, used = one.get("announced", {}).get(name), one.get("used", {}).get(name)
    if not told or used is None:
        return ""
    return f"{used / told:.2f}" + ("" if one["complete"] else " (stopped)")


def _figure(row: dict[str, Any], name: str) -> str:
    told, used = (row["first"].get(what, {}).get(name) for what in ("announced", "used"))
    shape = ",.0f" if name == "forwards" else ".1f"
    return f"{'–' if told is None else format(told, shape)} / {'–' if used is None else format(used, shape)}"


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """One network's section."""
    lines = [f"\n## {title}\n", "| verb | forward-equivalents | seconds | processor seconds | ratios of a first run: "
             "forwards, seconds, processor | of a second run: seconds, processor | memory, MiB | load |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        first = ", ".join(_ratio(row, "first", n) or "–" for n in ("forwards", "seconds", "processor"))
        again = ", ".join(_ratio(row, "again", n) or "–" for n in ("seconds", "processor"))
        told, peak = row["first"].get("announced", {}).get("memory"), row.get("peak")
        memory = "" if told is None and peak is None else " / ".join(
            "–" if b is None else f"{b / 2**20:,.0f}" for b in (told, peak))  # fmt: skip
        figures = " | ".join(_figure(row, n) for n in ("forwards", "seconds", "processor"))
        lines.append(
            f"| {row['name']} | {figures} | {first} | {again} | {memory} | {row['first']['load']:.1f} |"
        )
    return "\n".join(lines)


_WHY = """# What was announced and what was used

Announced / used, from the announcement to the end of the verb. A *first* run is one of a user of whom nothing is remembered:
its seconds come from a pace that was measured a moment before. A *second* run knows what the first took
([costs](../costs.md#how-seconds-are-foreseen)). Processor time is of all threads; the clock also shows what others do on the
machine (*load*: how many processes wanted a processor, on average over the last minute). Memory is of tensors, as they are
allocated, beside the network itself.
"""


def main() -> None:
    """Measure each network in a process of its own, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a folder of a real network beside zoo:tales")
    parser.add_argument("--n", type=int, default=16, help="pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only", default="", help="beginnings of names, with commas; the page is not written"
    )
    parser.add_argument("--memory", action="store_true", help="count bytes, too")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of one call")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        import torch
        import transformers

        torch.set_num_threads(given.threads)
        transformers.logging.disable_progress_bar()
        print(json.dumps(measured(given)))
        return
    models = (
        ["zoo:tales"] if given.model is None else [given.model] if given.only else ["zoo:tales", given.model]
    )
    sections = []
    for model in models:
        words = [model, "--one", "--n", str(given.n), "--threads", str(given.threads), "--limit", str(given.limit),
                 "--only", given.only, *(["--memory"] if given.memory else [])]  # fmt: skip
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        title = model if model.startswith("zoo:") else Path(model).name
        sections.append(table(title, json.loads(done.stdout)))
    page = f"{_WHY}\n{given.n} pairs, {given.threads} thread(s).\n" + "\n".join(sections)
    page += "\n\nMade by `python benchmarks/predicted.py FOLDER --memory`.\n"
    if given.only:
        print(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
