"""`probe`: from a network and labelled examples to a map with controls and a verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import BadInput, Stopped, require_known
from cutaway.network.sites import SiteLike
from cutaway.probes.choices import chosen
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.tables import Columns, probe_data
from cutaway.probes.map import controls
from cutaway.probes.map.best_place import Against, Untrained, look_closely
from cutaway.probes.map.controlling import NAMES, Controlling, controlling, controlling_price
from cutaway.probes.map.linear_probe import Probe
from cutaway.probes.map.mapping import Mapped, map_kept, map_moments
from cutaway.probes.map.near_tokens import NearTokens, near_tokens, shuffled_directions
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.probing import Probing, about, dataset, describe
from cutaway.probes.map.setting import Setting
from cutaway.probes.map.verdict import Finding, unfinished
from cutaway.probes.reading.activations import (
    Kept,
    accumulate,
    announce_reading,
    bytes_of,
    collect,
    reading_price,
)
from cutaway.probes.reading.places import Places, plan
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network

#: With sums alone, so many permutations at most: each costs as much memory as the label itself.
_SUMMED_PERMUTATIONS = 20
_KEYWORDS = ("at", "by", "pos", "options", "seed", "work")


@strict
def probe(
    net: Network,
    data: ProbeData | Any,
    *,
    at: SiteLike | Sequence[SiteLike] = "resid_post",
    by: Sequence[str] = ("layer",),
    pos: int | Sequence[int] | None = None,
    options: ProbeOptions | None = None,
    seed: int = 0,
    work: Work | None = None,
    **choices: Any,
) -> Probing:
    """Probe every place for a label, with controls, in one pass over the data (one more for the random-weights control).

    Args:
        net: the network.
        data: `ProbeData`, or anything that `probe_data` takes; then the names of columns (label="...", group="...") are
            among the choices.
        at, by, pos: which places, see `places.plan`.
        options: how probing is done; or its fields as keywords: kind="logistic", permutations=200.
        seed: of folds, permutations and everything else.
        work: who hears of progress, and what may be spent. Where it is stopped (Ctrl-C is one way), the places that are
            finished are kept, without a verdict, and the result says that it is not `complete`.

    Gives the map with a verdict on the best place: encoded, confounded (with what), or not encoded beyond the controls.
    Whether the network *uses* it is asked by `cutaway.use`.

    Raises `BadInput` for labels of one class, too few groups for the folds, labels that are missing or of another kind;
    `NotFinite` for activations that are not numbers; `SiteUnavailable` and `NotFound` as `net.run`; `UnknownOption` for a
    misspelt choice; `Stopped` where no place was finished.
    """
    began = time.perf_counter()
    data, options = _asked(net, data, options, choices, seed)
    with working(work).interruptible() as work:
        places = plan(net, data, at, by, pos)
        setting = Setting.of(data, options, seed)
        text = controls.ControlText(net, data, places)
        again = reading_price(net, data, places) if options.untrained else 0.0
        beside = [
            ("reading random weights", again),
            ("what controls", controlling_price(data, options.folds)),
        ]
        announce_reading(net, data, places, work, "probing", beside[: 2 if options.control else 1])
        mapped, kept, note = _mapped(net, setting, places, text, work)
        what, chance = describe(data.kind, data.n_classes, kept is None)
        beside = _Beside.of(mapped, setting, places)
        try:
            work.check()
            beside.run(net, mapped, kept, text, work)
            complete = True
        except Stopped:
            complete = False
            beside.notes.append(
                f"Stopped: {int(np.isfinite(mapped.figures['score']).sum())} of {len(places.cells)} places are finished."
            )
    attrs = {
        "label": data.name, "kind": data.kind, "classes": list(data.classes), "probe": options.kind, "what": what,
        "chance": chance, "n": data.n, "groups": setting.family.count, "folds": options.folds, "network": net.name,
        "permutations": len(setting.permuted), "kept": note,
        "notes": [*data.notes, *setting.family.notes, *beside.notes], "controls": beside.controlled,
    }  # fmt: skip
    figures = beside.figures
    provenance = Provenance.of(net, data.hash, seed, time.perf_counter() - began)
    probes = tuple(_probe(mapped, figures, setting, places, i, provenance) for i in range(len(places.cells)))
    near = (
        _near(net, setting, places, probes, kept, int(np.nanargmax(figures["score"])))
        if complete
        else NearTokens()
    )
    attrs |= {"near_tokens": near.said}
    return Probing(
        dataset(figures, places, attrs), places, probes, beside.finding, provenance, mapped.outputs,
        setting.labels, complete, near.tokens,
    )  # fmt: skip


def _near(
    net: Network,
    setting: Setting,
    places: Places,
    probes: Sequence[Probe | None],
    kept: Kept | None,
    best: int,
) -> NearTokens:
    """The tokens near the best probe's direction, beside directions of shuffled labels where activations were kept."""
    probe = probes[best]
    if probe is None:
        return NearTokens()
    shuffled = None
    if kept is not None and len(setting.permuted):
        shuffled = shuffled_directions(kept.cell(places.cells[best]), setting)
    return near_tokens(net, probe, shuffled)


def _asked(
    net: Network, data: Any, options: ProbeOptions | None, choices: dict[str, Any], seed: int
) -> tuple[ProbeData, ProbeOptions]:
    """The labelled examples, and how they are probed. Raises `UnknownOption` for a choice that nobody knows."""
    if isinstance(data, ProbeData):
        return data, chosen(ProbeOptions, options, choices, "probe", _KEYWORDS)
    known = [f.name for f in fields(ProbeOptions)]
    columns = [f.name for f in fields(Columns)]
    require_known(choices, [*known, *columns, "columns", "per_token", "n", *_KEYWORDS], "probe")
    rest = {name: choices.pop(name) for name in known if name in choices}
    table = choices
    if "label" in table:
        table["columns"] = table.pop("label")
    return probe_data(data, net=net, seed=seed, **table), chosen(
        ProbeOptions, options, rest, "probe", _KEYWORDS
    )


def _mapped(
    net: Network, setting: Setting, places: Places, text: controls.ControlText, work: Work
) -> tuple[Mapped, Kept | None, str]:
    """The map; the activations, where they are in memory; and how much was kept, in words."""
    data, options = setting.data, setting.options
    limit = min(options.memory, work.budget.memory or options.memory)
    if bytes_of(net, data, places) <= limit:
        kept = collect(net, data, places, work)
        note = f"{len(places.cells)} cells, {kept.bytes / 2**20:.0f} MiB kept"
        return map_kept(kept, setting, text.types, work), kept, note
    if options.kind != "ridge":
        raise BadInput(
            f"A {options.kind} probe needs the activations, and they are too many to keep.",
            "Use kind='ridge', fewer sites or positions, or give more memory (options.memory).",
        )
    types = text.types(0) if data.types is not None or len(places.positions) == 1 else None
    tasks = controls.control_tasks(data, types, options.control_tasks, setting.seed)
    labels = setting.labellings(tasks, _SUMMED_PERMUTATIONS)
    groups = accumulate(net, data, places, labels.targets(), setting.folds, work)
    size = sum(group.bytes for group in groups)
    note = f"{len(places.cells)} cells from sums alone, {size / 2**20:.0f} MiB kept"
    return map_moments(groups, setting, labels, 0 if tasks is None else len(tasks), work), None, note


@dataclass(eq=False)
class _Beside:
    """What stands beside a map: its controls, and the verdict on the best place. Filled in as they are run.

    Attributes:
        figures: the map's, and those of the controls; NaN where they were not run.
        finding: the verdict; not decided before the controls were run.
        controlled: what the direction that controls moves, in words.
        notes: what stood in the way.
    """

    setting: Setting
    places: Places
    figures: dict[str, np.ndarray]
    finding: Finding
    controlled: str = ""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, mapped: Mapped, setting: Setting, places: Places) -> _Beside:
        nothing = np.full(len(places.cells), np.nan)
        figures = dict(mapped.figures) | dict.fromkeys(("tokens", "untrained", *NAMES), nothing)
        best = places.cells[int(np.nanargmax(figures["score"]))]
        return cls(setting, places, figures, unfinished(setting.data.name, best.label(places.positions)))

    def run(
        self, net: Network, mapped: Mapped, kept: Kept | None, text: controls.ControlText, work: Work
    ) -> None:
        """Run the controls of a map whose cells are all finished. Raises `Stopped`; what was run is then filled in."""
        setting, places, cells = self.setting, self.places, self.places.cells
        baselines = [None] * len(places.positions)
        if setting.options.baselines and kept is not None:
            baselines = [setting.baseline(text.counts(p)) for p in range(len(places.positions))]
        tokens = [baselines[c.position] for c in cells]
        self.figures["tokens"] = np.array([np.nan if t is None else float(t.scores[0]) for t in tokens])
        work.check()
        untrained = setting.options.untrained and kept is not None
        other = Untrained.of(net, setting, places, work) if untrained else Untrained()
        self.figures["untrained"] = other.scores(len(cells))
        best = int(np.nanargmax(self.figures["score"]))
        p, task = float(self.figures["p_best"][best]), float(self.figures["control"][best])
        against = Against(1.0 if p != p else p, len(cells), None if task != task else task, tokens[best])
        self.finding = look_closely(net, setting, places, cells[best], kept, other, against, text, work)
        lines = setting.options.control
        control = controlling(net, setting.data, places, setting.folds, work) if lines else Controlling()
        self.controlled = control.what
        self.notes += [why for why in (other.why, control.why) if why]
        self.figures |= control.cosines([fit.apart for fit in mapped.cells if fit is not None])


def _probe(
    mapped: Mapped, figures: dict[str, np.ndarray], setting: Setting, places: Places, i: int, source: Provenance
) -> Probe | None:  # fmt: skip
    """The probe of a cell, fitted to all examples, with its figures; None where it was not finished."""
    fit, cell, data = mapped.cells[i], places.cells[i], setting.data
    if fit is None:
        return None
    return Probe(
        setting.options.kind, cell.site, cell.head, places.positions[cell.position], data.name, data.kind, data.classes,
        fit.weights.T.contiguous(), fit.bias, fit.centres, fit.mean, fit.scale, about(figures, i), source,
    )  # fmt: skip
