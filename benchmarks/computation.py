"""What is computed, told: the story of each behaviour as it comes out, how long it took, and what is not shown.

    python benchmarks/computation.py [--model MODEL] [--depth algorithm] [--out PAGE] [BEHAVIOUR ...]

Without a model it is zoo:tales. Settings are the defaults; stories are as they come out.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import torch

import cutaway
from cutaway.behaviours.cases import cases_of
from cutaway.results import Price, Progress, Work, atomic_write

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "computation.md"
BEHAVIOURS = ("pronoun", "agreement", "ioi", "greater-than")


def told(net: cutaway.Network, behaviour: str, depth: str) -> str:
    """A section: the story, the questions, the times."""
    prices: list[Price] = []

    def listen(progress: Progress) -> None:
        if progress.price is not None:
            prices.append(progress.price)

    began, processor = time.monotonic(), time.process_time()
    found = cutaway.computation(net, cases_of(behaviour, net, 128), depth=depth, work=Work(listen))
    clock, processor = time.monotonic() - began, time.process_time() - processor
    verdicts = found.to_pandas()["verdict"].value_counts().to_dict()
    lines = [
        f"## {behaviour}, {net.name}", "", *(f"{i}. {said.text}" for i, said in enumerate(found.story, 1)), "",
        *(f"- *{said.head}* {f'**{said.verdict}** ' if said.verdict else ''}{said.text}" for said in found.questions), "",
        f"Claims: {', '.join(f'{count} {verdict}' for verdict, count in verdicts.items())}. "
        f"{clock:,.0f} s by the clock, {processor:,.0f} s of processor time; {found.provenance.forwards:,.0f} "
        f"forward-equivalents of {prices[0].forwards:,.0f} announced. Stages: "
        + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in found.seconds.items()) + ".",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Tell each, writing the page as it goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("behaviours", nargs="*", default=list(BEHAVIOURS))
    parser.add_argument("--model", default="zoo:tales")
    parser.add_argument("--depth", default="algorithm")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    net = cutaway.open(os.path.expanduser(given.model))
    head = (
        "# Stories as they come out\n\n`python benchmarks/computation.py` with default settings "
        f"([computation.md](../computation.md)), torch {torch.__version__} on {torch.get_num_threads()} threads of "
        f"{platform.machine()}. Nothing was chosen or corrected by hand; what is not shown is said.\n"
    )
    sections: list[str] = []
    for behaviour in given.behaviours:
        sections.append(told(net, behaviour, given.depth))
        print(sections[-1], flush=True)
        atomic_write(given.out, "\n\n".join([head.rstrip(), *sections]) + "\n")


if __name__ == "__main__":
    main()
