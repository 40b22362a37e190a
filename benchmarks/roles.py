"""Are the roles of parts right where they are known, and is none claimed where there is nothing to find?

For every network of the zoo whose card states what its nodes do, the roles that follow from the card were written down
beforehand (`tests/algorithms/roles/known_roles.py`). Right means that the node's role is supported. The same verb is asked
of every part of the twins with random weights, and of the twins that have no backup.

    python benchmarks/roles.py [--only NAME ...] [--out docs/benchmarks/roles.md]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.algorithms.roles.known_roles import (
    CONSTRUCTED,
    NOT_BACKUPS,
    KnownRole,
    cases_known,
    known,
    variables_of,
)

import cutaway
from cutaway.algorithms.roles import PartRoles
from cutaway.errors import CutawayError
from cutaway.results import atomic_write
from cutaway.statistics import proportion

#: MLPs whose neurons are known, with how many of them: the first ones.
NEURONS = {"lookup": 24, "superposition": 5}
#: Networks on which the interventions were settled: what was seen before the limits and interventions were fixed.
SEEN = "-gpt2"


@dataclass(frozen=True)
class Scored:
    """What came of one network.

    Attributes:
        name: of the specimen.
        right: of each known node, whether its role is supported.
        given: parts with supported roles that the card does not name as nodes.
        roles: how many roles are supported in all, and refuted.
        neurons: precision and recall of the named neurons; None where none are known.
        random: supported roles in the twin with random weights, and roles whose witnesses all agree there; None where it was
            not asked: one twin of each task is.
        seconds: of processor time.
    """

    name: str
    right: tuple[tuple[KnownRole, bool, str], ...]
    given: tuple[str, ...]
    roles: tuple[int, int]
    neurons: tuple[float, float] | None
    random: tuple[int, int] | None
    seconds: float


def asked(name: str) -> PartRoles:
    """The roles of all parts of a specimen or a twin."""
    net, many = cutaway.open(f"zoo:{name}"), name.split("-")[0] in NEURONS
    cases = cases_known(name, net, 220 if many else 80)
    return cutaway.roles(net, cases, variables=variables_of(cases), n=100 if many else 24)


def scored(name: str) -> Scored:
    """One network and its twin with random weights."""
    began = time.process_time()
    found, nodes = asked(name), [one for one in known() if one.specimen == name]
    right = []
    for one in nodes:
        verdict = next(
            (t.claim.verdict for t in found.tests if (t.part, t.role) == (one.part, one.role)), "not by score"
        )
        verdict = "supported" if one.role in found.of(one.part) else verdict
        right.append((one, verdict == "supported", verdict))
    stated = {str(node) for node in cutaway.zoo.truth(name).nodes} | {one.part for one in nodes}
    given = tuple(f"{t.part} {t.role}" for t in found.tests if t.claim.supported and t.part not in stated)
    counts = [sum(t.claim.verdict == verdict for t in found.tests) for verdict in ("supported", "refuted")]
    task, neurons = name.rsplit("-", 1)[0], None
    if task in NEURONS:
        part = next(one.part for one in nodes if one.role == "lookup")
        named = {int(n.partition(".")[2]) for n in found.neurons(part)}
        hit = len(named & set(range(NEURONS[task])))
        neurons = (hit / max(1, len(named)), hit / NEURONS[task])
    random = nothing_in(f"{name}~random") if name.endswith(SEEN) else None
    return Scored(
        name, tuple(right), given, (counts[0], counts[1]), neurons, random, time.process_time() - began
    )


def nothing_in(name: str) -> tuple[int, int]:
    """Supported roles of a network that has nothing, and roles of which all three witnesses agree."""
    try:
        found = asked(name)
    except CutawayError:
        return 0, 0
    agree = [t for t in found.tests if all(e.passed for e in t.claim.evidence) and t.claim.controls[0].passed]
    return sum(t.claim.supported for t in found.tests), len(agree)


def page(rows: Sequence[Scored], twins: dict[str, int], seconds: float) -> str:
    """The page."""
    every = [item for row in rows for item in row.right]
    lines = ["# Roles of parts", "",
             f"{len(rows)} networks whose mechanism is known, {len(every)} nodes. Made by `python benchmarks/roles.py` in",
             f"{seconds:.0f} s of processor time.", ""]  # fmt: skip
    groups = {
        "all": every,
        "constructed": [i for r in rows for i in r.right if _constructed(r.name)],
        "trained": [i for r in rows for i in r.right if not _constructed(r.name)],
        "all but `-gpt2`, on which the interventions were settled": [
            item for row in rows for item in row.right if not row.name.endswith(SEEN)
        ],
    }  # fmt: skip
    lines += ["| nodes | right | share |", "| --- | --- | --- |"]
    for what, items in groups.items():
        if items:
            hit = sum(ok for _, ok, _ in items)
            lines.append(f"| {what} | {hit} of {len(items)} | {proportion(hit, len(items))} |")
    twins_asked = [row.random for row in rows if row.random is not None]
    supported, agree = (sum(counts[i] for counts in twins_asked) for i in (0, 1))
    given = [f"{row.name}: {what}" for row in rows for what in row.given]
    lines += [
        "",
        f"With random weights {supported} roles are supported in {len(twins_asked)} networks; of {agree} all agree,",
        "although the network does not answer.",
        f"Supported roles of parts that the card does not name: {len(given)} ({'; '.join(given) or 'none'}).",
        f"Roles that look so by score and are refuted: {sum(row.roles[1] for row in rows)}; supported: "
        f"{sum(row.roles[0] for row in rows)}.",
        f"Twins that have no backup, and backups supported in them: "
        f"{', '.join(f'{name} {n}' for name, n in twins.items()) or 'not asked'}.",
        "",
        "| MLP of | precision of named neurons | recall |", "| --- | --- | --- |",
    ]  # fmt: skip
    lines += [f"| {row.name} | {row.neurons[0]:.2f} | {row.neurons[1]:.2f} |" for row in rows if row.neurons]
    lines += [
        "",
        "| network | node | role that follows from the card | verdict |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {one.specimen} | {one.part} | {one.role} | {verdict} |" for one, _, verdict in every]
    lines += ["", "Interventions (what a `mover` and a knocked-out edge are tested by)",
        "and the limit `beyond` were settled on the `-gpt2`",
              "networks; no limit was loosened afterwards."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _constructed(name: str) -> bool:
    return any(name == f"{task}-{arch}" for task in CONSTRUCTED for arch in ("gpt2", "llama", "neox"))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--out", default="docs/benchmarks/roles.md")
    given = parser.parse_args()
    began, rows = time.process_time(), []
    names = list(dict.fromkeys(one.specimen for one in known()))
    for name in names if given.only is None else [n for n in names if any(part in n for part in given.only)]:
        rows.append(scored(name))
        if given.only is None:  # stopped, the page is of what is finished
            atomic_write(Path(given.out), page(rows, {}, time.process_time() - began))
        last = rows[-1]
        print(name, [(one.part, one.role, verdict) for one, _, verdict in last.right], last.given, last.neurons, last.random,
              f"{last.seconds:.0f} s", flush=True)  # fmt: skip
    twins = {}
    for twin in NOT_BACKUPS if given.only is None else ():
        name, _, kind = twin.partition("~")
        for arch in ("gpt2", "llama", "neox"):
            found = asked(f"{name}-{arch}~{kind}")
            twins[f"{name}-{arch}~{kind}"] = sum(
                t.role == "backup" and t.claim.supported for t in found.tests
            )
    text = page(rows, twins, time.process_time() - began)
    print(text)
    if given.only is None:
        atomic_write(Path(given.out), text)


if __name__ == "__main__":
    main()
