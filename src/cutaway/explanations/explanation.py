"""`Explanation`: everything that an explanation found, and how it is saved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from cutaway.behaviours import Performance
from cutaway.behaviours.standing import FormPerformance
from cutaway.claims import Claim, Verdict
from cutaway.effects import Effects
from cutaway.errors import BadFormat
from cutaway.explanations import story, where, wiring
from cutaway.explanations.carrying import CarriedBy
from cutaway.explanations.computation import Computation
from cutaway.explanations.computation.sections import evidence_sections, story_sections
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.localise import DIRECTIONS, single_effect
from cutaway.explanations.reads_and_writes import ReadsAndWrites
from cutaway.explanations.reads_and_writes_section import reads_and_writes_section
from cutaway.explanations.singles import PartScreening
from cutaway.explanations.sizes import WHOLE, Sizes
from cutaway.explanations.verdict import short
from cutaway.explanations.weights import weight
from cutaway.figures import grid_picture
from cutaway.network.parts import Part, in_words
from cutaway.reports import Page, Pair, Points, Section, Token, display, render, write
from cutaway.results import MANIFEST, Provenance, add_page, brief, finite, head, read, save_folder
from cutaway.trials import Trial

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from cutaway.circuits import CircuitTest


@dataclass(frozen=True, eq=False)
class Explanation:
    """The result of `explain`: where the behaviour is, which parts carry it, and what the test of that said.

    Attributes:
        claim: what is claimed, with verdict, evidence and controls.
        behaviour: name, sizes, metric and hash of the behaviour.
        performance: how well the network does it, on all examples.
        pairs: a few example pairs.
        maps: `"resid_pre, restore"` -> effects on discovery data.
        mechanism: the set that was found; None when stopped before.
        trial: its test on held-out data; None when stopped before.
        unexplained: (what, in words) of what the explanation leaves open.
        limits: the numbers fixed beforehand.
        certificate: the network's certificate, as plain data.
        seconds: time of each stage.
        provenance: what is needed to repeat it.
        complete: False when it was stopped before the end.
        command: the command line that repeats it.
        headline: the result in one or two sentences.
        notes: remarks, such as what an older file did not hold.
        reads_and_writes: what each member writes and reads by direct paths, a description beside the tests.
        circuit: the behaviour's circuit by edges, tested on held-out data; None where the graph cannot be drawn.
        sizes: on how many examples and parts each stage worked.
        screening: which parts a gradient let through to be patched, and what it missed; None where all were patched.
        forwards: forward-equivalents of each stage.
        forms: performance on each sentence frame, those that were set aside among them.
        features: the features that carry it; None where they were not looked for.
        computation: what is computed, told and tested; None where that was not asked.
    """

    kind: ClassVar[str] = "explanation"

    claim: Claim
    behaviour: Mapping[str, Any]
    performance: Performance
    pairs: tuple[Pair, ...]
    maps: Mapping[str, Effects]
    mechanism: Mechanism | None
    trial: Trial | None
    unexplained: tuple[tuple[str, str], ...]
    limits: SearchLimits
    certificate: Mapping[str, Any]
    seconds: Mapping[str, float]
    provenance: Provenance
    complete: bool = True
    command: str = ""
    headline: str = ""
    notes: tuple[str, ...] = ()
    reads_and_writes: ReadsAndWrites = field(default_factory=ReadsAndWrites)
    circuit: CircuitTest | None = None
    sizes: Sizes = WHOLE
    screening: PartScreening | None = None
    forwards: Mapping[str, float] = field(default_factory=dict)
    forms: tuple[FormPerformance, ...] = ()
    features: CarriedBy | None = None
    computation: Computation | None = None

    __repr__ = brief

    @property
    def verdict(self) -> Verdict:
        """`supported`, `refuted` or `inconclusive`."""
        return self.claim.verdict

    def to_pandas(self) -> pd.DataFrame:
        """One row per member: its single effects with intervals, what the set loses without it, its role."""
        if self.mechanism is None:
            return pd.DataFrame()
        return pd.DataFrame([self._row(member) for member in self.mechanism.members])

    def _row(self, member: Part) -> dict[str, Any]:
        assert self.mechanism is not None
        row: dict[str, Any] = {"part": str(member)}
        for direction in DIRECTIONS:
            cell = single_effect(self.maps, member, direction) or {}
            row |= {f"{direction}_{name}": cell.get(name) for name in ("mean", "low", "high", "q")}
        row["loss_without"] = self.mechanism.loss[member]
        row["role"] = "core" if member in self.mechanism.core else "backup"
        row["weight"] = weight(self.maps, self.mechanism, member, self.limits)
        return row

    def plot(self) -> Figure:
        """What the set keeps alone and leaves when removed, beside random sets; before the test, the first map."""
        if self.trial is not None:
            return story.trial_figure(self.trial, self.limits)
        if not self.maps:
            raise BadFormat("Nothing was finished that could be drawn.", "Run it again.")
        return next(iter(self.maps.values())).plot()

    def page(self) -> Page:
        """The report as content."""
        origin, performance, trial = self.provenance, self.performance, self.trial
        unexplained = [Points(self.unexplained)] if self.unexplained else []
        told = self.computation
        sections = [
            *([] if told is None else story_sections(told, self)),
            story.behaviour_section(self.behaviour, performance, self.pairs, self.forms),
            *where.stream_section(self.maps, self.behaviour["discovery"]),
            *where.maps_section(self.maps, self.behaviour.get("searched", "")),
            *where.components_section(self.maps, self.to_pandas(), self.screening),
            *reads_and_writes_section(self.reads_and_writes),
            *([] if self.features is None else [self.features.section()]),
            story.tests_section(self.claim, trial, self.limits),
            *wiring.section(self.circuit),
            *([] if told is None else evidence_sections(told)),
            Section("unexplained" if told is not None else "open", "What is not explained", unexplained),
            story.repeat_section(
                origin,
                self.certificate,
                self.behaviour,
                self.seconds,
                self.limits,
                self.command,
                self.sizes,
                self.forwards,
            ),
        ]
        return Page(
            title=f"What carries “{self.behaviour['name']}” in {short(origin.network)}",
            kicker="Cutaway · explanation" + ("" if self.complete else " · partial"),
            verdict=self.verdict,
            headline=self.headline,
            lead=story.lead(self.claim, trial),
            key_figures=story.key_figures(performance, self.mechanism, trial),
            sections=sections,
            colophon=(
                f"Made by Cutaway {origin.versions.get('cutaway', '')} on {origin.created} in {origin.seconds:.0f} s. This "
                "file is complete in itself and loads nothing from any network."
            ),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything in numbers to a folder, and the report. Returns the folder, which `cutaway.load` opens again.

        A folder gets `report.html` inside; `ioi.html` is written as such, with the folder `ioi` beside it. Both parts are
        atomic, and new results without their report are removed. Raises `SaveFailed` when the disk refuses; the explanation
        stays usable and can be saved elsewhere.
        """
        target = Path(path)
        folder = target.with_suffix("") if target.suffix == ".html" else target
        report = target if target.suffix == ".html" else folder / "report.html"
        page, fresh = self.page(), not folder.exists()
        new_parents = [parent for parent in folder.parents if not parent.exists()]
        try:
            self._save_folder(folder)
            if report.parent == folder:
                add_page(folder, render(page), report.name)
            else:
                write(page, report)
        except BaseException:
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            for parent in new_parents:
                with suppress(OSError):
                    parent.rmdir()
            raise
        return folder

    def _save_folder(self, folder: Path) -> None:
        """The numbers: the manifest, the table of members, and each map and the circuit as a result of its own inside."""
        manifest = head(self.kind, self.provenance, **self._content())
        tables = {} if self.mechanism is None else {"components": self.to_pandas()}
        parts: dict[str, Any] = {f"maps/{name}": effects.save for name, effects in self.maps.items()}
        if self.circuit is not None:
            parts["circuit"] = self.circuit.save
        if self.features is not None:
            parts["features"] = self.features.save
        if self.computation is not None:
            parts["computation"] = self.computation.save
        save_folder(folder, manifest, None, tables, parts=parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote; of files of the version before, what they hold (no example pairs, no circuit).

        Raises `BadFormat` when the folder holds no explanation, `CorruptFile` when it was damaged.
        """
        folder = Path(path).with_suffix("") if Path(path).suffix == ".html" else Path(path)
        if not (folder / MANIFEST).is_file() and (folder / "results" / MANIFEST).is_file():
            folder = folder / "results"
        saved, version = read(folder, cls.kind)
        data = saved.manifest
        try:
            return cls(**_fields(data), **(_parts(folder, data) if version else _older(data, saved.tensors)))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(
                f"The explanation in {folder} cannot be read: {error!r}.", "Make it again."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""
        circuit = None if self.circuit is None else self.circuit.to_dict()
        features = None if self.features is None else self.features.to_dict()
        told = {} if self.computation is None else {"computation": self.computation.to_dict()}
        return finite(
            head(self.kind, self.provenance, **self._content(), circuit=circuit, features=features, **told)
        )

    def _content(self) -> dict[str, Any]:
        """All fields as plain data but those that are stored by themselves; of maps their names."""
        elsewhere = ("maps", "circuit", "features", "computation", "provenance")
        plain = {name: value for name, value in vars(self).items() if name not in elsewhere}
        return finite(plain | {"maps": list(self.maps)})

    def __str__(self) -> str:
        return f"{self.headline}\n{self.claim}"

    def __rich__(self):
        return self.claim.__rich__()

    def _repr_html_(self) -> str:
        members = self.to_pandas()
        if len(members):
            members["part"] = members["part"].map(in_words)
        first = next((effects for effects in self.maps.values() if len(effects.dims) >= 2), None)
        picture = ("" if first is None else grid_picture(first.grid())) + self.claim._repr_html_()
        return display(self.headline, (), members, picture, self.verdict, self.provenance)


#: Fields that are written as they are, and how the others are read.
_AS_THEY_ARE = ("behaviour", "certificate", "seconds", "complete", "command", "headline")
_READ: dict[str, Callable[[Any], Any]] = {
    "claim": Claim.from_dict,
    "performance": Performance.from_dict,
    "mechanism": Mechanism.from_dict,
    "trial": Trial.from_dict,
    "provenance": Provenance.from_dict,
    "reads_and_writes": ReadsAndWrites.from_dict,
}


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """What all versions of the format hold in the same way."""
    limits = dict(data.get("limits") or data["thresholds"])
    if "random_sets" in limits:
        limits["random"] = limits.pop("random_sets")
    missing = [name for name in ("mechanism", "trial") if data[name] is None]
    parts = {name: None if name in missing else read(data[name]) for name, read in _READ.items()}
    unexplained = tuple((what, words) for what, words in data["unexplained"])
    as_they_are = {name: data[name] for name in _AS_THEY_ARE}
    screened = data.get("screening")
    later = {
        "forwards": dict(data.get("forwards", {})),
        "forms": tuple(map(FormPerformance.from_dict, data.get("forms", ()))),
        "sizes": _sizes(data.get("sizes")),
        "screening": None if screened is None else PartScreening.from_dict(screened),
    }
    return as_they_are | parts | later | {"unexplained": unexplained, "limits": SearchLimits(**limits)}


def _sizes(data: Mapping[str, Any] | None) -> Sizes:
    """The sizes that were kept; those of earlier versions know of no groups."""
    given: dict[str, Any] = {} if data is None else {"groups": 0, **data}
    return Sizes(**given)


def _parts(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs, maps and circuit as they are written now."""
    from cutaway.circuits import CircuitTest

    circuit, features, told = folder / "circuit", folder / "features", folder / "computation"
    return {
        "pairs": tuple(map(_pair, data["pairs"])),
        "maps": {name: Effects.load(folder / "maps" / name) for name in data["maps"]},
        "notes": tuple(data["notes"]),
        "circuit": CircuitTest.load(circuit) if circuit.is_dir() else None,
        "features": CarriedBy.load(features) if features.is_dir() else None,
        "computation": Computation.load(told) if told.is_dir() else None,
    }


def _older(data: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The maps of the version before, whose arrays lay in the explanation's own file."""
    from cutaway.effects import storage

    maps = {}
    for name, manifest in data.get("maps", {}).items():
        arrays = {array: tensors[f"{name}/{array}"] for array in manifest["dims"]}
        maps[name] = Effects(*storage.from_parts(manifest, arrays))
    notes = [*data["notes"], "Read from a file of an earlier version, which did not keep the example pairs."]
    if data.get("circuit"):
        notes.append("Nor did it keep the circuit itself; its claim and figures are in the manifest.")
    return {"pairs": (), "maps": maps, "notes": tuple(notes)}


def _pair(data: Mapping[str, Any]) -> Pair:
    sides = {side: tuple(Token(**token) for token in data[side]) for side in ("clean", "corrupted")}
    more = {"sides": tuple(data["sides"])} if "sides" in data else {}
    return Pair(**{**data, **sides, **more})
