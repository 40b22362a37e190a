"""What explaining takes, what a budget changes, and what screening misses, over networks of known mechanism and tales.

Each behaviour is explained twice: with default settings, and with a budget that leaves as few prompts as can decide
anything. The two verdicts may differ only by *inconclusive*. For screening, the rule of large networks is run on every
network, with a third of its parts let through by the gradient, so that something is dropped; then every part is patched, and
what was dropped is held against that, by itself and together, also on held-out pairs.

python benchmarks/explaining.py [--seeds 2] [--first 100] [--only NAME ...] [--screening-only] [--out FILE]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import cutaway
from cutaway.behaviours import GENERATORS, Behaviour, performance
from cutaway.behaviours.generators.specimen import specimen
from cutaway.errors import CutawayError
from cutaway.explanations.groups import SMALL, larger_effects
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.singles import estimated, screened
from cutaway.explanations.sizes import CHOICES, Sizes, priced
from cutaway.network import Network
from cutaway.results import Budget, Work, atomic_write
from cutaway.statistics import proportion
from cutaway.trials import Bench
from cutaway.zoo.registry import all_specimens

#: Estimates, as shares of the gap, under which a part would be dropped.
CUTS = (0.0003, 0.001, 0.003, 0.01)
N = 128
#: Of the few parts of such networks that can be dropped, so many are drawn and patched.
SAMPLED = 1


@dataclass(frozen=True)
class Row:
    """One behaviour of one network.

    Attributes:
        name, seed: which, and how its pairs were drawn.
        whole, thin: the verdicts, or why it was refused.
        spent, thinly: forward-equivalents over the number of pairs.
        priced: what was announced for the whole, likewise.
        parts: how finely it was searched.
    """

    name: str
    seed: int
    whole: str
    thin: str
    spent: float
    thinly: float
    priced: float
    parts: int


@dataclass(frozen=True)
class Screening:
    """What screening drops of one network's parts.

    Attributes:
        name, seed: which, and how its pairs were drawn.
        parts, passed: how many there are, and how many the gradient let through.
        rescued, sampled, dropped: the others.
        groups: that were tried.
        missed: how many of the dropped ones move the metric by more than a hundredth of the gap, each by itself.
        together: the larger of what all of them do together, restored and corrupted, a share of the gap.
        missed_held, together_held: the same on held-out pairs.
        trusted: how many a gradient alone would have dropped, with as many let through.
        wrong: how many of those move the metric by more than a hundredth of the gap.
        cuts: for each cut of the estimates how many parts it drops, and how many of these do.
    """

    name: str
    seed: int
    parts: int
    passed: int
    rescued: int
    sampled: int
    dropped: int
    groups: int
    missed: int
    together: float
    missed_held: int
    together_held: float
    trusted: int
    wrong: int
    cuts: tuple[tuple[int, int], ...]


def asked(seeds: int, only: list[str], first: int = 100) -> Iterator[tuple[str, int]]:
    """The behaviours: each specimen's own, and those of tales."""
    names = [*(n for n in all_specimens() if n != "tales"), *(f"tales {name}" for name in GENERATORS)]
    for seed in range(seeds):
        yield from ((name, first + seed) for name in names if not only or name in only)


def made(name: str, seed: int) -> tuple[Network, Behaviour]:
    """The network, and its pairs."""
    if name.startswith("tales "):
        net = cutaway.open("zoo:tales")
        return net, cutaway.behaviour(name.removeprefix("tales "), net, n=N, seed=seed, force=True)
    net = cutaway.open(f"zoo:{name}")
    return net, specimen(name, net, N, seed)


def row(name: str, seed: int) -> Row:
    """Explained with default settings, and with a small budget."""
    net, behaviour = made(name, seed)
    limits = SearchLimits()
    whole, spent, parts = said(net, behaviour, Budget())
    least = priced(net, behaviour, CHOICES[-1], limits, True).forwards
    thin, thinly, _ = said(net, behaviour, Budget(forwards=least / 0.79))
    first = priced(net, behaviour, CHOICES[0], limits, True).forwards
    return Row(name, seed, whole, thin, spent / N, thinly / N, first / N, parts)


def said(net: Network, behaviour: Behaviour, budget: Budget) -> tuple[str, float, int]:
    """The verdict, or the kind of refusal; forward-equivalents; parts."""
    try:
        found = cutaway.explain(net, behaviour, work=Work(budget=budget))
    except CutawayError as error:
        return f"refused ({type(error).__name__})", 0.0, 0
    return found.verdict, found.provenance.forwards or 0.0, found.mechanism.total if found.mechanism else 0


def screening(name: str, seed: int) -> Screening | None:
    """Its parts screened, beside what each of them does; None where the behaviour is not performed, or has no gap."""
    net, behaviour = made(name, seed)
    sizes = Sizes(tried=1, sampled=SAMPLED)
    bench = Bench.of(net, behaviour.discovery)
    estimates = estimated(bench.first(sizes.single))
    if estimates is None or not bench.scale.told or not performance(net, behaviour).does_it:
        return None
    found = screened(bench, estimates, replace(sizes, tried=max(1, len(bench.parts) // 3)), seed)
    through = {*found.passed, *found.rescued, *found.sampled}
    dropped = [part for part in bench.parts if part not in through]
    trusted = np.array([part not in found.passed for part in bench.parts])
    held = Bench.of(net, behaviour.held_out)
    each = [[part] for part in bench.parts]
    gone = np.array([part in dropped for part in bench.parts])
    matters, matters_held = larger_effects(bench, each) > SMALL, larger_effects(held, each) > SMALL
    values = np.array([estimates[part] for part in bench.parts])
    return Screening(
        name,
        seed,
        len(bench.parts),
        len(found.passed),
        len(found.rescued),
        len(found.sampled),
        len(dropped),
        found.groups,
        int((gone & matters).sum()),
        float(larger_effects(bench, [dropped])[0]),
        int((gone & matters_held).sum()),
        float(larger_effects(held, [dropped])[0]),
        int(trusted.sum()),
        int((trusted & matters).sum()),
        tuple((int((values < cut).sum()), int(((values < cut) & matters).sum())) for cut in CUTS),
    )


def contradict(a: Row) -> bool:
    """Is one verdict supported, and the other refuted?"""
    return {a.whole, a.thin} == {"supported", "refuted"}


def told_of_rows(rows: list[Row], seconds: float) -> list[str]:
    """The figures of explaining."""
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
        "| behaviour | seed | default | smallest budget | passes | parts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {r.name} | {r.seed} | {r.whole} | {r.thin} | {r.spent:.0f} | {r.parts} |" for r in rows]
    return lines


def told_of_screening(found: list[Screening], refused: int, seeds: str) -> list[str]:
    """The figures of screening."""
    if not found:
        return ["## Screening", "", "Nothing was screened."]

    def total(name: str) -> int:
        return sum(getattr(s, name) for s in found)

    def kept(parts: int, missed: int) -> str:
        return f"{1 - missed / max(1, parts):.1%} ({parts - missed} of {parts})"

    with_any = [s for s in found if s.dropped]
    rows = []
    for label, missed, together in (
        ("the pairs of the search", "missed", "together"),
        ("held-out pairs", "missed_held", "together_held"),
    ):
        over = sum(getattr(s, together) > SMALL for s in with_any)
        worst = max((getattr(s, together) for s in with_any), default=0.0)
        rows.append(
            f"| {label} | {kept(total('dropped'), total(missed))} | {kept(len(with_any), over)} | {100 * worst:.2f} % |"
        )
    low, high = proportion(total("missed"), total("dropped")).ends()
    lines = [
        "## Screening",
        "",
        "Made by `python benchmarks/explaining.py --screening-only`, or with the rest. "
        f"The rule of large networks on {len(found)} behaviours, {N} pairs each (seeds {seeds}); {refused} more are not "
        "performed, or have no gap. A third of the parts pass the gradient; of those that groups let go one is drawn and "
        f"patched. Of {total('parts')} parts {total('passed')} passed, {total('rescued')} were rescued by {total('groups')} "
        f"group tests, {total('sampled')} sampled, {total('dropped')} dropped. Something is dropped in {len(with_any)} "
        "behaviours; in the others no part could be, or only the one that was drawn.",
        "",
        "| at most 1 % of the gap, on | dropped parts, each alone | behaviours, all dropped together | largest together |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"Share of dropped parts that move the metric by more than 1 %: {low:.1%} to {high:.1%} (95 %, on the pairs of the "
        f"search). A gradient alone, letting as many through, would have dropped {total('trusted')}, of which "
        f"{total('wrong')} ({total('wrong') / max(1, total('trusted')):.1%}) do. By a cut of the estimates alone:",
        "",
        "| cut | dropped | missed | share |",
        "| --- | --- | --- | --- |",
    ]
    for i, cut in enumerate(CUTS):
        dropped, missed = (sum(s.cuts[i][j] for s in found) for j in (0, 1))
        lines.append(f"| {100 * cut:g} % | {dropped} | {missed} | {missed / max(1, dropped):.2%} |")
    lines += [
        "",
        "| behaviour | seed | parts | passed | rescued | dropped | groups | together | held-out | missed | by a gradient |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {s.name} | {s.seed} | {s.parts} | {s.passed} | {s.rescued} | {s.dropped} | {s.groups} "
        f"| {100 * s.together:.2f} % | {100 * s.together_held:.2f} % | {s.missed} | {s.wrong} |"
        for s in found
    ]
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=100, help="the first seed")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--screening-only", action="store_true", help="do not explain")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    started, rows, found, refused = time.process_time(), [], [], 0
    try:
        for name, seed in asked(given.seeds, given.only, given.first):
            if not given.screening_only:
                rows.append(row(name, seed))
                print(rows[-1], flush=True)
            one = screening(name, seed)
            print(one or f"{name} {seed}: not performed", flush=True)
            refused += one is None
            found += [] if one is None else [one]
    except KeyboardInterrupt:  # the page says of how many behaviours it is
        pass
    lines = [] if given.screening_only else [*told_of_rows(rows, time.process_time() - started), ""]
    seeds = f"{given.first} to {given.first + given.seeds - 1}" if given.seeds > 1 else f"{given.first}"
    text = "\n".join([*lines, *told_of_screening(found, refused, seeds)]) + "\n"
    print(text)
    if given.out is not None:
        atomic_write(given.out, text)


if __name__ == "__main__":
    main()
