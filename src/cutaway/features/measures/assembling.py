"""From sums by text to figures with intervals: each contender's own, and how far the dictionary is ahead of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cutaway.features.measures.contenders import Contender
from cutaway.features.measures.splicing import CLEAN, FIRST, MEAN, ZERO, PredictionSums
from cutaway.features.measures.sums import RowSums
from cutaway.features.unexplained import fvu
from cutaway.statistics import Estimate, statistic_of

#: A contender of which more latents fire explains more for that reason alone: so many times as many are comparable.
DENSER = 1.25
#: A latent is dense where it fires on more than this share of the tokens.
DENSE = 0.1
#: Where nothing varies, whatever is left is infinitely much of it; figures say this, which can be written down.
_MOST = 1e12
_Cell = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class MeasuredDictionary:
    """One dictionary, or what stands beside it, on the same tokens.

    Attributes:
        name: in words.
        role: "itself", "control" (made here, of other texts), "given", or "random weights" (in another network).
        latents: how many there are.
        fvu: fraction of the variance unexplained: squared error over squared distance from the mean.
        excess: how much more this one leaves unexplained than the dictionary that is measured; None for that one.
        cosine: of the reconstruction with the value, mean.
        l0: latents that fire on a token, mean.
        silent: share of tokens on which none fires.
        dead: share of latents that fire on none of these tokens.
        dense: share of latents that fire on more than a tenth of them.
        comparable: do as few fire as of the dictionary that is measured (a quarter more at most)?
        loss: mean loss of next tokens with the reconstruction in the value's place, in nats; None where there is none.
        divergence: KL divergence from the network's own predictions, in nats.
        divergence_excess: how much larger it is than with the dictionary that is measured.
        recovered_zero: share of the loss that setting the value to zero adds which is not added.
        recovered_mean: the same of setting it to its mean.
    """

    name: str
    role: str
    latents: int
    fvu: Estimate
    excess: Estimate | None
    cosine: Estimate
    l0: float
    silent: float
    dead: float
    dense: float
    comparable: bool
    loss: Estimate | None
    divergence: Estimate | None
    divergence_excess: Estimate | None
    recovered_zero: Estimate | None
    recovered_mean: Estimate | None


@dataclass(frozen=True)
class PredictionEnds:
    """What the network's predictions are with the value as it is, and with nothing of it.

    Attributes:
        clean: mean loss of the next token, in nats.
        zero: the same with the value set to zero.
        mean: with the value set to its mean.
        divergence_zero, divergence_mean: KL divergence of these from the network's own predictions.
        divergence_first: that of the dictionary where it stands in the place of the first token's value, too.
    """

    clean: Estimate
    zero: Estimate
    mean: Estimate
    divergence_zero: Estimate
    divergence_mean: Estimate
    divergence_first: Estimate


@dataclass(frozen=True)
class MeasuredFigures:
    """All figures of one comparison.

    Attributes:
        measured: the dictionary first.
        ahead: how much less it leaves unexplained than the best of the comparable ones, which is chosen in every resample.
        ahead_divergence: how much smaller its divergence is than the smallest of theirs; None without predictions.
        ends: of the predictions; None without.
    """

    measured: tuple[MeasuredDictionary, ...]
    ahead: Estimate
    ahead_divergence: Estimate | None
    ends: PredictionEnds | None


def figures_of(
    contenders: Sequence[Contender],
    sums: Mapping[str, RowSums],
    predictions: PredictionSums | None,
    seed: int,
) -> MeasuredFigures:
    """Every figure with its interval over texts. The first contender is the dictionary that is measured; one whose role is
    "random weights" lives in another network and is no rival for the place.
    """
    itself, names = contenders[0].name, [c.name for c in contenders]
    l0 = {name: float(of.l0.sum() / of.rows.sum()) for name, of in sums.items()}
    fair = {c.name: l0[c.name] <= DENSER * max(l0[itself], 1.0) for c in contenders}
    rivals = [c.name for c in contenders[1:] if fair[c.name] and c.role != "random weights"]
    cells: dict[tuple[str, str], _Cell] = {}
    for name in names:
        cells[name, "fvu"] = _left(sums[name])
        cells[name, "cosine"] = _ratio(sums[name].cosine, sums[name].rows)
        cells[name, "excess"] = _less(_left(sums[name]), _left(sums[itself]))
    cells["", "ahead"] = _less(_least([_left(sums[name]) for name in rivals]), _left(sums[itself]))
    if predictions is not None:
        cells |= _of_predictions(predictions, [n for n in names if n in predictions.loss], rivals, itself)
    texts = len(sums[itself].rows)
    found = statistic_of(
        lambda counts: np.clip(np.stack([cell(counts) for cell in cells.values()], 1), -_MOST, _MOST),
        texts,
        seed=seed,
    )
    of = dict(zip(cells, found, strict=True))
    measured = tuple(
        _measured(
            c,
            sums[c.name],
            l0[c.name],
            fair[c.name],
            lambda what, name=c.name: of.get((name, what)),
            c.name == itself,
        )
        for c in contenders
    )
    ends = None if predictions is None else PredictionEnds(
        of[CLEAN, "loss"], of[ZERO, "loss"], of[MEAN, "loss"], of[ZERO, "divergence"], of[MEAN, "divergence"],
        of[FIRST, "divergence"],
    )  # fmt: skip
    return MeasuredFigures(measured, of["", "ahead"], of.get(("", "ahead_divergence")), ends)


def _of_predictions(
    predictions: PredictionSums, names: Sequence[str], rivals: Sequence[str], itself: str
) -> dict[tuple[str, str], _Cell]:
    def loss(name: str) -> _Cell:
        return _ratio(predictions.loss[name], predictions.predictions)

    def divergence(name: str) -> _Cell:
        return _ratio(predictions.divergence[name], predictions.predictions)

    cells: dict[tuple[str, str], _Cell] = {}
    for name in (*names, CLEAN, ZERO, MEAN, FIRST):
        cells[name, "loss"], cells[name, "divergence"] = loss(name), divergence(name)
    for name in names:
        cells[name, "divergence_excess"] = _less(divergence(name), divergence(itself))
        for nothing, label in ((ZERO, "recovered_zero"), (MEAN, "recovered_mean")):
            cells[name, label] = _share(loss(name), loss(nothing), loss(CLEAN))
    cells["", "ahead_divergence"] = _less(_least([divergence(name) for name in rivals]), divergence(itself))
    return cells


def _measured(
    contender: Contender,
    sums: RowSums,
    l0: float,
    fair: bool,
    of: Callable[[str], Estimate | None],
    itself: bool,
) -> MeasuredDictionary:
    rows = sums.rows.sum()
    fvu_of, cosine = of("fvu"), of("cosine")
    assert fvu_of is not None
    assert cosine is not None
    return MeasuredDictionary(
        contender.name, contender.role, len(sums.fires), fvu_of, None if itself else of("excess"), cosine, l0,
        float(sums.silent.sum() / rows), float((sums.fires == 0).mean()), float((sums.fires > DENSE * rows).mean()), fair,
        of("loss"), of("divergence"), None if itself else of("divergence_excess"), _told(of("recovered_zero")),
        _told(of("recovered_mean")),
    )  # fmt: skip


def _told(estimate: Estimate | None) -> Estimate | None:
    """None where there is nothing that it could be a share of."""
    return None if estimate is None or np.isnan(estimate.value) else estimate


def _left(of: RowSums) -> _Cell:
    return lambda counts: fvu(counts @ of.error, counts @ of.spread)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> _Cell:
    return lambda counts: (counts @ above) / np.maximum(counts @ below, 1e-300)


def _less(first: _Cell, second: _Cell) -> _Cell:
    return lambda counts: first(counts) - second(counts)


def _least(cells: Sequence[_Cell]) -> _Cell:
    return lambda counts: np.min([cell(counts) for cell in cells], axis=0)


def _share(loss: _Cell, nothing: _Cell, clean: _Cell) -> _Cell:
    """Of what having nothing of the value adds to the loss, the share that is not added; NaN where it adds nothing."""

    def found(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        gap = nothing(counts) - clean(counts)
        return np.where(gap > 1e-9, (nothing(counts) - loss(counts)) / np.where(gap > 1e-9, gap, 1.0), np.nan)

    return found
