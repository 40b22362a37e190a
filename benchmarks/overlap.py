"""What moves where, and what stands in for what, in networks of which it is known: how much is found, and what is made up.

    python benchmarks/overlap.py [--n 16] [--only passing|backups] [--out FILE]

Passing: networks that were trained to a stated algorithm; places are found first (`cutaway.carried`), and nothing is told.
Backups: every network that was built with a mechanism; some have a second path or a backup, the others have none. Beside
both their twins. The limits are the verbs' own, fixed beforehand.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.algorithms.carried.specimens import cases_of_specimen, stated  # noqa: E402

import cutaway  # noqa: E402
from cutaway import zoo  # noqa: E402
from cutaway.errors import BadBehaviour, NotPerformed  # noqa: E402
from cutaway.results import atomic_write  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks" / "overlap.md"
#: By task and variable the stated variables through which it goes, in order.
CHAINS = {
    "agreement": {"number": ("number", "verb"), "tense": ("tense", "verb")},
    "greater-than": {"year": ("year", "possible"), "direction": ("direction", "possible")},
    "cases": {"left": ("left", "result"), "right": ("right", "result")},
    "indirect-object": {
        "first": ("duplicate", "inhibited", "receiver"), "A": ("receiver",), "B": ("receiver",)
    },
}  # fmt: skip
TRAINED = (
    "agreement-gpt2", "agreement-llama", "greater-than-gpt2", "greater-than-llama", "cases-gpt2", "cases-gpt2-seed1",
    "indirect-object-gpt2", "indirect-object-llama",
)  # fmt: skip
BUILT = ("backup", "redundant", "induction", "duplicate", "copy-suppression")


def passing_row(name: str, n: int) -> list[str]:
    """A line of the table: edges of the truth that are found, other edges that are said to pass, what is supported."""
    net = cutaway.open(f"zoo:{name}")
    task, _, twin = name.partition("~")
    cases = cases_of_specimen(task, net)
    chains = next(chains for start, chains in CHAINS.items() if task.startswith(start))
    where = stated(task)
    began = time.monotonic()
    carried = None
    try:
        if task.startswith("indirect-object"):
            carried = cutaway.carried(net, cases, spans=["everywhere", "last"], n=n, force=bool(twin))
        result = cutaway.passing(net, cases, carried, n=n, force=bool(twin))
    except (NotPerformed, BadBehaviour) as error:
        return [
            name,
            "refused",
            "–",
            "0",
            error.problem.split(".")[0][:60],
            f"{time.monotonic() - began:.0f}",
        ]
    wanted = set()
    for variable, chain in chains.items():
        at = [where[v] for v in chain]
        wanted |= {(variable, s, r) for s, r in zip(at, [*at[1:], "answer"], strict=True)}
    found = {
        (v, _stated(s, wanted), _stated(r, wanted)) for v in result.variables for s, r in result.edges(v)
    }
    supported = sum(claim.supported for claim in result.claims)
    more = "; ".join(f"{v}: {s} to {r}" for v, s, r in sorted(found - wanted)) or "–"
    hit = f"{len(found & wanted)} of {len(wanted)}" if not twin else "–"
    told = f"{supported} of {len(result.claims)}"
    return [name, hit, str(len(found - wanted)), told, more, f"{time.monotonic() - began:.0f}"]


def _stated(place: str, wanted: set[tuple[str, str, str]]) -> str:
    """A place as it is stated: of a part that is stated to hold a variable at every token, any span of it."""
    everywhere = f"{place.partition('@')[0]}@everywhere"
    return everywhere if any(everywhere in edge for edge in wanted) else place


def backup_row(name: str, n: int) -> list[str]:
    """A line of the table: pairs that stand in for one another, by the truth and found; others that are said to."""
    net = cutaway.open(f"zoo:{name}")
    task, _, twin = name.partition("~")
    truth = zoo.truth(task)
    pairs = cutaway.behaviour(f"zoo:{task}", net, n=4 * n, force=True)
    began = time.monotonic()
    try:
        result = cutaway.backups(net, pairs, n=n, force=bool(twin))
    except (NotPerformed, BadBehaviour) as error:
        return [
            name,
            "–",
            "refused",
            "–",
            "0",
            error.problem.split(".")[0][:60],
            f"{time.monotonic() - began:.0f}",
        ]
    wanted: set[frozenset[str]] = set()
    if "redundant" in truth.facts and twin != "without":
        wanted = {frozenset(map(str, truth.facts["redundant"]))}
    if "dormant" in truth.facts and twin != "without":
        idle = set(map(str, truth.facts["dormant"]))
        primary = next(str(node) for node in truth.nodes if str(node) not in idle)
        wanted = {frozenset((primary, one)) for one in idle}
    found = {frozenset((*removed.split(" + "), part)) for removed, part in result.found()}
    supported = sum(claim.supported for claim in result.claims)
    lost = twin in ("random", "shuffled")
    hit = f"{len(found & wanted)} of {len(wanted)}" if wanted and not lost else "–"
    words = (
        "; ".join(
            dict.fromkeys(w for w, v in zip(result.words, result.verdict, strict=True) if v != "not shown")
        )
        or "–"
    )
    return [name, "yes" if wanted and not lost else "no", hit, str(len(found - wanted)), str(supported), words,
            f"{time.monotonic() - began:.0f}"]  # fmt: skip


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--only", choices=("passing", "backups"))
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    passes, stand = [], []
    if options.only != "backups":
        for name in [*TRAINED, *(f"{one}~{twin}" for one in TRAINED[::2] for twin in ("random", "shuffled"))]:
            passes.append(passing_row(name, options.n))
            print(*passes[-1], sep=" | ", flush=True)
    if options.only != "passing":
        built = [f"{one}-{kind}" for one in BUILT for kind in ("gpt2", "llama", "neox")]
        twins = [f"{one}-{kind}~{twin}" for one in ("backup", "redundant") for kind in ("gpt2", "neox")
                 for twin in ("without", "random", "shuffled")]  # fmt: skip
        for name in [*built, *twins]:
            stand.append(backup_row(name, options.n))
            print(*stand[-1], sep=" | ", flush=True)
    if options.only:
        return
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    text = f"""# What passes where, and what stands in for what

Made by `python benchmarks/overlap.py` in {time.monotonic() - began:.0f} s on one core; {options.n} pairs in each half.
{versions}.

## Passing

Networks that were trained to a stated algorithm. Places are found first, and nothing is told. The truth: a variable passes
between successive places of the algorithm, and from the last one to the answer; a place that is stated of every token is
found at any of its spans. Other edges are those that pass by the
verb's limits and are not stated. The tasks `brackets` and `docstring` have no prompts in which one variable varies alone.

{table(["network", "stated edges found", "other edges", "claims supported", "which others", "s"], passes)}

## Backups

Networks that were built. A second path or a backup is known of `redundant` and `backup`: of the latter a head, and the
neurons that tell it when to sleep. Twins are forced; they must support nothing, but `without` performs the behaviour.

{table(["network", "has one", "found", "others said to", "claims supported", "what is said", "s"], stand)}
"""
    atomic_write(options.out, text)


if __name__ == "__main__":
    main()
