"""The directions that causal tests compare: the probe's, the means', and those that should do nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.probes.data.folds import Families
from cutaway.probes.data.permutations import ExchangeRule, permutations
from cutaway.probes.fits.kinds import Fitting, Labellings, fit
from cutaway.statistics.fits.leace import Leace

LEACE = "least-squares erasure"


@dataclass(frozen=True, eq=False)
class Move:
    """What is done to each prompt.

    Attributes:
        name: flip, project out, erase.
        along: the direction, in words.
        vector: the unit vector [d] that features go along.
        far: how far each goes [n].
    """

    name: str
    along: str
    vector: Tensor
    far: Tensor


@dataclass(frozen=True, eq=False)
class Along:
    """A direction along which a flip to the other class's mean is known.

    Attributes:
        name: in words.
        vector: unit vector [d].
        middle: the mean coordinate of each class along it [2].
    """

    name: str
    vector: Tensor
    middle: Tensor

    @classmethod
    def of(cls, name: str, vector: Tensor, centres: Tensor) -> Along:
        """Along any vector, with class means centres [2 d]."""
        unit = vector.double() / vector.double().norm().clamp(min=1e-300)
        return cls(name, unit, centres.double() @ unit)

    def moves(self, features: Tensor, classes: Tensor) -> tuple[Move, Move]:
        """Flip and project out, for features [n d] of classes [n]."""
        return (
            Move("flip", self.name, self.vector, self.flips(features, classes)),
            Move("project out", self.name, self.vector, self.removals(features)),
        )

    def flips(self, features: Tensor, classes: Tensor) -> Tensor:
        """How far [n] each example must go to the mean coordinate of the other class."""
        return self.middle[1 - classes] - features @ self.vector

    def removals(self, features: Tensor) -> Tensor:
        """How far [n] each example must go to the point half way between the classes: the direction projected out."""
        return self.middle.mean() - features @ self.vector

    @property
    def gap(self) -> float:
        """Distance of the class means along it."""
        return float(self.middle[1] - self.middle[0])


def fitted_directions(
    features: Tensor, classes: Tensor, fitting: Fitting, family: Families | None = None
) -> tuple[Along, Along]:
    """The probe's direction and the difference of means, found on features [n d] with classes [n]; family: groups that are
    not parted where the probe's penalty is chosen."""
    centres = torch.stack([features[classes == c].mean(0) for c in (0, 1)])
    groups = None if family is None else torch.as_tensor(family.of)
    probe = fit(features, Labellings(classes[None], "binary", 2), _plain(fitting), groups)
    return both_directions(probe.weights[0, :, 0], centres)


def both_directions(weights: Tensor, centres: Tensor) -> tuple[Along, Along]:
    """A probe's direction, by its weights [d], and the difference of the means of two classes [2 d]."""
    means = Along.of("the difference of means", centres[1] - centres[0], centres)
    return Along.of("the probe's direction", weights, centres), means


def erasing(past: Tensor, classes: Tensor, features: Tensor) -> Move:
    """Least-squares erasure of classes [m], found on features [m d], as a move of other features [n d].

    Of two classes it takes out one coordinate, so every example goes some way along one direction.
    """
    eraser = Leace(past.shape[1], 1).update(past, classes[:, None]).eraser
    if eraser.rank == 0:
        return Move("erase", LEACE, torch.zeros(past.shape[1]).double(), torch.zeros(len(features)).double())
    size = eraser.left[:, 0].norm()
    far = -((features - eraser.mean) @ eraser.right[0]) * size
    return Move("erase", LEACE, eraser.left[:, 0] / size, far)


def random_directions(features: Tensor, classes: Tensor, n: int, seed: int) -> Tensor:
    """n unit vectors [n d], half of them in random directions, half random but as the activations vary within classes."""
    draw = torch.Generator().manual_seed(seed)
    d = features.shape[1]
    centred = features - torch.stack([features[classes == c].mean(0) for c in (0, 1)])[classes]
    plain = torch.randn(n - n // 2, d, generator=draw).double()
    shaped = torch.randn(n // 2, len(features), generator=draw).double() @ centred
    return _units(torch.cat([plain, shaped]))


def sham_directions(
    features: Tensor, classes: Tensor, family: Families, fitting: Fitting, n: int, seed: int
) -> Tensor:
    """n unit vectors [n d]: the probes and mean differences that permuted labels give. They detect nothing."""
    rule = ExchangeRule.of(classes.numpy(), family, 1)
    exchanges = permutations(classes.numpy(), family, n, seed, rule)
    shuffled = torch.as_tensor(np.asarray(classes.numpy())[exchanges])
    half = n // 2
    labellings = Labellings(shuffled[: n - half], "binary", 2)
    probes = fit(features, labellings, _plain(fitting), torch.as_tensor(family.of)).weights[:, :, 0]
    hot = shuffled[n - half :].double()
    one, zero = (h @ features / h.sum(1, keepdim=True).clamp(min=1) for h in (hot, 1 - hot))
    return _units(torch.cat([probes, one - zero]))


def _plain(fitting: Fitting) -> Fitting:
    """How the probe whose direction is moved is fitted: by ridge where the kind is the difference of means itself."""
    kind = fitting.kind if fitting.kind != "means" else "ridge"
    return Fitting(kind, fitting.penalties, fitting.standardise)


def _units(vectors: Tensor) -> Tensor:
    """Vectors [n d] at length one."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-300)
