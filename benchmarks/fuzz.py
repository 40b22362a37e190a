"""Random calls of every verb, damaged files of pairs, damaged results: is every outcome an answer or a sentence?

    python benchmarks/fuzz.py [--seed N] [--calls 2000] [--files 1000] [--results 1000]

A fresh seed is drawn and printed where none is given. Exit code 1 where anything but an answer or a `CutawayError` came, or
where an outcome took longer than 20 seconds. Nothing is written to docs/.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "fuzz"))
from fuzzing import run  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--results", type=int, default=1000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tallies = run(Path(folder), asked.seed, asked.calls, asked.files, asked.results)
    for name, tally in tallies.items():
        print(f"{name}: {tally}")
    sys.exit(any(tally.wrong for tally in tallies.values()))


if __name__ == "__main__":
    main()
