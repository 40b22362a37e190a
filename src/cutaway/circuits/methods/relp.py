"""RelP: attribution patching with the propagation coefficients of layer-wise relevance instead of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.methods.options import PositionOptions
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.gradients import at_readers, backward
from cutaway.circuits.passes.outputs import At, differences, record, with_input
from cutaway.circuits.scores import Scores
from cutaway.network.edits import Edit
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.network.norms import Norm
    from cutaway.results import Work

RELP = (
    "Rezaei Jafari, Eberle, Khakzar and Nanda 2025 (arXiv 2508.21258): attribution patching with LRP coefficients: norms' "
    "spread constant (LN-rule), f(x) = x [f(x)/x] (identity), products halved (half-rule), attention constant (AH-rule)"
)


@dataclass(frozen=True)
class RelpOptions(PositionOptions):
    """Options of relevance patching.

    Attributes:
        attention: "constant": the pattern is a constant (AH-rule), so that queries and keys get nothing; "half": relevance
            goes through the softmax, and the product of pattern and values is halved; "gradient": no rule for attention.
    """

    attention: Literal["constant", "half", "gradient"] = "constant"


def relp(net: Network, behaviour: Behaviour, options: RelpOptions, work: Work | None = None) -> Scores:
    """Relevance patching: score(u -> v) = -(u_corrupted - u_clean) . c_v, with c_v propagated from the metric by rules.

    Norms: their spread is a constant (LN-rule). Elementwise nonlinearities: f(x) = x * [f(x) / x], the bracket a constant
    (identity rule). Products of two streams (gated MLPs): each factor gets half (half rule). Attention: the pattern is a
    constant (AH-rule), so queries and keys get nothing, unless `attention` says otherwise. Rezaei Jafari et al. 2025.
    In a network without nonlinearities it is EAP.
    """
    study = Study.of(net, behaviour, options, work)
    edits, notes = rules(study.wiring, options.attention)
    for batch in study.batches("relp"):
        corrupted, _ = record(study.wiring, batch.corrupted)
        done = backward(study.wiring, batch.clean, batch.positions, batch.score, edits)
        deltas = differences(study.wiring, done.outputs, corrupted, batch.real.to(net.device))
        tally = study.tally(batch, deltas)
        for stage, slopes in at_readers(study.wiring, done, frozen=True):
            tally.add(stage.before, stage.readers, deltas, slopes, -1.0)
        study.keep(batch, tally)
        del corrupted, done, deltas, tally, slopes  # let go before the next batch takes its own
    return study.scores("relp", RELP, notes)


def rules(wiring: Wiring, attention: str) -> tuple[list[Edit], tuple[str, ...]]:
    """The edits that change the backward pass and leave the forward pass as it is; and notes on what has no rule."""
    edits: list[Edit] = []
    for stage in wiring.stages:
        if stage.norm is not None and stage.norm_path is not None:
            edits += _norm_rule(stage.norm_path, stage.site, stage.norm)
    net = wiring.net
    notes = []
    stack = net.anatomy.stack()
    assert stack is not None
    for layer in stack.layers:
        if attention != "gradient" and net.has(Site("pattern", layer.index)):
            edits.append(At(f"pattern.{layer.index}", Tensor.detach if attention == "constant" else _half))
            if attention == "half":
                edits.append(At(f"v.{layer.index}", _half))
        for sublayer in layer.sublayers:
            if sublayer.kind != "mlp" or sublayer.mlp is None:
                continue
            mlp = sublayer.mlp
            if mlp.activation is None or not net.has(Site("mlp_act", layer.index)):
                notes.append(f"The MLP of layer {layer.index} has no rule: gradients stand in.")
                continue
            edits += _identity_rule(mlp.activation)
            if len(mlp.up) > 1 or _gated(wiring, layer.index, mlp.activation):
                edits.append(At(f"mlp_act.{layer.index}", _half))
    return edits, tuple(notes)


def _gated(wiring: Wiring, layer: int, activation: str) -> bool:
    """Is the hidden layer a product of the activation with something else?"""
    from cutaway.network.discovery.example import OTHER_COLUMNS, probe_rows

    net = wiring.net
    run = net.run(probe_rows(net, OTHER_COLUMNS, seed=4), keep=[activation, f"mlp_act.{layer}"], logits=False)
    out, hidden = run[activation], run[f"mlp_act.{layer}"]
    return out.shape != hidden.shape or not torch.equal(out.reshape(hidden.shape), hidden)


def _half(value: Tensor) -> Tensor:
    """The same value with half its gradient."""
    return value.detach() + 0.5 * (value - value.detach())


def _norm_rule(path: str, site: str, norm: Norm) -> list[Edit]:
    """At the norm's input remember it; at what the sublayer reads put in the same value with the other gradient."""
    return with_input(f"{path}:in", site, lambda taken, value: norm.frozen(taken.reshape(value.shape), value))


def _identity_rule(path: str) -> list[Edit]:
    def by_ratio(taken: Tensor, value: Tensor) -> Tensor:
        x = taken.reshape(value.shape)
        small = x.detach().abs() < 1e-6
        ratio = value.detach() / torch.where(small, torch.ones_like(x), x.detach())
        return value.detach() + torch.where(small, torch.full_like(x, 0.5), ratio) * (x - x.detach())

    return with_input(f"{path}:in", path, by_ratio)
