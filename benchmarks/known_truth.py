"""Dictionaries trained on data whose dictionary is known: what each architecture recovers, and what tells it from outside.

Three parts. The table: every activation, three seeds, on a planted dictionary, beside a twin with a frozen decoder, random
directions and the truth itself. The question whether stability over seeds and what training adds to a frozen twin predict
true recovery, over at least forty settings. And the zoo: facts, colours, waves, and a variable that nobody reads.

    python benchmarks/known_truth.py [--preset small reference] [--tokens N] [--peers PYTHON] [--out FILE]
    python benchmarks/known_truth.py --only settings     # table, settings or zoo alone, printed

PYTHON is an interpreter that has sae_lens 6.54.12: its architectures are trained on the same rows, beside ours in the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cutaway
from cutaway import zoo
from cutaway.features.dictionaries import Dictionary
from cutaway.features.measures import compare_rows, oracle, recovery
from cutaway.features.measures.matching import match, mcc, uniqueness
from cutaway.features.measures.recovery import RECOVERED, random_directions
from cutaway.features.measures.zoo_truth import (
    OWN,
    class_directions,
    labelled,
    lever,
    mechanism_claim,
    recovered_directions,
    told_by,
    values_where,
)
from cutaway.features.planted import Planted, plant, preset
from cutaway.features.sets import latents
from cutaway.results import atomic_write

ACTIVATIONS = ("batchtopk", "topk", "jumprelu", "relu", "gated", "groupmax", "matryoshka")
#: What SAELens trains, in its names.
PEERS = ("standard", "topk", "batchtopk", "jumprelu", "gated", "matryoshka_batchtopk")
SEEDS = (0, 1, 2)
#: Learning rates; of each library and architecture the one counts that leaves least unexplained of rows held out.
RATES = (8e-3, 1.6e-2, 3.2e-2)
#: The share of the rows on which two architectures are trained once more: what they recover in less time.
FEWER = 0.6
#: How far below the best of SAELens a mean correlation may lie, to count as no worse.
NEAR = 0.02
COLUMNS = ("mcc", "recovered", "uniqueness", "f1", "f1_nearest", "absorption", "missed", "splitting", "shrinkage", "fvu",
           "l0", "dead", "dense")  # fmt: skip


def trained(
    rows: Any, tokens: int, seed: int = 0, how: str = "batchtopk", **settings: Any
) -> tuple[Dictionary, float]:
    """A dictionary trained on rows [n d], or on rows by the names of the places that it reads and writes; and the seconds of
    processor time that it took."""
    from cutaway.features.training import DictionaryRecipe, train_on_rows

    reads, writes = list(rows) if isinstance(rows, dict) and len(rows) == 2 else (["rows"] * 2)
    if isinstance(rows, dict) and len(rows) == 1:
        reads = writes = next(iter(rows))
    if how == "matryoshka":
        size = settings["latents"]
        settings |= {"prefixes": tuple(size // 2**i for i in (4, 3, 2, 1, 0))}
    recipe = DictionaryRecipe(
        (reads,), (writes,), kind="autoencoder" if reads == writes else "transcoder",
        activation="batchtopk" if how == "matryoshka" else how, seed=seed, **settings,
    )  # fmt: skip
    began = time.process_time()
    made = train_on_rows(rows, recipe, tokens=tokens)
    return next(iter(made.dictionaries.values())), time.process_time() - began


# the table ------------------------------------------------------------------------------------------------------------


def table(
    name: str, tokens: int, latents: int | None = None, peers: str | None = None, peer_seeds: int = 1
) -> list[dict[str, Any]]:
    """Every activation and seed on one planted dictionary, with what stands beside them.

    peers: an interpreter that has SAELens, whose architectures are trained with so many seeds.
    """
    truth = preset(name)
    rows = truth.rows(truth.activations(min(tokens, 250_000), 1), 1)
    test, active = truth.sample(20_000, 2)
    k = max(1, round(float((active > 0).sum(1).double().mean())))
    size = latents or len(truth)
    settings = {"latents": size, "k": k, "batch": 1024, "dead_after": 100_000}
    found = []

    def measured(
        what: str, seed: int | str, dictionary: Dictionary, seconds: float, rate: float | None = None
    ) -> None:
        figures = recovery(dictionary, truth, test, active).to_dict()
        found.append({"what": what, "seed": seed, "seconds": seconds, "rate": rate} | figures)
        shown = {c: figures[c] for c in ("mcc", "recovered", "f1", "fvu", "l0", "dead")}
        print(
            name, what, seed, rate, f"{seconds:.1f} s", {c: round(v, 3) for c, v in shown.items()}, flush=True
        )

    def unexplained(dictionary: Dictionary) -> float:
        return float((dictionary.reconstruct(test) - test).square().sum())

    for how in ACTIVATIONS:
        if how == "groupmax" and size % k:
            continue
        tried = {rate: trained(rows, tokens, SEEDS[0], how, lr=rate, **settings) for rate in RATES}
        rate = min(RATES, key=lambda r: unexplained(tried[r][0]))
        for seed in SEEDS:
            made = tried[rate] if seed == SEEDS[0] else trained(rows, tokens, seed, how, lr=rate, **settings)
            measured(how, seed, *made, rate)
        if how in ("topk", "gated"):
            few = int(FEWER * tokens)
            for seed in SEEDS:
                made = trained(rows, few, seed, how, lr=rate, **settings)
                measured(f"{how}, {100 * FEWER:.0f} % of the rows", seed, *made, rate)
        if how == "batchtopk":
            twin = trained(rows, tokens, 0, how, lr=rate, frozen="decoder", **settings)
            measured("batchtopk, frozen decoder", 0, *twin, rate)
    measured("random directions", "", random_directions(truth, size, k), 0.0)
    measured("the truth, read by top-k", "", oracle(truth, k), 0.0)
    if peers is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "rows.safetensors")
            save_file({"train": rows.contiguous(), "test": test.contiguous()}, file)
            sizes = [size, k, settings["batch"], tokens]
            for how in PEERS:
                first = [peer(peers, how, file, truth, sizes, rate, 0) for rate in RATES]
                best = min(first, key=lambda row: row["fvu"])
                others = [peer(peers, how, file, truth, sizes, best["rate"], s) for s in range(1, peer_seeds)]
                for row in (best, *others):
                    shown = {c: row[c] for c in ("mcc", "recovered", "fvu", "l0", "rate")}
                    print(name, row["what"], row["seed"], f"{row['seconds']:.1f} s", shown, flush=True)
                found += [best, *others]
    return found


def peer(
    python: str, how: str, file: Path, truth: Planted, sizes: Sequence[int], lr: float, seed: int
) -> dict[str, Any]:
    """One architecture of SAELens on the rows of a file: figures of its decoder, and those that its worker said.

    sizes: latents, how many fire on a row, rows of a batch, rows altogether.
    """
    out = file.with_name("decoder.safetensors")
    worker = Path(__file__).resolve().with_name("known_truth_workers.py")
    threads = torch.get_num_threads()
    words = [python, worker, how, file, out, *sizes, lr, threads, seed]
    done = subprocess.run(
        [str(word) for word in words],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"SAELens ended with {done.returncode} on {how}:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    decoder = load_file(out)["decoder"]
    cosines = match(truth.vectors, decoder).cosines
    return dict.fromkeys(COLUMNS) | {
        "what": f"SAELens {how}", "seed": seed, "rate": lr, "seconds": said["seconds"], "mcc": mcc(truth.vectors, decoder),
        "recovered": float((cosines >= RECOVERED).double().sum()) / len(truth),
        "uniqueness": uniqueness(decoder, truth.vectors), "fvu": said["fvu"], "l0": said["l0"],
    }  # fmt: skip


def table_lines(name: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As Markdown: means over seeds, with the spread of the first figure."""
    truth = preset(name)
    yield f"## {name}: {len(truth):,} features in {truth.width} numbers"
    yield ""
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    yield (
        f"{rows[0]['true_l0']:.1f} features fire on a row. Means over seeds; ± is the standard deviation over them. Each "
        f"architecture is trained at the rates {rates}, of which the one stands that leaves least unexplained of rows held "
        "out, as one would choose who does not know the truth."
    )
    yield ""
    if any(row["what"].startswith("SAELens") for row in rows):
        yield (
            "SAELens 6.54.12 takes its own steps (`SAETrainer.fit`) on the same rows, in the same batches. What it "
            "charges by coefficient is trained with several, of which the one stands here whose latents fire most nearly as "
            "often; seconds are of processor time, of this one training, without measuring. Both have one thread."
        )
        yield ""
    yield f"| | MCC | {' | '.join(COLUMNS[1:])} | seconds | rate |"
    yield f"| --- | --- |{' --- |' * (len(COLUMNS) + 1)}"
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in mine if row[column] is not None]
            cell = f"{np.mean(values):.3f}" if values else ""
            cells.append(
                cell + (f" ± {np.std(values, ddof=1):.3f}" if column == "mcc" and len(values) > 1 else "")
            )
        rate = mine[0].get("rate")
        yield (
            f"| {what} | {' | '.join(cells)} | {np.mean([row['seconds'] for row in mine]):.1f} | "
            f"{'' if rate is None else f'{rate:g}'} |"
        )
    yield ""
    theirs = [row for row in rows if row["what"].startswith("SAELens")]
    if not theirs:
        return

    def means(of: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
        names = dict.fromkeys(row["what"] for row in of)
        pairs = {n: [(row["mcc"], row["seconds"]) for row in of if row["what"] == n] for n in names}
        return {
            n: (float(np.mean([p[0] for p in v])), float(np.mean([p[1] for p in v])))
            for n, v in pairs.items()
        }

    best, (mcc_, seconds) = max(means(theirs).items(), key=lambda item: item[1][0])
    ours = means(
        [row for row in rows if row["what"].split(",")[0] in ACTIVATIONS and "frozen" not in row["what"]]
    )
    ahead = {n: v for n, v in ours.items() if v[0] >= mcc_ - NEAR and v[1] <= seconds / 2}
    yield (
        f"The best of SAELens is {best.removeprefix('SAELens ')}: MCC {mcc_:.3f} in {seconds:.1f} s. Within {NEAR} of it or "
        "above, in at most half its time: "
        + (", ".join(f"{n} ({m:.3f} in {t:.1f} s)" for n, (m, t) in ahead.items()) or "none")
        + "."
    )
    yield ""


# what tells recovery from outside ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One planted dictionary, how it is trained on, and what came out.

    Attributes:
        says: the setting in words.
        recovered: share of the features recovered (|cosine| of 0.9 or more).
        mcc: mean correlation coefficient beyond that of random directions, over what these leave.
        stability: share of the latents that come again with another seed, beyond chance.
        frozen: variance explained beyond that of the twin with a frozen decoder.
        ahead: variance explained beyond the best of what stands beside it.
        explained: variance explained.
        verdict: of the claim that the latents are the data's.
    """

    says: str
    recovered: float
    mcc: float
    stability: float
    frozen: float
    ahead: float
    explained: float
    verdict: str


def settings(tokens: int) -> Iterator[Setting]:
    """Forty-eight of them: how many features, how sparse, how alike, how long trained, with what."""
    for number, (features, often, coherence, long, how) in enumerate(itertools.product(
        (48, 128, 512), (0.02, 0.06), (None, 0.45), (0.3, 1.0), ("topk", "batchtopk")
    )):  # fmt: skip
        if coherence is not None and features > 128:
            continue_with: dict[str, Any] = {"coherence": 0.6}
        else:
            continue_with = {"coherence": coherence}
        truth = plant(
            features, 32, exponent=0.5, most=min(0.5, 4 * often), least=often / 2, spread=0.3, size=2.0, noise=0.02,
            seed=number, **continue_with,
        )  # fmt: skip
        yield setting(
            truth,
            f"{features} features, rate {often}, {coherence or 'random'}, {long:g}, {how}",
            how,
            int(long * tokens),
        )


def setting(truth: Planted, says: str, how: str, tokens: int) -> Setting:
    """Train with two seeds and a frozen decoder, and measure from outside and with the truth."""
    rows = truth.rows(truth.activations(100_000, 1), 1)
    test, active = truth.sample(6000, 2)
    k = max(1, round(float((active > 0).sum(1).double().mean())))
    size = min(len(truth), 128)
    given = {"latents": size, "k": k, "batch": 256, "lr": 2e-3, "dead_after": 20_000}
    first, second = (trained(rows, tokens, seed, how, **given)[0] for seed in (0, 1))
    twin = trained(rows, tokens, 0, how, frozen="decoder", **given)[0]
    found = compare_rows(first, test, frozen={"frozen decoder": twin}, siblings={"another seed": second})
    known = recovery(first, truth, test, active)
    chance = mcc(truth.vectors, random_directions(truth, size, k).directions())
    frozen = found.figures.measured[-1].excess
    assert frozen is not None
    stable = found.stability[0].excess if found.stability else 0.0
    return Setting(
        says, known.recovered, (known.mcc - chance) / (1 - chance), stable, frozen.value, found.figures.ahead.value,
        1 - known.fvu, found.recovering.verdict,
    )  # fmt: skip


def rank_correlation(x: Sequence[float], y: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Spearman's, with a percentile interval over resampled settings."""
    from scipy.stats import spearmanr

    pairs, rng = np.array([x, y]), np.random.default_rng(seed)
    drawn = [spearmanr(*pairs[:, rng.integers(len(x), size=len(x))]).statistic for _ in range(1000)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(spearmanr(x, y).statistic), float(low), float(high)


def settings_lines(found: Sequence[Setting]) -> Iterator[str]:
    """As Markdown: the rank correlations, the pitfall, every setting."""
    yield f"## Told from outside, over {len(found)} settings"
    yield ""
    yield "Rank correlation (Spearman) of what can be measured without the truth with what was truly recovered:"
    yield ""
    yield "| | with the share recovered | with MCC beyond chance |"
    yield "| --- | --- | --- |"
    measures: dict[str, list[float]] = {
        "variance explained": [s.explained for s in found],
        "stability over seeds beyond chance": [s.stability for s in found],
        "variance explained beyond the frozen twin": [s.frozen for s in found],
        "variance explained beyond the best beside it": [s.ahead for s in found],
        "mean of the ranks of stability and frozen excess": list(
            np.argsort(np.argsort([s.stability for s in found]))
            + np.argsort(np.argsort([s.frozen for s in found]))
        ),
    }
    for name, values in measures.items():
        cells = [rank_correlation(values, [getattr(s, of) for s in found]) for of in ("recovered", "mcc")]
        yield f"| {name} | {' | '.join(f'{r:.2f} [{low:.2f}, {high:.2f}]' for r, low, high in cells)} |"
    pitfall = [s for s in found if s.explained >= 0.7 and s.recovered <= 0.2]
    taken = [s for s in pitfall if s.verdict == "supported"]
    yield ""
    yield (
        f"{len(pitfall)} settings explain at least 70 % of the variance and recover at most 20 % of the features; of these "
        f"{len(taken)} are said to have found the data's features."
    )
    right = [s for s in found if s.recovered >= 0.5]
    yield (
        f"{len(right)} recover at least half; of these {sum(s.verdict == 'supported' for s in right)} are supported, "
        f"{sum(s.verdict == 'refuted' for s in right)} refuted."
    )
    yield ""
    yield (
        "| features, rate, coherence, share of the tokens, activation | recovered | MCC beyond chance | explained | "
        "stable | beyond frozen | verdict |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for s in found:
        figures = [f"{x:.2f}" for x in (s.recovered, s.mcc, s.explained, s.stability, s.frozen)]
        yield f"| {s.says} | {' | '.join(figures)} | {s.verdict} |"
    yield ""


# the zoo --------------------------------------------------------------------------------------------------------------


def zoo_rows(
    name: str, of: str, variables: Sequence[str], sites: Sequence[str], n: int = 4000
) -> dict[str, Tensor]:
    """Values of a network (a specimen or its twin) at the places where variables are held."""
    prompts, places, _ = labelled(name, variables, n, 1)
    net = cutaway.open(f"zoo:{of}")
    return {site: values_where(net, prompts, places, site) for site in sites}


def best_trained(rows: dict[str, Tensor], tokens: int, **given: Any) -> Dictionary:
    """Of several seeds and activations the one that leaves least unexplained, which is chosen without the truth."""
    read, wanted = next(iter(rows.values())), list(rows.values())[-1]
    made = [
        trained(rows, tokens, seed, how, batch=256, lr=1e-2, dead_after=10_000, **given)[0]
        for how, seed in itertools.product(("topk", "batchtopk", "gated"), (0, 1))
    ]
    return min(made, key=lambda d: float((d.reconstruct(read) - wanted).square().sum()))


def zoo_lines(tokens: int) -> Iterator[str]:
    """What is found in networks of known truth, and in their twins."""
    yield "## The zoo"
    yield ""
    yield "| network | what is asked | found |"
    yield "| --- | --- | --- |"
    facts = ("subject", "relation")
    for twin in ("", "~without", "~random"):
        name, of = "lookup-gpt2", f"lookup-gpt2{twin}"
        net = cutaway.open(f"zoo:{of}")
        for sites in (["mlp_act.0"], ["mlp_in.0", "mlp_write.0"]):
            made = best_trained(zoo_rows(name, of, facts, sites), tokens, latents=48, k=1)
            told = told_by(net, latents(net, made, sites[0], sites[-1]), name, facts)
            what = "autoencoder of its neurons" if len(sites) == 1 else "transcoder"
            yield f"| {of} | {what}, 48 latents: facts one to one | {told.headline} |"
    for twin in ("", "~random"):
        name, of = "superposition-gpt2", f"superposition-gpt2{twin}"
        made = best_trained(zoo_rows(name, of, ["seen"], ["attn_write.0"]), tokens, latents=5, k=1)
        truth = class_directions(cutaway.open(f"zoo:{name}"), name, "seen", "attn_write.0")
        yield f"| {of} | five colours in two dimensions | MCC {recovered_directions(made, truth)[0]:.3f} |"
    name = "fourier-addition-gpt2"
    rows = zoo_rows(name, name, ["sum"], ["mlp_write.0"])
    made = best_trained(rows, tokens, latents=26, k=2)
    basis = torch.linalg.qr(torch.tensor(zoo.truth(name).variable("sum").basis).T)[0]
    inside = (torch.nn.functional.normalize(made.directions(), dim=1) @ basis).square().sum(1)
    yield f"| {name} | share of the latents' directions inside the waves' subspace | {float(inside.mean()):.3f} |"
    pairs = zoo.specimen("unread-gpt2").task.pairs(100, 1)
    for twin in ("", "~used", "~without"):
        name, of = "unread-gpt2", f"unread-gpt2{twin}"
        rows = zoo_rows(name, of, ["note", "answer"], ["attn_write.0"])
        made = best_trained(rows, 2 * tokens, latents=16, k=2)
        net = cutaway.open(f"zoo:{of}")
        for variable in ("note", "answer"):
            told = told_by(net, latents(net, made, "attn_write.0"), name, (variable,))
            own = [i for i, f1 in zip(told.features.tolist(), told.f1.tolist(), strict=True) if f1 >= OWN]
            moved = lever(net, made, "attn_write.0", own or told.features.tolist(), pairs)
            claim = mechanism_claim(variable, told, moved)
            yield f"| {of} | {variable} | {claim.verdict}: {claim.statement}; {told.headline}; the answer moves by {moved} |"
    yield ""


def main() -> None:
    """Train, measure, write the page."""
    parser = argparse.ArgumentParser(description="What dictionaries recover of known truth.")
    parser.add_argument("--preset", nargs="+", default=["small"], choices=["small", "reference"])
    parser.add_argument(
        "--tokens", type=int, default=1_000_000, help="rows that each dictionary of the table is trained on"
    )
    parser.add_argument("--few", type=int, default=150_000, help="rows of the settings and of the zoo")
    parser.add_argument("--peers", help="an interpreter that has sae_lens")
    parser.add_argument(
        "--peer-seeds", type=int, default=1, help="how often each of its architectures is trained"
    )
    parser.add_argument("--only", choices=["table", "settings", "zoo"])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/known_truth.md"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    lines = ["# Dictionaries of known truth", ""]
    if given.only in (None, "table"):
        for name in given.preset:
            lines += table_lines(name, table(name, given.tokens, None, given.peers, given.peer_seeds))
    if given.only in (None, "settings"):
        found = []
        for one in settings(given.few):
            found.append(one)
            print(one, flush=True)
        lines += settings_lines(found)
    if given.only in (None, "zoo"):
        lines += zoo_lines(given.few)
    lines.insert(2, f"Made by `python benchmarks/known_truth.py` in {time.process_time() - began:.0f} s of processor time, "
                 f"{given.tokens:,} rows a dictionary.\n")  # fmt: skip
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if given.only is None:
        atomic_write(given.out, text)


if __name__ == "__main__":
    main()
