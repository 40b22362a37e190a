"""The map: every cell probed with its controls, from activations in memory or from sums alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import Stopped
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.fits.cross_validation import HeldOut, accuracy, from_moments
from cutaway.probes.fits.kinds import Labellings, fit
from cutaway.probes.fits.side_by_side import side_by_side
from cutaway.probes.map import controls
from cutaway.probes.map.setting import Setting
from cutaway.probes.map.significance import significance
from cutaway.probes.reading.activations import Kept, Moments
from cutaway.results import Work

#: Bytes that fitting takes per activation: about six copies, some in float64.
_COPIES = 40


@dataclass(frozen=True, eq=False)
class Mapped:
    """What was found of every cell; None (NaN among the figures) where the work was stopped before a cell's turn.

    Attributes:
        figures: name -> one for each cell [c].
        outputs: held-out outputs for the real labels [c n o]; None from sums.
        cells: the probe of each cell, and what goes with it.
    """

    figures: dict[str, np.ndarray]
    outputs: Tensor | None
    cells: list[CellFit | None]


@dataclass(frozen=True, eq=False)
class CellFit:
    """A cell's probe, fitted to all examples.

    Attributes:
        weights: [d o].
        bias: [o].
        centres: mean of each class [k d].
        mean, scale: of the features [d].
        apart: two directions for each fold [2 f d], the probe's and the difference of the classes' means, found without
            the fold.
    """

    weights: Tensor
    bias: Tensor
    centres: Tensor
    mean: Tensor
    scale: Tensor
    apart: Tensor


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
    kept: Kept, setting: Setting, types_at: Callable[[int], np.ndarray | None], work: Work
) -> Mapped:
    """Probe every cell whose activations are in memory. Where the work is stopped, the cells that are finished are kept.

    types_at: position number -> the control task's types [n] there. Raises `Stopped` where no cell was finished.
    """
    data, options = setting.data, setting.options
    cells = kept.places.cells
    count, seed = options.control_tasks, setting.seed
    numbers = range(len(kept.places.positions))
    tasks = [controls.control_tasks(data, types_at(p), count, seed) for p in numbers]
    labels = [setting.labellings(task) for task in tasks]
    finished: dict[int, _ProbedCell] = {}

    def probed(i: int) -> None:
        position = cells[i].position
        extra = 0 if (task := tasks[position]) is None else len(task)
        finished[i] = work.once(
            f"probe {cells[i].label(kept.places.positions)}",
            lambda: _ProbedCell.of(kept.cell(cells[i]), setting, labels[position], extra),
            _ProbedCell.plain,
            _ProbedCell.back,
            lambda: [kept.cell(cells[i]), setting.data.hash, setting.options, setting.seed],
        )

    done = partial(work.step, "probing", total=len(cells))
    try:
        side_by_side(probed, range(len(cells)), working_bytes(kept, data.n), options.memory, done)
    except Stopped:
        if not finished:
            raise
    return _gathered(finished, len(cells))


def _gathered(finished: dict[int, _ProbedCell], count: int) -> Mapped:
    """The finished cells, by number, as a map of all of them."""
    numbers = sorted(finished)
    ready = [finished[i] for i in numbers]
    figures = {name: np.array([cell.figures[name] for cell in ready]) for name in ready[0].figures}
    figures |= significance(figures["score"], np.stack([cell.null for cell in ready]))
    whole = {name: np.full(count, np.nan) for name in figures}
    for name, values in figures.items():
        whole[name][numbers] = values
    outputs = torch.full((count, *ready[0].outputs.shape), torch.nan, dtype=ready[0].outputs.dtype)
    outputs[numbers] = torch.stack([cell.outputs for cell in ready])
    fits = [finished[i].fit if i in finished else None for i in range(count)]
    return Mapped(whole, outputs, fits)


@dataclass(frozen=True, eq=False)
class _ProbedCell:
    """What `Mapped` holds, of one cell; null: its scores under permuted labels."""

    figures: dict[str, float]
    null: np.ndarray
    outputs: Tensor
    fit: CellFit

    def plain(self) -> dict[str, Any]:
        """It as arrays and tensors."""
        parts = {f"fit.{f.name}": getattr(self.fit, f.name) for f in fields(CellFit)}
        names = list(self.figures)
        figures = np.array([self.figures[name] for name in names])
        return {"names": names, "figures": figures, "null": self.null, "outputs": self.outputs, **parts}

    @classmethod
    def back(cls, kept: dict[str, Any]) -> _ProbedCell:
        """From what `plain` gave."""
        figures = dict(zip(kept["names"], kept["figures"].tolist(), strict=True))
        cell = CellFit(*(kept[f"fit.{f.name}"] for f in fields(CellFit)))
        return cls(figures, kept["null"], kept["outputs"], cell)

    @classmethod
    def of(cls, features: Tensor, setting: Setting, labels: Labellings, extra: int) -> _ProbedCell:
        """Probe features [n d] for all labellings, of which the first is real and the next `extra` are control tasks."""
        data = setting.data
        tested = setting.held_out(features, labels)
        whole = fit(features, labels.first(1), setting.options.fitting, torch.as_tensor(setting.drawn))
        x, classes = features.double(), class_numbers(data)
        apart = torch.stack([_detecting(tested.weights, data.kind), _means_apart(x, classes, setting.folds)])
        centres = centres_of(features, classes)
        cell = CellFit(whole.weights[0], whole.bias[0], centres, x.mean(0), x.std(0), apart)
        null, figures = tested.scores[1 + extra :].numpy(), _figures(tested, setting, extra)
        return cls(figures, null, tested.outputs[0].clone(), cell)


def _detecting(weights: Tensor, kind: str) -> Tensor:
    """The direction [f d] that tells the second class from the first, of weights [f d c]."""
    return weights[..., 1] - weights[..., 0] if kind == "multiclass" else weights[..., 0]


def _means_apart(features: Tensor, classes: Tensor, folds: np.ndarray) -> Tensor:
    """The difference [f d] between the means of the second and the first class over all folds but one."""
    rests = [torch.as_tensor(folds != fold) for fold in np.unique(folds)]
    one, zero = (torch.stack([features[r & (classes == c)].mean(0) for r in rests]) for c in (1, 0))
    return one - zero


def _figures(tested: HeldOut, setting: Setting, extra: int) -> dict[str, float]:
    outputs = tested.outputs[0]
    low, high = setting.interval(outputs)
    control = float(tested.scores[1 : 1 + extra].nanmean()) if extra else float("nan")
    return {
        "score": float(tested.scores[0]), "low": low, "high": high,
        "accuracy": accuracy(setting.data.kind, outputs, setting.labels, setting.data.n_classes),
        "control": control, "penalty": tested.penalty,
    }  # fmt: skip


def map_moments(
    groups: list[Moments], setting: Setting, labels: Labellings, extra: int, work: Work
) -> Mapped:
    """Probe every cell of which only sums were kept: held-out R² of the label's columns, with the same controls.

    extra: how many of the labellings are control tasks.
    """
    columns = labels.outputs
    scores: list[np.ndarray] = []
    fits: list[CellFit | None] = []
    total = sum(len(group.cells) for group in groups)
    for group in groups:
        summed = from_moments(group.count, group.total, group.gram, group.cross, group.targets, group.squares)
        scores.append(summed.r2.reshape(len(group.cells), labels.count, columns).mean(2).numpy())
        n = group.count.sum()
        mean = group.total.sum(0) / n
        scale = (group.gram.sum(0).diagonal(dim1=-2, dim2=-1) / n - mean**2).clamp(min=0).sqrt()
        weights = summed.weights[..., :columns]
        bias = summed.bias[:, :columns] - torch.einsum("cdo,cd->co", weights, group.shift)
        centres = _centres(group, columns, setting.data.kind) + group.shift[:, None]
        apart = torch.stack([summed.folded, summed.covariance], 1).permute(2, 1, 0, 3)
        parts = (weights, bias, centres, mean + group.shift, scale, apart)
        fits += [CellFit(*(part[i] for part in parts)) for i in range(len(group.cells))]
        work.step("probing", len(fits), total)
    every = np.concatenate(scores)
    nothing = np.full(len(every), np.nan)
    control = every[:, 1 : 1 + extra].mean(1) if extra else nothing
    figures = {"score": every[:, 0], "low": nothing, "high": nothing, "accuracy": nothing, "control": control}
    figures |= {"penalty": nothing} | significance(every[:, 0], every[:, 1 + extra :])
    return Mapped(figures, None, fits)


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
