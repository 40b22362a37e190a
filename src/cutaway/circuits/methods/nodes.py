"""Scores of nodes: attribution patching, its integrated gradients, AtP*, and neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.graph.wiring import Stage, Wiring
from cutaway.circuits.methods.protocol import Options, Study
from cutaway.circuits.passes.gradients import backward
from cutaway.circuits.passes.outputs import INPUT, At, Outputs, record
from cutaway.circuits.passes.pairs import Batch
from cutaway.circuits.scores import Scores

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

ATP = "Nanda 2023; Syed et al. 2023: (a_corrupted - a_clean) . dL/da at the clean run, for every node's output a"
NODE_IG = "Hanna et al. 2024, for nodes: the gradient averaged over inputs z' + k/m (z - z')"


def dotted(wiring: Wiring, delta: Outputs, slopes: dict[str, Tensor], real: Tensor) -> Tensor:
    """<difference, gradient> of every writer: [b w], summed over real positions and channels."""
    first = delta.values[INPUT]
    found = first.new_zeros(first.shape[0], len(wiring.graph.writers))
    mask = real.to(first)[..., None]
    found[:, 0] = (delta.values[INPUT] * slopes[INPUT] * mask).sum((1, 2))
    for stage in wiring.stages:
        if stage.kind == "logits":
            continue
        product = delta.values[stage.write] * slopes[stage.write] * mask
        if stage.kind == "unit":
            found[:, stage.writers.start] = product.sum((1, 2))
        else:
            found[:, stage.writers] = product.unflatten(-1, (stage.heads, -1)).sum((1, 3))
    return found


def less(to: Outputs, frm: Outputs) -> Outputs:
    """`to` less `frm`."""
    return Outputs({k: to.values[k] - v for k, v in frm.values.items()})


def _finish(
    study: Study, method: str, source: str, parts: list[np.ndarray], notes: tuple[str, ...] = ()
) -> Scores:
    study.parts = parts
    return study.node_scores(method, source, study.ordered(), notes)


def _numpy(batch: Batch, value: Tensor) -> np.ndarray:
    return (batch.sign * value).detach().double().cpu().numpy().astype(np.float32)


def atp(net: Network, behaviour: Behaviour, options: Options) -> Scores:
    """Attribution patching of nodes: score(u) = -(u_corrupted - u_clean) . dm/du at the clean run, over all paths."""
    return node_ig(net, behaviour, options, steps=1, method="atp", source=ATP)


def node_ig(
    net: Network, behaviour: Behaviour, options: Options, steps: int | None = None, method: str = "node-ig",
    source: str = NODE_IG,
) -> Scores:  # fmt: skip
    """Attribution patching of nodes with the gradient averaged over `steps` inputs from corrupted to clean."""
    study, m = Study.of(net, behaviour, options), steps or options.steps
    parts = []
    for batch in study.pairs:
        real = batch.real.to(net.device)
        corrupted, _ = record(study.wiring, batch.corrupted)
        done = backward(study.wiring, batch.clean, batch.positions, batch.score, writers=True)
        clean = done.outputs
        delta = less(corrupted, clean)
        total = dotted(study.wiring, delta, done.slopes, real)
        for k in range(1, m):
            mixed = corrupted.values[INPUT] + k / m * (clean.values[INPUT] - corrupted.values[INPUT])
            edit = At(INPUT, lambda v, h=None, x=mixed: x.to(v))
            done = backward(study.wiring, batch.clean, batch.positions, batch.score, [edit], writers=True)
            total = total + dotted(study.wiring, delta, done.slopes, real)
        parts.append(_numpy(batch, -total / m))
        options.report(method, sum(map(len, parts)), study.pairs.n)
    return _finish(study, method, source, parts)


def head_stages(wiring: Wiring) -> list[Stage]:
    """The attention stages whose heads are nodes."""
    return [s for s in wiring.stages if s.kind == "head"]


def neurons(net: Network, behaviour: Behaviour, options: Options) -> Scores:
    """Attribution patching of MLP neurons: -(h_corrupted - h_clean) * dm/dh for every entry h of every MLP's hidden layer,
    summed over positions; the nodes' own scores stand beside them.

    Layers whose MLP has no single hidden layer (mixtures of experts) have none, and the notes say so.
    """
    study = Study.of(net, behaviour, options)
    layers = net.layers_with("mlp_act")
    sites = [f"mlp_act.{i}" for i in layers]
    sums = {i: np.zeros(0) for i in layers}
    parts = []
    for batch in study.pairs:
        real = batch.real.to(net.device)[..., None]
        other = net.run(batch.corrupted, keep=sites, logits=False)
        corrupted, _ = record(study.wiring, batch.corrupted)
        here = _hidden(study.wiring, batch, sites)
        delta = less(corrupted, here.outputs)
        parts.append(_numpy(batch, -dotted(study.wiring, delta, here.slopes, batch.real.to(net.device))))
        for layer, site in zip(layers, sites, strict=True):
            got = -((other[site] - here.entries[site]) * here.slopes[site] * real).sum((0, 1))
            mine = (batch.sign * got).double().cpu().numpy()
            sums[layer] = mine if not sums[layer].size else sums[layer] + mine
    missing = sorted(set(range(net.n_layers)) - set(layers))
    notes = (f"Layers {missing} have no single hidden layer, so no neurons.",) if missing else ()
    found = _finish(study, "neurons", ATP + "; neurons", parts, notes)
    return Scores(**{**found.__dict__, "neurons": {i: v / study.pairs.n for i, v in sums.items()}})


def _hidden(wiring: Wiring, batch: Batch, sites: list[str]):
    """A backward pass that also keeps hidden layers and their gradients (in `entries` and `slopes`)."""
    from cutaway.circuits.passes.gradients import Backward
    from cutaway.circuits.passes.outputs import places, without_parameter_gradients

    where = [*places(wiring), *sites]
    with without_parameter_gradients(wiring.net.model):
        run = wiring.net.run(batch.clean, keep=where, logits=batch.positions[:, None], grad=True)
        assert run.logits is not None
        values = batch.score(run.logits[:, 0])
        slopes = torch.autograd.grad(values.sum(), [run[p] for p in where], allow_unused=True)
    found = {p: torch.zeros_like(run[p]) if g is None else g for p, g in zip(where, slopes, strict=True)}
    outputs = Outputs({p: run[p].detach() for p in places(wiring)})
    return Backward(outputs, values.detach(), found, {p: run[p].detach() for p in sites})
