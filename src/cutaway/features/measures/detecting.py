"""Does a feature detect a label, better than what needs no dictionary: a dense probe, a difference of means, one neuron, the
best of a thousand random directions?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cutaway.claims import Claim, Evidence
from cutaway.errors import BadInput
from cutaway.features.measures.comparing import halves
from cutaway.features.sets import FeatureSet
from cutaway.statistics import Estimate, auroc, benjamini_hochberg, statistic_of
from cutaway.statistics.fits import logistic
from cutaway.trials.judging import claim_of

#: Random directions of which the best is a control, and what may be found by mistake among the features searched.
RANDOM, LEVEL = 1000, 0.05
_PENALTIES = (1.0, 30.0, 1000.0)
_COLUMNS = 512
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LatentDetection:
    """A feature as a detector of a label, on documents that nothing was chosen or fitted on.

    Attributes:
        feature: which.
        searched: of how many it is the one that told the label best on the other documents.
        auroc: area under the ROC curve of its activation.
        controls: the same of each control, by name; each is fitted or chosen on the other documents.
        excess: how much larger its area is than the largest of theirs, which is chosen in every resample.
        p: that it tells nothing, adjusted for all that were searched (Benjamini and Hochberg).
        claim: does it detect the label beyond what needs no dictionary?
    """

    feature: str
    searched: int
    auroc: Estimate
    controls: tuple[tuple[str, Estimate], ...]
    excess: Estimate
    p: float
    claim: Claim


def detects(
    features: FeatureSet,
    which: int | str | Sequence[int | str] | None,
    labels: ArrayLike,
    rows: Tensor | Sequence[Tensor],
    *,
    owner: ArrayLike | None = None,
    neurons: Tensor | None = None,
    comes_again: bool | None = None,
    seed: int = 0,
) -> LatentDetection:
    """Measure a feature as a detector beside everything that needs no dictionary.

    Half of the documents are for choosing (the feature, where several are searched; the neuron; the random direction; the
    penalty) and fitting, and all figures are of the others.

    Args:
        features: the set that the feature is of.
        which: the feature; several, of which the best is taken; None for all.
        labels: [n] of 0 and 1 or bool.
        rows: the values [n ...] of the set's sites, as it reads them.
        owner: [n] the document of each row; default each its own.
        neurons: [n m] activations of neurons at the same tokens; default the numbers of the rows themselves.
        comes_again: does this latent have a partner in a dictionary of another seed? Unless it has, nothing is supported
            about a latent.
        seed: of the halves, the random directions and the resamples.

    Raises `BadInput` for labels that are not of both kinds in both halves, or that do not go with the rows.
    """
    values = [rows] if torch.is_tensor(rows) else list(rows)
    dense = torch.cat([v.flatten(1).double() for v in values], 1)
    truth = np.asarray(labels).astype(bool)
    documents = np.arange(len(truth)) if owner is None else np.asarray(owner)
    if len(truth) != len(dense) or len(documents) != len(dense):
        raise BadInput("Labels, documents and rows do not go together.", "Give one of each for every row.")
    fit = halves(documents, seed)
    for half in (fit, ~fit):
        if len(np.unique(truth[half])) != 2:
            raise BadInput("One half of the documents holds only one kind of label.", "Give more documents.")
    searched = _searched(features, which)
    scores = features.read(values)[:, searched].double().cpu().numpy()
    best = int(np.argmax(_areas(scores[fit], truth[fit])))
    held = _controls(dense, truth, fit, documents, neurons, seed)
    table = np.column_stack([scores[~fit, best], *(column[~fit] for column in held.values())])
    found = statistic_of(
        lambda weights: _with_excess(weighted_areas(table, truth[~fit], weights)), int((~fit).sum()),
        clusters=documents[~fit].tolist(), seed=seed,
    )  # fmt: skip
    p = benjamini_hochberg(p_values(scores[~fit], truth[~fit], documents[~fit]))[best]
    area, *others, excess = list(found)
    controls = tuple(zip(held, others, strict=True))
    name = features.names[searched[best]]
    claim = _claim(
        name, area, controls, excess, float(p), len(searched), features.kind == "latents" and not comes_again
    )
    return LatentDetection(name, len(searched), area, controls, excess, float(p), claim)


def _searched(features: FeatureSet, which: Any) -> list[int]:
    if which is None:
        return list(range(len(features)))
    several = [which] if isinstance(which, int | str) else list(which)
    if not several:
        raise BadInput("No feature is named.", "Name one, several, or None for all.")
    return [features.index(one) for one in several]


def _controls(
    dense: Tensor,
    truth: NDArray[np.bool_],
    fit: NDArray[np.bool_],
    documents: NDArray[Any],
    neurons: Tensor | None,
    seed: int,
) -> dict[str, Floats]:
    """Scores [n] of each control on all rows, fitted on some."""
    x = dense[torch.from_numpy(fit)]
    x = (dense - x.mean(0)) / x.std(0).clamp(min=1e-9)
    y = torch.from_numpy(truth)
    used = torch.from_numpy(fit)
    raw = dense[used & y].mean(0) - dense[used & ~y].mean(0)
    units = dense if neurons is None else neurons.flatten(1).double()
    drawn = torch.randn(
        RANDOM, dense.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return {
        "dense probe": _probe(x, truth, fit, documents, seed),
        "difference of means": (dense @ raw).numpy(),
        "best neuron" if neurons is not None else "best number of the row": _best(units.numpy(), truth, fit),
        f"best of {RANDOM:,} random directions": _best((dense @ drawn.T).numpy(), truth, fit),
    }


def _probe(
    x: Tensor, truth: NDArray[np.bool_], fit: NDArray[np.bool_], documents: NDArray[Any], seed: int
) -> Floats:
    """Scores of a logistic regression of which the penalty is the one that does best on documents it was not fitted on."""
    inner = fit.copy()
    if len(np.unique(documents[fit])) >= 3:
        inner[fit] = halves(documents[fit], seed + 1)
    outer = fit & ~inner

    def scores(rows: NDArray[np.bool_], penalties: Sequence[float]) -> list[Floats]:
        at = torch.from_numpy(rows)
        labels = torch.from_numpy(truth[rows]).long()
        found = []
        for penalty in penalties:
            made = logistic.fit(x[at][None], labels[None], penalty)
            found.append((x @ made.weights[0, 0] + made.bias[0, 0]).numpy())
        return found

    told = all(len(np.unique(truth[rows])) == 2 for rows in (inner, outer))
    areas = [float(auroc(s[outer], truth[outer])) for s in scores(inner, _PENALTIES)] if told else [0.0]
    return scores(fit, [_PENALTIES[int(np.argmax(areas))]])[0]


def _best(columns: Floats, truth: NDArray[np.bool_], fit: NDArray[np.bool_]) -> Floats:
    """The column that tells the label best on the rows for choosing, turned so that more is more."""
    areas = _areas(columns[fit], truth[fit])
    at = int(np.argmax(np.abs(areas - 0.5)))
    return columns[:, at] if areas[at] >= 0.5 else -columns[:, at]


def _areas(columns: Floats, truth: NDArray[np.bool_]) -> Floats:
    parts = [auroc(columns[:, i : i + _COLUMNS].T, truth) for i in range(0, columns.shape[1], _COLUMNS)]
    return np.concatenate([np.atleast_1d(part) for part in parts])


def weighted_areas(table: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve [b c] of columns [n c] of scores with rows that count so often [b n]; ties count half."""
    found = np.full((len(weights), table.shape[1]), np.nan)
    for c in range(table.shape[1]):
        order = np.argsort(table[:, c], kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(table[order, c]) != 0])
        sorted_weights, positive = weights[:, order], truth[order]
        ones = np.add.reduceat(sorted_weights * positive, starts, axis=1)
        zeros = np.add.reduceat(sorted_weights * ~positive, starts, axis=1)
        below = np.cumsum(zeros, axis=1) - zeros
        pairs = ones.sum(1) * zeros.sum(1)
        told = pairs > 0
        found[told, c] = (ones * (below + zeros / 2)).sum(1)[told] / pairs[told]
    return found


def _with_excess(areas: Floats) -> Floats:
    """The areas [b c], and how much larger the first is than the largest of the others."""
    return np.column_stack([areas, areas[:, 0] - areas[:, 1:].max(1)])


def p_values(columns: Floats, truth: NDArray[np.bool_], documents: NDArray[Any]) -> Floats:
    """One-sided, that a column [n] of a table [n c] tells nothing of the label, from the variance over documents of what
    each row's place among those of the other kind adds to the area (DeLong et al. 1988, for clusters Obuchowski 1997).
    """
    from scipy.special import ndtr
    from scipy.stats import rankdata

    _, cluster = np.unique(documents, return_inverse=True)
    found = []
    for start in range(0, columns.shape[1], _COLUMNS):
        part = columns[:, start : start + _COLUMNS]
        ranks, ones, zeros = rankdata(part, axis=0), int(truth.sum()), int((~truth).sum())
        place = np.empty_like(part)
        place[truth] = (ranks[truth] - rankdata(part[truth], axis=0)) / zeros
        place[~truth] = 1 - (ranks[~truth] - rankdata(part[~truth], axis=0)) / ones
        area = place[truth].mean(0)
        share = (place - area) / np.where(truth, ones, zeros)[:, None]
        sums = np.zeros((cluster.max() + 1, part.shape[1]))
        np.add.at(sums, cluster, share)
        error = np.sqrt((sums**2).sum(0) * len(sums) / max(1, len(sums) - 1))
        z = np.where(
            error > 0, (area - 0.5) / np.where(error > 0, error, 1.0), np.where(area > 0.5, np.inf, 0.0)
        )
        found.append(ndtr(-z))
    return np.concatenate(found)


def _claim(
    name: str,
    area: Estimate,
    controls: Sequence[tuple[str, Estimate]],
    excess: Estimate,
    p: float,
    searched: int,
    seedless: bool,
) -> Claim:
    best, figure = max(controls, key=lambda c: c[1].value)
    among = "" if searched == 1 else f", adjusted for the {searched:,} that were searched"
    evidence = [
        Evidence(
            "tells the label from chance", area, None, 0.5, p <= LEVEL,
            f"Its area under the ROC curve is {area}; p = {p:.2g}{among}.", "AUROC",
        ),
        Evidence(
            "tells it better than the best that needs no dictionary", excess, None, 0.0, excess.above(0.0),
            f"The {best} has {figure}.", "AUROC",
        ),
    ]  # fmt: skip
    caps = (
        ["It is a latent of one seed: whether it comes again with another is not known."] if seedless else []
    )
    passed = [e.passed for e in evidence]
    if False in passed:
        said = (
            f"{name} detects the label no better than the {best} does"
            if passed[0]
            else f"{name} does not detect the label"
        )
    else:
        better = all(passed) and not caps
        said = f"{name} {'detects' if better else 'is not shown to detect'} the label beyond what needs no dictionary"
    return claim_of(said, evidence, caps=caps)
