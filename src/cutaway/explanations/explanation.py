"""`Explanation`: everything that an explanation found, and how it is saved."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cutaway.claims import Claim
from cutaway.effects import Effects, storage
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.localise import DIRECTIONS, single_effect
from cutaway.explanations.reads_and_writes import ReadsAndWrites
from cutaway.explanations.thresholds import Thresholds
from cutaway.explanations.trial import Trial
from cutaway.explanations.weights import weight
from cutaway.network.parts import Part
from cutaway.reports import Page, Pair, write
from cutaway.results import Provenance, load_folder, save_folder

if TYPE_CHECKING:
    from cutaway.behaviours import Performance
    from cutaway.circuits import CircuitTest

_KIND = "cutaway explanation"


@dataclass(frozen=True, eq=False)
class Explanation:
    """The result of `explain`: where the behaviour is, which components carry it, and what the test of that said.

    Attributes:
        claim: what is claimed, with verdict, evidence and controls.
        behaviour: name, sizes, metric and hash of the behaviour.
        performance: how well the network does it, on all examples.
        pairs: a few example pairs.
        maps: `"resid_pre, restore"` -> effects on discovery data.
        mechanism, trial: the set that was found and its test on held-out data; None when stopped before.
        unexplained: (what, in words) of what the explanation leaves open.
        thresholds: the numbers fixed beforehand.
        certificate: the network's certificate, as plain data.
        seconds: time of each stage.
        provenance: what is needed to repeat it.
        complete: False when it was stopped before the end.
        reads_and_writes: what each member writes and reads by direct paths, a description beside the tests.
        command: the command line that repeats it.
        circuit: the behaviour's circuit by edges, tested on held-out data; None where the graph cannot be drawn.
    """

    claim: Claim
    behaviour: Mapping[str, Any]
    performance: Performance
    pairs: tuple[Pair, ...]
    maps: Mapping[str, Effects]
    mechanism: Mechanism | None
    trial: Trial | None
    unexplained: tuple[tuple[str, str], ...]
    thresholds: Thresholds
    certificate: Mapping[str, Any]
    seconds: Mapping[str, float]
    provenance: Provenance
    complete: bool = True
    command: str = ""
    headline: str = ""
    notes: tuple[str, ...] = field(default=())
    reads_and_writes: ReadsAndWrites = field(default_factory=ReadsAndWrites)
    circuit: CircuitTest | None = None

    @property
    def verdict(self) -> str:
        """`supported`, `refuted` or `inconclusive`."""
        return self.claim.verdict

    def components(self) -> pd.DataFrame:
        """One row per member: its single effects with intervals, what the set loses without it, its role."""
        if self.mechanism is None:
            return pd.DataFrame()
        return pd.DataFrame([self._row(member) for member in self.mechanism.members])

    def _row(self, member: Part) -> dict[str, Any]:
        assert self.mechanism is not None
        row: dict[str, Any] = {"component": member.words}
        for direction in DIRECTIONS:
            cell = single_effect(self.maps, member, direction) or {}
            row |= {f"{direction}_{name}": cell.get(name) for name in ("mean", "low", "high", "q")}
        row["loss_without"] = self.mechanism.loss[member]
        row["role"] = "core" if member in self.mechanism.core else "backup"
        row["weight"] = weight(self.maps, self.mechanism, member, self.thresholds)
        return row

    def page(self) -> Page:
        """The report as content."""
        from cutaway.explanations.story import page

        return page(self)

    def save(self, path: str | Path) -> Path:
        """Write the report and, beside it, a folder with everything in numbers. Returns the report's path.

        `ioi.html` is written with the folder `ioi` beside it; a path without `.html` is taken as a folder that gets
        `report.html` and `results`. Both parts are atomic, and new results without their report are
        removed. Raises `SaveFailed` when the disk refuses; the explanation stays usable and can be saved elsewhere.
        """
        target = Path(path)
        if target.suffix == ".html":
            report, results = target, target.with_suffix("")
        else:
            report, results = target / "report.html", target / "results"
        tensors = {
            f"{name}/{array}": value
            for name, effects in self.maps.items()
            for array, value in storage.tensors(effects.data).items()
        }
        tables = {} if self.mechanism is None else {"components": self.components()}
        page, fresh = self.page(), not results.exists()
        made = [parent for parent in results.parents if not parent.exists()]
        try:
            save_folder(results, self.to_dict(), tensors, tables)
            return write(page, report)
        except BaseException:
            if fresh:
                shutil.rmtree(results, ignore_errors=True)
            for parent in made:
                with suppress(OSError):
                    parent.rmdir()
            raise

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""
        return {
            "kind": _KIND,
            "complete": self.complete,
            "headline": self.headline,
            "claim": self.claim.to_dict(),
            "behaviour": dict(self.behaviour),
            "performance": self.performance.to_dict(),
            "mechanism": None if self.mechanism is None else self.mechanism.to_dict(),
            "trial": None if self.trial is None else self.trial.to_dict(),
            "reads_and_writes": self.reads_and_writes.to_dict(),
            "unexplained": [list(item) for item in self.unexplained],
            "notes": list(self.notes),
            "thresholds": self.thresholds.to_dict(),
            "certificate": dict(self.certificate),
            "seconds": dict(self.seconds),
            "command": self.command,
            "circuit": None if self.circuit is None else self.circuit.to_dict(),
            "provenance": self.provenance.to_dict(),
            "maps": {
                name: storage.manifest(effects.data, effects.provenance)
                for name, effects in self.maps.items()
            },
        }

    def __str__(self) -> str:
        return f"{self.headline}\n{self.claim}"

    def __rich__(self):
        return self.claim.__rich__()

    def _repr_html_(self) -> str:
        return self.claim._repr_html_()


def load_maps(folder: str | Path) -> dict[str, Effects]:
    """The maps of a saved explanation: `"resid_pre, restore"` -> effects.

    Raises `BadFormat` when the folder holds no explanation, `CorruptFile` when it was damaged.
    """
    saved = load_folder(folder)
    maps: dict[str, Effects] = {}
    for name, head in saved.manifest.get("maps", {}).items():
        arrays = {array: saved.tensors[f"{name}/{array}"] for array in head["dims"]}
        maps[name] = Effects(*storage.from_parts(head, arrays))
    return maps
