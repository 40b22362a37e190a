"""Training dictionaries: tokens a second beside SAELens, sparsify and dictionary_learning, and the fate of dead latents.

Rows are the residual stream of `zoo:tales` behind layer 2 (width 128), centred and brought to one scale; 2,048 latents, of
which 16 fire. Every library takes the steps of its own trainer with Adam on the same batches, in a process of its own; they
take turns, and only one works at a time. Each has five learning rates to choose from, of which the one counts that leaves
least unexplained of rows that were held out. Then the same dictionary is trained on many tokens with the loss that revives
dead latents, without it, and with the one that cannot: of activations behind the nonlinearity, as two public trainers have
it, where a latent whose pre-activation is negative gets no gradient.

    python benchmarks/dictionaries.py [--peers PYTHON] [--tokens N] [--repeats 3] [--dead N] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import cutaway
from cutaway.recipes.tales.scenes import stories
from cutaway.results import atomic_write

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks" / "dictionaries.md"
LATENTS, K, BATCH, HELD = 2048, 16, 4096, 20_000
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
PEERS = ("sparsify", "saelens", "dictionary_learning")
#: Times the tokens of the fastest peer that must be reached.
AIM = 2.0


def rows(folder: Path, wanted: int) -> Path:
    """So many rows of the network's stream, and as many held out, in a file."""
    net = cutaway.open("zoo:tales")
    found: list[torch.Tensor] = []
    texts = (story.text for story in stories("dictionaries"))
    while sum(map(len, found)) < wanted + HELD:
        run = net.run(list(islice(texts, 64)), keep=["resid_post.2"], logits=False)
        mask = run.tokens.mask.clone()
        mask[:, 0] = False
        found.append(run["resid_post.2"][mask])
    values = torch.cat(found)
    values = values - values.mean(0)
    values = values / values.norm(dim=1).mean() * values.shape[1] ** 0.5
    file = folder / "rows.safetensors"
    save_file({"train": values[HELD:].contiguous(), "test": values[:HELD].contiguous()}, file)
    return file


def train(
    library: str, python: str, file: Path, tokens: int, rate: float, threads: int, seed: int
) -> dict[str, Any]:
    """One training in a process of its own."""
    command = [
        python,
        str(HERE / "dictionaries_workers.py"),
        library,
        str(file),
        str(LATENTS),
        str(K),
        str(BATCH),
    ]
    command += [str(tokens), str(rate), str(threads), str(seed)]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{library} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def beside(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Every library at its best rate, in turns."""
    libraries = {"cutaway": sys.executable} | (dict.fromkeys(PEERS, options.peers) if options.peers else {})
    best: dict[str, tuple[float, float]] = {}
    for library, python in libraries.items():
        tried = [
            (train(library, python, file, options.tokens, r, options.threads, 0)["fvu"], r) for r in RATES
        ]
        best[library] = min(tried)
        print(library, [(r, round(fvu, 4)) for fvu, r in tried], flush=True)
    rounds: dict[str, list[dict[str, Any]]] = {library: [] for library in libraries}
    for repeat in range(options.repeats):
        for library, python in libraries.items():
            found = train(
                library, python, file, options.tokens, best[library][1], options.threads, repeat + 1
            )
            rounds[library].append(found)
            print(library, f"{found['per_second']:,.0f} tokens/s, fvu {found['fvu']:.4f}", flush=True)
    return {name: {"rate": best[name][1], "rounds": rounds[name]} for name in libraries}


def behind_the_nonlinearity(strongest_dead: Callable[..., Any]) -> Callable[..., Any]:
    """What the public error makes of the latents that are tried: only those whose pre-activation is above zero."""
    from cutaway.features.training.kernels import listed

    def tried(*given: Any) -> tuple[Any, torch.Tensor]:
        chosen, values = strongest_dead(*given)
        flat = (chosen.rows * chosen.size + chosen.latents)[values > 0]
        return listed(flat, chosen.n_rows, chosen.size, chosen.bounds), values[values > 0]

    return tried


def dead(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Dead latents over a long training: revived, not revived, and revived in the way that cannot."""
    from unittest.mock import patch

    from cutaway.features.training import DictionaryRecipe, reviving
    from cutaway.features.training.trainee import Trainee
    from dictionaries_workers import batches

    held = load_file(file)
    torch.set_num_threads(options.threads)
    width, steps = held["train"].shape[1], options.dead // BATCH
    found: dict[str, Any] = {}
    modes = (
        ("revived", 1 / 32, reviving.strongest_dead),
        ("not revived", 0.0, reviving.strongest_dead),
        ("revived behind the nonlinearity", 1 / 32, behind_the_nonlinearity(reviving.strongest_dead)),
    )
    for name, weight, tried in modes:
        recipe = DictionaryRecipe(
            ("rows",), ("rows",), activation="topk", latents=options.dead_latents, k=K, batch=BATCH, lr=options.dead_lr,
            revive=weight, dead_after=min(1_000_000, options.dead // 10),
        )  # fmt: skip
        trainee, curve = Trainee(recipe, (width,), (width,)), []
        began = time.perf_counter()
        with patch.object(reviving, "strongest_dead", tried):
            for number, some in enumerate(batches(held["train"], BATCH, steps, 0)):
                report = trainee.step([some], [some], number / steps)
                if number % max(1, steps // 20) == 0:
                    curve.append((number * BATCH, report.dead, report.fvu))
        zero, one = [torch.zeros(width)], [1.0]
        latents = trainee.dictionary(zero, one, zero, one)
        counts = sum((latents.encode(part) > 0).sum(0) for part in held["train"][:200_000].split(BATCH))
        silent = float((counts == 0).double().mean())
        found[name] = {
            "curve": curve,
            "dead": report.dead,
            "silent": silent,
            "seconds": time.perf_counter() - began,
            "last": report.fvu,
        }
        print(
            name, f"{100 * silent:.2f} % silent on 200,000 rows", report.dead, report.fvu, curve, flush=True
        )
    return found


def written(data: dict[str, Any], gone: dict[str, Any], options: argparse.Namespace, took: float) -> str:
    """The page."""
    rows_of = []
    middle = {n: statistics.median(r["per_second"] for r in d["rounds"]) for n, d in data.items()}
    unexplained = {n: statistics.median(r["fvu"] for r in d["rounds"]) for n, d in data.items()}
    for name, d in data.items():
        rates = [r["per_second"] for r in d["rounds"]]
        busy = statistics.median(r["processor"] / r["tokens"] * 1e6 for r in d["rounds"])
        share = statistics.median(r["product"] for r in d["rounds"])
        rows_of.append(
            f"| {name} | {middle[name]:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {busy:.1f} | {100 * share:.0f} % | "
            f"{unexplained[name]:.4f} | {d['rate']:g} | {max(r['peak'] for r in d['rounds']):,.0f} |"
        )
    peers = [n for n in data if n != "cutaway"]
    said = ""
    if peers:
        fastest = max(peers, key=lambda n: middle[n])
        ratios = [
            a["per_second"] / b["per_second"]
            for a, b in zip(data["cutaway"]["rounds"], data[fastest]["rounds"], strict=True)
        ]
        least = min(unexplained[n] for n in peers)
        more = 100 * (unexplained["cutaway"] / least - 1)
        said = (
            f"The fastest other library is {fastest}: Cutaway trains on {statistics.median(ratios):.2f} times its tokens a "
            f"second ({min(ratios):.2f} to {max(ratios):.2f}; asked {AIM:g}). It leaves {unexplained['cutaway']:.4f} "
            f"unexplained, the best of the others {least:.4f} ({more:+.1f} %)."
        )
    machine = platform.processor() or platform.machine()
    head = [
        "library",
        "tokens a second (range)",
        "processor, s for a million",
        "encoder's product",
        "unexplained",
        "rate",
        "MiB",
    ]
    lines = [
        "# Training dictionaries", "",
        f"`python benchmarks/dictionaries.py`, on {options.threads} threads of {machine}, torch {torch.__version__}, "
        f"{time.strftime('%Y-%m-%d')}; {took / 60:.0f} minutes.", "",
        f"Rows: the residual stream of `zoo:tales` behind layer 2 (width 128), {options.rows:,} of them, {options.tokens:,} "
        f"tokens trained on in batches of {BATCH:,}; {LATENTS:,} latents, {K} fire. Every library takes its own trainer's "
        f"steps on the same batches with Adam, at the best of {len(RATES)} rates; {options.repeats} seeds. Cutaway's "
        "decoders keep length one (`lengths=\"unit\"`), which is better where steps are as few as here. The product is "
        "the encoder's alone, measured in the same process while it trains. Unexplained is of rows held out.", "",
        f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *rows_of, "", said, "",
    ]  # fmt: skip
    if gone:
        lines += [
            "## Dead latents", "",
            f"{options.dead:,} tokens ({options.dead // max(1, options.rows):,} times each row), {options.dead_latents:,} "
            f"latents, a rate of {options.dead_lr:g}; dead: silent on {min(1_000_000, options.dead // 10):,} rows.", "",
            "| | most dead at any time | dead at the end | silent on 200,000 rows | unexplained at the end |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {max(c[1] for c in found['curve'])} | {found['dead']} | {100 * found['silent']:.2f} % | "
                f"{found['last']:.4f} |"
                for name, found in gone.items()
            ),
            "",
        ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="an interpreter that has sae_lens, sparsify and dictionary_learning")
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--dead", type=int, default=20_000_000, help="tokens of the training that is watched for dead latents"
    )
    parser.add_argument("--dead-latents", type=int, default=LATENTS)
    parser.add_argument("--dead-lr", type=float, default=4e-3, help="the rate of that training")
    parser.add_argument("--only-dead", action="store_true", help="that training alone, printed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few tokens, printed, no page written")
    options = parser.parse_args()
    if options.quick:
        options.tokens, options.rows, options.repeats, options.dead = 60_000, 40_000, 1, 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = rows(Path(folder), options.rows)
        data = {} if options.only_dead else beside(options, file)
        gone = dead(options, file) if options.dead else {}
    page = written(data, gone, options, time.perf_counter() - began)
    if options.quick or options.only_dead:
        print(page)
    else:
        atomic_write(PAGE, page)


if __name__ == "__main__":
    main()
