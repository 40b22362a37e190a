"""The result: labels of features with their scores on texts not seen, and the controls beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from cutaway.claims import Verdict
from cutaway.errors import BadAddress
from cutaway.features.labels.exam import LabelScores
from cutaway.figures import Bar, groups_of_bars
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.statistics import Estimate

#: Labels that a page shows as bars, and as rows.
_BARS, _ROWS, _WIDE = 16, 200, 48


@dataclass(frozen=True)
class OtherLabel:
    """The best label of another form.

    Attributes:
        text: what it says.
        form: of which form it is.
        f1: on the training texts.
    """

    text: str
    form: str
    f1: float


@dataclass(frozen=True)
class FeatureLabel:
    """A label of one feature: a readable predictor of its activation.

    Attributes:
        feature: its name.
        number: its number in the index.
        text: what it says; "" where none was found.
        form: token, prefix, suffix, previous, n-gram, position, mark or say; "words" of a labeler.
        f1: on the training texts.
        tokens: on how many tokens the feature is active, in training and in test texts.
        scores: on texts not seen; None where the feature is active on too few of them.
        shuffled: balanced accuracy of the same label for another feature, which is named in `shuffled_feature`.
        shuffled_feature: that feature.
        majority: balanced accuracy of saying the same of every token.
        control: balanced accuracy of the label found in the same way for the control feature that is most like this one.
        control_feature: that feature.
        control_text: its label.
        causal: of a label "say X", how much more the log-odds of X fall without the feature than with random
            directions taken away.
        standing: "causal" where that is above zero with its whole interval, else "correlational".
        q: adjusted p-value that it is no better than for the other feature.
        verdict: supported where it is better than for the other feature, with both intervals and among all features.
        others: the best labels of other forms, and of another mark.
    """

    feature: str
    number: int
    text: str
    form: str
    f1: float
    tokens: tuple[int, int]
    scores: LabelScores | None
    shuffled: Estimate | None
    shuffled_feature: str
    majority: float
    control: Estimate | None
    control_feature: str
    control_text: str
    causal: Estimate | None
    standing: str
    q: float
    verdict: Verdict
    others: tuple[OtherLabel, ...]


@dataclass(frozen=True, eq=False)
class FeatureLabels:
    """Labels of features.

    Attributes:
        name: of all features together.
        labels: one for each that was asked for.
        texts: how many texts labels were made on, and how many they were scored on.
        overlap: how many texts are in both: none.
        tokens: how many tokens these hold.
        forms: that were tried.
        control: what the control features are; "" where none were given.
        notes: what was left out, and why.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "feature-labels"

    name: str
    labels: tuple[FeatureLabel, ...]
    texts: tuple[int, int]
    overlap: int
    tokens: tuple[int, int]
    forms: tuple[str, ...]
    control: str
    notes: tuple[str, ...]
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, feature: str | int) -> FeatureLabel:
        """The label of a feature, by its name or its number in the index. Raises `BadAddress` where there is none."""
        for label in self.labels:
            if feature == (label.feature if isinstance(feature, str) else label.number):
                return label
        raise BadAddress(
            f"There is no label of {feature!r}.",
            f"There are labels of {', '.join(label.feature for label in self.labels[:6])}.",
        )

    @property
    def supported(self) -> tuple[FeatureLabel, ...]:
        """Those that hold on texts not seen."""
        return tuple(label for label in self.labels if label.verdict == "supported")

    def to_pandas(self) -> pd.DataFrame:
        """One row per feature: label, verdict, scores, controls."""
        return pd.DataFrame([_row(label) for label in self.labels], columns=_COLUMNS)

    def top(self, n: int = 12) -> pd.DataFrame:
        """The labels that predict best: balanced accuracy, and that of the same label for another feature."""
        table = self.to_pandas().sort_values(
            "balanced_accuracy", ascending=False, kind="stable", na_position="last"
        )
        chosen = table[["feature", "label", "verdict", "standing", "balanced_accuracy", "shuffled"]].head(n)
        short = {"balanced_accuracy": "accuracy", "shuffled": "another's"}
        return pd.DataFrame(chosen.assign(label=[_cut(text) for text in chosen["label"]])).rename(
            columns=short
        )

    def plot(self) -> Any:
        """Balanced accuracy of the best labels, beside the same labels for other features."""
        ranked = sorted((x for x in self.labels if x.scores and x.shuffled), key=_accuracy, reverse=True)[
            :_BARS
        ]
        names = [_cut(f"{label.feature}: {label.text}") for label in ranked]
        groups = {
            "the feature": [
                Bar.of(n, x.scores.balanced_accuracy) for n, x in zip(names, ranked, strict=True) if x.scores
            ],
            "another feature": [
                Bar.of(n, x.shuffled) for n, x in zip(names, ranked, strict=True) if x.shuffled
            ],
        }
        return groups_of_bars(groups, unit="balanced accuracy on texts not seen")

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        scored = [label for label in self.labels if label.scores is not None]
        causal, few = sum(label.standing == "causal" for label in self.labels), len(self.labels) - len(scored)
        more = f", {causal} of them by what taking it away does" if causal else ""
        return (
            f"{len(self.supported)} of {len(self.labels)} {self.name} have a label that holds on {self.texts[1]} "
            f"texts not seen{more}"
            + (f"; {few} {'is' if few == 1 else 'are'} active on too few" if few else "")
        )

    def page(self) -> Page:
        """All labels, with their scores and their controls."""
        table = self.to_pandas().sort_values(
            "balanced_accuracy", ascending=False, kind="stable", na_position="last"
        )
        wanted = [
            "feature",
            "label",
            "verdict",
            "tokens",
            "balanced_accuracy",
            "shuffled",
            "auc",
            "detection",
            "fuzzing",
        ]
        wanted += [column for column in ("control", "causal") if any(_said(table, column))]
        names = {
            "balanced_accuracy": "balanced accuracy", "shuffled": "for another feature", "control": "of the control",
            "causal": "log-odds lost without it",
        }  # fmt: skip
        caption = "Labels, the best first. Scores are on texts that labels were not made on; half of the negatives are hard."
        rows = {names.get(c, c): _said(table.head(_ROWS), c, "–") for c in wanted}
        blocks: list[Any] = [table_of(pd.DataFrame(rows, dtype=object), caption)]
        if any(x.scores and x.shuffled for x in self.labels):
            blocks.insert(
                0, Figure(self.plot(), "The best labels, beside the same labels for another feature.")
            )
        lead = " ".join(self.notes)
        return page_of(
            self, "Cutaway · features", f"{self.name} of {self.provenance.network}.", blocks, lead=lead
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(
            self,
            "kind",
            "name",
            "texts",
            "overlap",
            "tokens",
            "forms",
            "control",
            "notes",
            "headline",
            "labels",
        )

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        return f"FeatureLabels({self.headline})\n{self.top(5).to_string(index=False, max_colwidth=60, float_format='%.3g')}"[
            :1900
        ]

    def _repr_html_(self) -> str:
        return display_result(self, table=self.top())


_COLUMNS = [
    "feature", "number", "label", "form", "verdict", "standing", "tokens", "f1", "balanced_accuracy", "low", "high", "auc",
    "correlation", "detection", "fuzzing", "shuffled", "shuffled_high", "control", "control_label", "causal", "q",
]  # fmt: skip


def _said(table: pd.DataFrame, column: str, nothing: Any = None) -> list[Any]:
    """The values of a column, with something else where there is none."""
    return [nothing if value is None or value != value or value == "" else value for value in table[column]]


def _cut(text: str) -> str:
    """Short enough to stand beside a bar."""
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1].rstrip()}…"


def _accuracy(label: FeatureLabel) -> float:
    return label.scores.balanced_accuracy.value if label.scores else 0.0


def _row(label: FeatureLabel) -> tuple[Any, ...]:
    nan = float("nan")

    def value(estimate: Estimate | None) -> float:
        return nan if estimate is None else estimate.value

    s = label.scores
    figures: list[float] = [nan] * 7
    if s is not None:
        rest = (s.auc, s.correlation, s.detection, s.fuzzing)
        figures = [s.balanced_accuracy.value, *s.balanced_accuracy.ends(), *map(value, rest)]
    return (
        label.feature, label.number, label.text, label.form, label.verdict, label.standing, sum(label.tokens), label.f1,
        *figures, value(label.shuffled), nan if label.shuffled is None else label.shuffled.ends()[1], value(label.control),
        label.control_text, value(label.causal), label.q,
    )  # fmt: skip
