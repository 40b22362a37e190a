"""Contrast-consistent search: a direction found without labels, from pairs of a statement and its negation.

The probe's probabilities of the two members of a pair should sum to one and not be undecided (Burns et al. 2023). The
members' means are taken away first, so that "ends in yes" is not what is found. Which way is "true" is not known without
labels; and what is found is the most salient contrast, which need not be the one that was meant: the result is held
against the first principal component of the differences, against random directions, and against what labels give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network.sites import Site, SiteLike
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import assign_folds, families
from cutaway.probes.reading.places import one_site
from cutaway.probes.reading.spots import Spot, features
from cutaway.results import Work, working
from cutaway.statistics import Estimate, share_of
from cutaway.statistics.fits import descent

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Consistent:
    """What was found without labels, beside what labels would have given.

    Attributes:
        site: where.
        direction: unit vector [d] for differences of the pair's members.
        loss: that was reached.
        outputs: probability that the first member is the true one (or the false one) [n].
        accuracy: on held-out pairs, up to the sign; None without labels.
        component: that of the first principal component of the differences.
        random: that of the best of twenty random directions.
        supervised: that of a supervised difference of means.
    """

    site: Site
    direction: Tensor
    loss: float
    outputs: Tensor
    accuracy: Estimate | None
    component: Estimate | None
    random: Estimate | None
    supervised: Estimate | None

    def __str__(self) -> str:
        if self.accuracy is None:
            return f"{self.site}: loss {self.loss:.4f}; without labels there is no accuracy."
        return (
            f"{self.site}: {self.accuracy} of held-out pairs right up to the sign (first principal component "
            f"{self.component}, best of 20 random directions {self.random}, with labels {self.supervised}); "
            f"loss {self.loss:.4f}."
        )


def contrast_consistent(
    net: Network,
    pairs: Sequence[tuple[Any, Any]],
    *,
    at: SiteLike,
    labels: Sequence[int] | np.ndarray | None = None,
    tries: int = 8,
    seed: int = 0,
    work: Work | None = None,
) -> Consistent:
    """Search one site's last token for a contrast-consistent direction.

    pairs: (text, its negation). labels: 1 where the first member is true; used for scoring only, on a held-out half.

    Raises `BadInput` for fewer than 8 pairs, or labels that do not fit.
    """
    site = one_site(net, at)
    if len(pairs) < 8:
        remedy = "Give at least 8 pairs of a statement and its negation."
        raise BadInput(f"{len(pairs)} pairs are too few.", remedy)
    if labels is not None and (len(labels) != len(pairs) or set(np.unique(labels)) - {0, 1}):
        remedy = "Give 1 where the first member is true."
        raise BadInput("The labels are not one 0 or 1 for each pair.", remedy)
    if labels is not None and len(set(np.asarray(labels).tolist())) < 2:
        remedy = "Put the true member first in some pairs, second in others."
        raise BadInput("All pairs have the same label.", remedy)
    x, work = [], working(work)
    for side in (0, 1):
        tokens = net.encode([p[side] for p in pairs])
        values = features(net, Spot(site), tokens, tokens.lengths - 1, work)
        work.step("reading", side + 1, 2)
        x.append((values - values.mean(0)) / values.std(0).clamp(min=1e-6 * float(values.std(0).max())))
    half = _halves(pairs, labels, seed)
    direction, bias, reached = _search(x[0][half == 0], x[1][half == 0], tries, seed)
    outputs = (torch.sigmoid(x[0] @ direction + bias) + 1 - torch.sigmoid(x[1] @ direction + bias)) / 2
    unit = direction / direction.norm().clamp(min=1e-300)
    if labels is None:
        return Consistent(site, unit, reached, outputs, None, None, None, None)
    truth, held = torch.as_tensor(np.asarray(labels)), half == 1
    gap, known = x[0] - x[1], half == 0
    component = torch.linalg.svd(gap[known] - gap[known].mean(0), full_matrices=False).Vh[0]
    means = gap[known][truth[known] == 1].mean(0) - gap[known][truth[known] == 0].mean(0)
    draw = torch.Generator().manual_seed(seed)
    others = [torch.randn(len(unit), generator=draw).double() for _ in range(20)]
    random = [_right(gap[held] @ other, truth[held]) for other in others]
    return Consistent(
        site, unit, reached, outputs, _right(outputs[held] - 0.5, truth[held]),
        _right(gap[held] @ component, truth[held]), max(random, key=lambda e: e.value),
        _right(gap[held] @ means, truth[held], signed=True),
    )  # fmt: skip


def _halves(pairs: Sequence[tuple[Any, Any]], labels: Any, seed: int) -> Tensor:
    """Half [n] of each pair, equal pairs together."""
    if labels is None:
        return torch.as_tensor(np.random.default_rng(seed).permutation(len(pairs)) % 2)
    data = ProbeData([str(p) for p in pairs], np.asarray(labels))
    return torch.as_tensor(assign_folds(data, families(data), 2, seed))


def _search(first: Tensor, second: Tensor, tries: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """The best of several searches: weights [d], bias, loss."""
    draw = torch.Generator().manual_seed(seed)
    best: tuple[Tensor, Tensor, float] | None = None
    for _ in range(tries):
        start = torch.randn(first.shape[1], generator=draw).double()
        weights, bias = (start / start.norm()).requires_grad_(), torch.zeros(1).double().requires_grad_()

        def objective(w: Tensor = weights, b: Tensor = bias) -> Tensor:
            p, q = torch.sigmoid(first @ w + b), torch.sigmoid(second @ w + b)
            return ((p - (1 - q)) ** 2).mean() + (torch.minimum(p, q) ** 2).mean() + 1e-4 * (w**2).mean()

        reached = descent.minimise(objective, [weights, bias], 200)
        if best is None or reached < best[2]:
            best = (weights.detach(), bias.detach(), reached)
    assert best is not None
    return best


def _right(scores: Tensor, truth: Tensor, signed: bool = False) -> Estimate:
    """Share right; up to the sign, which is the better of the two, unless signed."""
    right = ((scores > 0) == (truth == 1)).double()
    right = right if signed or float(right.mean()) >= 0.5 else 1 - right
    return share_of(right.numpy())
