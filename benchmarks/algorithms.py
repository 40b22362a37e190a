"""What is computed, where it is known: variables found at their places, the true algorithm proposed, wrong ones ruled out.

Twelve networks of the zoo were trained to a stated algorithm, each of six tasks into two. On each, what parts carry is
found, an algorithm is proposed from that and tested on held-out prompts beside others; and the stated algorithm is tested at
its places. Then the same is asked of their twins (random weights, answers of other prompts, the task without the algorithm),
with other cases and exchanges each time: nothing may be supported of them.

    python benchmarks/algorithms.py [--out docs/benchmarks/algorithms.md] [--tries 100]

The limits are those of `ProposalLimits` and `AlgorithmLimits`, which were fixed before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.algorithms.known_algorithms import outcome  # noqa: E402
from tests.algorithms.proposing.tasks import CALLED, NETWORKS, stated_places, task_cases, task_of  # noqa: E402

import cutaway  # noqa: E402
from cutaway.algorithms.proposing import ProposedAlgorithm, propose_algorithm  # noqa: E402
from cutaway.errors import CutawayError, NotPerformed  # noqa: E402
from cutaway.results import atomic_write  # noqa: E402

TWINS = ("random", "shuffled", "free")


@dataclass(frozen=True)
class KnownNetwork:
    """What came out on a network whose algorithm is known.

    Attributes:
        name: of the network.
        right: places that parts were found to carry a stated variable at, and its own.
        carried: all places that were found to carry a stated variable.
        own: stated places of variables that can be exchanged by themselves.
        met: of these how many were found.
        placed: steps of the proposed algorithm at the stated part of their variable.
        steps: steps of it with a place.
        accuracy: the least interchange accuracy of the stated algorithm at its places.
        least: of the proposed one, held out.
        ruled_out: other algorithms that the evidence rules out.
        beside: those that were tested.
        verdict: of the proposed one.
        proposed: what it is called.
        where: its places.
        seconds: that proposing took.
    """

    name: str
    right: int
    carried: int
    own: int
    met: int
    placed: int
    steps: int
    accuracy: float
    least: float
    ruled_out: int
    beside: int
    verdict: str
    proposed: str
    where: str
    seconds: float


def known(name: str) -> KnownNetwork:
    """A network, its table of what parts carry, and the algorithm that is proposed from it."""
    net = cutaway.open(f"zoo:{name}")
    cases = task_cases(name, net, 200)
    began = time.monotonic()
    table = cutaway.carried(net, cases)
    made = propose_algorithm(net, cases, table)
    took = time.monotonic() - began
    stated, called = stated_places(name), CALLED[task_of(name)]
    parts: dict[str, set[str]] = {}
    for variable, own in called.items():
        parts.setdefault(own, set()).add(stated[variable].partition("@")[0])
    found = [(v, at.partition("@")[0]) for v in table.variables if v in parts for at in table.carriers(v)]
    wanted = [(v, part) for v in table.variables if v in parts for part in sorted(parts[v])]
    outcomes = {stated[v].partition("@")[0] for v in stated if v not in called}
    placed = [
        (step.variable, step.place.partition("@")[0]) for step in made.steps if step.place
    ]  # a derived variable, or the answer itself, among them
    right = sum(part in parts.get(variable, outcomes) for variable, part in placed)
    true = outcome(name, controls=False)
    return KnownNetwork(
        name, sum(one in wanted for one in found), len(found), len(wanted), len({*wanted} & {*found}), right, len(placed),
        min(v.accuracy.value for v in true.variables), _least(made), len(made.ruled_out),
        sum(one.claim is not None for one in made.considered), made.verdict, made.algorithm,
        "; ".join(f"{name} {place}" for name, place in made.where.items()), took,
    )  # fmt: skip


def _least(made: ProposedAlgorithm) -> float:
    return (
        min((v.accuracy.value for v in made.test.variables), default=0.0)
        if made.test is not None
        else float("nan")
    )


def attempt(name: str, twin: str, seed: int) -> str:
    """What is proposed of a twin: a verdict, or in what it ends."""
    net = cutaway.open(f"zoo:{name}~{twin}")
    cases = task_cases(name, net, 120, seed)
    try:
        try:
            table = cutaway.carried(net, cases, seed=seed)
        except NotPerformed:
            if seed:
                return "refused: it does not do the task"
            table = cutaway.carried(net, cases, seed=seed, force=True)
        made = propose_algorithm(net, cases, table, n=80, seed=seed)
    except CutawayError as error:
        return f"refused: {type(error).__name__}"
    if made.test is None:
        return "no algorithm is proposed"
    return made.verdict


def page(networks: list[KnownNetwork], tries: dict[tuple[str, str, int], str], asked: int) -> str:
    """The page."""
    lines = [
        "# What is computed, where it is known",
        "",
        "Made by `python benchmarks/algorithms.py`. Twelve networks were trained to a stated algorithm ([zoo-tasks.md]"
        "(../zoo-tasks.md)). *Carried*: of the places that `carried` finds to carry one stated variable alone, how many are"
        " its own (precision), and of its own how many are found (recall); of variables that can be exchanged by themselves."
        " *Steps*: of the proposed algorithm's steps, how many are in the part that was stated for their variable. *Stated*:"
        " the least interchange accuracy of the stated algorithm at its places, held out. *Proposed*: the least of the"
        " algorithm that `propose_algorithm` proposes, and its verdict. *Ruled out*: other algorithms that are refuted.",
        "",
        "In `brackets` the depth, from which both variables are computed, is no variable of the cases: its head, in which"
        " both are found first, counts as a part that was not stated. In `indirect-object` one stated head is exchanged at"
        " every token, and `carried` tries the last one: there it brings several variables.",
        "",
        "| network | carried: precision | recall | steps | stated | proposed | verdict | ruled out | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in networks:
        precision = f"{one.right}/{one.carried}" if one.own else "–"
        recall = f"{one.met}/{one.own}" if one.own else "–"
        lines.append(
            f"| {one.name} | {precision} | {recall} | {one.placed}/{one.steps} | {one.accuracy:.2f} | {one.least:.2f} | "
            f"{one.verdict} | {one.ruled_out} of {one.beside} | {one.seconds:.0f} |"
        )
    lines += ["", *_totals(networks), "", "## What is proposed", ""]
    lines += ["| network | algorithm | places |", "| --- | --- | --- |"]
    lines += [f"| {one.name} | {one.proposed} | {one.where} |" for one in networks]
    lines += ["", "## Twins", ""]
    supported = sum(outcome == "supported" for outcome in tries.values())
    lines += [
        f"{len(tries)} of {asked} tries, each with cases and exchanges of its own seed. **{supported} got an algorithm"
        " supported.** Twins with random weights and with shuffled answers do not do the task and are refused; of seed 0"
        " they were searched all the same (`force=True`). Those trained on the task alone do it in"
        " some way of their own: a variable may be carried there, only not where it was stated.",
        "",
        "| twin | what came out | tries |",
        "| --- | --- | --- |",
    ]
    counts = Counter((twin, outcome) for (_, twin, _), outcome in tries.items())
    lines += [f"| {twin} | {outcome} | {count} |" for (twin, outcome), count in sorted(counts.items())]
    bad = [
        f"{name}~{twin}, seed {seed}"
        for (name, twin, seed), outcome in tries.items()
        if outcome == "supported"
    ]
    lines += ["", f"Supported: {'; '.join(bad)}."] if bad else []
    return "\n".join(lines) + "\n"


def _totals(networks: list[KnownNetwork]) -> list[str]:
    if not networks:
        return []
    found, own = sum(one.carried for one in networks), sum(one.own for one in networks)
    right, met = sum(one.right for one in networks), sum(one.met for one in networks)
    placed, steps = sum(one.placed for one in networks), sum(one.steps for one in networks)
    supported = sum(one.verdict == "supported" for one in networks)
    fewest = min(one.ruled_out for one in networks)
    return [
        f"All together: precision {right}/{found} and recall {met}/{own} of what is carried, {placed} of {steps} steps in"
        f" the stated part, {supported} of {len(networks)} proposals supported, at least {fewest} others ruled out on each."
    ]


def main() -> None:
    """Run all of it, writing the page as it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "algorithms.md")
    parser.add_argument("--tries", type=int, default=100)
    given = parser.parse_args()
    networks: list[KnownNetwork] = []
    tries: dict[tuple[str, str, int], str] = {}
    names = [name for pair in NETWORKS.values() for name in pair]
    for name in names:
        networks.append(known(name))
        print(networks[-1], flush=True)
        atomic_write(given.out, page(networks, tries, given.tries).encode())
    seeds = range(1 + given.tries // (len(names) * len(TWINS)))
    for seed, twin, name in list(product(seeds, TWINS, names))[: given.tries]:
        tries[name, twin, seed] = attempt(name, twin, seed)
        print(name, twin, seed, tries[name, twin, seed], flush=True)
        atomic_write(given.out, page(networks, tries, given.tries).encode())


if __name__ == "__main__":
    main()
