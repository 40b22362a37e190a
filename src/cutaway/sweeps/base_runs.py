"""Base runs that are kept: prompts that several sweeps and benches start from run once through the network."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cutaway.network.memory import budget_bytes
from cutaway.network.sites import Site
from cutaway.sweeps.cells import Experiment
from cutaway.sweeps.record import Record, take, take_plainly

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work

#: Share of a network's memory budget that kept base runs may take; the oldest go first.
_SHARE = 4


class BaseRuns:
    """The base runs of one network that are kept at the moment: nothing, unless somebody has asked for it."""

    def __init__(self) -> None:
        self.askers = 0
        self.sites: frozenset[Site] = frozenset()
        self.room = 0
        self.handing = 0
        self._handed: tuple[Hashable, Record, frozenset[Site], frozenset[str]] | None = None
        self._known: dict[Hashable, tuple[Record, frozenset[Site], frozenset[str], bool]] = {}

    def record(
        self,
        experiment: Experiment,
        sites: Collection[Site],
        modules: Sequence[str],
        cached: bool,
        plainly: bool,
        work: Work | None = None,
    ) -> Record:
        """What a run of the base prompts left behind: the one that is known, or a new one that holds all of it."""
        asked = frozenset(sites) | self.sites
        key = (*_identity(experiment), plainly)
        record, known, paths, was_cached = self._known.get(key, (None, frozenset(), frozenset(), False))
        if record is not None and asked <= known and paths.issuperset(modules) and was_cached >= cached:
            return record
        asked, paths, cached = asked | known, paths | frozenset(modules), cached or was_cached
        self._known.pop(key, None)
        modules = sorted(paths)
        record = (
            take_plainly(experiment, asked) if plainly else take(experiment, asked, modules, cached, work)
        )
        self._known[key] = (record, asked, paths, cached)
        while self._known and sum(r.bytes for r, *_ in self._known.values()) > self.room:
            self._known.pop(next(iter(self._known)))
        return record

    def hand_over(self, experiment: Experiment, record: Record) -> None:
        """Leave a run of prompts, with keys and values, for the next sweep that starts from it."""
        held = frozenset(record.sites), frozenset(record.outputs)
        self._handed = (_identity(experiment), record, *held)

    def handed(
        self, experiment: Experiment, sites: Collection[Site], modules: Sequence[str], cached: bool
    ) -> Record | None:
        """The run that was left for a sweep, if it is of these prompts and holds what is asked."""
        if self._handed is None or self._handed[0] != _identity(experiment):
            return None
        _, record, there, paths = self._handed
        enough = there.issuperset(sites) and paths.issuperset(modules) and (bool(record.caches) or not cached)
        return record if enough else None

    def give_up(self) -> None:
        """Leave nothing for a sweep any more."""
        self._handed = None

    def forget(self) -> None:
        """Keep nothing any more."""
        self._handed = None
        self._known.clear()
        self.sites = frozenset()


def _identity(experiment: Experiment) -> tuple[Hashable, ...]:
    tokens = experiment.tokens
    rows = (tokens.ids.cpu().numpy().tobytes(), tokens.mask.cpu().numpy().tobytes(), tuple(tokens.ids.shape))
    return *rows, tuple(experiment.positions.flatten().tolist())


def base_runs(net: Network) -> BaseRuns:
    """The base runs of a network that are kept. While edits stand none are."""
    return net.fact("base runs", BaseRuns)


@contextmanager
def keeping_base_runs(net: Network, sites: Collection[Site] = (), work: Work | None = None) -> Iterator[None]:
    """While active, prompts that were run without edits are not run again by sweeps, patches and benches on this network.

    sites: what every base run keeps from the start, because it will be asked for. When the last user leaves, all
    is forgotten.
    """
    runs = base_runs(net)
    runs.askers += 1
    runs.sites, runs.room = runs.sites | frozenset(sites), budget_bytes(net, work) // _SHARE
    try:
        yield
    finally:
        runs.askers -= 1
        if not runs.askers:
            runs.forget()


@contextmanager
def handing_over(net: Network) -> Iterator[None]:
    """While active, the run of prompts from which a sweep is about to start is left for it, and not made twice."""
    runs = base_runs(net)
    runs.handing += 1
    try:
        yield
    finally:
        runs.handing -= 1
        if not runs.handing:
            runs.give_up()


def recorded(
    experiment: Experiment,
    sites: Collection[Site],
    modules: Sequence[str],
    cached: bool,
    plainly: bool = False,
    work: Work | None = None,
) -> Record:
    """Run the base prompts of an experiment and keep what is named, or take it from a run that is kept."""
    runs = base_runs(experiment.net)
    if runs.askers and experiment.inputs is None:
        return runs.record(experiment, sites, modules, cached, plainly, work)
    if runs.handing and experiment.inputs is None and not plainly:
        left = runs.handed(experiment, sites, modules, cached)
        if left is not None:
            return left
    return take_plainly(experiment, sites) if plainly else take(experiment, sites, modules, cached, work)
