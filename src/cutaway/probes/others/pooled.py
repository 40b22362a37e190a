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
from cutaway.network.memory import MOST_TOKENS, rows_at_once
from cutaway.network.sites import SiteLike
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.fits.scores import SCORE, loss, standard
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.setting import Setting
from cutaway.probes.reading.places import one_site
from cutaway.results import Work, working
from cutaway.statistics import Estimate
from cutaway.statistics.fits import descent

if TYPE_CHECKING:
    from cutaway.network import Network

_DECAY, _STEPS = 3e-3, 80


@dataclass(frozen=True, eq=False)
class Pooled:
    """What pooling by attention adds at a site.

    Attributes:
        where, what: the site, and the score's name.
        pooled, last, mean: held-out scores: pooled by attention, at the last token, of the mean over positions.
        lead: of the first over the better of the others.
        attention: the mean attention of every text [n p] (padding 0).
    """

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


def pooled(
    net: Network,
    data: ProbeData,
    *,
    at: SiteLike,
    options: ProbeOptions | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> Pooled:
    """Fit an attention-pooled probe to whole texts at one site, in grouped folds.

    Raises `BadInput` where the site has several layers, or examples have spans.
    """
    site = one_site(net, at)
    if data.spans is not None or not data.of_tokens:
        raise BadInput("A pooled probe reads whole texts.", "Leave spans out.")
    setting = Setting.of(data, options or ProbeOptions(permutations=0), seed)
    with working(work).interruptible() as work:
        x, mask = _read(net, data, site, work)
        attended, attention = _held_out(x, mask, setting, work)
        last = setting.held_out(x[torch.arange(len(x)), mask.sum(1) - 1]).outputs[0]
        mean = setting.held_out((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).outputs[0]
    better = last if setting.score(last) >= setting.score(mean) else mean
    return Pooled(
        str(site), SCORE[data.kind], setting.figure(attended), setting.figure(last), setting.figure(mean),
        setting.lead(attended, better), attention,
    )  # fmt: skip


def _read(net: Network, data: ProbeData, site: SiteLike, work: Work) -> tuple[Tensor, Tensor]:
    """Every position's vector [n p d], real tokens first, and which are real [n p]."""
    tokens = net.encode(data.inputs)  # type: ignore[arg-type]
    tokens = tokens[torch.as_tensor(np.asarray(data.rows))]
    step, parts = rows_at_once(net, tokens.width, work, read=0, kept=net.d_model or 0, most=MOST_TOKENS), []
    for start in range(0, tokens.n, step):
        run = net.run(tokens[start : start + step], keep=[site], logits=False).check_finite()
        parts.append(next(iter(run.kept.values())).flatten(2).float().cpu())
        work.step("reading", min(start + step, tokens.n), tokens.n)
    return torch.cat(parts).double(), tokens.mask.cpu()


def _held_out(x: Tensor, mask: Tensor, setting: Setting, work: Work) -> tuple[Tensor, Tensor]:
    """Held-out outputs [n c] and attention [n p]."""
    data, labels, of = setting.data, setting.labels, torch.as_tensor(setting.folds)
    c = setting.real.outputs
    out, attention = torch.empty(len(x), c).double(), torch.empty(x.shape[:2]).double()
    for done, fold in enumerate(of.unique()):
        work.step("pooling", done, int(of.max()) + 1)
        train, test = of != fold, of == fold
        real = x[train][mask[train]]
        middle, scale = real.mean(0), real.std(0).clamp(min=1e-6 * float(real.std(0).max()))
        z, new = (x[train] - middle) / scale, (x[test] - middle) / scale
        y, centre, spread = standard(data.kind, labels[train])
        weights = [torch.zeros(s).double().requires_grad_() for s in ((x.shape[2], 1), (x.shape[2], c), (c,))]
        _fit(z, mask[train], y, data, weights)
        with torch.no_grad():
            outputs, shares = _forward(new, mask[test], weights)
            out[test], attention[test] = outputs * spread + centre, shares
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
