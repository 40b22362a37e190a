"""The kinds of linear probe, behind one function: features and labellings in, weights out.

A *labelling* is one way to label the same examples: the real labels, a control task, a permutation. All are fitted at once,
because what is costly about the features is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, NotFound, nearest
from cutaway.probes.data.labels import Kind, as_targets
from cutaway.probes.fits.scores import log_loss
from cutaway.statistics.fits import logistic, means, ridge, single_precision

#: Penalties (1/C) among which the logistic probe chooses, on features of unit variance.
LOGISTIC_PENALTIES: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Labellings:
    """l labellings of the same n examples; the first is the real one.

    Attributes:
        labels: class numbers or values [l n], for multilabel [l n c].
        kind, classes: as in `ProbeData`.
    """

    labels: Tensor
    kind: Kind
    classes: int

    @property
    def count(self) -> int:
        """How many labellings."""
        return self.labels.shape[0]

    @property
    def outputs(self) -> int:
        """Columns that a linear probe of this kind has: c."""
        return 1 if self.kind in ("binary", "continuous") else self.classes

    def __getitem__(self, rows: Tensor) -> Labellings:
        return Labellings(self.labels[:, rows], self.kind, self.classes)

    def first(self, count: int) -> Labellings:
        """The first few labellings."""
        return Labellings(self.labels[:count], self.kind, self.classes)

    def targets(self) -> Tensor:
        """All labellings as columns, labelling by labelling: [n l*c]."""
        return torch.cat([as_targets(self.kind, labels, self.classes) for labels in self.labels], 1)

    def hot(self, labelling: int) -> Tensor:
        """Class memberships [n k] of one labelling (values: above or not above the median)."""
        labels = self.labels[labelling]
        if self.kind == "continuous":
            return torch.nn.functional.one_hot((labels > labels.median()).long(), 2).double()
        return torch.nn.functional.one_hot(labels.long(), self.classes).double()


@dataclass(frozen=True, eq=False)
class ExampleWeights:
    """Linear probes of l labellings, for features as they were given.

    Attributes:
        weights: [l d c].
        bias: [l c].
        penalty: chosen for the first labelling.
    """

    weights: Tensor
    bias: Tensor
    penalty: float = 0.0

    def outputs(self, features: Tensor) -> Tensor:
        """[l n c] of features [n d]."""
        flat = self.weights.permute(1, 0, 2).flatten(1)
        out = features.double() @ flat
        return out.reshape(len(features), *self.bias.shape).transpose(0, 1) + self.bias[:, None]


@dataclass(frozen=True)
class Fitting:
    """How probes are fitted.

    Attributes:
        kind: ridge, logistic, means, lda, mass-mean.
        penalties: to choose among; None: the kind's own.
        standardise: bring features to unit variance first.
        precise: ridge regression all in float64 (`single_precision.solve` says what it does otherwise).
    """

    kind: str = "ridge"
    penalties: tuple[float, ...] | None = None
    standardise: bool = True
    precise: bool = False


def standardiser(features: Tensor, on: bool = True) -> tuple[Tensor, Tensor]:
    """Mean [d] and scale [d] of features [n d]; features that hardly vary are scaled by one. With `on` False, one number
    serves all features, so that penalties keep their meaning."""
    x = features.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    if not on:
        return mean, deviation.square().mean().sqrt().clamp(min=1e-12).expand_as(deviation)
    floor = _TINY * deviation.max()
    return mean, torch.where(deviation > floor, deviation, torch.ones_like(deviation))


def fit(
    features: Tensor, labellings: Labellings, fitting: Fitting, families: Tensor | None = None
) -> ExampleWeights:
    """Fit every labelling to features [n d]; the weights are for the features as given, not standardised.

    families: [n], numbers of the groups that are not parted where penalties are chosen: ridge leaves out one group at a
    time, logistic a third of them (for the real labels; the others share its penalty).
    Raises `NotFound` for an unknown kind, `BadInput` for one that does not suit the labels, `NotFinite` for features that
    are not numbers, or so large that their squares are not.
    """
    if not bool(torch.isfinite(features.double().square().sum(0)).all()):
        remedy = "Leave such examples out."
        raise NotFinite("Features hold NaN, infinity or numbers too large to square.", remedy)
    mean, scale = standardiser(features, fitting.standardise)
    x = (features.double() - mean) / scale
    fitted = _kind(fitting.kind, labellings.kind)(x, labellings, fitting, families)
    weights = fitted.weights / scale[None, :, None]
    return ExampleWeights(weights, fitted.bias - torch.einsum("d,ldc->lc", mean, weights), fitted.penalty)


def _ridge(x: Tensor, labellings: Labellings, fitting: Fitting, families: Tensor | None) -> ExampleWeights:
    n, c = len(x), labellings.outputs
    penalties = torch.tensor(fitting.penalties or ridge.PENALTIES, dtype=torch.float64) * n
    groups = [i // c for i in range(labellings.count * c)] if labellings.kind == "multiclass" else None
    by = "error" if labellings.kind == "continuous" else "correlation"
    done = single_precision.solve(
        x, labellings.targets(), penalties, groups, fitting.precise, refine=c, by=by, clusters=families
    )
    weights = done.weights.T.reshape(labellings.count, c, -1).transpose(1, 2)
    return ExampleWeights(weights, done.bias.reshape(labellings.count, c), float(penalties[done.best[0]]) / n)


def _logistic(x: Tensor, labellings: Labellings, fitting: Fitting, families: Tensor | None) -> ExampleWeights:
    penalties = fitting.penalties or LOGISTIC_PENALTIES
    best = penalties[0]
    if len(penalties) > 1:
        best = _inner_choice(x, labellings.first(1), penalties, families)
    return replace(_logistic_at(x, labellings, best), penalty=best)


def _logistic_at(x: Tensor, labellings: Labellings, penalty: float) -> ExampleWeights:
    labels = labellings.labels
    if labellings.kind == "multilabel":
        flat = labels.permute(0, 2, 1).flatten(0, 1)
        done = logistic.fit(x[None], flat, penalty)
        shape = (labellings.count, labellings.classes)
        weights = done.weights[0].reshape(*shape, -1).transpose(1, 2)
        return ExampleWeights(weights, done.bias[0].reshape(shape))
    classes = 2 if labellings.kind == "binary" else labellings.classes
    done = logistic.fit(x[None], labels, penalty, classes)
    if classes == 2:
        return ExampleWeights(done.weights[0][..., None], done.bias[0][..., None])
    return ExampleWeights(done.weights[0], done.bias[0])


def _inner_choice(x: Tensor, real: Labellings, penalties: Sequence[float], families: Tensor | None) -> float:
    """The penalty with the least held-out log loss over inner folds."""
    folds = (torch.arange(len(x)) if families is None else families) % 3
    losses = torch.zeros(len(penalties))
    for fold in folds.unique():
        train, test = folds != fold, folds == fold
        for i, penalty in enumerate(penalties):
            out = _logistic_at(x[train], real[train], penalty).outputs(x[test])[0]
            labels = real.labels[0][test]
            losses[i] += log_loss(out, labels)
    return penalties[int(losses.argmin())]


def _from_means(kind: Callable[[Tensor, Tensor], means.Linear]) -> Callable[..., ExampleWeights]:
    def fit_all(x: Tensor, labellings: Labellings, *_: object) -> ExampleWeights:
        fitted = [kind(x, labellings.hot(i)) for i in range(labellings.count)]
        return ExampleWeights(torch.stack([f.weights for f in fitted]), torch.stack([f.bias for f in fitted]))

    return fit_all


_FITS: dict[str, tuple[Callable[..., ExampleWeights], tuple[str, ...]]] = {
    "ridge": (_ridge, ("binary", "multiclass", "continuous", "multilabel")),
    "logistic": (_logistic, ("binary", "multiclass", "multilabel")),
    "means": (_from_means(means.difference_of_means), ("binary", "multiclass", "continuous")),
    "lda": (_from_means(means.discriminant), ("binary", "multiclass")),
    "mass-mean": (
        _from_means(partial(means.discriminant, priors=False, shrink=0.0)),
        ("binary", "multiclass"),
    ),
}

#: The kinds of linear probe.
LINEAR: tuple[str, ...] = tuple(_FITS)


def _kind(name: str, labels: str) -> Callable[..., ExampleWeights]:
    if name not in _FITS:
        raise NotFound(
            f"There is no kind of probe called {name!r}.",
            f"Use one of {', '.join(nearest(name, LINEAR) or LINEAR)}; pooled, nonlinear and contrast-consistent probes "
            "have functions of their own.",
        )
    function, suits = _FITS[name]
    if labels not in suits:
        raise BadInput(f"A {name} probe does not fit {labels} labels.", "Use ridge.")
    return function
