"""`use`: does the network use what the probe reads? The direction is moved, and the behaviour must move with it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import Families, assign_folds, families
from cutaway.probes.fits.kinds import Fitting
from cutaway.probes.map.linear_probe import Probe
from cutaway.probes.map.probing import Probing
from cutaway.probes.map.verdict import ALPHA
from cutaway.probes.reading import beds
from cutaway.probes.reading.beds import Answers, Bed
from cutaway.probes.reading.places import Cell, Places
from cutaway.probes.reading.spots import Spot, features, gradient, moved, plain
from cutaway.probes.use import unrelated
from cutaway.probes.use.directions import (
    Along,
    Move,
    erasing,
    fitted_directions,
    random_directions,
    sham_directions,
)
from cutaway.probes.use.result import Effect, Limits, Use, judge_use
from cutaway.results import Provenance
from cutaway.statistics import Estimate, bootstrap, bootstrap_statistic

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

_AT_ONCE = 2**24
#: With fewer, p = 1 / (n + 1) would not be below the level for two directions tried.
_FEWEST = math.ceil(2 / ALPHA) - 1


@dataclass(frozen=True)
class UseOptions:
    """strengths: of the graded additions, 1 being the distance of the class means. directions: how many random and as many
    sham directions each effect is held against. least: the smallest share of the classes' difference in output that
    counts as use. read: position of the logits (default the last token). seed: of the split and the directions."""

    strengths: tuple[float, ...] = (-1.0, -0.5, 0.5, 1.0)
    directions: int = 40
    least: float = 0.1
    read: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.directions < _FEWEST:
            raise BadInput(
                f"{self.directions} directions are too few to be held against.",
                f"Use at least {_FEWEST} of each, so that beating all of them is significant for one of two directions.",
            )
        if not 0 < self.least < 1:
            raise BadInput(f"least={self.least} is no share.", "Use a number between 0 and 1.")


def use(
    net: Network,
    found: Probing,
    on: ProbeData | Behaviour,
    *,
    answers: Answers | None = None,
    unrelated_text: Sequence[Any] | None = None,
    where: dict[str, Any] | None = None,
    pos: int | str | None = None,
    options: UseOptions | None = None,
) -> Use:
    """Test whether the network uses the probe's direction at one place (default the best).

    on: the labelled data, or a behaviour whose corrupted prompts change what the label is about. With data, directions
    are found on one half of the groups and tested on the other; the metric is the logit difference of the classes'
    `answers`, or, without them, the output's own contrast between the classes, for which a third part is set aside.
    With a behaviour the probe is taken as it was fitted, and the metric is the behaviour's. where: layer, head, position,
    site of another place. pos: where a behaviour's prompts are edited (a position or a span's name; default the probe's).
    unrelated_text: texts for the side effect.

    Gives a `Use`: every effect against random and sham directions of the same norm, the graded response, the change in
    cross-entropy on unrelated text, the cosine between the direction that detects and the one that controls, and a claim.

    Raises `BadInput` where there are not two classes, or the logits are read before the place.
    """
    began, options = time.perf_counter(), options or UseOptions()
    probe = found.probe(**(where or {}))
    cell = found.places.cells[found.number(**(where or {}))]
    spot = Spot(cell.site, cell.head)
    if isinstance(on, ProbeData):
        _same_label(found, on)
        found_half, bed, family, fitting = halves(net, found, on, cell, answers, options)
        x = features(net, spot, found_half.tokens, found_half.edit)
        alongs = fitted_directions(x, found_half.classes, fitting, family)
        past, family_past, classes = x, family, found_half.classes
    else:
        bed = _behaviour_bed(net, probe, spot, on, pos)
        past, fitting = features(net, spot, bed.tokens, bed.edit), Fitting(found.data.attrs["probe"])
        classes, family_past = bed.classes, Families(np.arange(bed.n))
        alongs = (
            Along.of("the probe's direction", probe.weights[0], probe.centres[:2]),
            Along.of("the difference of means", probe.centres[1] - probe.centres[0], probe.centres[:2]),
        )
    here = features(net, spot, bed.tokens, bed.edit)
    centred = past - torch.stack([past[classes == c].mean(0) for c in (0, 1)])[classes]
    others = torch.cat(
        [
            random_directions(past, classes, options.directions, options.seed + 11),
            sham_directions(centred, classes, family_past, fitting, options.directions, options.seed + 12),
        ]
    )
    moves = [m for along in alongs for m in along.moves(here, bed.classes)] + [erasing(past, classes, here)]
    measured = _measure(net, bed, spot, here, alongs, moves, others, options)
    control = gradient(net, bed, spot)
    side = _side(net, spot, bed, alongs, others, here, unrelated_text, options)
    cosines = {along.name: _cosine(along.vector, control) for along in alongs}
    label, place = str(found.data.attrs["label"]), cell.label(found.places.positions)
    own = answers is None and isinstance(on, ProbeData)
    limits = Limits(found.finding.word, len(set(bed.clusters)), own, answers is not None)
    claim = judge_use(label, place, bed.what, measured, side, cosines, options.least, limits)
    provenance = Provenance.of(
        net, found.provenance.behaviour_hash, options.seed, time.perf_counter() - began
    )
    return Use.of(label, place, bed.what, measured, side, cosines, claim, found.finding, provenance)


def _same_label(found: Probing, data: ProbeData) -> None:
    """Raises `BadInput` where data are not labelled as those that were probed."""
    attrs = found.data.attrs
    theirs, ours = (data.name, list(data.classes)), (attrs["label"], list(attrs["classes"]))
    if theirs != ours:
        raise BadInput(
            f"The probe is for {ours[0]!r} ({', '.join(ours[1]) or 'values'}), the data are labelled with {theirs[0]!r} "
            f"({', '.join(theirs[1]) or 'values'}).",
            "Give data with the label that was probed.",
        )


def _cosine(a: Tensor, b: Tensor) -> float:
    size = float(a.norm() * b.norm())
    return 0.0 if size == 0 else float(a @ b) / size


def halves(
    net: Network, found: Probing, data: ProbeData, cell: Cell, answers: Answers | None, options: UseOptions
) -> tuple[Bed, Bed, Families, Fitting]:
    """Discovery half and test half of a data set as beds with their score, families of the discovery half, and how probes
    are fitted. Without answers the score is the output's own contrast, found on a third part."""
    places: Places = found.places
    bed = beds.bed_of_data(net, data, places, cell, read=options.read)
    labels = data.labels
    chosen = np.arange(data.n) if data.kind == "continuous" else np.flatnonzero(np.isin(labels, (0, 1)))
    two = data.take(chosen, bed.classes.numpy())
    family = families(two)
    parts = 2 if answers is not None else 3  # a contrast must not be found on what the direction was found on
    folds = torch.as_tensor(assign_folds(two, family, parts, options.seed))
    past, future = (torch.nonzero(folds == f)[:, 0] for f in (0, 1))
    first = bed.take(past)
    if answers is not None:
        score, what = beds.answer_score(net, answers, data.classes or ("0", "1"))
    else:
        score, what = beds.contrast_score(net, bed.take(torch.nonzero(folds == 2)[:, 0]))
    renumbered = np.unique(family.of[past.numpy()], return_inverse=True)[1]
    scored = replace(bed, score=score, what=what)
    return (
        replace(first, score=score, what=what),
        scored.take(future),
        Families(renumbered),
        Fitting(found.data.attrs["probe"]),
    )


def _behaviour_bed(
    net: Network, probe: Probe, spot: Spot, behaviour: Behaviour, pos: int | str | None
) -> Bed:
    position = probe.position if pos is None else pos
    if not isinstance(position, int | str) or position in ("span", "all"):
        raise BadInput(
            "The place in the behaviour's prompts is not known.", "Pass pos=, a position or a span's name."
        )

    def outputs(tokens: Any, at: Tensor) -> Tensor:
        return probe.outputs(features(net, spot, tokens, at))[:, 0]

    return beds.bed_of_behaviour(net, behaviour, position, outputs)


def _measure(
    net: Network,
    bed: Bed,
    spot: Spot,
    x: Tensor,
    alongs: Sequence[Along],
    moves: Sequence[Move],
    others: Tensor,
    options: UseOptions,
) -> list[Effect]:
    """Every effect: the moves, with what other directions do, and graded additions along the directions."""
    base, sign = plain(net, bed), bed.sign.numpy()
    gap = _gap(base, bed)
    firm = gap.above(0.0) is not None
    unit = gap.value if firm else 2 * max(float(base.std()), 1e-12)
    out = []

    def shares(steps: Tensor) -> np.ndarray:
        per = max(1, _AT_ONCE // max(1, steps[0].numel()))
        rows = [moved(net, bed, spot, steps[i : i + per]) for i in range(0, len(steps), per)]
        return np.concatenate(rows)

    for move in moves:
        values = sign * (base - shares((move.far[:, None] * move.vector)[None])[0]) / unit
        means = (sign * (base - _many(shares, move.far, others)) / unit).mean(1)
        p = max(_share(values.mean(), kind) for kind in np.array_split(means, 2))
        share = bootstrap(values, bed.clusters, seed=options.seed)
        out.append(Effect(move.name, move.along, None, share, means, p, gap, firm))
    for along in alongs:
        steps = torch.stack(
            [torch.full((len(x), 1), s * along.gap).double() * along.vector for s in options.strengths]
        )
        for strength, after in zip(options.strengths, shares(steps), strict=True):
            change = bootstrap((after - base) / unit, bed.clusters, seed=options.seed)
            out.append(Effect("add", along.name, strength, change, np.zeros(0), 1.0, gap, firm))
    return out


def _share(value: float, others: np.ndarray) -> float:
    """Share of others, counting the value itself, that are as far from zero."""
    return float((1 + (np.abs(others) >= abs(value)).sum()) / (len(others) + 1))


def _many(shares: Any, far: Tensor, others: Tensor) -> np.ndarray:
    """The metric [s n] with every prompt moved as far as `far` [n] says, along each of the other directions [s d]."""
    per = max(1, _AT_ONCE // max(1, far.numel() * others.shape[1]))
    parts = [shares(others[i : i + per, None] * far[None, :, None]) for i in range(0, len(others), per)]
    return np.concatenate(parts)


def _gap(base: np.ndarray, bed: Bed) -> Estimate:
    """Mean metric of class 1 minus that of class 0, with its interval."""
    one = bed.classes.numpy().astype(float)

    def statistic(w: np.ndarray) -> np.ndarray:
        high, low = (w * one).sum(1), (w * (1 - one)).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return ((w @ (one * base)) / high - (w @ ((1 - one) * base)) / low)[:, None]

    return bootstrap_statistic(statistic, bed.n, bed.clusters, 500)[0]


def _side(
    net: Network, spot: Spot, bed: Bed, alongs: Sequence[Along], others: Tensor, x: Tensor, given: Sequence[Any] | None,
    options: UseOptions,
) -> dict[str, Any] | None:  # fmt: skip
    """Cross-entropy on unrelated text with each direction projected out at every position; None where heads are read
    side by side."""
    if spot.head is None and not spot.site.module and "head_width" in spot.site.axes:
        return None
    tokens, what = unrelated.text_rows(net, given, bed.tokens, options.seed)
    base = unrelated.cross_entropy(net, tokens)
    mean = x.mean(0)
    some = others[:: max(1, len(others) // 20)]
    random = unrelated.projected(net, spot, tokens, some, some @ mean) - base
    named = torch.stack([a.vector for a in alongs])
    levels = torch.tensor([float(a.middle.mean()) for a in alongs])
    mine = unrelated.projected(net, spot, tokens, named, levels) - base
    vocabulary = beds.run(net, bed, None, torch.arange(1)).shape[-1]
    return {
        "what": what, "base": base, "known": base < math.log(vocabulary), "random": random.tolist(),
        "changes": {a.name: float(c) for a, c in zip(alongs, mine, strict=True)},
    }  # fmt: skip
