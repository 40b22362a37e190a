"""Minimum description length by an online code: how many bits the labels take with the probe's help.

The labels are sent in growing blocks; each block is coded with the probabilities of a probe fitted to what was sent before
(Voita and Titov 2020, section 2.2.2). A good representation needs few examples, so the code counts how easily the label
can be read, not only whether.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import Families
from cutaway.probes.fits.kinds import standardiser
from cutaway.probes.fits.scores import log_loss
from cutaway.statistics.fits import logistic

#: Shares of the examples that were sent before each block.
BLOCKS: tuple[float, ...] = (0.04, 0.08, 0.16, 0.32, 0.5, 0.75, 1.0)
_PENALTY = 10.0


def online_bits(features: Tensor, labels: Tensor, classes: int, order: np.ndarray) -> float:
    """Bits of the labels [n] (class numbers) given features [n d], sent in `order` [n].

    The first block, and every block before both classes were seen, is coded uniformly. Log loss in bits.
    """
    n, x, y = len(labels), features.double()[torch.as_tensor(order)], labels.long()[torch.as_tensor(order)]
    ends = sorted({max(2, round(n * share)) for share in BLOCKS})
    bits = ends[0] * math.log2(classes)
    for start, stop in zip(ends, ends[1:], strict=False):
        seen = y[:start]
        if len(seen.unique()) < classes:
            bits += (stop - start) * math.log2(classes)
            continue
        mean, scale = standardiser(x[:start])
        past, block = (x[:start] - mean) / scale, (x[start:stop] - mean) / scale
        done = logistic.fit(past[None], seen[None], _PENALTY, classes, tolerance=1e-4)
        outputs = block @ done.weights[0, 0] + done.bias[0, 0]
        bits += float(log_loss(outputs, y[start:stop])) / math.log(2)
    return bits


def compression(features: Tensor, data: ProbeData, family: Families, seed: int) -> tuple[float, float] | None:
    """How many times shorter the online code is than a uniform one, for the labels and for shuffled ones; None without
    classes. Whole families are sent together, so that nothing is coded from its own copy."""
    if data.kind not in ("binary", "multiclass") or data.n < 40:
        return None
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.permutation(family.count)[family.of], kind="stable")
    labels = torch.as_tensor(data.labels)
    uniform = data.n * math.log2(data.n_classes)
    real = online_bits(features, labels, data.n_classes, order)
    mixed = labels[torch.as_tensor(rng.permutation(data.n))]
    return uniform / real, uniform / online_bits(features, mixed, data.n_classes, order)
