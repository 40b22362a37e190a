"""Do labels name what latents of a trained dictionary stand for, where the right name is known? On `tales`, whose grammar
gives a label for every token.

Dictionaries of 512 latents are trained on five sites of `zoo:tales`, each with its twin of a frozen random decoder, then
indexed on stories that none was trained on, whose tokens carry the grammar's variables. Of every latent the best F1 with one
value of one variable is worked out on all tokens, without the labels' code. Where it is 0.9 or more, the right name is that
value, or another by which the same tokens are told as well (F1 within 0.02 of the best). The label is right where it, or an
equal of it beside it, names one of these. Beside it: the same labels on other latents, and the whole on the frozen twin.

    python benchmarks/labels.py [--tokens 400000] [--stories 1500] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

import cutaway
from cutaway.features.dictionaries import Dictionary
from cutaway.features.index import FeatureIndex
from cutaway.features.labels import FeatureLabels
from cutaway.features.sets import latents
from cutaway.features.training import train_dictionaries
from cutaway.recipes.tales.marks import token_marks
from cutaway.recipes.tales.scenes import stories
from cutaway.results import atomic_write

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "labels.md"
SITES = ("resid_post.0", "mlp_out.0", "attn_out.1", "mlp_out.3", "resid_post.3")
LATENTS, K = 512, 8
CLEAR, AS_WELL, ASKED = 0.9, 0.02, 0.8


def grammar(
    index: FeatureIndex, marks: Mapping[str, Sequence[Sequence[Any]]]
) -> tuple[list[tuple[str, Any]], Any]:
    """(variable, value) of every column, and which rows of the index carry it: bool [rows values], sparse."""
    texts, positions = index.rows.texts, index.rows.positions
    names: list[tuple[str, Any]] = []
    columns: list[np.ndarray] = []
    for variable, labels in marks.items():
        of_row = [labels[t][p] for t, p in zip(texts.tolist(), positions.tolist(), strict=True)]
        for value in sorted({v for v in of_row if v is not None}, key=str):
            names.append((variable, value))
            columns.append(np.fromiter((v == value for v in of_row), bool, len(of_row)))
    return names, sparse.csc_matrix(np.stack(columns, 1).astype(np.float32))


def best_values(
    index: FeatureIndex, names: Sequence[tuple[str, Any]], carries: Any
) -> list[tuple[float, set[tuple[str, Any]]]]:
    """For every latent the best F1 with a value, and the values that tell it as well."""
    fires = (index.matrix() != 0).astype(np.float32).tocsc()
    both = (fires.T @ carries).toarray()
    sizes = np.asarray(fires.sum(0)).ravel()[:, None] + np.asarray(carries.sum(0)).ravel()[None]
    f1 = np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), 0.0)
    alike = [
        {names[j] for j in np.nonzero(row >= row.max() - AS_WELL)[0]} if row.max() > 0 else set()
        for row in f1
    ]
    return list(zip(f1.max(1).tolist(), alike, strict=True))


def named(label: Any, right: set[tuple[str, Any]]) -> bool:
    """Does a label, or one beside it that is as good, name one of these values?"""
    texts = {
        label.text.lower(),
        *(other.text.lower() for other in label.others if other.f1 >= label.f1 - AS_WELL),
    }
    return any(f"{variable} = {value}".lower() in texts for variable, value in right)


def judged(labels: FeatureLabels, best: Sequence[tuple[float, set[tuple[str, Any]]]]) -> dict[str, Any]:
    """How many clear latents are named right, and how labels fare on other latents."""
    clear = [label for label in labels.labels if best[label.number][0] >= CLEAR]
    right = [label for label in clear if named(label, best[label.number][1])]
    scored = [label for label in labels.labels if label.scores is not None]
    balanced = [label.scores.balanced_accuracy.value for label in scored if label.scores is not None]
    shuffled = [label.shuffled.value for label in scored if label.shuffled is not None]
    return {
        "labelled": len(labels.labels), "clear": len(clear), "right": len(right),
        "supported": sum(label.verdict == "supported" for label in labels.labels),
        "balanced": float(np.mean(balanced)) if balanced else float("nan"),
        "shuffled": float(np.mean(shuffled)) if shuffled else float("nan"),
        "control": float(np.mean([x.control.value for x in scored if x.control is not None] or [np.nan])),
        "wrong": [(x.feature, x.text, sorted(map(str, best[x.number][1]))[:3]) for x in clear if x not in right],
        "overlap": labels.overlap, "causal": sum(label.standing == "causal" for label in labels.labels),
    }  # fmt: skip


def main() -> None:
    """Train, index, label, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--stories", type=int, default=1_500)
    parser.add_argument("--quick", action="store_true", help="small, printed, no page written")
    options = parser.parse_args()
    if options.quick:
        options.tokens, options.stories = 60_000, 200
    began = time.perf_counter()
    net = cutaway.open("zoo:tales")
    texts = [story.text for story in islice(stories("labels, to train on"), options.tokens // 35)]
    made = train_dictionaries(
        net,
        texts,
        at=SITES,
        latents=LATENTS,
        k=K,
        tokens=options.tokens,
        controls=("frozen",),
    )
    dictionaries: dict[str, Dictionary] = dict(made.dictionaries)
    print(made.headline, f"{time.perf_counter() - began:.0f} s", flush=True)
    told, marks = token_marks(net.tokenizer, islice(stories("labels, to look at"), options.stories))
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        indices = {
            name: cutaway.index_features(net, latents(net, d), told, folder=Path(folder) / str(i))
            for i, (name, d) in enumerate(dictionaries.items())
        }
        for name, index in indices.items():
            names, carries = grammar(index, marks)
            best = best_values(index, names, carries)
            labels = cutaway.label_features(net, index, marks=marks, control=indices.get(f"{name}-frozen"))
            results[name] = judged(labels, best)
            print(name, {k: v for k, v in results[name].items() if k != "wrong"}, flush=True)
            for row in results[name]["wrong"][:10]:
                print("   not named:", *row)
    page = written(results, made.headline, options, time.perf_counter() - began)
    if options.quick:
        print(page)
    else:
        atomic_write(PAGE, page)


def written(
    results: Mapping[str, Mapping[str, Any]], headline: str, options: argparse.Namespace, took: float
) -> str:
    """The page."""
    head = ["dictionary", "labelled", f"F1 with a value ≥ {CLEAR:g}", "of these named right", "supported",
            "balanced accuracy", "on another latent", "of the frozen twin's nearest", "causal"]  # fmt: skip
    rows = [
        f"| {name} | {r['labelled']} | {r['clear']} | {r['right']} ({100 * r['right'] / max(1, r['clear']):.0f} %) | "
        f"{r['supported']} | {r['balanced']:.3f} | {r['shuffled']:.3f} | {r['control']:.3f} | {r['causal']} |"
        for name, r in results.items()
    ]
    overlap = max(r["overlap"] for r in results.values())
    trained = [r for name, r in results.items() if not name.endswith("-frozen")]
    clear, right = (sum(r[what] for r in trained) for what in ("clear", "right"))
    shuffled = [r["shuffled"] for r in results.values()]
    return "\n".join([
        "# Labels", "",
        f"`python benchmarks/labels.py`, torch {torch.__version__}; {took / 60:.0f} minutes.", "",
        f"{headline}. Trained on {options.tokens:,} tokens; indexed and labelled on {options.stories:,} other stories. "
        f"Texts labels are made on and scored on share {overlap}.", "",
        f"Of {clear} latents of trained dictionaries that follow one value of the grammar with an F1 of at least {CLEAR:g}, "
        f"{right} are named right: {100 * right / max(1, clear):.0f} % (asked: {100 * ASKED:.0f} %). On other latents the "
        f"same labels have a balanced accuracy of {min(shuffled):.3f} to {max(shuffled):.3f}; chance is 0.5.", "",
        f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *rows, "",
        "The frozen twins are not at chance: only their decoders are random, their encoders are trained, and their latents "
        "are as easily named. That a latent has a good label does not say that its direction was learnt.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
