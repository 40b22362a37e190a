"""Held-out outputs of probes: fitted on some folds, used on the others, for every labelling at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.probes.fits.kinds import Fitting, Labellings, fit
from cutaway.probes.fits.scores import balanced_accuracy, score
from cutaway.statistics.fits.ridge import PENALTIES


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What probes say of examples that they were not fitted on, for l labellings.

    Attributes:
        outputs: of every example by a probe that was not fitted on its fold [l n c].
        scores: [l].
        penalty: the median over folds of what was chosen for the real labels, per example on features of unit variance.
        weights: of the probes for the real labels, by the fold that they were not fitted on [f d c].
    """

    outputs: Tensor
    scores: Tensor
    penalty: float
    weights: Tensor


def cross_validate(
    features: Tensor,
    labellings: Labellings,
    folds: np.ndarray,
    fitting: Fitting,
    families: np.ndarray | None = None,
) -> HeldOut:
    """Fit on all folds but one, apply to that one, in turn. Features [n d] are standardised on the training folds only,
    and penalties are chosen there (nested), on families [n] that are not parted (`kinds.fit`).
    """
    of, deeper = torch.as_tensor(folds), None if families is None else torch.as_tensor(families)
    outputs = torch.empty(labellings.count, len(features), labellings.outputs, dtype=torch.float64)
    chosen, weights = [], []
    for fold in of.unique():
        train, test = of != fold, of == fold
        probe = fit(features[train], labellings[train], fitting, None if deeper is None else deeper[train])
        outputs[:, test] = probe.outputs(features[test])
        chosen.append(probe.penalty)
        weights.append(probe.weights[0])
    scores = score(labellings.kind, outputs, labellings.labels, labellings.classes)
    return HeldOut(outputs, scores, float(np.median(chosen)), torch.stack(weights))


def accuracy(kind: str, outputs: Tensor, labels: Tensor, classes: int) -> float:
    """Balanced accuracy of held-out outputs [n c]; NaN where there are no classes."""
    if kind == "binary":
        return float(balanced_accuracy((outputs[:, 0] > 0).long(), labels.long(), 2))
    if kind == "multiclass":
        return float(balanced_accuracy(outputs.argmax(1), labels.long(), classes))
    return float("nan")


@dataclass(frozen=True, eq=False)
class Summed:
    """Ridge regression of every cell and target, from sums.

    Attributes:
        r2: held-out R² [c t].
        weights, bias: of the fit to all folds [c d t] and [c t].
        folded: weights of the first target by the fits without each fold [f c d].
        covariance: of the first target with the features, without each fold [f c d].
    """

    r2: Tensor
    weights: Tensor
    bias: Tensor
    folded: Tensor
    covariance: Tensor


def from_moments(
    count: Tensor, total: Tensor, gram: Tensor, cross: Tensor, sums: Tensor, squares: Tensor
) -> Summed:
    """Cross-validated ridge from sums alone, exactly: no activation is needed.

    count [f], total [f c d], gram [f c d d], cross [f c d t], sums and squares [f t] as in `activations.Moments`. Each
    fold's R² is that of predictions by the fit to the other folds, standardised there, with the penalty chosen there by
    generalised cross-validation (Golub, Heath and Wahba 1979), which needs the training folds only.
    """
    folds = len(count)
    whole = (count.sum(), total.sum(0), gram.sum(0), cross.sum(0), sums.sum(0), squares.sum(0))
    missed = torch.zeros(total.shape[1], sums.shape[1], dtype=torch.float64)
    folded, covariance = [], []
    for f in range(folds):
        part = (count[f], total[f], gram[f], cross[f], sums[f], squares[f])
        rest = tuple(a - b for a, b in zip(whole, part, strict=True))
        weights, bias = _solve_sums(*rest)
        folded.append(weights[..., 0])
        covariance.append((rest[3][..., 0] - rest[1] * rest[4][0] / rest[0]) / rest[0])
        fitted = torch.einsum("cdt,cdt->ct", weights, part[3])
        spread = torch.einsum("cdt,cdt->ct", weights, part[2] @ weights)
        mean = torch.einsum("cdt,cd->ct", weights, part[1])
        missed += part[5] - 2 * fitted - 2 * bias * part[4] + spread + 2 * bias * mean + part[0] * bias**2
    variance = whole[5] - whole[4] ** 2 / whole[0]
    weights, bias = _solve_sums(*whole)
    r2 = 1 - missed / variance.clamp(min=1e-300)
    return Summed(r2, weights, bias, torch.stack(folded), torch.stack(covariance))


def _solve_sums(
    n: Tensor, total: Tensor, gram: Tensor, cross: Tensor, sums: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights [c d t] and bias [c t] of the standardised ridge with the best penalty for each cell and target."""
    mean, middle = total / n, sums / n
    centred = gram - n * mean[..., :, None] * mean[..., None, :]
    right = cross - n * mean[..., None] * middle
    variance = (squares - n * middle**2).clamp(min=0)
    deviation = (centred.diagonal(dim1=-2, dim2=-1) / n).clamp(min=0).sqrt()
    scale = torch.where(deviation > 1e-6 * deviation.amax(-1, keepdim=True), deviation, 1.0)
    centred, right = centred / scale[..., :, None] / scale[..., None, :], right / scale[..., None]
    values, vectors = torch.linalg.eigh(centred)
    values = values.clamp(min=0)
    turned = vectors.mT @ right
    best, pick = None, None
    for penalty in PENALTIES:
        shrink = 1 / (values + penalty * n)
        coefficient = shrink[..., None] * turned
        explained = 2 * (coefficient * turned).sum(-2) - (values[..., None] * coefficient**2).sum(-2)
        freedom = (values * shrink).sum(-1) + 1
        error = (variance - explained).clamp(min=0) / (n - freedom).clamp(min=1e-9)[..., None] ** 2
        if best is None or pick is None:
            best, pick = error, coefficient
        else:
            better = error < best
            best = torch.where(better, error, best)
            pick = torch.where(better[..., None, :], coefficient, pick)
    assert pick is not None
    weights = (vectors @ pick) / scale[..., None]
    return weights, middle - torch.einsum("cdt,cd->ct", weights, mean)
