"""The result: which features carry a behaviour, how much each does, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.claims import Claim, Evidence
from cutaway.figures import Bar, bars
from cutaway.network.parts import in_words
from cutaway.reports import Block, Figure, Page, Section, Table, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.statistics import Estimate
from cutaway.trials.judging import claim_of, percent, with_interval

#: Of this share of random sets it must do more.
OF_RANDOM = 0.95


@dataclass(frozen=True)
class FeatureEffect:
    """What one feature does.

    Attributes:
        name: of the part.
        label: what it stands for, where that is known.
        estimated: what a gradient on the discovery pairs says it restores, as a share of the gap.
        restores: what putting its clean value into the corrupted run brings back of the gap, on held-out pairs.
        removes: what putting its corrupted value into the clean run takes away, on held-out pairs.
    """

    name: str
    label: str
    estimated: float
    restores: Estimate
    removes: Estimate


@dataclass(frozen=True, eq=False)
class CarriedBy:
    """The features that carry a behaviour.

    Attributes:
        behaviour: its name.
        sites: where the features are.
        total: how many there are.
        differing: how many differ between the prompts of any discovery pair.
        features: the strongest by a gradient on discovery pairs, strongest first.
        together: what all of them restore at once, as a share of the gap.
        removed: what their corrupted values take away at once.
        random: the same as `together` for random sets of as many.
        over_random: what they restore more than each of these.
        whole: what all features of the dictionary restore; None for neurons.
        error: what its error restores, the features left as they are; None for neurons.
        random_dictionary: what the best of as many random directions restore; None where it was not tried.
        over_random_dictionary: what the features restore more than these.
        claim: the verdict and its evidence.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "feature-effects"

    behaviour: str
    sites: tuple[str, ...]
    total: int
    differing: int
    features: tuple[FeatureEffect, ...]
    together: Estimate
    removed: Estimate
    random: tuple[float, ...]
    over_random: tuple[Estimate, ...]
    whole: Estimate | None
    error: Estimate | None
    random_dictionary: Estimate | None
    over_random_dictionary: Estimate | None
    claim: Claim
    provenance: Provenance

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        return self.claim.statement

    def to_pandas(self) -> pd.DataFrame:
        """One row for each feature: label, estimate, what it restores and removes with intervals."""
        rows = []
        for one in self.features:
            ends = (*one.restores.ends(), *one.removes.ends())
            rows.append(
                (
                    one.name,
                    one.label,
                    one.estimated,
                    one.restores.value,
                    *ends[:2],
                    one.removes.value,
                    *ends[2:],
                )
            )
        names = [
            "feature", "label", "estimated", "restores", "restores_low", "restores_high", "removes", "removes_low",
            "removes_high",
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=names)

    def plot(self) -> Any:
        """What each feature restores, and what stands beside them."""
        shown = [Bar.of(_titled(one), one.restores) for one in self.features]
        shown.append(Bar.of(f"these {len(self.features)} together", self.together))
        if self.random:
            shown.append(Bar.of(f"{len(self.features)} at random (mean)", float(np.mean(self.random))))
        beside = {
            "best random directions": self.random_dictionary,
            "all features": self.whole,
            "the dictionary's error": self.error,
        }
        shown += [Bar.of(name, estimate) for name, estimate in beside.items() if estimate is not None]
        return bars(shown, unit="share of the gap restored")

    def blocks(self) -> list[Block]:
        """Figure and table, as every page shows them."""
        rows = [
            (
                in_words(one.name), one.label, with_interval(one.restores), with_interval(one.removes),
                percent(one.estimated),
            )
            for one in self.features
        ]  # fmt: skip
        head = ("feature", "label", "restores", "removes", "by a gradient, on other pairs")
        if not any(one.label for one in self.features):
            head, rows = (head[0], *head[2:]), [(row[0], *row[2:]) for row in rows]
        caption = (
            "Clean value put into the corrupted run (restores), and corrupted value into the clean run (removes), on "
            "held-out pairs, as a share of the gap between the two."
        )
        return [Figure(self.plot(), caption), Table(head, tuple(rows))]

    def page(self) -> Page:
        """The features, and what stands beside them."""
        about = (
            f"{self.differing:,} of {self.total:,} features at {', '.join(self.sites[:4])} differ between the prompts of "
            f"“{self.behaviour}”."
        )
        return result_page(
            about, "Cutaway · features that carry a behaviour", f"{self.headline}.", self.blocks(), self.provenance,
            verdict=self.claim.verdict, claims=[self.claim],
        )  # fmt: skip

    def section(self) -> Section:
        """As a section of an explanation."""
        return Section("features", "Which features carry it", self.blocks(), f"{self.claim.statement}.")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        names = [name for name in self.__dataclass_fields__ if name != "provenance"]
        return described(self, *names)

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        table = self.to_pandas()[["feature", "label", "restores", "removes"]].head(8)
        return f"CarriedBy({self.headline})\n{table.to_string(index=False, float_format='%.3g')}"[:1900]

    def _repr_html_(self) -> str:
        return display_result(self, table=self.to_pandas())


def _titled(one: FeatureEffect) -> str:
    return f"{in_words(one.name)} · {one.label}" if one.label else in_words(one.name)


def claim(
    net: str, behaviour: str, effects: Sequence[FeatureEffect], figures: Mapping[str, Any], controlled: bool
) -> Claim:
    """Do these features carry the behaviour? Restored more than nothing, than random sets, than random directions."""
    together: Estimate = figures["together"]
    over: Sequence[Estimate] = figures["over_random"]
    above = together.above(0.0)
    evidence = [
        Evidence("restores the behaviour", together, None, 0.0, above, f"Together they restore {with_interval(together)}.",
                 "of the gap"),
    ]  # fmt: skip
    caps = []
    if over:
        beaten, lost = (sum(e.above(0.0) is sign for e in over) / len(over) for sign in (True, False))
        passed = True if beaten >= OF_RANDOM else False if lost > 1 - OF_RANDOM else None
        mean = percent(float(np.mean(figures["random"])))
        evidence.append(Evidence(
            "more than random features", None, beaten, OF_RANDOM, passed,
            f"{percent(beaten)} of {len(over)} random sets of as many restore less, with a whole interval; they restore "
            f"{mean} on average.",
            "of random sets",
        ))  # fmt: skip
    else:
        caps.append("There are too few other features for random sets.")
    difference: Estimate | None = figures["over_random_dictionary"]
    if difference is not None:
        evidence.append(Evidence(
            "more than random directions", difference, None, 0.0, difference.above(0.0),
            f"The best of as many random directions restore {with_interval(figures['random_dictionary'])}.", "of the gap",
        ))  # fmt: skip
    elif not controlled:
        caps.append("No dictionary of random directions was tried beside it.")
    names = ", ".join(_titled(one) for one in effects[:3])
    unit = "neurons" if effects[0].name.rpartition(".")[0].startswith("n") else "features"
    many = f"{len(effects)} {unit}, the first of them {names}," if len(effects) > 3 else names
    if above:
        said = f"{many} restore {with_interval(together)} of “{behaviour}” in {net}"
    else:
        said = f"{many} are not shown to restore any of “{behaviour}” in {net}"
    notes = []
    if figures["whole"] is not None and figures["error"] is not None:
        notes.append(
            f"All features restore {with_interval(figures['whole'])}; the dictionary's error alone, in which no feature "
            f"differs, {with_interval(figures['error'])}."
        )
    return claim_of(said, evidence, notes=notes, caps=caps)
