"""How well predictions tell labels apart: AUROC, balanced accuracy, R²; and the losses that probes are fitted by."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cutaway.probes.data.labels import Kind
from cutaway.statistics import auroc

#: What is scored for each kind of label, and what a constant guess gets.
SCORE: dict[str, str] = {
    "binary": "AUROC", "multiclass": "balanced accuracy", "continuous": "R²", "multilabel": "mean AUROC",
}  # fmt: skip


def chance(kind: Kind, classes: int = 2) -> float:
    """The score of a constant guess.

    >>> chance("binary"), chance("multiclass", 4), chance("continuous")
    (0.5, 0.25, 0.0)
    """
    return {"binary": 0.5, "multilabel": 0.5, "continuous": 0.0}.get(kind, 1 / classes)


def balanced_accuracy(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean over the classes that occur of the share of each that is found. predicted, labels [... n] -> [...]."""
    right = (predicted == labels).double()
    total, seen = torch.zeros(right.shape[:-1], dtype=torch.float64), torch.zeros(right.shape[:-1])
    for c in range(classes):
        mask = (labels == c).expand_as(right).double()
        count = mask.sum(-1)
        total += torch.where(count > 0, (right * mask).sum(-1) / count.clamp(min=1), 0.0)
        seen += (count > 0).float()
    return total / seen.clamp(min=1)


def r_squared(predicted: Tensor, values: Tensor) -> Tensor:
    """1 - squared error / variance about the mean: predicted, values [... n] -> [...]. Below zero: worse than the mean."""
    spread = ((values - values.mean(-1, keepdim=True)) ** 2).sum(-1)
    return 1 - ((values - predicted) ** 2).sum(-1) / spread.clamp(min=1e-300)


def score(kind: Kind, outputs: Tensor, labels: Tensor, classes: int = 2) -> Tensor:
    """The score of held-out outputs.

    outputs: [... n c], c = 1 for binary and continuous, one per class or label otherwise.
    labels: [... n] (class numbers, or values), [... n c] of 0 and 1 for multilabel. Gives [...].
    """
    if kind == "binary":
        return _auroc(outputs[..., 0], labels)
    if kind == "continuous":
        return r_squared(outputs[..., 0], labels)
    if kind == "multiclass":
        return balanced_accuracy(outputs.argmax(-1), labels, classes)
    return _auroc(outputs.transpose(-1, -2), labels.transpose(-1, -2)).nanmean(-1)


def _auroc(scores: Tensor, labels: Tensor) -> Tensor:
    return torch.as_tensor(auroc(scores.numpy(), labels.numpy()))


def log_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Summed log loss of outputs [n c] for class numbers [n]; of outputs that are as many as the labels, for 0 and 1."""
    if outputs.numel() != labels.numel():
        return torch.nn.functional.cross_entropy(outputs, labels.long(), reduction="sum")
    hot = labels.double().reshape(outputs.shape)
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, hot, reduction="sum")


def loss(kind: Kind, outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of outputs [n c]: squared error for values, log loss for classes."""
    if kind == "continuous":
        return ((outputs[:, 0] - labels) ** 2).mean()
    if kind == "multiclass":
        return torch.nn.functional.cross_entropy(outputs, labels.long())
    hot = labels.double().reshape(outputs.shape)
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, hot)


def standard(kind: Kind, labels: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """What probes that go downhill are fitted to: values about their mean, in their deviation, and these two; classes as
    they are."""
    if kind != "continuous":
        return labels, 0.0, 1.0
    values = labels.double()
    middle, spread = values.mean(), values.std().clamp(min=1e-12)
    return (values - middle) / spread, middle, spread


def weighted_score(
    kind: Kind, outputs: Tensor, labels: Tensor, weights: Tensor, classes: int = 2
) -> np.ndarray:
    """The score of outputs [n c] in which example i counts `weights[b, i]` times: [b]. For bootstrap resamples."""
    weights = weights.double()
    if kind == "binary":
        return _weighted_auroc(outputs[:, 0], labels, weights).numpy()
    if kind == "multilabel":
        each = [_weighted_auroc(outputs[:, c], labels[:, c], weights) for c in range(outputs.shape[1])]
        return torch.stack(each).nanmean(0).numpy()
    if kind == "continuous":
        total = weights.sum(1)
        mean = (weights @ labels) / total
        spread = (weights @ labels**2) - total * mean**2
        return (1 - (weights @ (labels - outputs[:, 0]) ** 2) / spread.clamp(min=1e-300)).numpy()
    right = (outputs.argmax(-1) == labels).double()
    each = []
    for c in range(classes):
        mask = (labels == c).double()
        count = weights @ mask
        each.append(torch.where(count > 0, (weights @ (right * mask)) / count.clamp(min=1e-300), torch.nan))
    return torch.stack(each).nanmean(0).numpy()


def _weighted_auroc(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """AUROC [b] with example weights [b n], ties counting half."""
    order = scores.argsort()
    ordered, positive = scores[order].contiguous(), labels[order].double()
    below = torch.searchsorted(ordered, ordered)
    upto = torch.searchsorted(ordered, ordered, right=True)
    weights = weights[:, order]
    negative = weights * (1 - positive)
    sums = torch.nn.functional.pad(negative.cumsum(1), (1, 0))
    before = (sums[:, below] + sums[:, upto]) / 2
    ones, zeros = (weights * positive).sum(1), negative.sum(1)
    area = (weights * positive * before).sum(1)
    return torch.where((ones > 0) & (zeros > 0), area / (ones * zeros).clamp(min=1e-300), torch.nan)
