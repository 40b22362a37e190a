"""AtP*: attribution patching whose two known failures are mended: saturated attention, and effects that cancel."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.methods.nodes import dotted, less
from cutaway.circuits.methods.options import ScoreOptions
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.outputs import At, answered, places, record
from cutaway.circuits.passes.pairs import PairBatch
from cutaway.circuits.scores import Scores
from cutaway.network.edits import Edit
from cutaway.network.slopes import slopes_of, without_parameter_gradients

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

ATP_STAR = "Kramar, Lieberum, Shah and Nanda 2024 (arXiv 2403.00745): QK fix (section 3.1.1) and GradDrop (section 3.1.2)"


def atp_star(net: Network, behaviour: Behaviour, options: ScoreOptions, work: Work | None = None) -> Scores:
    """AtP* of nodes, and of the queries and keys of every head.

    GradDrop: score(u) = mean over layers l other than u's own of |(u_corrupted - u_clean) . dm/du with the gradient through
    layer l's writes cut|; effects that cancel between paths no longer do. QK fix: the effect of corrupted queries (keys)
    alone is sum over patterns of (softmax(q' k) - softmax(q k)) . dm/dpattern, with the softmax computed anew, so that a
    saturated one does not hide it; `inputs` holds it for the readers q and k, GradDrop included, and for v the plain
    product with the gradient.

    Kramar et al. 2024. All positions of a head are corrupted together. Scores have no sign.
    """
    study = Study.of(net, behaviour, options, work)
    study.method = "atp-star"
    parts, reads = [], []

    def scored(batch: PairBatch) -> dict[str, np.ndarray]:
        nodes, inputs = (x.double().cpu().numpy().astype(np.float32) for x in _batch(study, batch))
        return {"nodes": nodes, "inputs": inputs}

    for batch in study.pairs:
        found = study.once_named("atp-star", batch, partial(scored, batch))
        parts.append(found["nodes"])
        reads.append(found["inputs"])
        study.work.step("AtP*", sum(map(len, parts)), study.pairs.n)
    scores = study.node_scores("atp-star", ATP_STAR, study.pairs.gather(parts, 0))
    return replace(scores, inputs=study.pairs.gather(reads, 0).mean(0, dtype=np.float64))


def _batch(study: Study, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """[b writers] and [b readers] of one batch."""
    wiring, net = study.wiring, study.net
    real = batch.real.to(net.device)
    corrupted, _ = record(wiring, batch.corrupted)
    clean, _ = record(wiring, batch.clean)
    delta = less(corrupted, clean)
    shifts = _patterns(study, batch)
    layers = list(range(net.n_layers))
    drops: list[int | None] = [*layers] if len(layers) > 1 else [None]
    layer_of = torch.tensor([-1 if w.layer is None else w.layer for w in wiring.graph.writers])
    nodes = torch.zeros(batch.n, len(wiring.graph.writers), device=net.device, dtype=torch.double)
    inputs = torch.zeros(batch.n, len(wiring.graph.readers), device=net.device, dtype=torch.double)
    read_layer = torch.tensor([-1 if r.part.layer is None else r.part.layer for r in wiring.graph.readers])
    for drop in drops:
        slopes, by_reader = _slopes(study, batch, drop, list(shifts))
        counts = 1.0 if drop is None else (layer_of != drop).double().to(net.device)
        nodes += dotted(wiring, delta, slopes, real).abs().double() * counts
        mine = torch.zeros_like(inputs)
        for place, shift in shifts.items():
            _effects(study, mine, place, shift, by_reader[place.rsplit("|", 1)[0]])
        inputs += mine.abs() * (1.0 if drop is None else (read_layer != drop).double().to(net.device))
    total = max(len(drops) - 1, 1)
    nodes[:, layer_of >= 0] /= total
    nodes[:, layer_of < 0] /= len(drops)
    return nodes, inputs / total


def _patterns(study: Study, batch: PairBatch) -> dict[str, Tensor]:
    """What corrupted queries, keys or values alone change: "pattern.l|q", "pattern.l|k" [b h d s], "v.l|v" [b p h e]."""
    net = study.net
    heads = [s.layer for s in study.wiring.stages if s.kind == "head" and net.has(f"pattern.{s.layer}")]
    if not heads:
        return {}
    keep = [f"{n}.{i}" for n in ("q", "k", "v", "pattern") for i in heads]
    clean = net.run(batch.clean, keep=keep, logits=False)
    corrupted = net.run(batch.corrupted, keep=keep, logits=False)
    shifts: dict[str, Tensor] = {}
    for part, other in (("q", "k"), ("k", "q")):
        edits = [
            At(f"{port}.{i}", source[f"{port}.{i}"].to)
            for i in heads
            for port, source in ((part, corrupted), (other, clean))
        ]
        run = net.run(batch.clean, keep=[f"pattern.{i}" for i in heads], edits=edits, logits=False)
        for i in heads:
            shifts[f"pattern.{i}|{part}"] = run[f"pattern.{i}"] - clean[f"pattern.{i}"]
    for i in heads:
        shifts[f"v.{i}|v"] = corrupted[f"v.{i}"] - clean[f"v.{i}"]
    return shifts


def _slopes(
    study: Study, batch: PairBatch, drop: int | None, shifts: list[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients at writers and at patterns and values, with those through one layer's writes cut."""
    wiring, net = study.wiring, study.net
    inner = list(dict.fromkeys(s.rsplit("|", 1)[0] for s in shifts))
    where = [*places(wiring), *inner]
    edits: list[Edit] = []
    if drop is not None:
        names = ("attn_write", "cross_write", "mixer_write", "mlp_write")
        edits = [At(f"{n}.{drop}", Tensor.detach) for n in names if net.has(f"{n}.{drop}")]
    with without_parameter_gradients(net.model):
        run = net.run(batch.clean, keep=where, edits=edits, logits=batch.positions[:, None], grad=True)
        slopes = slopes_of(batch.score(answered(run)), run, where)
    return {p: slopes[p] for p in places(wiring)}, {p: slopes[p] for p in inner}


def _effects(study: Study, out: Tensor, place: str, shift: Tensor, slope: Tensor) -> None:
    """Add the effect of one layer's corrupted queries, keys or values to the readers of `out` [b r]."""
    name, part = place.rsplit("|", 1)
    layer = int(name.split(".")[1])
    stage = next(s for s in study.wiring.stages if s.kind == "head" and s.layer == layer)
    start = stage.readers.start + "qkv".index(part) * stage.heads
    shift = torch.nan_to_num(shift)
    if part == "v":
        groups = stage.heads // shift.shape[2]
        effect = (shift * slope).sum((1, 3)).repeat_interleave(groups, -1) / groups
    else:
        effect = (shift * slope).sum((2, 3))
    out[:, start : start + stage.heads] += effect.double()
