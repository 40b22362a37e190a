"""What a verb returns: the protocol of results, the table of their kinds, and `load`, which opens any of them."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from cutaway.errors import BadFormat, NotFound, did_you_mean, nearest
from cutaway.results.calling import MISTAKES, strict
from cutaway.results.files import MANIFEST, Saved, load_folder
from cutaway.results.provenance import Provenance
from cutaway.results.values import unfit

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Result(Protocol):
    """What every result of a verb can do. There is no base class: whatever has these is a result.

    Attributes:
        kind: its name in `KINDS`.
    """

    kind: ClassVar[str]

    @property
    def provenance(self) -> Provenance:
        """What is needed to repeat it (a property, so that frozen dataclasses satisfy it)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON can hold."""
        ...

    def to_pandas(self) -> pd.DataFrame:
        """As a table, one row for each thing that was measured."""
        ...

    def plot(self) -> Any:
        """A Plotly figure, drawn by `cutaway.figures`."""
        ...

    def page(self) -> Any:
        """A `cutaway.reports.Page`: what the command line writes as report.html."""
        ...

    def save(self, path: str | os.PathLike[str], /) -> Path:
        """Write it to a folder, whole or not at all; `cutaway.load` opens it again."""
        ...

    def _repr_html_(self) -> str: ...


@dataclass(frozen=True)
class Kind:
    """One row of the table of kinds.

    Attributes:
        where: "module:Class"; the class has `load(path)`.
        says: what it is, in a few words.
        version: of the format that is written now.
        formerly: tags that older files carry instead of the name; they count as version 0.
    """

    where: str
    says: str
    version: int = 1
    formerly: tuple[str, ...] = ()

    def find(self) -> Any:
        """The class; its module is loaded now."""
        return _named(self.where)


def _named(where: str) -> Any:
    """What "module:name" names."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


#: Every kind of result, by the name that its manifest carries.
KINDS: dict[str, Kind] = {
    "probing": Kind("cutaway.probes.map.probing:Probing", "a map of probes", formerly=("cutaway-probing-1",)),
    "probe": Kind("cutaway.probes.map.linear_probe:Probe", "a probe", formerly=("cutaway-probe-1",)),
    "use": Kind("cutaway.probes.use.result:Use", "tests whether a direction is used", formerly=("cutaway-use-1",)),
    "eraser": Kind("cutaway.probes.use.erasure:Eraser", "an eraser", formerly=("cutaway-eraser-1",)),
    "alignment": Kind("cutaway.probes.use.alignment:Alignment", "a subspace and its tests",
        formerly=("cutaway-alignment-1",)),
    "algorithm-test": Kind("cutaway.algorithms.result:AlgorithmTest", "the test of an algorithm"),
    "dictionary-measures": Kind(
        "cutaway.features.measures.result:DictionaryMeasures", "a dictionary measured beside its controls"
    ),
    "dictionary-training": Kind("cutaway.features.training.trained:DictionaryTraining", "dictionaries that were trained"),
    "binding": Kind("cutaway.features.binding:Binding", "whether a dictionary belongs to a site"),
    "feature-effects": Kind("cutaway.explanations.carrying:CarriedBy", "which features carry a behaviour"),
    "feature-index": Kind("cutaway.features.index.feature_index:FeatureIndex", "where features are active in many texts"),
    "feature-labels": Kind("cutaway.features.labels.result:FeatureLabels", "labels of features"),
    "direction": Kind("cutaway.control.direction:SteeringVector", "a direction to steer by"),
    "steering": Kind("cutaway.control.steering:Steering", "what a network writes while it is steered"),
    "loss": Kind("cutaway.network.loss:Loss", "the loss on texts"),
    "performance": Kind("cutaway.behaviours.checks:Performance", "how well a network does a behaviour"),
    "effects": Kind("cutaway.effects.effects:Effects", "effects of interventions", version=2,
        formerly=("cutaway effects",)),
    "explanation": Kind("cutaway.explanations.explanation:Explanation", "an explanation", formerly=("cutaway explanation",)),
    "circuit-test": Kind("cutaway.circuits.testing:CircuitTest", "the test of a circuit",
        formerly=("cutaway circuit test",)),
    "attribution": Kind("cutaway.stream.attribution:Attribution", "what each part adds to a logit"),
    "biography": Kind("cutaway.stream.biography:Biography", "a direction's life in one text"),
    "composition": Kind("cutaway.stream.composition:Composition", "which heads feed which"),
    "constant-lens": Kind("cutaway.stream.lenses.constant:ConstantLens", "the constant lens"),
    "copying": Kind("cutaway.stream.copying:Copying", "copying scores of heads"),
    "flow": Kind("cutaway.stream.flow:Flow", "how the stream grows"),
    "head-scores": Kind("cutaway.stream.attention_scores:HeadScores", "what heads do, by score"),
    "lens": Kind("cutaway.stream.lenses.affine:AffineLens", "a fitted lens",
        formerly=("cutaway lens", "cutaway tuned lens, under training")),
    "reading": Kind("cutaway.stream.lenses.reading:Reading", "what a lens reads in one text"),
    "lens-report": Kind("cutaway.stream.lenses.report:LensReport", "how well lenses read"),
    "path-expansion": Kind("cutaway.stream.paths:PathExpansion", "every path to a logit"),
    "patterns": Kind("cutaway.stream.patterns:Patterns", "where heads look in one text"),
    "reads-of-writes": Kind("cutaway.stream.flow:ReadsOfWrites", "which writes are read where"),
    "score-parts": Kind("cutaway.stream.why_attend:ScoreParts", "why a head looks where it looks"),
    "singular-directions": Kind("cutaway.stream.copying:SingularDirections", "what a head moves, in words"),
    "induction-heads": Kind("cutaway.stream.induction:InductionHeads", "induction heads, and what is lost without them"),
    "side-by-side": Kind("cutaway.stream.side_by_side:SideBySide", "two prompts side by side"),
    "top-examples": Kind("cutaway.features.top_examples:TopExamples", "where features are strongest in many texts"),
    "activations": Kind("cutaway.features.activations:Activations", "activations of many texts, on disk"),
    "gradients": Kind("cutaway.network.gradients:Gradients", "gradients of what a network says"),
    "carried-variables": Kind("cutaway.algorithms.carried.result:CarriedVariables", "which variable each part carries"),
    "passing": Kind("cutaway.algorithms.passing.result:VariablePassing", "how variables move from place to place"),
    "computation": Kind("cutaway.explanations.computation.result:Computation", "what is computed, told and tested"),
    "backups": Kind("cutaway.algorithms.backups.result:Backups", "which parts stand in for which"),
    "shared-parts": Kind("cutaway.algorithms.backups.shared:SharedParts", "what two behaviours share"),
    "roles": Kind("cutaway.algorithms.roles.result:PartRoles", "what kind of work each part does"),
    "proposed-algorithm": Kind(
        "cutaway.algorithms.proposing.result:ProposedAlgorithm", "an algorithm proposed from what parts carry, tested"
    ),
    "input-attribution": Kind("cutaway.algorithms.inputs.result:InputAttribution", "which input tokens an answer rests on"),
    "intended": Kind("cutaway.algorithms.intended.result:IntendedTest", "whether a network computes what is intended"),
    "circuit": Kind("cutaway.circuits.circuit:Circuit", "a circuit", version=2, formerly=("cutaway circuit",)),
}  # fmt: skip


#: Folders that are saved and are no results: what their manifest's `format` says, and the function that opens them.
OTHERS: dict[str, str] = {"cutaway-interventions-1": "cutaway.interventions.files:load"}


def kind_of(manifest: Mapping[str, Any]) -> tuple[str, int]:
    """Name and version of what a manifest describes; `BadFormat` where it names no kind that is known here."""
    tags = [str(manifest[key]) for key in ("kind", "format") if isinstance(manifest.get(key), str)]
    for tag in tags:
        if tag in KINDS and isinstance(manifest.get("version"), int):
            return tag, manifest["version"]
    for name, kind in KINDS.items():
        if any(tag in kind.formerly for tag in tags):
            return name, 0
    tag = tags[0] if tags else ""
    said = (
        f"This is {tag!r}, which is no kind of result that is known here."
        if tag
        else "No kind is named here."
    )
    raise BadFormat(said, did_you_mean(tag, KINDS))


def head(kind: str, provenance: Provenance, **content: Any) -> dict[str, Any]:
    """The manifest of a result: its kind and version, its provenance, and its content."""
    return {"kind": kind, "version": KINDS[kind].version, **content, "provenance": provenance.to_dict()}


def read(path: str | os.PathLike[str], kind: str) -> tuple[Saved, int]:
    """A saved result of this kind and the version of its format.

    Raises `BadFormat` where it is another kind (it says which) or newer than this program, `CorruptFile` where a file is
    missing or changed.
    """
    saved = load_folder(path)
    name, version = kind_of(saved.manifest)
    if name != kind:
        raise BadFormat(
            f"{path} holds {KINDS[name].says}, not {KINDS[kind].says}.", "Open it with cutaway.load(...)."
        )
    if version > KINDS[kind].version:
        raise BadFormat(
            f"{path} was written by a newer version (format {version} of {kind}).",
            "Update cutaway to open it.",
        )
    return saved, version


@strict
def load(path: str | os.PathLike[str]) -> Any:
    """Open any saved result, of any kind: the folder that `save` or a command wrote, or a result inside it.

    Raises `NotFound` where there is nothing, `BadFormat` where it is no result, `CorruptFile` where it was changed.
    """
    folder = Path(path)
    if not folder.exists():
        near = nearest(folder.name, [f.name for f in folder.absolute().parent.glob("*")], 1)
        raise NotFound(f"{folder} does not exist.", f"Did you mean {near[0]}?" if near else "Check the path.")
    if folder.suffix == ".nc":
        return KINDS["effects"].find().load(folder)
    if not (folder / MANIFEST).is_file():
        inside = (
            ", ".join(sorted(str(f.parent) for f in folder.glob(f"*/{MANIFEST}"))) if folder.is_dir() else ""
        )
        remedy = f"It holds results: load {inside}." if inside else "Pass the folder that save wrote."
        raise BadFormat(f"{folder} is not a saved result: it has no {MANIFEST}.", remedy)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFormat(f"{folder / MANIFEST} is not JSON: {error}.", "Make the result again.") from error
    if not isinstance(manifest, dict):
        raise BadFormat(f"{folder / MANIFEST} holds no manifest.", "Make the result again.")
    if manifest.get("format") in OTHERS:
        return _named(OTHERS[manifest["format"]])(folder)
    name, _ = kind_of(manifest)
    try:
        found = KINDS[name].find().load(folder)
        said = unfit(found)
    except MISTAKES as error:
        raise BadFormat(
            f"{folder} does not hold {KINDS[name].says}: {error!r:.200}.", "Make the result again."
        ) from error
    if said:
        raise BadFormat(f"{folder} does not hold {KINDS[name].says}: {said}.", "Make the result again.")
    return found
