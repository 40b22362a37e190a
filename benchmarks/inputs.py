"""Are integrated gradients and occlusion those of Captum, and what do they take beside it?

    python benchmarks/inputs.py --captum PYTHON [--smollm2 FOLDER] [--n 16] [--steps 20]

PYTHON is an interpreter that has captum, torch and transformers. Both attribute the same prompts of the same networks
with the same token as the baseline and the same rule of integration; each in a process of its own, in turns. Writes
docs/benchmarks/inputs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks" / "inputs.md"
WINDOWS = (1, 2)
BASELINE = " the"
ALIKE = 1e-4


def question(net: Any, n: int) -> Any:
    """Prompts on which a pronoun (or a name) follows."""
    from cutaway.behaviours.cases import cases_of

    return cases_of("pronoun", net, 96).behaviour(net, "gender", n=n)


def of_cutaway(net: Any, pairs: Any, steps: int) -> tuple[dict[str, list[np.ndarray]], dict[str, float]]:
    """What each token adds by our own methods, and the seconds."""
    import cutaway

    found, seconds = {}, {}
    asked = {"integrated_gradients": ("integrated_gradients", 1)} | {
        f"occlusion, {w}": ("occlusion", w) for w in WINDOWS
    }
    for name, (method, window) in asked.items():
        began = time.perf_counter()
        result = cutaway.input_attribution(
            net,
            pairs,
            method=method,
            window=window,
            steps=steps,
            baseline=BASELINE,
            n=pairs.n,
            controls=False,
        )
        seconds[name] = time.perf_counter() - began
        values = result.values[method]
        found[name] = [row[: len(ids)] for row, ids in zip(values, pairs.clean_ids, strict=True)]
    return found, seconds


def of_captum(python: str, folder: str, net: Any, pairs: Any, steps: int, dtype: str) -> Any:
    """The same by Captum."""
    kept = int(pairs.clean_ids[0][0] in set(getattr(net.tokenizer, "all_special_ids", ())))
    asked = {
        "prompts": [
            (list(ids), list(right), list(wrong))
            for ids, right, wrong in zip(pairs.clean_ids, pairs.right, pairs.wrong, strict=True)
        ],
        "baseline": net.to_single_token(BASELINE), "kept": kept, "steps": steps, "windows": WINDOWS, "dtype": dtype,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "question.json"
        path.write_text(json.dumps(asked))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [python, str(HERE / "inputs_workers.py"), folder, str(path), "1"],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def largest(mine: list[np.ndarray], theirs: dict[str, list[float]]) -> float:
    """The largest difference of a token's value, as a share of the largest value of its prompt."""
    others = [np.array(theirs[str(i)]) for i in range(len(mine))]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(mine, others, strict=True))


def compare(name: str, folder: str, python: str, n: int, steps: int) -> list[tuple[str, ...]]:
    """Rows of the table of one network: equal in float64 on a few prompts, timed in float32 on all."""
    import torch

    import cutaway

    torch.set_num_threads(1)
    exact = cutaway.open(name, dtype="float64")
    few = question(exact, n).take([0, 1])
    wanted = of_captum(python, folder, exact, few, steps, "float64")["values"]
    apart = {
        method: largest(values, wanted[method]) for method, values in of_cutaway(exact, few, steps)[0].items()
    }
    exact.close()
    net = cutaway.open(name, dtype="float32")
    pairs = question(net, n)
    of_cutaway(net, pairs.take([0, 1]), 2)  # what is made once is made now
    mine, took = of_cutaway(net, pairs, steps)
    theirs = of_captum(python, folder, net, pairs, steps, "float32")
    rows = []
    for method, values in mine.items():
        seconds = theirs["seconds"][method]
        times = f"{took[method]:.2f} s", f"{seconds:.2f} s", f"{took[method] / seconds:.2f}"
        single = largest(values, theirs["values"][method])
        called = name if name.startswith("zoo:") else "SmolLM2-135M"
        told = f"{apart[method]:.1e}", "yes" if apart[method] <= ALIKE else "NO", f"{single:.1e}"
        rows.append((called, method.replace("_", " "), str(pairs.n), *told, *times))
        print(" | ".join(rows[-1]), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captum", required=True, help="an interpreter that has captum")
    parser.add_argument("--smollm2", help="the folder of SmolLM2-135M-Instruct")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    from cutaway import zoo

    networks = [("zoo:tales", str(zoo.path("tales")))] + (
        [(given.smollm2, given.smollm2)] if given.smollm2 else []
    )
    rows = [
        row for name, folder in networks for row in compare(name, folder, given.captum, given.n, given.steps)
    ]
    head = (
        "network",
        "method",
        "prompts",
        "apart in float64",
        "within 1e-4",
        "apart in float32",
        "Cutaway",
        "Captum",
        "ratio",
    )
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
    text = f"""# Input attribution beside Captum

`python benchmarks/inputs.py --captum PYTHON --smollm2 FOLDER`, one thread each, {given.steps} steps of the
Gauss-Legendre rule, a token as the baseline. The largest difference of a token's value is given as a share of the largest
value of its prompt: in float64 on two prompts, where the two must be equal, and in float32, in which all prompts were timed.
Captum: `LayerIntegratedGradients` of the embedding and `Occlusion` of the embeddings; occlusion by
windows of one and two tokens.

{chr(10).join(lines)}

A ratio below 1 says that Cutaway takes less time than Captum for the same numbers.
"""
    PAGE.write_text(text, encoding="utf-8")
    return 0 if all(row[4] == "yes" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
