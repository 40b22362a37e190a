"""How well exact activation patching finds the nodes that are known, on every specimen of the zoo.

Every head and every MLP is patched with the sweep engine in both directions; the page holds the AUROC of the scores
over the known nodes against all others, and a picture of the scores.

    python benchmarks/recovery.py [--n 64] [--only NAME ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cutaway.calibration import Recovery, recovery
from cutaway.figures import Panel, node_grids
from cutaway.results import atomic_write, versions
from cutaway.zoo import names, specimen
from cutaway.zoo.registry import all_specimens

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "recovery.md"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "zoo.png"
WIDTH, COLUMNS = 1100, 6


def panel(found: Recovery) -> Panel:
    layers = 1 + max(node.layer or 0 for node in found.nodes)
    heads = 1 + max(node.index or 0 for node in found.nodes)
    scores, known = np.full((layers, heads + 1), np.nan), np.zeros((layers, heads + 1), bool)
    for node, score, is_known in zip(found.nodes, found.scores, found.known, strict=True):
        column = node.index if node.kind == "head" else heads
        scores[node.layer, column], known[node.layer, column] = score, is_known
    return Panel(found.name, scores, known)


def draw(panels: list[Panel], picture: Path) -> bool:
    """The picture of all specimens, taken with a browser where there is one."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return False
    figure = node_grids(panels, COLUMNS)
    height = int(figure.layout.height)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "zoo.html"
        figure.update_layout(width=WIDTH)
        figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
        shot = Path(folder) / "zoo.png"
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000",
            f"--window-size={WIDTH + 16},{height + 16}", f"--screenshot={shot}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        atomic_write(picture, shot.read_bytes())
    return True


def page(found: list[Recovery], seconds: float, n: int) -> str:
    used = versions()
    lines = [
        "# What exact patching finds in the zoo",
        "",
        f"Made by `python benchmarks/recovery.py` in {seconds:.0f} s: {n} fresh pairs for each specimen; every head and MLP",
        "is given its clean value in the corrupted run, and its corrupted value in the clean one, by the sweep engine; its",
        "score is the larger of the two mean effects, in shares of the gap. AUROC: the probability that a node known to",
        "carry the behaviour scores above one that does not.",
        f"torch {used['torch']}, transformers {used['transformers']}, Python {used['python']}.",
        "",
        "![Scores of all heads and MLPs, known nodes ringed](../images/zoo.png)",
        "",
        "| specimen | family | nodes known / all | weakest known | strongest other | AUROC |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in found:
        ins = [s for s, k in zip(r.scores, r.known, strict=True) if k]
        outs = [s for s, k in zip(r.scores, r.known, strict=True) if not k]
        auroc = "all known" if math.isnan(r.auroc) else f"{r.auroc:.3f}"
        low, high = f"{min(ins):.3f}" if ins else "", f"{max(outs):.3f}" if outs else ""
        lines.append(
            f"| {r.name} | {specimen(r.name).family} | {len(ins)} / {len(r.nodes)} | {low} | {high} | {auroc} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    found = []
    for name in options.only or [name for name in all_specimens() if name in names()]:
        r = recovery(name, options.n)
        if any(r.known):
            found.append(r)
            print(f"{name}: {r.auroc:.3f}", flush=True)
    atomic_write(options.out, page(found, time.monotonic() - began, options.n))
    if not draw(
        [panel(r) for r in found], PICTURE if options.out == PAGE else options.out.with_suffix(".png")
    ):
        print("There is no browser here, so the picture was not taken.")


if __name__ == "__main__":
    main()
