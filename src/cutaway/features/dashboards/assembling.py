"""The data of a page of features: tokens numbered once, for each feature what is shown of it, and in words what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import BadInput
from cutaway.features.dashboards.directions import (
    AlignedParts,
    DirectLogits,
    Ranked,
    alignment,
    alike,
    direct_logits,
)
from cutaway.features.dashboards.views import FeatureView, FeatureViews, figure
from cutaway.features.index.merging import STATISTICS
from cutaway.figures import show_token

if TYPE_CHECKING:
    from cutaway.features.index import FeatureIndex
    from cutaway.features.labels import FeatureLabels
    from cutaway.features.labels.result import FeatureLabel
    from cutaway.features.sets import FeatureSet
    from cutaway.network import Network
    from cutaway.results import Work
    from cutaway.statistics import Estimate

#: Steps of an activation on a page, as a share of the feature's largest; tokens by which a feature is found.
STEPS, _PEAKS = 999, 10


def visible(text: str) -> str:
    """Text as a page shows it: what is invisible made visible."""
    return show_token(text, escape=False, strip=False)


@dataclass(frozen=True, eq=False)
class DirectionFacts:
    """What is told from directions; None where it is not known.

    Attributes:
        logits: raised and lowered.
        alike: other features.
        aligned: neurons and heads.
        missing: why something is left out.
    """

    logits: DirectLogits | None
    alike: Ranked | None
    aligned: AlignedParts | None
    missing: tuple[str, ...]

    @classmethod
    def of(
        cls, net: Network, index: FeatureIndex, source: FeatureSet | None, seed: int, bins: int = 0
    ) -> DirectionFacts:
        """Of a set of features; bins: of the histograms of logits."""
        if source is None:
            why = "The index was loaded without its set of features: what rests on directions is left out (give of=)."
            return cls(None, None, None, (why,))
        try:
            logits, missing = direct_logits(net, index, source, bins), ()
        except BadInput as error:
            logits, missing = None, (f"Logits are left out. {error.args[0] if error.args else error}",)
        return cls(logits, alike(source), alignment(net, source, seed), missing)


class DashboardData:
    """The data of a page: tokens numbered as they come, records one after the other."""

    def __init__(
        self,
        index: FeatureIndex,
        labels: FeatureLabels | None,
        facts: DirectionFacts,
        views: FeatureViews,
        net: Network,
    ) -> None:
        self.index, self.facts, self.views, self.net = index, facts, views, net
        self.labels = {} if labels is None else {label.number: label for label in labels.labels}
        self.labelled, self.near, self.sums = labels is not None, index.nearest, index.sums
        held = index.store.arrays(STATISTICS) if index.beside else None
        self.beside = None if held is None else (held["beside_which"], held["beside_correlation"])
        self.numbers: dict[int, int] = {}
        self.peaks: list[list[int]] = []

    def word(self, token: int) -> int:
        """The number of a token on this page."""
        return self.numbers.setdefault(token, len(self.numbers))

    def records(self, work: Work) -> Iterator[str]:
        """What the page holds of each feature."""
        for i in range(len(self.index)):
            said = json.dumps(self._record(i), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            yield said.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
            if i % 64 == 63 or i + 1 == len(self.index):
                work.step("features on the page", i + 1, len(self.index))
                work.check()

    def _record(self, i: int) -> dict[str, Any]:
        view, near, facts = self.views(i), self.near, self.facts
        scale = float(np.abs(view.values).max(initial=0.0))
        there = np.nonzero(near.which[i] >= 0)[0] if near.which.shape[1] else []
        top = self._examples(view, view.top, scale)
        found: dict[str, Any] = {
            "scale": figure(scale, 6), "mean": figure(view.mean),
            "histogram": [figure(view.low), figure(view.high), view.bars.tolist()], "top": top,
            "quantiles": [
                [figure(low), figure(high), self._examples(view, rows, scale)] for low, high, _, rows in view.shares
            ],
            "together": [
                [int(near.which[i, j]), figure(near.correlation[i, j], 3), figure(near.jaccard[i, j], 3),
                 int(near.both[i, j])]
                for j in there
            ],
        }  # fmt: skip
        if facts.logits is not None:
            for name, ranked in (("raised", facts.logits.raised), ("lowered", facts.logits.lowered)):
                found[name] = [[self.word(token), figure(v, 3)] for token, v in ranked.of(i)]
        aligned = facts.aligned
        ranks = {
            "alike": facts.alike,
            "neurons": aligned and aligned.neurons,
            "heads": aligned and aligned.heads,
        }
        found |= {name: [[j, figure(v, 3)] for j, v in r.of(i)] for name, r in ranks.items() if r is not None}
        if self.beside is not None:
            which, r = (values[i].tolist() for values in self.beside)
            found["beside"] = [
                [visible(self.index.beside[j]), figure(v, 3)] for j, v in zip(which, r, strict=True)
            ]
        if i in self.labels:
            found["label"] = _label(self.labels[i])
        said = [example[4][example[3]] for example in top] + [pair[0] for pair in found.get("raised", [])[:5]]
        self.peaks.append(list(dict.fromkeys(said))[:_PEAKS])
        return found

    def _examples(self, view: FeatureView, rows: Any, scale: float) -> list[list[Any]]:
        """[text, position, activation, which token it is, tokens, where others are active and how much of the largest]."""
        around = self.views.around(view, rows)
        found = []
        for m in range(len(around.ids)):
            inside = np.nonzero(around.ids[m] >= 0)[0]
            values = around.values[m, inside]
            steps = np.rint(values / (scale or 1.0) * STEPS).astype(int)
            active = [x for n in np.nonzero(values)[0].tolist() for x in (n, int(steps[n]))]
            found.append([
                int(around.text[m]), int(around.position[m]), figure(around.values[m, self.views.sizes.context]),
                int(self.views.sizes.context - inside[0]), [self.word(t) for t in around.ids[m, inside].tolist()], active,
            ])  # fmt: skip
        return found

    def head(self, columns: list[dict[str, Any]]) -> dict[str, Any]:
        """What the list and the search need, after all records."""
        index, aligned = self.index, self.facts.aligned
        words = self.net.token_strings(list(self.numbers))
        low, high = self.sums.minima, self.sums.maxima
        labels = [self.labels.get(i) for i in range(len(index))]
        labelled: dict[str, Any] = dict.fromkeys(("labels", "scores", "verdicts", "standings"))
        if self.labelled:
            labelled = {
                "labels": ["" if label is None else visible(label.text) for label in labels],
                "scores": [_score(label) for label in labels],
                "verdicts": ["" if label is None else label.verdict for label in labels],
                "standings": ["" if label is None else label.standing for label in labels],
            }
        return labelled | {
            "names": [visible(name) for name in index.names], "counts": self.sums.counts.tolist(), "tokens": index.tokens,
            "maxima": [figure(v) for v in np.where(-low > high, low, high)], "columns": columns,
            "words": [show_token(word, escape=False) for word in words],
            "spaced": "".join("1" if word[:1] in (" ", "▁", "Ġ") else "0" for word in words), "peaks": self.peaks,
            "neurons": f"n{aligned.layer}." if aligned else "", "heads": f"a{aligned.layer}.h" if aligned else "",
            "says": _says(self.facts),
        }  # fmt: skip


def _says(facts: DirectionFacts) -> dict[str, str]:
    found = {
        "together": "Over all tokens: correlation of activations; share of the tokens of either at which both are active.",
        "alike": "The cosine of directions, the largest in size first.",
        "beside": "Over all tokens, the largest in size first.",
    }
    if facts.logits is not None:
        scale = facts.logits.scale
        frozen = "" if scale is None else f", the final norm's scale frozen at its median, {scale:.3g}"
        found["logits"] = (
            f"The direct effect of one unit of activation, relative to the mean of all tokens{frozen}. It is read from "
            "weights: what later layers make of it is not in it."
        )
    if facts.aligned is not None:
        layer = facts.aligned.layer
        for name, ranked, what in (
            ("neurons", facts.aligned.neurons, f"Cosine with what neurons of layer {layer} write"),
            ("heads", facts.aligned.heads, f"Share of its square in what a head of layer {layer} can write"),
        ):
            if ranked is not None:
                middle, high = ranked.chance
                found[name] = (
                    f"{what}. The best for a random direction: {middle:.2g}; above {high:.2g} for one in twenty."
                )
    return found


def _score(label: FeatureLabel | None) -> float | None:
    return None if label is None or label.scores is None else figure(label.scores.balanced_accuracy.value, 3)


def _label(label: FeatureLabel) -> dict[str, Any]:
    """A label with its scores beside its controls."""
    rows = []

    def row(name: str, estimate: Estimate | None, says: str) -> None:
        if estimate is not None and np.isfinite(estimate.value):
            low, high = estimate.ends()
            between = f"{low:.2f} to {high:.2f}" if np.isfinite(low) else ""
            rows.append([name, f"{estimate.value:.2f}", between, visible(says)])

    if label.scores is not None:
        s = label.scores
        row(
            "balanced accuracy",
            s.balanced_accuracy,
            f"{s.examples} tokens of {s.texts} texts not seen, {s.hard} hard ones",
        )
    row("the same label for another feature", label.shuffled, label.shuffled_feature)
    if label.control is not None:
        row(
            "a control's label, made in the same way",
            label.control,
            f"{label.control_feature}: {label.control_text}",
        )
    if label.scores is not None:
        row("AUC", label.scores.auc, "")
        row("correlation", label.scores.correlation, "of the predicted activation with the true one")
        row("detection", label.scores.detection, "do a few tokens hold an active one?")
        row("fuzzing", label.scores.fuzzing, "is the marked token the active one?")
    row(
        "causal effect",
        label.causal,
        "how much more the log-odds of what it says fall without it than without random directions",
    )
    return {
        "text": visible(label.text), "verdict": label.verdict, "standing": label.standing, "form": label.form, "rows": rows,
    }  # fmt: skip
