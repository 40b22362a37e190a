"""A direction or a subspace at one place as a candidate: it is kept or removed by exchanging what lies in it.

Interchange in a subspace: Geiger et al. 2023, "Finding Alignments Between Interpretable Causal Variables and Distributed
Neural Representations" (arXiv 2303.02536), eq. 2, with given bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import Baselines, Side, measure
from cutaway.errors import BadInput, NotFinite, Stopped
from cutaway.network.sites import Site
from cutaway.results import Work, brief, working
from cutaway.sweeps import Cell, CellState, Write, run_cells
from cutaway.trials.scale import GapScale

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: So many subspaces are written at a time: each takes a copy of the site's values.
_AT_ONCE = 16
#: Directions shorter than this share of the longest add nothing to a span.
_RANK = 1e-6


@dataclass(frozen=True, eq=False)
class SubspacePlace:
    """Where a subspace lies.

    Attributes:
        at: the site.
        head: which head of it; None where the site has none.
        pos: row-relative position (-1: the last token); None for all.
    """

    at: Site
    head: int | None = None
    pos: int | None = None

    @property
    def words(self) -> str:
        """For people: `resid_post.2`, `head 3 of z.5`, at which position."""
        place = str(self.at) if self.head is None else f"head {self.head} of {self.at}"
        return place if self.pos is None else f"{place} at position {self.pos}"


@dataclass(frozen=True, eq=False)
class SubspaceBench:
    """One half of a behaviour on one network, ready for subspaces of one place.

    Methods return the metric [k n]. The scale is that of the place: 1 where nothing is replaced, 0 where the whole of its
    values comes from the corrupted prompts.

    Attributes:
        net: the network.
        behaviour: the pairs.
        place: where the subspaces lie.
        ends: both sides as they run without any edit.
        work: who hears of progress, and may stop it.
    """

    net: Network
    behaviour: Behaviour
    place: SubspacePlace
    ends: Baselines
    work: Work = field(default_factory=Work)

    __repr__ = brief

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, place: SubspacePlace, work: Work | None = None
    ) -> SubspaceBench:
        """Run both sides and keep what stands at the place.

        Raises `BadBehaviour` when pairs differ in length or there is no gap, `SiteUnavailable` for a refused site,
        `BadInput` where the site has heads and none is named, or the other way round.
        """
        behaviour.require_aligned("Testing a subspace")
        by_head = not place.at.module and bool({"head", "kv_head"} & set(place.at.axes))
        if by_head != (place.head is not None):
            has = "has one value for each head" if by_head else "has no heads"
            raise BadInput(f"{place.at} {has}.", "Name the head." if by_head else "Leave head out.")
        net.resolve(place.at)
        work = working(work)
        return cls(net, behaviour, place, measure(net, behaviour, [place.at], work), work)

    @cached_property
    def scale(self) -> GapScale:
        """The scale from the whole place replaced (0) to nothing replaced (1)."""
        whole = self.ends.clean.metric
        empty = self.written([self._values(self.ends.corrupted)], "replacing the whole place")[0]
        return GapScale(empty, whole, self.behaviour.clusters)

    @cached_property
    def difference(self) -> Tensor:
        """Clean less corrupted values at the place, example by example and position by position: [m d]."""
        change = self._values(self.ends.clean) - self._values(self.ends.corrupted)
        return change[self._covered].reshape(-1, change.shape[-1]).double()

    def keep(self, bases: Sequence[Tensor]) -> np.ndarray:
        """Clean prompts; what lies outside each subspace (orthonormal basis [k d]) comes from the corrupted run."""
        clean, corrupted = self._values(self.ends.clean), self._values(self.ends.corrupted)
        parts = [corrupted + _within(clean - corrupted, basis) for basis in bases]
        return self.written(parts, "keeping subspaces")

    def remove(self, bases: Sequence[Tensor]) -> np.ndarray:
        """Clean prompts; what lies in each subspace comes from the corrupted run."""
        clean, corrupted = self._values(self.ends.clean), self._values(self.ends.corrupted)
        return self.written(
            [clean + _within(corrupted - clean, basis) for basis in bases], "removing subspaces"
        )

    def written(self, values: Sequence[Tensor], label: str) -> np.ndarray:
        """Metric [k n] of clean prompts with each of these values [n p d] written at the place."""
        metrics = []
        for start in range(0, len(values), _AT_ONCE):
            sources = {
                str(i): {self.place.at: self._whole(value)}
                for i, value in enumerate(values[start : start + _AT_ONCE])
            }
            at = self.place.at
            cells: list[Cell] = [
                (Write(at.name, at.layer, self.place.head, source=name, module=at.module, stack=at.stack),)
                for name in sources
            ]
            experiment = self.ends.experiment(self.net, self.ends.clean, {}, named=sources)
            done = run_cells(experiment, cells, work=self.work, label=label)
            if done.interrupted:
                raise Stopped(f"Stopped while {label}.", "Nothing of it was kept.")
            if (done.states == CellState.NOT_FINITE).any():
                raise NotFinite(
                    f"While {label}, the logits are NaN or infinite.", "Use a wider dtype, such as float32."
                )
            metrics.append(done.values)
        return np.concatenate(metrics)

    @cached_property
    def _covered(self) -> Tensor:
        """Which columns of which rows the place covers: BoolTensor [n p]."""
        tokens = self.ends.clean.tokens
        if self.place.pos is None:
            return tokens.mask.cpu()
        covered = torch.zeros_like(tokens.mask.cpu())
        columns = tokens.columns(self.place.pos).cpu()
        return covered.scatter(1, columns, torch.ones_like(columns, dtype=torch.bool))

    def _values(self, side: Side) -> Tensor:
        """[n p d] of one side: the head's, and outside the place the clean ones."""
        clean, value = self.ends.clean.kept[self.place.at], side.kept[self.place.at]
        if self.place.head is not None:
            clean, value = clean[..., self.place.head, :], value[..., self.place.head, :]
        return torch.where(self._covered.to(value.device)[..., None], value, clean)

    def _whole(self, value: Tensor) -> Tensor:
        """Values [n p d] of the place laid out as the site."""
        if self.place.head is None:
            return value
        whole = self.ends.clean.kept[self.place.at].clone()
        whole[..., self.place.head, :] = value
        return whole


@dataclass(frozen=True, eq=False)
class Subspace:
    """A direction or a subspace as a candidate.

    Attributes:
        basis: orthonormal, [k d].
        place: where it lies.
        cloud: [m d], how values vary there: half of the random subspaces vary likewise; None: all are drawn evenly.
    """

    basis: Tensor
    place: SubspacePlace
    cloud: Tensor | None = None

    __repr__ = brief

    @classmethod
    def of(cls, vectors: Tensor, place: SubspacePlace, cloud: Tensor | None = None) -> Subspace:
        """The span of vectors [d] or [k d]. Raises `BadInput` where they span nothing."""
        basis = _orthonormal(torch.atleast_2d(vectors.detach().double().cpu()))
        if not len(basis):
            raise BadInput("These vectors span nothing: they are zero.", "Give a direction other than zero.")
        return cls(basis, place, cloud)

    @property
    def size(self) -> int:
        """Its dimension."""
        return len(self.basis)

    @property
    def total(self) -> int:
        """The dimension of the values at its place."""
        return self.basis.shape[1]

    @property
    def words(self) -> str:
        """What it is, for people."""
        what = "a direction" if self.size == 1 else f"a subspace of {self.size} dimensions"
        return f"{what} at {self.place.words}"

    def keep(self, bench: SubspaceBench, alike: Sequence[Subspace] = ()) -> np.ndarray:
        """Metric [1 + k n] with all outside it replaced."""
        return bench.keep([self.basis, *(other.basis for other in alike)])

    def remove(self, bench: SubspaceBench, alike: Sequence[Subspace] = ()) -> np.ndarray:
        """Metric [1 + k n] with what lies in it replaced."""
        return bench.remove([self.basis, *(other.basis for other in alike)])

    def like_it(self, rng: np.random.Generator, count: int) -> list[Subspace]:
        """Random subspaces of its dimension, every other one spanned by random sums of the cloud; none is a whole space."""
        if self.size == self.total:
            return []
        drawn = []
        for number in range(count):
            vectors = torch.from_numpy(rng.standard_normal((self.size, self.total)))
            if self.cloud is not None and number % 2:
                mixture = torch.from_numpy(rng.standard_normal((self.size, len(self.cloud))))
                vectors = mixture @ self.cloud.double().cpu()
            basis = _orthonormal(vectors)
            if len(basis) == self.size:
                drawn.append(Subspace(basis, self.place, self.cloud))
        return drawn


def _within(value: Tensor, basis: Tensor) -> Tensor:
    """The part of values [... d] that lies in the span of an orthonormal basis [k d]."""
    basis = basis.to(value)
    return (value @ basis.mT) @ basis


def _orthonormal(vectors: Tensor) -> Tensor:
    """An orthonormal basis [k d] of the span of vectors [n d]."""
    _, sizes, basis = torch.linalg.svd(vectors, full_matrices=False)
    return basis[sizes > _RANK * sizes.max().clamp(min=1e-300)]
