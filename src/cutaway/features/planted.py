"""Rows whose dictionary is known, because they were made with it: features with directions, frequencies, sizes, parents.

What is drawn is drawn as in SAELens's synthetic models, so that figures can be compared: a feature fires where a Gaussian
exceeds the quantile of its rate (features whose Gaussians share factors fire together), with a size that is normal about
its own mean and never below zero; children of a parent that is silent are silent, of children that exclude one another one
is kept; a row is the sum of directions times sizes, a bias, and noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cutaway.errors import BadInput, require_known

#: How sizes run from the most to the least frequent feature.
Sizes = Literal["constant", "linear", "exponential", "folded-normal"]
_STEPS = 400


@dataclass(frozen=True, eq=False)
class Planted:
    """A known dictionary from which rows are drawn.

    Attributes:
        vectors: [F d], of length one.
        rates: [F], how often each is drawn to fire; a child then fires only where its parent does, too.
        means: [F], mean size where it fires.
        spreads: [F], standard deviation of its size.
        parents: [F] int64, the feature without which it cannot fire; -1 for none. A parent stands before its children.
        exclusive: [F] bool, of which at most one child fires at a time.
        factors: [F r], how the Gaussians of features hang together: their correlation is factors @ factors.T beside the
            diagonal; [F 0] for independent ones.
        noise: standard deviation of what is added to each number of a row.
        bias: [d].
    """

    vectors: Tensor
    rates: Tensor
    means: Tensor
    spreads: Tensor
    parents: Tensor
    exclusive: Tensor
    factors: Tensor
    noise: float
    bias: Tensor

    def __post_init__(self) -> None:
        size, width = self.vectors.shape
        shapes = {
            "rates": (size,),
            "means": (size,),
            "spreads": (size,),
            "parents": (size,),
            "exclusive": (size,),
        }
        for name, shape in (shapes | {"bias": (width,)}).items():
            if tuple(getattr(self, name).shape) != shape:
                raise BadInput(
                    f"{name} of shape {tuple(getattr(self, name).shape)} does not go with {size} features in {width} "
                    f"numbers.", f"It must be {list(shape)}.",
                )  # fmt: skip
        if not bool(((self.rates > 0) & (self.rates <= 1)).all()):
            raise BadInput("A rate is not between 0 and 1.", "A feature fires on some share of the rows.")
        if bool((self.parents >= torch.arange(size)).any()):
            raise BadInput("A parent does not stand before its child.", "Order features from the roots on.")
        if self.factors.shape[0] != size or bool((self.factors.square().sum(1) >= 1).any()):
            raise BadInput("Factors leave a Gaussian no variance of its own.", "Scale them down.")

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return int(self.vectors.shape[1])

    @cached_property
    def levels(self) -> tuple[Tensor, ...]:
        """Features by how many parents stand above them, from the roots on."""
        depth = [0] * len(self)
        for i, parent in enumerate(self.parents.tolist()):
            depth[i] = depth[parent] + 1 if parent >= 0 else 0
        at = torch.tensor(depth)
        return tuple((at == level).nonzero()[:, 0] for level in range(max(depth, default=0) + 1))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(parent, child), of every child."""
        return tuple((parent, i) for i, parent in enumerate(self.parents.tolist()) if parent >= 0)

    def activations(self, n: int, seed: int = 0) -> Tensor:
        """How strongly each feature is present in n rows: [n F], zero where it is silent."""
        draw = _draws("activations", seed)
        size = len(self)
        own = (1 - self.factors.square().sum(1)).sqrt()
        gauss = torch.randn(n, size, generator=draw) * own
        if self.factors.shape[1]:
            gauss += torch.randn(n, self.factors.shape[1], generator=draw) @ self.factors.T
        fires = gauss > torch.special.ndtri(1 - self.rates.double()).float()
        sizes = (self.means + self.spreads * torch.randn(n, size, generator=draw)).relu()
        found = torch.where(fires, sizes, torch.zeros(()))
        for level in self.levels[1:]:
            found[:, level] *= found[:, self.parents[level]] > 0
            self._exclude(found, level, draw)
        return found

    def _exclude(self, found: Tensor, level: Tensor, draw: torch.Generator) -> None:
        """Of the children of one parent that exclude one another keep one at random, in place."""
        groups = _groups(level[self.exclusive[self.parents[level]]], self.parents)
        if not len(groups):
            return
        there = groups >= 0
        held = found[:, groups.clamp(min=0)]
        lots = torch.rand(held.shape, generator=draw)
        lots = torch.where((held > 0) & there, lots, torch.full((), -1.0))
        keep = torch.zeros_like(held).scatter(-1, lots.argmax(-1, keepdim=True), 1.0)
        found[:, groups[there]] = (held * keep)[:, there]

    def rows(self, activations: Tensor, seed: int = 0) -> Tensor:
        """The rows [n d] of activations [n F], with noise of that seed."""
        rows = activations @ self.vectors + self.bias
        if self.noise:
            rows = rows + self.noise * torch.randn(rows.shape, generator=_draws("noise", seed))
        return rows

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n rows [n d], and how strongly each feature is present in them [n F]."""
        found = self.activations(n, seed)
        return self.rows(found, seed), found


def _groups(children: Tensor, parents: Tensor) -> Tensor:
    """Children of one parent side by side: [g m], filled up with -1."""
    by: dict[int, list[int]] = {}
    for child in children.tolist():
        by.setdefault(int(parents[child]), []).append(child)
    several = [group for group in by.values() if len(group) > 1]
    most = max(map(len, several), default=0)
    return torch.tensor([group + [-1] * (most - len(group)) for group in several], dtype=torch.long)


def plant(
    features: int = 256, width: int = 64, *,
    exponent: float = 1.0, most: float = 0.3, least: float = 0.01,
    sizes: Sizes = "constant", size: float | tuple[float, float] = 1.0, spread: float | tuple[float, float] = 0.0,
    roots: int = 0, branching: int = 4, depth: int = 2, exclusive: bool = True,
    rank: int = 0, together: float = 0.1, coherence: float | None = None,
    noise: float = 0.0, bias: float = 1.0, seed: int = 0,
) -> Planted:  # fmt: skip
    """A dictionary to be recovered.

    Args:
        features: how many.
        width: numbers in a row.
        exponent: rates fall with the rank to this power (Zipf), from most to least.
        most: rate of the most frequent feature.
        least: rate of the rarest.
        sizes: mean sizes: all `size`; from `size[0]` to `size[1]` by equal steps or equal factors; or |normal| of that mean
            and standard deviation.
        size: a number, or two.
        spread: standard deviation of a feature's size; of two numbers each feature has its own, |normal| of that mean and
            standard deviation.
        roots: how many of the most frequent features have children; 0 for no hierarchy. A child's rate given its parent is
            raised so that its rate over all rows stays what it is (but for what exclusion takes).
        branching: children of each.
        depth: generations below the roots.
        exclusive: does at most one child of a parent fire at a time?
        rank: factors that features share; 0 for independent firing.
        together: standard deviation of their weights.
        coherence: what no two directions' |cosine| exceeds; None for directions drawn at random.
        noise: standard deviation of what is added to each number.
        bias: length of the bias.
        seed: of all that is drawn here.

    Raises `BadInput` for a coherence that so many directions cannot have, and for what is out of range.
    """
    if features < 1 or width < 1 or not 0 < least <= most <= 1 or exponent <= 0 or noise < 0:
        raise BadInput("A number of the planted dictionary is out of range.", "See the arguments of plant.")
    draw = _draws("dictionary", seed)
    vectors = torch.nn.functional.normalize(torch.randn(features, width, generator=draw), dim=1)
    if coherence is not None:
        vectors = _spread_out(vectors, coherence)
    rates = _zipf(features, exponent, most, least)
    means = _sizes(sizes, size, features, draw)
    spreads = _spreads(spread, features, draw)
    parents, raised, excludes = _tree(rates, roots, branching, depth, exclusive, draw)
    factors = together * torch.randn(features, rank, generator=draw)
    longest = float(factors.square().sum(1).max()) if rank else 0.0
    factors = factors * (0.99 / longest) ** 0.5 if longest >= 1 else factors
    away = torch.nn.functional.normalize(torch.randn(width, generator=draw), dim=0) * bias
    return Planted(vectors, raised, means, spreads, parents, excludes, factors, noise, away)


#: Frequencies, sizes and correlation of SynthSAEBench-16k (Chanin et al. 2026, arXiv 2602.14687), which is larger.
_AS_SYNTHSAEBENCH: dict[str, Any] = {
    "exponent": 0.5, "most": 0.4, "sizes": "linear", "size": (5.0, 4.0), "spread": (0.5, 0.5), "branching": 4,
    "together": 0.1,
}  # fmt: skip
#: Settings of `plant` by name: how large a dictionary is to be recovered, with hierarchy, correlation and superposition.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"features": 256, "width": 64, "least": 0.005, "roots": 8, "depth": 1, "rank": 8} | _AS_SYNTHSAEBENCH,
    "reference": {"features": 2048, "width": 256, "least": 0.001, "roots": 32, "depth": 2, "rank": 25} | _AS_SYNTHSAEBENCH,
}  # fmt: skip


def preset(name: str, seed: int = 0, **changes: Any) -> Planted:
    """The planted dictionary of that name ("small", "reference"), with settings changed as given."""
    require_known([name], list(PRESETS), "planted dictionaries")
    return plant(**PRESETS[name] | changes, seed=seed)


def _draws(what: str, seed: int) -> torch.Generator:
    """Random numbers of a kind of their own: whoever draws directions with the same bare seed must not draw these."""
    digest = hashlib.sha256(f"planted {what} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _zipf(features: int, exponent: float, most: float, least: float) -> Tensor:
    """From most to least as the rank to minus the exponent does: [F]."""
    if features == 1:
        return torch.tensor([most])
    fall = torch.arange(1, features + 1, dtype=torch.float64) ** -exponent
    return (least + (most - least) * (fall - fall[-1]) / (fall[0] - fall[-1])).float()


def _sizes(how: Sizes, size: float | Sequence[float], features: int, draw: torch.Generator) -> Tensor:
    require_known([how], ["constant", "linear", "exponential", "folded-normal"], "sizes")
    first, last = (size, size) if isinstance(size, int | float) else size
    if first <= 0 or last <= 0:
        raise BadInput(f"Sizes {size} are not above zero.", "A feature that fires has a size.")
    if how == "folded-normal":
        return (first + last * torch.randn(features, generator=draw)).abs()
    steps = torch.linspace(0, 1, features)
    return first * (last / first) ** steps if how == "exponential" else first + (last - first) * steps


def _spreads(spread: float | Sequence[float], features: int, draw: torch.Generator) -> Tensor:
    mean, own = (spread, 0.0) if isinstance(spread, int | float) else spread
    if mean < 0 or own < 0:
        raise BadInput(f"spread={spread} is below zero.", "Give a standard deviation.")
    return (
        (mean + own * torch.randn(features, generator=draw)).abs()
        if own
        else torch.full((features,), float(mean))
    )


def _tree(
    rates: Tensor, roots: int, branching: int, depth: int, exclusive: bool, draw: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Parents [F], rates given the parent [F], and which features' children exclude one another [F]."""
    features = len(rates)
    needed = roots * sum(branching**i for i in range(depth + 1))
    if roots < 0 or branching < 1 or depth < 1 or needed > features:
        raise BadInput(
            f"A hierarchy of {needed} features does not fit into {features}.",
            "Use fewer roots, children or generations.",
        )
    parents = torch.full((features,), -1, dtype=torch.long)
    above = list(range(roots))
    free = [i + roots for i in torch.randperm(features - roots, generator=draw).tolist()]
    for _ in range(depth if roots else 0):
        # a child is rarer than its parent, so that its rate can be kept
        chosen = sorted(free[: len(above) * branching])
        free = [i for i in free if i not in set(chosen)]
        after: list[int] = []
        for i, child in enumerate(chosen):
            older = [p for p in above if p < child and int((parents == p).sum()) < branching]
            if older:
                parents[child] = older[i % len(older)]
                after.append(child)
        above = sorted(after)
    given = rates.clone()
    held = parents >= 0
    given[held] = (rates[held] / rates[parents[held]]).clamp(max=1.0)
    excludes = torch.zeros(features, dtype=torch.bool)
    excludes[parents[held].unique()] = exclusive
    return parents, given, excludes


def _spread_out(vectors: Tensor, coherence: float) -> Tensor:
    """Directions pushed apart until no two have a larger |cosine|."""
    size, width = vectors.shape
    bound = ((size - width) / (width * (size - 1))) ** 0.5 if size > width else 0.0
    found = vectors.double()
    for _ in range(_STEPS):
        gram = found @ found.T
        gram.fill_diagonal_(0.0)
        over = gram - gram.clamp(-0.98 * coherence, 0.98 * coherence)
        if float(gram.abs().max()) <= coherence:
            return found.float()
        found = torch.nn.functional.normalize(found - 0.5 * over @ found, dim=1)
    raise BadInput(
        f"{size} directions in {width} numbers were not brought to a coherence of {coherence}.",
        f"None is possible below {bound:.3f}; allow more.",
    )
