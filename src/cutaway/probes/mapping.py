"""The map: every cell probed with its controls, from activations in memory or from sums alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.estimates import bootstrap_statistic
from cutaway.probes import controls
from cutaway.probes.activations import Kept, Moments, Report
from cutaway.probes.data import ProbeData
from cutaway.probes.evaluate import HeldOut, accuracy, cross_validate, from_moments
from cutaway.probes.folds import Families, assign_folds, families, permutations
from cutaway.probes.kinds import Labellings, Weights, fit
from cutaway.probes.options import Options
from cutaway.probes.places import Places
from cutaway.probes.scores import weighted_score
from cutaway.probes.significance import significance


@dataclass(frozen=True, eq=False)
class Setting:
    """What all cells share: data, families, folds [n], inner folds [n], permutations [b n], options."""

    data: ProbeData
    family: Families
    folds: np.ndarray
    inner: np.ndarray
    permuted: np.ndarray
    options: Options

    @classmethod
    def of(cls, data: ProbeData, options: Options) -> Setting:
        """Families, grouped folds and permutations for these data. Raises `BadInput` as `folds.assign_folds`."""
        family = families(data)
        folds = assign_folds(data, family, options.folds, options.seed)
        inner = np.random.default_rng(options.seed + 1).permutation(family.count)[family.of] % 3
        permuted, _ = permutations(data.labels, family, options.permutations, options.seed)
        return cls(data, family, folds, inner, permuted, options)


@dataclass(frozen=True, eq=False)
class Mapped:
    """figures: name -> [c] for each cell. outputs: [c n o], held-out outputs for the real labels (None from sums).
    weights: [c d o] per width group in cell order, bias likewise, centres [c k d], means and scales [c d]."""

    figures: dict[str, np.ndarray]
    outputs: Tensor | None
    fits: list[tuple[Tensor, Tensor]]
    centres: list[Tensor]
    moments: list[tuple[Tensor, Tensor]]


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


def centres_of(features: Tensor, data: ProbeData) -> Tensor:
    """Mean [k d] of each class; of the lower and upper half of a value; of the examples without and with any label."""
    labels = torch.as_tensor(data.labels)
    if data.kind == "continuous":
        labels = (labels > labels.median()).long()
    if data.kind == "multilabel":
        labels = (labels.sum(1) > 0).long()
        if len(labels.unique()) < 2:
            labels = torch.as_tensor(data.labels)[:, 0]
    count = int(labels.max()) + 1
    return torch.stack([features[labels == c].double().mean(0) for c in range(count)])


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
    names = ("score", "low", "high", "accuracy", "control", "penalty")
    figures = {name: np.full(len(cells), np.nan) for name in names}
    null = np.empty((len(cells), len(setting.permuted)))
    outputs, fits, centres, moments = [], [], [], []
    for i, cell in enumerate(cells):
        features, task = kept.cell(cell), tasks[cell.position]
        found = cross_validate(features, labels[cell.position], setting.folds, options.fitting, setting.inner)
        extra = 0 if task is None else len(task)
        _note(figures, i, found, setting, extra)
        null[i] = found.scores[1 + extra :].numpy()
        outputs.append(found.outputs[0])
        whole: Weights = fit(
            features, labels[cell.position].first(1), options.fitting, torch.as_tensor(setting.inner)
        )
        fits.append((whole.weights[0], whole.bias[0]))
        centres.append(centres_of(features, data))
        moments.append((features.double().mean(0), features.double().std(0)))
        if report is not None:
            report("probing", i + 1, len(cells))
    figures |= _significance(figures["score"], null)
    return Mapped(figures, torch.stack(outputs), fits, centres, moments)


def _note(figures: dict[str, np.ndarray], i: int, found: HeldOut, setting: Setting, extra: int) -> None:
    data = setting.data
    labels = torch.as_tensor(data.labels)
    figures["score"][i] = float(found.scores[0])
    figures["low"][i], figures["high"][i] = fold_interval(setting, found.outputs[0])
    figures["accuracy"][i] = accuracy(data.kind, found.outputs[0], labels, max(data.n_classes, 1))
    figures["control"][i] = float(found.scores[1 : 1 + extra].nanmean()) if extra else np.nan
    figures["penalty"][i] = found.penalty


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
    scores, fits, moments, centres, done = [], [], [], [], 0
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
        centres += list(_centres(group, columns, setting.data.kind) + group.shift[:, None])
        done += len(group.cells)
        if report is not None:
            report("probing", done, total)
    every = np.concatenate(scores)
    nothing = np.full(len(every), np.nan)
    control = every[:, 1 : 1 + extra].mean(1) if extra else nothing
    figures = {"score": every[:, 0], "low": nothing, "high": nothing, "accuracy": nothing, "control": control}
    figures |= {"penalty": nothing} | _significance(every[:, 0], every[:, 1 + extra :])
    return Mapped(figures, None, fits, centres, moments)


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
    plain = Options(standardise=False, seed=setting.options.seed).fitting
    return cross_validate(table, real, setting.folds, plain)


def places_note(places: Places, size: int) -> str:
    """How much was kept, in words."""
    return f"{len(places.cells)} cells, {size / 2**20:.0f} MiB kept"
