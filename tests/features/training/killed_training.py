"""Train in processes of their own, kill them (-9) at several steps, go on, and compare: run by `test_resume`."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.features.training.beds import network, planted, recipe, texts

from cutaway.features.formats import own
from cutaway.features.training import train_dictionaries, train_on_rows
from cutaway.results import Progress, Work

NET = network()
ROWS, _ = planted(900)
RECIPES = [recipe(), recipe(activation="jumprelu", seed=3), recipe(activation="topk", frozen="decoder")]

CALLS: dict[str, Callable[[Path, Work], Any]] = {
    "rows": lambda folder, work: train_on_rows(ROWS, RECIPES, tokens=1500, folder=folder, keep_every=0, work=work),
    "texts": lambda folder, work: train_dictionaries(
        NET, texts(80), at=["resid_post.0", "mlp_out.1"], latents=24, k=3, tokens=1500, batch=64, controls=("frozen",),
        folder=folder, keep_every=0, work=work,
    ),
    "seldom": lambda folder, work: train_on_rows(ROWS, RECIPES, tokens=1500, folder=folder, keep_every=1e9, work=work),
}  # fmt: skip


class Killer:
    """Ends its process with SIGKILL at a report of progress."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, progress: Progress) -> None:
        self.left -= progress.label == "training dictionaries"
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def written(folder: Path) -> dict[str, bytes]:
    """Every file of a dictionary."""
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for name in (own.TENSORS, own.SAYS)
        for f in folder.glob(f"*/{name}")
    }


def killed(call: Callable[[Path, Work], Any], folder: Path, after: int) -> bool:
    child = os.fork()
    if not child:
        try:
            call(folder, Work(Killer(after)))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(moments: list[str]) -> None:
    """Print what came of each moment: `rows:3` is killed at the third step, `rows:3:9` again at the ninth after it."""
    whole: dict[str, dict[str, bytes]] = {}
    for moment in moments:
        name, *after = moment.split(":")
        if name not in whole:
            folder = Path(tempfile.mkdtemp()) / "whole"
            CALLS[name](folder, Work())
            whole[name] = written(folder)
        folder = Path(tempfile.mkdtemp()) / "killed"
        was = [killed(CALLS[name], folder, int(n)) for n in after]
        steps: list[int] = []
        found = CALLS[name](folder, Work(lambda p: steps.append(p.done) if p.price is None else None))  # noqa: B023
        row = {
            "moment": moment, "killed": all(was), "equal": written(folder) == whole[name], "files": len(whole[name]),
            "first": steps[0] if steps else None, "complete": found.complete,
            "left": sorted(f.name for f in folder.iterdir() if f.name.startswith((".", "checkpoint"))),
        }  # fmt: skip
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
