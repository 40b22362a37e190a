"""What explaining takes, what a budget changes, and what screening misses, over networks of known mechanism and tales.

Each behaviour is explained twice: with default settings, and with a budget that leaves as few prompts as can decide
anything. The two verdicts may differ only by *inconclusive*. For screening, every part of every network is patched, and
what a gradient would have dropped is compared with what patching says.

python benchmarks/explaining.py [--seeds 2] [--only NAME ...] [--out docs/benchmarks/explaining.md]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import cutaway
from cutaway.behaviours import GENERATORS, Behaviour
from cutaway.behaviours.generators.specimen import specimen
from cutaway.errors import CutawayError
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.singles import MISSED, estimated
from cutaway.explanations.sizes import CHOICES, priced
from cutaway.network import Network
from cutaway.results import Budget, Work, atomic_write
from cutaway.trials import Bench
from cutaway.zoo.registry import all_specimens

#: Estimates, as shares of the gap, under which a part would be dropped.
CUTS = (0.0003, 0.001, 0.003, 0.01)
N = 128


@dataclass(frozen=True)
class Row:
    """One behaviour of one network.

    Attributes:
        name, seed: which, and how its pairs were drawn.
        whole, thin: the verdicts, or why it was refused.
        spent, thinly: forward-equivalents over the number of pairs.
        priced: what was announced for the whole, likewise.
        parts: how finely it was searched.
        dropped: for each cut how many parts it drops.
        missed: and how many of these move the metric by more than a hundredth of the gap.
    """

    name: str
    seed: int
    whole: str
    thin: str
    spent: float
    thinly: float
    priced: float
    parts: int
    dropped: tuple[int, ...]
    missed: tuple[int, ...]


def asked(seeds: int, only: list[str]) -> Iterator[tuple[str, int]]:
    """The behaviours: each specimen's own, and those of tales."""
    names = [*(n for n in all_specimens() if n != "tales"), *(f"tales {name}" for name in GENERATORS)]
    for seed in range(seeds):
        yield from ((name, 100 + seed) for name in names if not only or name in only)


def made(name: str, seed: int) -> tuple[Network, Behaviour]:
    """The network, and its pairs."""
    if name.startswith("tales "):
        net = cutaway.open("zoo:tales")
        return net, cutaway.behaviour(name.removeprefix("tales "), net, n=N, seed=seed, force=True)
    net = cutaway.open(f"zoo:{name}")
    return net, specimen(name, net, N, seed)


def row(name: str, seed: int) -> Row:
    """Explained with default settings, with a small budget, and screened."""
    net, behaviour = made(name, seed)
    limits = SearchLimits()
    whole, spent, parts = said(net, behaviour, Budget())
    least = priced(net, behaviour, CHOICES[-1], limits, True).forwards
    thin, thinly, _ = said(net, behaviour, Budget(forwards=least / 0.79))
    dropped, missed = (
        screened(net, behaviour) if whole in ("supported", "refuted", "inconclusive") else ((), ())
    )
    first = priced(net, behaviour, CHOICES[0], limits, True).forwards
    return Row(
        name, seed, whole, thin, spent / N, thinly / N, first / N, parts, dropped, missed
    )  # fmt: skip


def said(net: Network, behaviour: Behaviour, budget: Budget) -> tuple[str, float, int]:
    """The verdict, or the kind of refusal; forward-equivalents; parts."""
    try:
        found = cutaway.explain(net, behaviour, work=Work(budget=budget))
    except CutawayError as error:
        return f"refused ({type(error).__name__})", 0.0, 0
    return found.verdict, found.provenance.forwards or 0.0, found.mechanism.total if found.mechanism else 0


def screened(net: Network, behaviour: Behaviour) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each cut how many parts it drops, and how many of these matter by patching, on discovery pairs."""
    bench = Bench.of(net, behaviour.discovery).first(24)
    estimates = estimated(bench)
    if estimates is None or not bench.scale.told:
        return (), ()
    each = [[part] for part in bench.parts]
    effects = np.maximum(
        np.abs(bench.scale.shares(bench.restore(each))), np.abs(1 - bench.scale.shares(bench.remove(each)))
    )
    values = np.array([estimates[part] for part in bench.parts])
    drops = [values < cut for cut in CUTS]
    return tuple(int(d.sum()) for d in drops), tuple(int((d & (effects > MISSED)).sum()) for d in drops)


def contradict(a: Row) -> bool:
    """Is one verdict supported, and the other refuted?"""
    return {a.whole, a.thin} == {"supported", "refuted"}


def page(rows: list[Row], seconds: float) -> str:
    """The figures."""
    told = [r for r in rows if not r.whole.startswith("refused")]
    verdicts, both = Counter(r.whole for r in told), Counter((r.whole, r.thin) for r in told)
    lines = [
        "# Explaining: what it takes, what a budget changes, what screening misses",
        "",
        f"{len(rows)} behaviours of networks of known mechanism and of tales, {N} pairs each, in {seconds:.0f} s of "
        "processor time. Made by `python benchmarks/explaining.py`.",
        "",
        f"Explained: {len(told)}; refused as not performed, or without a gap: {len(rows) - len(told)}. With default "
        + "settings "
        + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        + f". Contradictions between the default and the smallest budget: {sum(map(contradict, told))}.",
        "",
        "| default | smallest budget | behaviours |",
        "| --- | --- | --- |",
        *(f"| {whole} | {thin} | {count} |" for (whole, thin), count in sorted(both.items())),
        "",
        "Forward-equivalents, as passes of all pairs: median "
        f"{np.median([r.spent for r in told]):.0f}, largest {max(r.spent for r in told):.0f}; with the smallest budget "
        f"{np.median([r.thinly for r in told]):.0f} and {max(r.thinly for r in told):.0f}. Announced over used: median "
        f"{np.median([r.priced / r.spent for r in told]):.2f}, middle 80 % "
        f"{np.quantile([r.priced / r.spent for r in told], 0.1):.2f} to "
        f"{np.quantile([r.priced / r.spent for r in told], 0.9):.2f}.",
        "",
        "Screening by a gradient: a part is dropped whose estimate is below the cut, and missed if patching it alone, "
        "either way, moves the metric by more than 1 % of the gap.",
        "",
        "| cut | dropped | missed | share |",
        "| --- | --- | --- | --- |",
    ]
    for i, cut in enumerate(CUTS):
        dropped, missed = (
            sum(getattr(r, name)[i] for r in told if r.dropped) for name in ("dropped", "missed")
        )
        lines.append(f"| {100 * cut:g} % | {dropped} | {missed} | {missed / max(1, dropped):.2%} |")
    lines += [
        "",
        "| behaviour | seed | default | smallest budget | passes | parts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {r.name} | {r.seed} | {r.whole} | {r.thin} | {r.spent:.0f} | {r.parts} |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    started, rows = time.process_time(), []
    try:
        for name, seed in asked(given.seeds, given.only):
            rows.append(row(name, seed))
            print(rows[-1], flush=True)
    except KeyboardInterrupt:  # the page says of how many behaviours it is
        pass
    text = page(rows, time.process_time() - started)
    print(text)
    if given.out is not None:
        atomic_write(given.out, text)


if __name__ == "__main__":
    main()
