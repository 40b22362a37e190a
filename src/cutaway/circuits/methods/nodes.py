"""Scores of nodes: attribution patching, its integrated gradients, AtP*, and neurons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.methods.attribution import require_steps, toward
from cutaway.circuits.methods.options import ScoreOptions
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.gradients import Backward, backward
from cutaway.circuits.passes.outputs import (
    INPUT,
    Outputs,
    answered,
    kept_places,
    outputs_of,
    places,
    record,
    scaled,
)
from cutaway.circuits.passes.pairs import PairBatch
from cutaway.circuits.scores import Scores
from cutaway.network.slopes import slopes_of, without_parameter_gradients

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

ATP = "Nanda 2023; Syed et al. 2023: (a_corrupted - a_clean) . dL/da at the clean run, for every node's output a"
NODE_IG = "Hanna et al. 2024, for nodes: the gradient averaged over inputs z' + k/m (z - z')"


@dataclass(frozen=True)
class NodeIgOptions(ScoreOptions):
    """Options of integrated gradients of nodes.

    Attributes:
        steps: of the integral over inputs from corrupted to clean.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self.steps)


def dotted(wiring: Wiring, delta: Outputs, slopes: dict[str, Tensor], real: Tensor) -> Tensor:
    """<difference, gradient> of every writer: [b w], summed over real positions and channels."""
    first = delta.values[INPUT]
    products = first.new_zeros(first.shape[0], len(wiring.graph.writers))
    mask = real.to(first)[..., None]
    products[:, 0] = (delta.values[INPUT] * slopes[INPUT] * mask).sum((1, 2))
    for stage in wiring.stages:
        if stage.kind == "logits":
            continue
        slope = slopes[stage.write]
        if stage.kind == "expert":
            slope = scaled(stage, slope).repeat(1, 1, stage.heads)
        product = delta.values[stage.write] * slope * mask
        if stage.kind == "unit":
            products[:, stage.writers.start] = product.sum((1, 2))
        else:
            products[:, stage.writers] = product.unflatten(-1, (stage.heads, -1)).sum((1, 3))
    return products


def less(to: Outputs, frm: Outputs) -> Outputs:
    """`to` less `frm`."""
    return Outputs({k: to.values[k] - v for k, v in frm.values.items()})


def _numpy(batch: PairBatch, value: Tensor) -> np.ndarray:
    return (batch.sign * value).detach().double().cpu().numpy().astype(np.float32)


def atp(net: Network, behaviour: Behaviour, options: ScoreOptions, work: Work | None = None) -> Scores:
    """Attribution patching of nodes: score(u) = -(u_corrupted - u_clean) . dm/du at the clean run, over all paths."""
    return _integrated(Study.of(net, behaviour, options, work), 1, "atp", ATP)


def node_ig(net: Network, behaviour: Behaviour, options: NodeIgOptions, work: Work | None = None) -> Scores:
    """Attribution patching of nodes with the gradient averaged over `steps` inputs from corrupted to clean."""
    return _integrated(Study.of(net, behaviour, options, work), options.steps, "node-ig", NODE_IG)


def _integrated(study: Study, steps: int, method: str, source: str) -> Scores:
    parts: list[np.ndarray] = []

    def scored(batch: PairBatch) -> np.ndarray:
        real = batch.real.to(study.net.device)
        corrupted, _ = record(study.wiring, batch.corrupted)
        done = backward(study.wiring, batch.clean, batch.positions, batch.score, writers=True)
        clean = done.outputs
        delta = less(corrupted, clean)
        total = dotted(study.wiring, delta, done.slopes, real)
        for k in range(1, steps):
            edit = toward(clean.values[INPUT], corrupted.values[INPUT], k / steps, INPUT)
            done = backward(study.wiring, batch.clean, batch.positions, batch.score, [edit], writers=True)
            total = total + dotted(study.wiring, delta, done.slopes, real)
        return _numpy(batch, -total / steps)

    study.method = method
    for batch in study.pairs:
        parts.append(study.once(batch, partial(scored, batch)))
        study.work.step(method, sum(map(len, parts)), study.pairs.n)
    return study.node_scores(method, source, study.pairs.gather(parts, 0))


def neurons(net: Network, behaviour: Behaviour, options: ScoreOptions, work: Work | None = None) -> Scores:
    """Attribution patching of MLP neurons: -(h_corrupted - h_clean) * dm/dh for every entry h of every MLP's hidden layer,
    summed over positions; the nodes' own scores stand beside them.

    Layers whose MLP has no single hidden layer (mixtures of experts) have none, and the notes say so.
    """
    study = Study.of(net, behaviour, options, work)
    layers = net.layers_with("mlp_act")
    sites = [f"mlp_act.{i}" for i in layers]
    sums = {i: np.zeros(0) for i in layers}
    study.method = "neurons"
    parts: list[np.ndarray] = []

    def scored(batch: PairBatch) -> dict[str, np.ndarray]:
        real = batch.real.to(net.device)[..., None]
        other = net.run(batch.corrupted, keep=sites, logits=False)
        corrupted, _ = record(study.wiring, batch.corrupted)
        clean = _hidden(study.wiring, batch, sites)
        delta = less(corrupted, clean.outputs)
        found = {
            "nodes": _numpy(batch, -dotted(study.wiring, delta, clean.slopes, batch.real.to(net.device)))
        }
        for site in sites:
            effect = -((other[site] - clean.entries[site]) * clean.slopes[site] * real).sum((0, 1))
            found[site] = (batch.sign * effect).double().cpu().numpy()
        return found

    for batch in study.pairs:
        found = study.once_named("neurons", batch, partial(scored, batch))
        parts.append(found["nodes"])
        for layer, site in zip(layers, sites, strict=True):
            sums[layer] = found[site] if not sums[layer].size else sums[layer] + found[site]
        study.work.step("neurons", sum(map(len, parts)), study.pairs.n)
    missing = sorted(set(range(net.n_layers)) - set(layers))
    notes = (f"Layers {missing} have no single hidden layer, so no neurons.",) if missing else ()
    scores = study.node_scores("neurons", ATP + "; neurons", study.pairs.gather(parts, 0), notes)
    return replace(scores, neurons={i: v / study.pairs.n for i, v in sums.items()})


def _hidden(wiring: Wiring, batch: PairBatch, sites: list[str]) -> Backward:
    """A backward pass that also keeps hidden layers and their gradients (in `entries` and `slopes`)."""
    where = [*places(wiring), *sites]
    keep = list(dict.fromkeys([*where, *kept_places(wiring)]))
    with without_parameter_gradients(wiring.net.model):
        run = wiring.net.run(batch.clean, keep=keep, logits=batch.positions[:, None], grad=True)
        values = batch.score(answered(run))
        slopes = slopes_of(values, run, where)
    return Backward(outputs_of(wiring, run), values.detach(), slopes, {p: run[p].detach() for p in sites})
