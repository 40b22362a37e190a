"""Learned masks: every edge (or node) has a probability of being in, trained so that few stay and the output does too."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.metrics import METRICS
from cutaway.circuits.methods import score
from cutaway.circuits.methods.options import MethodOptions
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.ablation import Ablation, ablation
from cutaway.circuits.passes.outputs import record
from cutaway.circuits.passes.pairs import PairBatch
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.circuits.scores import Scores, spread
from cutaway.errors import BadInput
from cutaway.network.slopes import without_parameter_gradients

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

UGS = (
    "Li and Janson 2024 (arXiv 2409.09951), uniform gradient sampling: a coefficient is uniform on [0, 1] with probability "
    "w = t (1 - t), else 1 or 0; dL/d(logit of t) = E[dL/dcoefficient where it was uniform]"
)
L0 = (
    "Louizos, Welling and Kingma 2018, hard concrete gates; for edges Cao et al. 2021, Bhaskar et al. 2024: loss + penalty "
    "* expected number of edges"
)
_TEMPERATURE, _LOW, _HIGH = 2 / 3, -0.1, 1.1


@dataclass(frozen=True)
class MaskOptions(MethodOptions):
    """How masks are learned.

    Attributes:
        sampler: "ugs" (uniform gradient sampling) or "l0" (hard concrete gates).
        penalty: per edge, relative to the loss of the empty circuit.
        rate: Adam's step size.
        rounds: over the behaviour.
        warm: scores in whose order the probabilities begin, or the name of the method that gives them; None: all the same.
        start: the probability that they begin at, or around.

    Raises BadInput for numbers that make no sense.
    """

    sampler: Literal["ugs", "l0"] = "ugs"
    penalty: float = 1.0
    rate: float = 0.15
    rounds: int = 60
    warm: Scores | str | None = "eap"
    start: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty < 0 or self.rate <= 0 or self.rounds < 1 or not 0 < self.start < 1:
            raise BadInput(
                "Masks need a penalty >= 0, a rate > 0, a start between 0 and 1 and at least one round.",
                "See MaskOptions.",
            )


def edge_masks(net: Network, behaviour: Behaviour, options: MaskOptions, work: Work | None = None) -> Scores:
    """Learn which edges stay: minimise KL(network || circuit) + penalty * expected share of edges over mask probabilities.

    Scores are the probabilities of staying; `kept` are those above one half.
    """
    return _learn(net, behaviour, options, work, nodes=False)


def node_masks(net: Network, behaviour: Behaviour, options: MaskOptions, work: Work | None = None) -> Scores:
    """The same for nodes: a node is in or out with all its outgoing edges; the input stays in."""
    return _learn(net, behaviour, options, work, nodes=True)


def _learn(net: Network, behaviour: Behaviour, how: MaskOptions, work: Work | None, nodes: bool) -> Scores:
    study = Study.of(net, behaviour, how, work)
    study.method = "mask-nodes" if nodes else "mask-edges"
    graph = study.wiring.graph
    allowed = torch.from_numpy(graph.allowed).to(net.device)
    warm = score(net, behaviour, method=how.warm, work=work) if isinstance(how.warm, str) else how.warm
    logits = _start(graph.allowed, warm, how, nodes).to(net.device)
    penalty = how.penalty
    values = ablation(study.wiring, study.pairs, how.ablation, how.seed)
    references = [record(study.wiring, b.clean, b.positions)[1] for b in study.pairs]
    generator = torch.Generator(device="cpu").manual_seed(how.seed)
    optimiser = torch.optim.Adam([logits], lr=how.rate)
    count = float(allowed.sum()) if not nodes else float(graph.shape[0] - 1)
    counted = _counted(graph.allowed, nodes, logits)
    scale = _loss_of_nothing(study, values, references)
    kept = _Kept(study, logits, optimiser, generator)
    for round_ in range(kept.begin(), how.rounds):
        for batch, reference in zip(study.pairs, references, strict=True):
            optimiser.zero_grad()
            sample, uniform = _sample(logits, how.sampler, generator)
            mask = (sample[:, None] if nodes else sample) * allowed
            if nodes:
                mask = torch.cat([allowed[:1].to(mask.dtype), mask[1:]])
            loss = _loss(study, values, batch, reference, mask).mean() / scale
            if how.sampler == "ugs":
                (slope,) = torch.autograd.grad(loss, sample)
                share = torch.sigmoid(logits.detach())
                logits.grad = slope * uniform + penalty * share * (1 - share) * counted / count
            else:
                expected = torch.sigmoid(logits - _TEMPERATURE * float(np.log(-_LOW / _HIGH)))
                (loss + penalty * (expected * counted).sum() / count).backward()
            optimiser.step()
        kept.keep(round_ + 1)
        study.work.step("learning masks", round_ + 1, how.rounds)
    return _result(study, logits.detach(), how, nodes)


class _Kept:
    """How far the learning has come, on disk: probabilities, the optimiser's state, and that of the draws."""

    def __init__(
        self, study: Study, logits: Tensor, optimiser: torch.optim.Adam, generator: torch.Generator
    ) -> None:
        self.study, self.logits, self.optimiser, self.generator = study, logits, optimiser, generator
        self.last = time.monotonic()

    def begin(self) -> int:
        """Go on from what was kept; the rounds that are done."""
        stages = self.study.work.stages
        kept = None if stages is None else stages.find("masks", self._of())
        if kept is None:
            return 0
        with torch.no_grad():
            self.logits.copy_(kept["logits"])
        state = {name: kept[name] for name in ("step", "exp_avg", "exp_avg_sq")}
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({"state": {0: state}, "param_groups": whole["param_groups"]})
        self.generator.set_state(kept["draws"])
        return int(kept["rounds"])

    def keep(self, rounds: int) -> None:
        """Keep the state after so many rounds, where the last that was kept is long enough ago."""
        stages, now = self.study.work.stages, time.monotonic()
        if stages is None or now - self.last < stages.patience:
            return
        self.last = now
        state = self.optimiser.state_dict()["state"][0]
        values = {"logits": self.logits, "draws": self.generator.get_state(), "rounds": rounds}
        stages.put(
            "masks", values | {name: state[name] for name in ("step", "exp_avg", "exp_avg_sq")}, self._of()
        )

    def _of(self) -> list[object]:
        return self.study.of_all()


def _start(allowed: np.ndarray, warm: Scores | None, how: MaskOptions, nodes: bool) -> Tensor:
    """Logits of the probabilities before training: by rank of the attribution scores, or all the same."""
    shape = (allowed.shape[0],) if nodes else allowed.shape
    begin = float(np.log(how.start / (1 - how.start)))
    if warm is None:
        return torch.full(shape, begin, requires_grad=True)
    sizes = np.abs(warm.node_values()) if nodes else np.abs(warm.values)
    chosen = np.ones_like(sizes, dtype=bool) if nodes else allowed
    rank = np.zeros(shape)
    order = np.argsort(sizes[chosen], kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.linspace(-1, 1, len(order)) if len(order) > 1 else 1.0
    rank[chosen] = ranks
    return torch.tensor(begin * (0.5 + rank), dtype=torch.float32, requires_grad=True)


def _sample(logits: Tensor, sampler: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mask coefficients that gradients flow to, and where they were drawn uniformly."""
    draw = torch.rand(logits.shape, generator=generator).to(logits)
    if sampler == "l0":
        noise = draw.clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((noise.log() - (1 - noise).log() + logits) / _TEMPERATURE)
        return (soft * (_HIGH - _LOW) + _LOW).clamp(0, 1), torch.ones_like(draw)
    share = torch.sigmoid(logits.detach())
    weight = share * (1 - share)
    uniform = draw < weight
    one = (draw >= weight) & (draw < weight + (share - weight / 2))
    again = torch.rand(logits.shape, generator=generator).to(logits)
    coefficient = torch.where(uniform, again, one.to(logits))
    return coefficient.requires_grad_(), uniform.to(logits)


def _counted(allowed: np.ndarray, nodes: bool, like: Tensor) -> Tensor:
    """1 where there is something to keep or drop."""
    return (torch.arange(len(allowed)) > 0 if nodes else torch.from_numpy(allowed)).to(like)


def _loss(
    study: Study,
    values: Ablation,
    batch: PairBatch,
    reference: Tensor | None,
    mask: Tensor,
    grad: bool = True,
) -> Tensor:
    """KL divergence [b] of the circuit's answer from the network's."""
    assert reference is not None
    ablated = values.of(study.wiring, batch, study.pairs)
    with without_parameter_gradients(study.net.model):
        logits = run_edges(study.wiring, batch.clean, batch.positions, ablated, Mask(mask), grad=grad)
    return METRICS["kl"](logits, batch.answers.with_reference(reference))


def _loss_of_nothing(study: Study, values: Ablation, references: list[Tensor | None]) -> float:
    nothing = torch.zeros(study.wiring.graph.shape, device=study.net.device)
    with torch.no_grad():
        batches = zip(study.pairs, references, strict=True)
        total = sum(float(_loss(study, values, *each, nothing, grad=False).sum()) for each in batches)
    return max(total / study.pairs.n, 1e-6)


def _result(study: Study, logits: Tensor, how: MaskOptions, nodes: bool) -> Scores:
    share = torch.sigmoid(logits).double().cpu().numpy()
    graph, kind = study.wiring.graph, "nodes" if nodes else "edges"
    if nodes:
        share[0] = 1.0
    values = spread(graph, share) if nodes else np.where(graph.allowed, share, 0.0)
    return Scores(
        graph, values, f"mask-{kind} ({how.sampler})", UGS if how.sampler == "ugs" else L0, nodes=share if nodes else None,
        kept=values > 0.5, clusters=study.behaviour.clusters, notes=study.wiring.notes, provenance=study.provenance(),
    )  # fmt: skip
