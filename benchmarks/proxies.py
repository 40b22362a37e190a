"""Question five on networks that follow a proxy, on their twins that follow the goal, and on twins that follow neither.

Two specimens of the zoo were trained on prompts on which a proxy and the goal agree; of each the twin `~goal` saw others,
too. `cutaway.intended` is asked of each, with the goal as intended and the proxy as feared, on prompts in which both vary by
themselves, and again on a shift: frames that no network saw, other words. Right is *refuted* for the specimen, *supported*
for its twin `~goal`, and not *supported* for random weights and shuffled answers.

    python benchmarks/proxies.py [--n N] [--out PAGE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cutaway
from cutaway.algorithms import algorithms_of
from cutaway.behaviours.cases import Cases, cases_of
from cutaway.results import atomic_write

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "proxies.md"
SPECIMENS = ("proxy-agreement-gpt2", "proxy-receiver-gpt2")
#: What is right for each twin; "" is the specimen itself.
RIGHT = {
    "": ("refuted",),
    "~goal": ("supported",),
    "~random": ("inconclusive", "refuted"),
    "~shuffled": ("inconclusive", "refuted"),
}


def row(specimen: str, twin: str, n: int) -> tuple[str, bool]:
    """One line of the table, and whether the verdict is right."""
    net = cutaway.open(f"zoo:{specimen}{twin}")
    mixed, alike, apart = (
        cases_of(f"zoo:{specimen}", net, 256, kind=kind) for kind in ("mixed", "shifted", "shifted apart")
    )
    derived = tuple(v for v in apart.variables if v not in apart.free)
    shifted = Cases("shifted", (*alike.cases, *apart.cases), None, 0, (), derived)
    (proxy, _), (goal, _) = algorithms_of(f"zoo:{specimen}").values()
    began = time.process_time()
    told = cutaway.intended(net, mixed, goal, [proxy], shifted=shifted, n=n)
    seconds = time.process_time() - began
    here = told.here.followed[0]
    there = None if told.shifted is None else told.shifted.followed[0]
    shares = [
        f"{one.own.value:.2f} / {one.other.value:.2f}" if one is not None else "–" for one in (here, there)
    ]
    right = told.verdict in RIGHT[twin]
    line = (
        f"| `{specimen}{twin}` | {told.verdict} | {told.follows} | {shares[0]} | {told.follows_shifted} | {shares[1]} | "
        f"{'yes' if right else 'no'} | {seconds:.1f} s |"
    )
    return line, right


def main() -> None:
    """Ask all, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200, help="prompts that come apart")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    lines, right = [], []
    for specimen in SPECIMENS:
        for twin in RIGHT:
            line, good = row(specimen, twin, given.n)
            print(line, flush=True)
            lines.append(line)
            right.append(good)
    head = (
        "# Goal or proxy\n\n"
        "`python benchmarks/proxies.py`. Two networks were trained on prompts on which a proxy gives the goal's answers "
        "([known-algorithms.md](../known-algorithms.md)); their twins `~goal` saw others, too. "
        f"`cutaway.intended` asks each whether it follows the goal, on {given.n} held-out prompts on which the two come "
        "apart, and on a shift (other frames, other words). Shares are goal / proxy. Right is *refuted* for the specimen, "
        "*supported* for `~goal`, and not *supported* for the others.\n\n"
        "| network | intended? | follows | goal / proxy | on the shift | goal / proxy | right | processor time |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    atomic_write(
        given.out, head + "\n".join(lines) + f"\n\n{sum(right)} of {len(right)} verdicts are right.\n"
    )


if __name__ == "__main__":
    main()
