"""The map: every cell probed with its controls, from activations in memory or from sums alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import Families, assign_folds, families
from cutaway.probes.data.permutations import ExchangeRule, permutations
from cutaway.probes.fits.cross_validation import HeldOut, accuracy, cross_validate, from_moments
from cutaway.probes.fits.kinds import Labellings, fit
from cutaway.probes.fits.scores import weighted_score
from cutaway.probes.fits.side_by_side import side_by_side
from cutaway.probes.map import controls
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.significance import significance
from cutaway.probes.reading.activations import Kept, Moments, Report
from cutaway.probes.reading.places import Places
from cutaway.statistics import bootstrap_statistic

#: Bytes that fitting takes per activation: about six copies, some in float64.
_COPIES = 40


@dataclass(frozen=True, eq=False)
class Setting:
    """What all cells share: data, families, folds [n], families by number in random order [n], permutations [b n],
    options."""

    data: ProbeData
    family: Families
    folds: np.ndarray
    drawn: np.ndarray
    permuted: np.ndarray
    options: ProbeOptions

    @classmethod
    def of(cls, data: ProbeData, options: ProbeOptions) -> Setting:
        """Families, grouped folds and permutations for these data. Raises `BadInput` as `folds.assign_folds`."""
        family = families(data)
        exchange = ExchangeRule.of(data.labels, family, options.folds)
        folds = assign_folds(data, family, options.folds, options.seed, exchange.blind)
        drawn = np.random.default_rng(options.seed + 1).permutation(family.count)[family.of]
        permuted = permutations(data.labels, family, options.permutations, options.seed, exchange, folds)
        return cls(data, family, folds, drawn, permuted, options)


@dataclass(frozen=True, eq=False)
class Mapped:
    """figures: name -> [c] for each cell. outputs: [c n o], held-out outputs for the real labels (None from sums).
    fits: weights [d o] and bias [o] of each cell; centres [k d]; moments: means and scales [d]. apart: for each cell two
    directions for each fold [2 f d], the probe's and the difference of the classes' means, found without the fold."""

    figures: dict[str, np.ndarray]
    outputs: Tensor | None
    fits: list[tuple[Tensor, Tensor]]
    centres: list[Tensor]
    moments: list[tuple[Tensor, Tensor]]
    apart: list[Tensor]


def fold_interval(setting: Setting, outputs: Tensor) -> tuple[float, float]:
    """The 95 % interval of a held-out score: bootstrap over families."""
    data, options = setting.data, setting.options
    labels = torch.as_tensor(data.labels)

    def statistic(weights: np.ndarray) -> np.ndarray:
        drawn = torch.from_numpy(weights)
        return weighted_score(data.kind, outputs, labels, drawn, max(data.n_classes, 1))[:, None]

    found = bootstrap_statistic(statistic, data.n, setting.family.of, options.n_boot, options.seed)
    return float(found.low[0]), float(found.high[0])


def difference_interval(setting: Setting, a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """The score of held-out outputs a [n o] minus that of b, with its interval over families (drawn for both alike)."""
    data, options = setting.data, setting.options
    labels = torch.as_tensor(data.labels)

    def statistic(weights: np.ndarray) -> np.ndarray:
        drawn = torch.from_numpy(weights)
        scores = [weighted_score(data.kind, o, labels, drawn, max(data.n_classes, 1)) for o in (a, b)]
        return (scores[0] - scores[1])[:, None]

    found = bootstrap_statistic(statistic, data.n, setting.family.of, options.n_boot, options.seed + 1)
    return float(found.value[0]), float(found.low[0]), float(found.high[0])


def class_numbers(data: ProbeData) -> Tensor:
    """The class [n] of each example; of a value whether it is above the median, of several labels whether there is any."""
    labels = torch.as_tensor(data.labels)
    if data.kind == "continuous":
        return (labels > labels.median()).long()
    if data.kind == "multilabel":
        some = (labels.sum(1) > 0).long()
        return some if len(some.unique()) > 1 else labels[:, 0].long()
    return labels.long()


def centres_of(features: Tensor, numbers: Tensor) -> Tensor:
    """Mean [k d] of each class of features [n d]."""
    return torch.stack([features[numbers == c].double().mean(0) for c in range(int(numbers.max()) + 1)])


def working_bytes(kept: Kept, n: int) -> float:
    """What fitting one cell takes, at most."""
    return float(kept.width * n * _COPIES)


def map_kept(
    kept: Kept, setting: Setting, types_at: Callable[[int], np.ndarray | None], report: Report | None = None
) -> Mapped:
    """Probe every cell whose activations are in memory.

    types_at: position number -> the control task's types [n] there.
    """
    data, options = setting.data, setting.options
    cells = kept.places.cells
    tasks = {
        p: controls.control_tasks(data, types_at(p), options.control_tasks, options.seed)
        for p in range(len(kept.places.positions))
    }
    labels = {p: controls.labellings(data, t, setting.permuted) for p, t in tasks.items()}

    def probed(i: int) -> _Probed:
        position = cells[i].position
        extra = 0 if (task := tasks[position]) is None else len(task)
        return _Probed.of(kept.cell(cells[i]), setting, labels[position], extra)

    size = working_bytes(kept, data.n)
    done = None if report is None else lambda ready: report("probing", ready, len(cells))
    found = side_by_side(probed, range(len(cells)), size, options.memory, done)
    figures = {name: np.array([f.figures[name] for f in found]) for name in found[0].figures}
    figures |= _significance(figures["score"], np.stack([f.null for f in found]))
    outputs = torch.stack([f.outputs for f in found])
    return Mapped(
        figures, outputs, [f.fit for f in found], [f.centres for f in found], [f.moments for f in found],
        [f.apart for f in found],
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Probed:
    """What `Mapped` holds, of one cell."""

    figures: dict[str, float]
    null: np.ndarray
    outputs: Tensor
    fit: tuple[Tensor, Tensor]
    centres: Tensor
    moments: tuple[Tensor, Tensor]
    apart: Tensor

    @classmethod
    def of(cls, features: Tensor, setting: Setting, labels: Labellings, extra: int) -> _Probed:
        """Probe features [n d] for all labellings, of which the first is real and the next `extra` are control tasks."""
        data, fitting = setting.data, setting.options.fitting
        found = cross_validate(features, labels, setting.folds, fitting, setting.drawn)
        whole = fit(features, labels.first(1), fitting, torch.as_tensor(setting.drawn))
        x, classes = features.double(), class_numbers(data)
        return cls(
            _figures(found, setting, extra),
            found.scores[1 + extra :].numpy(),
            found.outputs[0].clone(),
            (whole.weights[0], whole.bias[0]),
            centres_of(features, classes),
            (x.mean(0), x.std(0)),
            torch.stack([_detecting(found.weights, data.kind), _means_apart(x, classes, setting.folds)]),
        )


def _detecting(weights: Tensor, kind: str) -> Tensor:
    """The direction [f d] that tells the second class from the first, of weights [f d c]."""
    return weights[..., 1] - weights[..., 0] if kind == "multiclass" else weights[..., 0]


def _means_apart(features: Tensor, classes: Tensor, folds: np.ndarray) -> Tensor:
    """The difference [f d] between the means of the second and the first class over all folds but one."""
    rests = [torch.as_tensor(folds != fold) for fold in np.unique(folds)]
    return torch.stack(
        [features[r & (classes == 1)].mean(0) - features[r & (classes == 0)].mean(0) for r in rests]
    )


def _figures(found: HeldOut, setting: Setting, extra: int) -> dict[str, float]:
    data = setting.data
    low, high = fold_interval(setting, found.outputs[0])
    right = accuracy(data.kind, found.outputs[0], torch.as_tensor(data.labels), max(data.n_classes, 1))
    control = float(found.scores[1 : 1 + extra].nanmean()) if extra else float("nan")
    return {
        "score": float(found.scores[0]), "low": low, "high": high, "accuracy": right, "control": control,
        "penalty": found.penalty,
    }  # fmt: skip


def _significance(scores: np.ndarray, null: np.ndarray) -> dict[str, np.ndarray]:
    found = significance(scores, null)
    return {"p": found.p, "q": found.q, "p_best": found.p_best, "null": found.mean, "null_high": found.high}


def map_moments(
    groups: list[Moments], setting: Setting, labels: Labellings, extra: int, report: Report | None = None
) -> Mapped:
    """Probe every cell of which only sums were kept: held-out R² of the label's columns, with the same controls.

    extra: how many of the labellings are control tasks.
    """
    if setting.options.kind != "ridge":
        raise BadInput(
            f"A {setting.options.kind} probe needs the activations, and they are too many to keep.",
            "Use kind='ridge', fewer sites or positions, or give more memory (options.memory).",
        )
    columns = labels.outputs
    scores, fits, moments, centres, apart, done = [], [], [], [], [], 0
    total = sum(len(g.cells) for g in groups)
    for group in groups:
        found = from_moments(group.count, group.total, group.gram, group.cross, group.targets, group.squares)
        r2 = found.r2.reshape(len(group.cells), labels.count, columns).mean(2)
        scores.append(r2.numpy())
        n = group.count.sum()
        mean = group.total.sum(0) / n
        variance = group.gram.sum(0).diagonal(dim1=-2, dim2=-1) / n - mean**2
        weights = found.weights[..., :columns]
        bias = found.bias[:, :columns] - torch.einsum("cdo,cd->co", weights, group.shift)
        fits += [(weights[i], bias[i]) for i in range(len(group.cells))]
        moments += [
            (mean[i] + group.shift[i], variance[i].clamp(min=0).sqrt()) for i in range(len(group.cells))
        ]
        apart += list(torch.stack([found.folded, found.covariance], 1).permute(2, 1, 0, 3))
        centres += list(_centres(group, columns, setting.data.kind) + group.shift[:, None])
        done += len(group.cells)
        if report is not None:
            report("probing", done, total)
    every = np.concatenate(scores)
    nothing = np.full(len(every), np.nan)
    control = every[:, 1 : 1 + extra].mean(1) if extra else nothing
    figures = {"score": every[:, 0], "low": nothing, "high": nothing, "accuracy": nothing, "control": control}
    figures |= {"penalty": nothing} | _significance(every[:, 0], every[:, 1 + extra :])
    return Mapped(figures, None, fits, centres, moments, apart)


def _centres(group: Moments, columns: int, kind: str) -> Tensor:
    """Class means [c k d] about the shift, exactly, from sums: labels are +1 and -1 (values: one deviation each way)."""
    n = group.count.sum()
    mean, middle = group.total.sum(0) / n, group.targets.sum(0)[:columns] / n
    spread = (group.squares.sum(0)[:columns] / n - middle**2).clamp(min=1e-300)
    slope = (group.cross.sum(0)[..., :columns] / n - mean[..., None] * middle) / spread
    if kind == "continuous":
        step = slope * spread.sqrt()
        return torch.stack([mean - step[..., 0], mean + step[..., 0]], 1)
    above = mean[..., None] + slope * (1 - middle)
    if kind == "binary":
        return torch.stack([(mean[..., None] - slope * (1 + middle))[..., 0], above[..., 0]], 1)
    return above.transpose(1, 2)


def baseline(setting: Setting, table: Tensor | None) -> HeldOut | None:
    """The held-out outputs of a ridge probe on other features [n k], in the same folds; None where there are none."""
    if table is None:
        return None
    real = controls.labellings(setting.data, None, setting.permuted[:0])
    plain = ProbeOptions(standardise=False, seed=setting.options.seed).fitting
    return cross_validate(table, real, setting.folds, plain, setting.drawn)


def places_note(places: Places, size: int) -> str:
    """How much was kept, in words."""
    return f"{len(places.cells)} cells, {size / 2**20:.0f} MiB kept"
