"""Distributed alignment search: the subspace through which a variable acts, learned by interchange, scored on other pairs.

A rotation is learned so that exchanging the first k rotated coordinates between a base and a source prompt makes the output
go where the source's class says (Geiger et al. 2024). In the boundless variant k is learned with it, by a boundary that
grows sharp (Wu et al. 2023). The figure is interchange accuracy on held-out pairs of different classes, beside that of
the probe's direction, of random subspaces of the same size, of a search for shuffled classes, and of the whole vector: a
search can find a direction that steers the output although the network never uses the variable, and then exchanging
everything does not do what the subspace does.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.claims import Claim, Control, Evidence, judge
from cutaway.errors import BadFormat, BadInput
from cutaway.interventions import Interchange
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.map.probing import Probing
from cutaway.probes.reading.activations import Report
from cutaway.probes.reading.beds import Answers, Bed
from cutaway.probes.reading.spots import Spot, features, head_width, moved, plain
from cutaway.probes.use.directions import fitted_directions
from cutaway.probes.use.pipeline import UseOptions, halves
from cutaway.results import load_folder, save_folder
from cutaway.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    from cutaway.network import Network

_FORMAT = "cutaway-alignment-1"


@dataclass(frozen=True)
class SearchOptions:
    """size: dimensions of the subspace (the start of the boundary, where it is learned). boundless: learn the size, too.
    steps, batch, rate: of the search. price: what one whole dimension costs in the boundless loss, as a share of d.
    pairs: held-out pairs that are scored. random: random subspaces. read, seed: as in `UseOptions`."""

    size: int = 1
    boundless: bool = False
    steps: int = 80
    batch: int = 48
    rate: float = 0.05
    price: float = 3.0
    pairs: int = 200
    random: int = 20
    read: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Alignment:
    """What was found: an orthonormal basis [k d] at a place, its interchange accuracy on held-out pairs of different
    classes, those of its rivals, and the claim."""

    label: str
    spot: Spot
    basis: Tensor
    accuracy: Estimate
    rivals: dict[str, Estimate]
    cosine: float
    claim: Claim

    @property
    def size(self) -> int:
        """Dimensions of the subspace."""
        return self.basis.shape[0]

    def interchange(self, source: Any, pos: Any = None) -> Interchange:
        """The intervention that exchanges this subspace with a source run's."""
        return Interchange(self.spot.site, source, self.basis.float(), head=self.spot.head, pos=pos)

    def __str__(self) -> str:
        rivals = "; ".join(f"{name} {value}" for name, value in self.rivals.items())
        size = f"{self.size} of {self.basis.shape[1]} dimensions"
        return f"{size}, interchange accuracy {self.accuracy} ({rivals})\n{self.claim}"

    __repr__ = __str__

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        site = self.spot.site
        plain_data = {
            "format": _FORMAT, "label": self.label, "site": [site.name, site.layer, site.stack, site.module],
            "head": self.spot.head, "accuracy": self.accuracy.to_dict(), "cosine": self.cosine,
            "rivals": {k: v.to_dict() for k, v in self.rivals.items()}, "claim": self.claim.to_dict(),
        }  # fmt: skip
        return save_folder(path, plain_data, {"basis": self.basis})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Alignment:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        from cutaway.network.sites import Site

        saved = load_folder(path)
        data = saved.manifest
        if data.get("format") != _FORMAT:
            raise BadFormat(f"{path} does not hold an alignment.", "Give a folder that Alignment.save wrote.")
        rivals = {k: Estimate.from_dict(v) for k, v in data["rivals"].items()}
        return cls(
            data["label"], Spot(Site(*data["site"]), data["head"]), saved.tensors["basis"],
            Estimate.from_dict(data["accuracy"]), rivals, data["cosine"], Claim.from_dict(data["claim"]),
        )  # fmt: skip


def align(
    net: Network,
    found: Probing,
    data: ProbeData,
    *,
    answers: Answers | None = None,
    where: dict[str, Any] | None = None,
    options: SearchOptions | None = None,
    report: Report | None = None,
) -> Alignment:
    """Search the subspace of one place (default the best) through which the label decides the output.

    Searched on pairs of one half of the groups, scored on pairs of the other. answers: as in `use`.

    Raises `BadInput` for labels without two classes, or a size that the place does not have.
    """
    options, began = options or SearchOptions(), time.perf_counter()
    cell = found.places.cells[found.number(**(where or {}))]
    spot = Spot(cell.site, cell.head)
    past, future, _, fitting = halves(
        net, found, data, cell, answers, UseOptions(read=options.read, seed=options.seed)
    )
    x_past, x_future = (features(net, spot, b.tokens, b.edit) for b in (past, future))
    d = x_past.shape[1]
    if not 1 <= options.size <= d:
        raise BadInput(f"A subspace of {options.size} dimensions does not fit {d}.", f"Use 1 to {d}.")
    rows = _Pairs.of(past, x_past, plain(net, past))
    basis = search(net, spot, rows, options, report)
    test = replace(rows, bed=future, x=x_future, classes=future.classes)
    pairs = test.draw(options.pairs, np.random.default_rng(options.seed + 5), across=True)
    probe_direction = fitted_directions(x_past, past.classes, fitting)[0].vector[None]
    accuracy = test.accuracy(net, spot, basis, pairs)
    shuffled = _shuffled(rows, options.seed)
    rivals = {
        "the probe's direction": test.accuracy(net, spot, probe_direction, pairs),
        "random subspaces": _random(net, spot, test, pairs, len(basis), d, options),
        "the whole vector": test.accuracy(net, spot, torch.eye(d).double(), pairs),
        "a search for shuffled classes": test.accuracy(
            net, spot, search(net, spot, shuffled, options, None), pairs
        ),
    }
    cosine = float((basis @ probe_direction[0]).norm())
    claim = _claim(
        found,
        cell.label(found.places.positions),
        accuracy,
        rivals,
        len(basis),
        d,
        time.perf_counter() - began,
    )
    return Alignment(str(found.data.attrs["label"]), spot, basis, accuracy, rivals, cosine, claim)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """A bed with its features [n d], and where the metric parts the classes: above `middle` is class 1; `scale` is half
    their distance."""

    bed: Bed
    x: Tensor
    classes: Tensor
    middle: float
    scale: float

    @classmethod
    def of(cls, bed: Bed, x: Tensor, metric: np.ndarray) -> _Pairs:
        one, zero = (float(metric[bed.classes.numpy() == c].mean()) for c in (1, 0))
        return cls(bed, x, bed.classes, (one + zero) / 2, max(abs(one - zero) / 2, 1e-6))

    def draw(self, n: int, rng: np.random.Generator, across: bool) -> Tensor:
        """n pairs [n 2] of base and source; of different classes where `across`, else of any."""
        by = [np.flatnonzero(self.classes.numpy() == c) for c in (0, 1)]
        base = rng.integers(0, len(self.classes), n)
        other = np.array([rng.choice(by[1 - int(self.classes[b])]) for b in base])
        if not across:
            same = rng.random(n) < 0.3
            other[same] = rng.integers(0, len(self.classes), int(same.sum()))
        return torch.as_tensor(np.stack([base, other], 1))

    def accuracy(self, net: Network, spot: Spot, basis: Tensor, pairs: Tensor) -> Estimate:
        """Share of pairs whose output, with the subspace exchanged, is on the side of the source's class."""
        base, source = pairs[:, 0], pairs[:, 1]
        step = (self.x[source] - self.x[base]) @ basis.T @ basis
        after = moved(net, self.bed.take(base), spot, step[None])[0]
        right = (after > self.middle) == (self.classes[source].numpy() == 1)
        clusters = [self.bed.clusters[i] for i in base.tolist()]
        return bootstrap(right.astype(float), clusters if len(set(clusters)) > 1 else None)


def search(net: Network, spot: Spot, pairs: _Pairs, options: SearchOptions, report: Report | None) -> Tensor:
    """The learned basis [k d], by gradient descent on the interchange loss of random pairs."""
    d = pairs.x.shape[1]
    draw, rng = torch.Generator().manual_seed(options.seed), np.random.default_rng(options.seed)
    columns = d if options.boundless else options.size
    raw = torch.randn(d, columns, generator=draw).double().requires_grad_()
    edge = torch.tensor(max(options.size, d / 4), dtype=torch.float64, requires_grad=True)
    learned = [raw, edge] if options.boundless else [raw]
    adam = torch.optim.Adam(
        [{"params": [raw], "lr": options.rate}, {"params": [edge], "lr": options.rate * d / 4}]
    )
    width = head_width(net, spot, d)
    for step in range(options.steps):
        chosen = pairs.draw(options.batch, rng, across=False)
        q = torch.linalg.qr(raw).Q
        heat = max(0.1, 0.1 * d * (1 - step / options.steps))
        mask = (
            torch.sigmoid((edge - torch.arange(d) - 0.5) / heat) if options.boundless else torch.ones(columns)
        )
        loss = _loss(net, spot, pairs, chosen, (q * mask.double()) @ q.T, width)
        if options.boundless:
            loss = loss + options.price * mask.double().mean()
        gradients = torch.autograd.grad(loss, learned)
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        adam.step()
        with torch.no_grad():
            edge.clamp_(1, d)
        if report is not None:
            report("searching", step + 1, options.steps)
    kept = max(1, round(float(edge.detach()))) if options.boundless else options.size
    return torch.linalg.qr(raw.detach()).Q[:, :kept].T.contiguous()


def _loss(
    net: Network, spot: Spot, pairs: _Pairs, chosen: Tensor, projection: Tensor, width: int | None
) -> Tensor:
    base, source = chosen[:, 0], chosen[:, 1]
    bed = pairs.bed
    step = ((pairs.x[source] - pairs.x[base]) @ projection).float()
    edit = spot.add(step, bed.edit[base][:, None], width)
    run = net.run(bed.tokens[base], edits=[edit], logits=bed.read[base][:, None], grad=True)
    if run.logits is None:
        raise BadInput(f"{net.name} gives no logits.", "A search needs an output over tokens.")
    score = (bed.score(run.logits[:, 0], base).double().cpu() - pairs.middle) / pairs.scale
    wanted = 2.0 * pairs.classes[source].double() - 1
    return torch.nn.functional.softplus(-3 * wanted * score).mean()


def _shuffled(pairs: _Pairs, seed: int) -> _Pairs:
    """The same prompts with their classes exchanged at random: a search must find nothing that carries over."""
    order = torch.as_tensor(np.random.default_rng(seed + 3).permutation(len(pairs.classes)))
    return replace(pairs, classes=pairs.classes[order])


def _random(
    net: Network, spot: Spot, test: _Pairs, pairs: Tensor, size: int, d: int, options: SearchOptions
) -> Estimate:
    """The best of the random subspaces."""
    draw = torch.Generator().manual_seed(options.seed + 4)
    found = [
        test.accuracy(net, spot, torch.linalg.qr(torch.randn(d, size, generator=draw).double()).Q.T, pairs)
        for _ in range(options.random)
    ]
    return max(found, key=lambda e: e.value)


def _claim(
    found: Probing,
    where: str,
    accuracy: Estimate,
    rivals: dict[str, Estimate],
    size: int,
    d: int,
    seconds: float,
) -> Claim:
    label = found.data.attrs["label"]
    random, shuffled, whole = (
        rivals[k] for k in ("random subspaces", "a search for shuffled classes", "the whole vector")
    )
    evidence = [
        Evidence(
            "Interchange on held-out pairs", accuracy, None, 0.5, accuracy.above(0.5),
            f"With the subspace exchanged, the output is on the side of the source's class in {accuracy} of held-out pairs "
            "of different classes.",
        ),
    ]  # fmt: skip
    controls = [
        Control(
            f"The best of random subspaces of {size}", random, "less", accuracy.above(random.value) is True,
            f"{random} with as many dimensions drawn at random.",
        ),
        Control(
            "A search for shuffled classes", shuffled, "less", accuracy.above(shuffled.value) is True,
            f"{shuffled} where the same search was given shuffled classes.",
        ),
        Control(
            "The whole vector exchanged", whole, "at least most of it", whole.above(0.5) is True,
            f"{whole} with everything exchanged. What a subspace does and the whole vector does not, it does through a path "
            "that lies idle in the network (Makelov et al. 2024).",
        ),
    ]  # fmt: skip
    notes = ["The probe's direction: " + str(rivals["the probe's direction"]) + "."]
    statement = f"{label!r} decides the output through {size} of {d} dimensions of {where}."
    return Claim(
        statement, judge(evidence, controls), tuple(evidence), tuple(controls), (*notes, f"{seconds:.1f} s.")
    )
