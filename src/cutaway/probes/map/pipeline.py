"""`probe`: from a network and labelled examples to a map with controls and a verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cutaway.errors import BadInput
from cutaway.network.sites import SiteLike
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.tables import probe_data
from cutaway.probes.fits.cross_validation import HeldOut
from cutaway.probes.map import controls
from cutaway.probes.map.best_place import Against, Untrained, look_closely
from cutaway.probes.map.controlling import NAMES, Controlling, controlling
from cutaway.probes.map.linear_probe import Probe
from cutaway.probes.map.mapping import (
    Mapped,
    Setting,
    baseline,
    map_kept,
    map_moments,
    places_note,
)  # fmt: skip
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.probing import Probing, dataset, describe
from cutaway.probes.reading.activations import Kept, Report, accumulate, collect, stream
from cutaway.probes.reading.places import Places, plan
from cutaway.results import Provenance

if TYPE_CHECKING:
    from cutaway.network import Network


def probe(
    net: Network,
    data: ProbeData | Any,
    at: SiteLike | Sequence[SiteLike] = "resid_post",
    by: Sequence[str] = ("layer",),
    *,
    pos: int | Sequence[int] | None = None,
    options: ProbeOptions | None = None,
    report: Report | None = None,
    **more: Any,
) -> Probing:
    """Probe every place for a label, with controls, in one pass over the data (one more for the random-weights control).

    data: `ProbeData`, or anything that `probe_data` takes (its options, such as label="..." and group="...", in `more`).
    at, by, pos: see `places.plan`. options: `ProbeOptions`. report: called with (what, done, all).

    Gives the map with a verdict on the best place: encoded, confounded (with what), or not encoded beyond the controls.
    Whether the network *uses* it is asked by `cutaway.use`.

    Raises `BadInput` for labels of one class, too few groups for the folds, labels that are missing or of another kind;
    `NotFinite` for activations that are not numbers; `SiteUnavailable` and `NotFound` as `net.run`.
    """
    began = time.perf_counter()
    options = options or ProbeOptions()
    if not isinstance(data, ProbeData):
        if "label" in more:
            more["columns"] = more.pop("label")
        data = probe_data(data, net=net, seed=options.seed, **more)
    elif more:
        raise BadInput(
            f"{next(iter(more))} is no option of probe.", "ProbeOptions of the data belong to probe_data."
        )
    places = plan(net, data, at, by, pos)
    setting = Setting.of(data, options)
    text = controls.ControlText(net, data, places)
    size = _bytes(net, data, places)
    summed = size > options.memory
    kept: Kept | None = None
    if summed:
        mapped, note = _from_sums(net, setting, places, text, report)
    else:
        kept = collect(net, data, places, report)
        mapped = map_kept(kept, setting, text.types, report)
        note = places_note(places, kept.bytes)
    figures, tables = dict(mapped.figures), _token_tables(text, places, options, summed)
    baselines = {p: baseline(setting, t) for p, t in tables.items()}
    cells = places.cells
    figures["tokens"] = np.array([_score(baselines.get(c.position)) for c in cells])
    other = Untrained.of(net, setting, places, report) if options.untrained and kept else Untrained()
    figures["untrained"] = other.scores(len(cells))
    what, chance = describe(data.kind, data.n_classes, summed)
    best = int(np.nanargmax(figures["score"]))
    against = Against(
        _p(figures, best), len(cells), _number(figures["control"][best]), baselines.get(cells[best].position)
    )
    close = look_closely(
        net, setting, places, cells[best], kept, other if kept else None, against, text, report
    )
    control = controlling(net, data, places, setting.folds) if options.control else Controlling()
    notes = [*data.notes, *setting.family.notes, *(why for why in (other.why, control.why) if why)]
    attrs = {
        "label": data.name, "kind": data.kind, "classes": list(data.classes), "probe": options.kind, "what": what,
        "chance": chance, "n": data.n, "groups": setting.family.count, "folds": options.folds, "network": net.name,
        "permutations": len(setting.permuted), "kept": note, "notes": notes, "controls": control.what,
    }  # fmt: skip
    provenance = Provenance.of(net, data.hash, options.seed, time.perf_counter() - began)
    probes = _probes(places, mapped, data, options)
    figures |= control.cosines(mapped.apart)
    probes = tuple(replace(p, about=_about(figures, i)) for i, p in enumerate(probes))
    labels = torch.as_tensor(data.labels)
    return Probing(dataset(figures, places, attrs), places, probes, close, provenance, mapped.outputs, labels)


def _bytes(net: Network, data: ProbeData, places: Places) -> int:
    """How much all slices would take in float32, found by running the first inputs."""
    batches = stream(net, data, places)
    batch = next(batches)
    batches.close()
    return sum(v.numel() * 4 for v in batch.values.values()) // len(batch.examples) * data.n


def _from_sums(
    net: Network, setting: Setting, places: Places, text: controls.ControlText, report: Report | None
) -> tuple[Mapped, str]:
    data, options = setting.data, setting.options
    types = text.types(0) if data.types is not None or len(places.positions) == 1 else None
    tasks = controls.control_tasks(data, types, options.control_tasks, options.seed)
    labels = controls.labellings(data, tasks, setting.permuted[:20])
    groups = accumulate(net, data, places, labels.targets(), setting.folds, report)
    size = sum(g.bytes for g in groups)
    note = f"{len(places.cells)} cells from sums alone, {size / 2**20:.0f} MiB kept"
    return map_moments(groups, setting, labels, 0 if tasks is None else len(tasks), report), note


def _token_tables(
    text: controls.ControlText, places: Places, options: ProbeOptions, summed: bool
) -> dict[int, torch.Tensor | None]:
    if not options.baselines or summed:
        return {}
    return {p: text.counts(p) for p in range(len(places.positions))}


def _number(value: float) -> float | None:
    return None if value != value else float(value)


def _p(figures: dict[str, np.ndarray], best: int) -> float:
    p = float(figures["p_best"][best])
    return 1.0 if p != p else p


def _score(found: HeldOut | None) -> float:
    return float("nan") if found is None else float(found.scores[0])


def _about(figures: dict[str, np.ndarray], i: int) -> dict[str, float]:
    """The figures that a cell's probe carries with it."""
    names = ("score", "low", "high", "p", "q", *NAMES)
    return {k: float(figures[k][i]) for k in names if figures[k][i] == figures[k][i]}


def _probes(places: Places, mapped: Mapped, data: ProbeData, options: ProbeOptions) -> tuple[Probe, ...]:
    """The probe of every cell, fitted to all examples."""
    out = []
    for i, cell in enumerate(places.cells):
        weights, bias = mapped.fits[i]
        mean, scale = mapped.moments[i]
        out.append(
            Probe(
                options.kind, cell.site, cell.head, places.positions[cell.position], data.name, data.kind, data.classes,
                weights.T.contiguous(), bias, mapped.centres[i], mean, scale,
            )
        )  # fmt: skip
    return tuple(out)
