"""The result: what each stage found, told as a story, a drawing, and answers to five questions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from cutaway.claims import Claim
from cutaway.errors import BadFormat
from cutaway.explanations.computation.claimed import claims_of
from cutaway.explanations.computation.example import TaskExample
from cutaway.explanations.computation.picture import drawing
from cutaway.explanations.computation.questions import answers
from cutaway.explanations.computation.sections import evidence_sections, story_sections
from cutaway.explanations.computation.sentences import story
from cutaway.reports import Page, Said, display_result, result_page
from cutaway.results import Provenance, finite, head, load, read, save_folder
from cutaway.statistics import Estimate


@dataclass(frozen=True, eq=False)
class Computation:
    """What is computed, as far as it was found out.

    Attributes:
        cases: the name of the prompts.
        depth: how deep it was gone.
        example: one prompt, and what is known of all.
        accuracy: of held-out prompts answered right, among the answers that are right in some case.
        results: what each stage found, by its name.
        missing: (stage, why) of those that found nothing or were not reached.
        chosen: which parts were asked, in words; "" where all were.
        seconds: of each stage.
        complete: was no stage stopped?
        provenance: what is needed to repeat it.
        notes: what these prompts cannot tell, and what was left out.
    """

    kind: ClassVar[str] = "computation"

    cases: str
    depth: str
    example: TaskExample
    accuracy: Estimate
    results: Mapping[str, Any]
    missing: tuple[tuple[str, str], ...]
    chosen: str
    seconds: Mapping[str, float]
    complete: bool
    provenance: Provenance
    notes: tuple[str, ...] = field(default=())

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims of all stages, in order."""
        return tuple(claim for result in self.results.values() for claim in claims_of(result))

    @property
    def story(self) -> tuple[Said, ...]:
        """What is computed in five to ten sentences, each with what it rests on."""
        return story(self)

    @property
    def questions(self) -> tuple[Said, ...]:
        """The five questions, each with its answer, or that it is not shown."""
        return answers(self)

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        partial = "" if self.complete else "Partial, stopped before the end: "
        for name in ("proposed", "carried"):
            if name in self.results:
                said = str(self.results[name].headline).rstrip(".")
                return partial + said.removeprefix("Partial, stopped before the end: ")
        return f"{partial}Nothing is shown of what is computed"

    def to_pandas(self) -> pd.DataFrame:
        """One row for each claim: stage, statement, verdict."""
        rows = [
            {"stage": name, "statement": claim.statement, "verdict": claim.verdict}
            for name, result in self.results.items()
            for claim in claims_of(result)
        ]
        return pd.DataFrame(rows, columns=["stage", "statement", "verdict"])

    def plot(self) -> Any:
        """How the variables move: the prompt's words below, above them the parts that carry a variable."""
        return drawing(self)

    def page(self) -> Page:
        """The story, the drawing, the five questions, what is not explained; then each stage with its evidence."""
        sections = [*story_sections(self), *evidence_sections(self)]
        about = f"What {self.provenance.network} computes to answer “{self.cases}”."
        kicker = "Cutaway · what is computed" + ("" if self.complete else " · partial")
        return result_page(about, kicker, f"{self.headline}.", sections, self.provenance)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, the results of all stages too."""
        results = {name: result.to_dict() for name, result in self.results.items()}
        return finite(head(self.kind, self.provenance, **self._content(), results=results))

    def _content(self) -> dict[str, Any]:
        return {
            "cases": self.cases, "depth": self.depth, "example": self.example.to_dict(),
            "accuracy": self.accuracy.to_dict(), "missing": [list(pair) for pair in self.missing], "chosen": self.chosen,
            "seconds": dict(self.seconds), "complete": self.complete, "notes": list(self.notes),
            "stages": list(self.results), "story": [said.text for said in self.story],
            "questions": [[said.head, said.text] for said in self.questions],
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str], /) -> Path:
        """Write it to a folder, each stage's result as a folder inside."""
        parts = {name: result.save for name, result in self.results.items()}
        return save_folder(path, head(self.kind, self.provenance, **self._content()), parts=parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Computation:
        """Read what `save` wrote. Raises `BadFormat` when the folder holds something else."""
        saved, _ = read(path, cls.kind)
        data = saved.manifest
        try:
            return cls(
                data["cases"], data["depth"], TaskExample.from_dict(data["example"]),
                Estimate.from_dict(data["accuracy"]), {name: load(saved.path / name) for name in data["stages"]},
                tuple((stage, why) for stage, why in data["missing"]), data["chosen"], dict(data["seconds"]),
                bool(data["complete"]), Provenance.from_dict(data["provenance"]), tuple(data["notes"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(
                f"The computation in {path} cannot be read: {error!r}.", "Make it again."
            ) from error

    def __repr__(self) -> str:
        lines = [
            f"Computation({self.headline})",
            *(f"  {i}. {said.text}" for i, said in enumerate(self.story, 1)),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        lines = [f"{i}. {said.text}" for i, said in enumerate(self.story, 1)]
        return display_result(self, lines, self.to_pandas())
