"""An attention-pooled probe: where in a text the label stands is learned with how it is read.

Each position's vector is weighed by a softmax over `x · query`, and the pooled vector is read linearly. It is reported
beside the linear probe at the last token and beside the mean over positions, so that pooling is not credited with what
they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network.sites import SiteLike
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.fits.cross_validation import HeldOut
from cutaway.probes.fits.scores import SCORE, loss, score
from cutaway.probes.map.best_place import held_out
from cutaway.probes.map.mapping import Setting, difference_interval, fold_interval
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.verdict import estimate
from cutaway.probes.reading.activations import TOKENS_AT_ONCE
from cutaway.statistics import Estimate
from cutaway.statistics.fits import descent

if TYPE_CHECKING:
    from cutaway.network import Network

_DECAY, _STEPS = 3e-3, 80


@dataclass(frozen=True, eq=False)
class Pooled:
    """Held-out scores at a site: pooled by attention, at the last token, of the mean over positions; the lead of the first
    over the better of the others; and the mean attention [n p] of every text (padding 0)."""

    where: str
    what: str
    pooled: Estimate
    last: Estimate
    mean: Estimate
    lead: Estimate
    attention: Tensor

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.what} {self.pooled} pooled by attention, {self.last} at the last token, {self.mean} of "
            f"the mean; it leads the better of them by {self.lead}."
        )


def pooled(net: Network, data: ProbeData, at: SiteLike, options: ProbeOptions | None = None) -> Pooled:
    """Fit an attention-pooled probe to whole texts at one site, in grouped folds.

    Raises `BadInput` where the site has several layers, or examples have spans.
    """
    options = options or ProbeOptions(permutations=0)
    sites = net.resolve(at)
    if len(sites) != 1:
        raise BadInput(f"{at!r} is {len(sites)} sites.", f"Name one, such as {sites[-1]}.")
    if data.spans is not None or hasattr(data.inputs, "items"):
        raise BadInput("A pooled probe reads whole texts.", "Leave spans out.")
    setting = Setting.of(data, options)
    x, mask = _read(net, data, sites[0])
    attended, attention = _held_out(x, mask, data, setting.folds)
    ends = mask.sum(1) - 1
    last = held_out(setting, x[torch.arange(len(x)), ends])
    mean = held_out(setting, (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    labels = torch.as_tensor(data.labels)
    value = float(score(data.kind, attended, labels, max(data.n_classes, 1)))
    better = last if float(last.scores[0]) >= float(mean.scores[0]) else mean
    lead = estimate(*difference_interval(setting, attended, better.outputs[0]), data.n)
    figure = estimate(value, *fold_interval(setting, attended), data.n)
    return Pooled(
        str(sites[0]),
        SCORE[data.kind],
        figure,
        _figure(setting, last),
        _figure(setting, mean),
        lead,
        attention,
    )


def _figure(setting: Setting, found: HeldOut) -> Estimate:
    return estimate(float(found.scores[0]), *fold_interval(setting, found.outputs[0]), setting.data.n)


def _read(net: Network, data: ProbeData, site: SiteLike) -> tuple[Tensor, Tensor]:
    """Every position's vector [n p d], real tokens first, and which are real [n p]."""
    tokens = net.encode(data.inputs)  # type: ignore[arg-type]
    tokens = tokens[torch.as_tensor(np.asarray(data.rows))]
    step, parts = max(1, TOKENS_AT_ONCE // tokens.width), []
    for start in range(0, tokens.n, step):
        run = net.run(tokens[start : start + step], keep=[site], logits=False).check_finite()
        parts.append(next(iter(run.kept.values())).flatten(2).float().cpu())
    return torch.cat(parts).double(), tokens.mask.cpu()


def _held_out(x: Tensor, mask: Tensor, data: ProbeData, folds: np.ndarray) -> tuple[Tensor, Tensor]:
    """Held-out outputs [n c] and attention [n p]."""
    of, labels = torch.as_tensor(folds), torch.as_tensor(data.labels)
    c = 1 if data.kind in ("binary", "continuous") else data.n_classes
    out, attention = torch.empty(len(x), c).double(), torch.empty(x.shape[:2]).double()
    for fold in of.unique():
        train, test = of != fold, of == fold
        real = x[train][mask[train]]
        middle, scale = real.mean(0), real.std(0).clamp(min=1e-6 * float(real.std(0).max()))
        z, new = (x[train] - middle) / scale, (x[test] - middle) / scale
        y = labels[train]
        centre, spread = (0.0, 1.0)
        if data.kind == "continuous":
            centre, spread = float(y.mean()), float(y.double().std().clamp(min=1e-12))
            y = (y - centre) / spread
        weights = [torch.zeros(s).double().requires_grad_() for s in ((x.shape[2], 1), (x.shape[2], c), (c,))]
        _fit(z, mask[train], y, data, weights)
        with torch.no_grad():
            found, shares = _forward(new, mask[test], weights)
            out[test], attention[test] = found * spread + centre, shares
    return out, attention


def _forward(x: Tensor, mask: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    query, read, bias = weights
    raw = (x @ query)[..., 0] / x.shape[2] ** 0.5
    shares = raw.masked_fill(~mask, float("-inf")).softmax(1)
    return torch.einsum("np,npd->nd", shares, x) @ read + bias, shares


def _fit(x: Tensor, mask: Tensor, y: Tensor, data: ProbeData, weights: list[Tensor]) -> None:
    def objective() -> Tensor:
        size = (weights[0] ** 2).sum() / x.shape[2] + (weights[1] ** 2).sum()
        return loss(data.kind, _forward(x, mask, weights)[0], y) + _DECAY * size / 2

    descent.minimise(objective, weights, _STEPS)
