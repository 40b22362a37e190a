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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.claims import Claim, Control, Evidence
from cutaway.errors import BadFormat, BadInput
from cutaway.figures import Bar, bars
from cutaway.interventions import Interchange
from cutaway.network.sites import Site
from cutaway.probes.choices import chosen
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.map.linear_probe import UNRECORDED, site_to_list
from cutaway.probes.map.probing import Probing, require_probing
from cutaway.probes.reading import beds
from cutaway.probes.reading.beds import Answers, Bed
from cutaway.probes.reading.spots import Spot, features, head_width, moved, plain
from cutaway.probes.use.directions import fitted_directions
from cutaway.probes.use.halves import halves
from cutaway.reports import Figure, Page, display, result_page
from cutaway.results import Provenance, Work, finite, head, read, save_folder, working
from cutaway.statistics import Estimate, share_of
from cutaway.trials import claim_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cutaway.network import Network
_KEYWORDS = ("answers", "where", "options", "seed", "work")


@dataclass(frozen=True)
class SearchOptions:
    """How a subspace is searched. `align` takes the same names as keywords.

    Attributes:
        size: dimensions of the subspace (the start of the boundary, where it is learned).
        boundless: learn the size, too.
        steps, batch, rate: of the search.
        price: what one whole dimension costs in the boundless loss, as a share of d.
        pairs: held-out pairs that are scored.
        random: random subspaces that it is held against.
        read: position of the logits (default the last token).

    Raises `BadInput` for numbers that make no sense.
    """

    size: int = 1
    boundless: bool = False
    steps: int = 80
    batch: int = 48
    rate: float = 0.05
    price: float = 3.0
    pairs: int = 200
    random: int = 20
    read: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "steps", "batch", "pairs", "random"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadInput(f"{name}={value!r} is not possible.", "Give a whole number from 1 on.")


@dataclass(frozen=True, eq=False)
class Alignment:
    """A subspace through which a label decides the output, from `align`.

    Attributes:
        label: whose subspace it is.
        spot: where.
        basis: orthonormal [k d].
        accuracy: interchange accuracy on held-out pairs of different classes.
        rivals: that of the probe's direction, of random subspaces, of a search for shuffled classes, of the whole vector.
        cosine: of the probe's direction with the subspace.
        claim: that the label decides the output through it.
        provenance: where it came from; empty names where that was not recorded.
    """

    kind: ClassVar[str] = "alignment"

    label: str
    spot: Spot
    basis: Tensor
    accuracy: Estimate
    rivals: dict[str, Estimate]
    cosine: float
    claim: Claim
    provenance: Provenance = UNRECORDED

    @property
    def size(self) -> int:
        """Dimensions of the subspace."""
        return self.basis.shape[0]

    def interchange(self, source: Any, pos: Any = None) -> Interchange:
        """The intervention that exchanges this subspace with a source run's."""
        return Interchange(self.spot.site, source, self.basis.float(), head=self.spot.head, pos=pos)

    @property
    def headline(self) -> str:
        """Whether the label decides the output through the subspace, in a sentence."""
        word = {"supported": "decides", "refuted": "does not decide"}.get(
            self.claim.verdict, "is not shown to decide"
        )
        other = self.rivals.get("random subspaces")
        beside = "" if other is None else f" (random subspaces in {100 * other.value:.0f} %)"
        return (
            f"{self.label!r} {word} the output through {self.size} of {self.basis.shape[1]} dimensions at {self.spot.site}: "
            f"exchanging them gives the other prompt's output in {100 * self.accuracy.value:.0f} % of held-out pairs{beside}"
        )

    @property
    def _figure(self) -> str:
        """The subspace's size and accuracy."""
        return f"{self.size} of {self.basis.shape[1]} dimensions, interchange accuracy {self.accuracy}"

    def __str__(self) -> str:
        rivals = "; ".join(f"{name} {value}" for name, value in self.rivals.items())
        return f"{self._figure} ({rivals})\n{self.claim}"

    __repr__ = __str__

    def _estimates(self) -> dict[str, Estimate]:
        return {"the subspace": self.accuracy, **self.rivals}

    def to_pandas(self) -> pd.DataFrame:
        """One row for the subspace and for each rival: interchange accuracy with its interval."""
        rows = [(name, value.value, *value.ends()) for name, value in self._estimates().items()]
        return pd.DataFrame(rows, columns=["what", "accuracy", "low", "high"])

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with the basis as lists."""
        return finite(self._plain() | {"basis": self.basis, "provenance": self.provenance})

    def plot(self) -> go.Figure:
        """Interchange accuracy of the subspace beside its rivals."""
        items = [Bar(name, v.value, *v.ends(v.value)) for name, v in self._estimates().items()]
        return bars(items, title=f"{self.label} at {self.spot.site}", unit="interchange accuracy")

    def page(self) -> Page:
        """The page: the subspace beside its rivals, and the claim."""
        caption = "Share of held-out pairs whose output, with the subspace exchanged, is the source's."
        return result_page(
            f"{self.label} at {self.spot.site}: {self._figure}.", "Cutaway · alignment", f"{self.headline}.",
            [Figure(self.plot(), caption)],
            self.provenance, claims=(self.claim,), verdict=self.claim.verdict,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        shown = (self.to_pandas(), self.claim._repr_html_())
        return display(self.headline, (), *shown, self.claim.verdict, self.provenance)

    def _plain(self) -> dict[str, Any]:
        return {
            "label": self.label, "site": site_to_list(self.spot.site), "head": self.spot.head, "accuracy": self.accuracy,
            "cosine": self.cosine, "rivals": self.rivals, "claim": self.claim,
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        return save_folder(path, head("alignment", self.provenance, **self._plain()), {"basis": self.basis})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Alignment:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        saved, version = read(path, "alignment")
        data = saved.manifest
        try:
            return cls(
                data["label"], Spot(Site(*data["site"]), data["head"]), saved.tensors["basis"],
                Estimate.from_dict(data["accuracy"]), {k: Estimate.from_dict(v) for k, v in data["rivals"].items()},
                data["cosine"], Claim.from_dict(data["claim"]),
                Provenance.from_dict(data["provenance"]) if version else UNRECORDED,
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            what = f"The alignment in {path} cannot be read: {error!r}."
            raise BadFormat(what, "Make it again.") from error


def align(
    net: Network,
    probing: Probing,
    data: ProbeData,
    *,
    answers: Answers | None = None,
    where: Mapping[str, Any] | None = None,
    options: SearchOptions | None = None,
    seed: int = 0,
    work: Work | None = None,
    **choices: Any,
) -> Alignment:
    """Search the subspace of one place (default the best) through which the label decides the output.

    Searched on pairs of one half of the groups, scored on pairs of the other. answers, where, work: as in `use`.

    Raises `BadInput` for labels without two classes, or a size that the place does not have; `UnknownOption` for a
    misspelt choice; `Stopped` where the work is stopped.
    """
    options, began = chosen(SearchOptions, options, choices, "align", _KEYWORDS), time.perf_counter()
    require_probing(probing)
    cell = probing.cell(where)
    spot = Spot(cell.site, cell.head)
    with working(work).interruptible() as work:
        past, future, _, fitting = halves(net, probing, data, cell, answers, options.read, seed)
        x_past, x_future = (features(net, spot, b.tokens, b.edit, work) for b in (past, future))
        d = x_past.shape[1]
        if not 1 <= options.size <= d:
            raise BadInput(f"A subspace of {options.size} dimensions does not fit {d}.", f"Use 1 to {d}.")
        rows = _Pairs.of(past, x_past, plain(net, past))
        basis = search(net, spot, rows, options, seed, work)
        test = replace(rows, bed=future, x=x_future, classes=future.classes)
        pairs = test.draw(options.pairs, np.random.default_rng(seed + 5), across=True)
        direction = fitted_directions(x_past, past.classes, fitting)[0].vector[None]
        accuracy = test.accuracy(net, spot, basis, pairs)
        shuffled = search(net, spot, _shuffled(rows, seed), options, seed, work.within("shuffled classes"))
        rivals = {
            "the probe's direction": test.accuracy(net, spot, direction, pairs),
            "random subspaces": _random(net, spot, test, pairs, len(basis), options.random, seed),
            "the whole vector": test.accuracy(net, spot, torch.eye(d).double(), pairs),
            "a search for shuffled classes": test.accuracy(net, spot, shuffled, pairs),
        }
    label, place = str(probing.data.attrs["label"]), cell.label(probing.places.positions)
    seconds = time.perf_counter() - began
    statement = f"{label!r} decides the output through {len(basis)} of {d} dimensions of {place}."
    claim = _claim(statement, accuracy, rivals, len(basis))
    provenance = Provenance.of(net, data.hash, seed, seconds)
    cosine = float((basis @ direction[0]).norm())
    return Alignment(label, spot, basis, accuracy, rivals, cosine, claim, provenance)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """A bed whose prompts are exchanged in pairs.

    Attributes:
        bed: n prompts.
        x: their features [n d].
        classes: [n].
        middle: where the metric parts the classes: above is class 1.
        scale: half the classes' distance in the metric.
    """

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
        return share_of(right, clusters)


def search(net: Network, spot: Spot, pairs: _Pairs, options: SearchOptions, seed: int, work: Work) -> Tensor:
    """The learned basis [k d], by gradient descent on the interchange loss of random pairs."""
    d = pairs.x.shape[1]
    draw, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    columns = d if options.boundless else options.size
    raw = torch.randn(d, columns, generator=draw).double().requires_grad_()
    edge = torch.tensor(max(options.size, d / 4), dtype=torch.float64, requires_grad=True)
    learned = [raw, edge] if options.boundless else [raw]
    rates = ((raw, options.rate), (edge, options.rate * d / 4))
    adam = torch.optim.Adam([{"params": [parameter], "lr": rate} for parameter, rate in rates])
    width = head_width(net, spot, d)
    for step in range(options.steps):
        drawn = pairs.draw(options.batch, rng, across=False)
        q = torch.linalg.qr(raw).Q
        heat = max(0.1, 0.1 * d * (1 - step / options.steps))
        soft = options.boundless
        mask = torch.sigmoid((edge - torch.arange(d) - 0.5) / heat) if soft else torch.ones(columns)
        loss = _loss(net, spot, pairs, drawn, (q * mask.double()) @ q.T, width)
        if options.boundless:
            loss = loss + options.price * mask.double().mean()
        gradients = torch.autograd.grad(loss, learned)
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        adam.step()
        with torch.no_grad():
            edge.clamp_(1, d)
        work.step("searching", step + 1, options.steps)
    kept = max(1, round(float(edge.detach()))) if options.boundless else options.size
    return torch.linalg.qr(raw.detach()).Q[:, :kept].T.contiguous()


def _loss(
    net: Network, spot: Spot, pairs: _Pairs, drawn: Tensor, projection: Tensor, width: int | None
) -> Tensor:
    base, source = drawn[:, 0], drawn[:, 1]
    bed = pairs.bed
    step = ((pairs.x[source] - pairs.x[base]) @ projection).float()
    edit = spot.add(step, bed.edit[base][:, None], width)
    run = net.run(bed.tokens[base], edits=[edit], logits=bed.read[base][:, None], grad=True)
    score = (bed.score(beds.logits_of(net, run), base).double().cpu() - pairs.middle) / pairs.scale
    wanted = 2.0 * pairs.classes[source].double() - 1
    return torch.nn.functional.softplus(-3 * wanted * score).mean()


def _shuffled(pairs: _Pairs, seed: int) -> _Pairs:
    """The same prompts with their classes exchanged at random: a search must find nothing that carries over."""
    order = torch.as_tensor(np.random.default_rng(seed + 3).permutation(len(pairs.classes)))
    return replace(pairs, classes=pairs.classes[order])


def _random(
    net: Network, spot: Spot, test: _Pairs, pairs: Tensor, size: int, count: int, seed: int
) -> Estimate:
    """The best of the random subspaces."""
    draw, d = torch.Generator().manual_seed(seed + 4), test.x.shape[1]
    bases = [torch.linalg.qr(torch.randn(d, size, generator=draw).double()).Q.T for _ in range(count)]
    return max((test.accuracy(net, spot, basis, pairs) for basis in bases), key=lambda e: e.value)


def _claim(statement: str, accuracy: Estimate, rivals: dict[str, Estimate], size: int) -> Claim:
    names = ("the probe's direction", "random subspaces", "a search for shuffled classes", "the whole vector")
    direction, random, shuffled, whole = (rivals[name] for name in names)
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
    notes = [f"The probe's direction: {direction}."]
    return claim_of(statement, evidence, controls, notes)
