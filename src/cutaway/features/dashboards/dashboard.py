"""The verb that puts all features of an index on one page, with search, and the page's data."""

from __future__ import annotations

import html
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import BadInput
from cutaway.features.dashboards.assembling import STEPS, DashboardData, DirectionFacts, visible
from cutaway.features.dashboards.directions import own_directions, seed_stability
from cutaway.features.dashboards.views import FeatureViews, ViewSizes, figure
from cutaway.features.index import FeatureIndex
from cutaway.features.index.identity import set_hash
from cutaway.features.labels import FeatureLabels
from cutaway.features.sets import FeatureSet
from cutaway.reports import Catalogue, facts_of, render_catalogue
from cutaway.results import Provenance, Work, atomic_write, brief, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class FeatureDashboard:
    """One page of all features: what it says, as data. It is made from an index, which is what is kept.

    Attributes:
        name: of all features together.
        page: what the page says.
        provenance: what is needed to repeat it.
    """

    name: str
    page: Catalogue
    provenance: Provenance

    __repr__ = brief

    def __len__(self) -> int:
        return len(self.page.records)

    @property
    def headline(self) -> str:
        """What there is, in a sentence."""
        return self.page.headline

    def html(self) -> str:
        """The page: one file that needs nothing else, no network and no server."""
        return render_catalogue(self.page)

    def record(self, i: int) -> dict[str, Any]:
        """What the page holds of the i-th feature."""
        return json.loads(self.page.records[i])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file. Raises `SaveFailed` where the disk refuses."""
        return atomic_write(path, self.html())

    def _repr_html_(self) -> str:
        return f"<div>{html.escape(self.headline)}: save(path) writes the page.</div>"


@strict
def dashboard(
    net: Network,
    index: FeatureIndex,
    *,
    labels: FeatureLabels | None = None,
    of: FeatureSet | None = None,
    siblings: Sequence[FeatureSet] | None = None,
    measures: Mapping[str, Sequence[float]] | None = None,
    k: int = 12,
    quantiles: int = 5,
    each: int = 4,
    context: int = 10,
    seed: int = 0,
    work: Work | None = None,
) -> FeatureDashboard:
    """Put all features of an index on one page that needs no server, found by name, label or token.

    Of each: its label with score and controls; its strongest tokens and a sample of every share of its activations, coloured
    by activation; the histogram; the logits that it raises and lowers directly; what it is active together with, whose
    direction is alike, which neurons and heads write alike. What rests on weights alone is said to.

    Args:
        net: the network.
        index: of the features, over many texts.
        labels: of `label_features`.
        of: the set itself, for all that needs directions, where the index was loaded from disk.
        siblings: sets of dictionaries that were trained alike with other seeds: does each feature come again?
        measures: further figures by name, one for each feature; features can be ordered by them.
        k: strongest examples of each, one of each window of text at most.
        quantiles: equal shares of its activations, of which examples are drawn.
        each: examples of each share.
        context: tokens on either side.
        seed: of what is drawn.
        work: hears of progress, and may stop it.

    Raises:
        BadInput: for an index of another network, labels or a set of other features, figures of another number.
    """
    began, work = time.monotonic(), working(work)
    source = source_of(net, index, labels, of)
    for name, number, least in (
        ("k", k, 1),
        ("quantiles", quantiles, 1),
        ("each", each, 0),
        ("context", context, 0),
    ):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise BadInput(
                f"{name}={number!r} is no whole number of at least {least}.", f"Give {name}={least} or more."
            )
    columns = _columns(index, measures)
    if siblings is not None:
        if source is None or not len(siblings):
            raise BadInput("There is nothing to hold siblings against.", "Give of= and at least one sibling.")
        stable, chance = seed_stability(source, siblings, seed)
        says = f"cosine with the nearest of another seed, mean of {len(siblings)}; by chance {chance:.2g}"
        columns.append(
            {"name": "stability over seeds", "values": [figure(v, 3) for v in stable], "says": says}
        )
    facts = DirectionFacts.of(net, index, source, seed)
    made = DashboardData(
        index, labels, facts, FeatureViews(index, ViewSizes(k, quantiles, each, context, seed)), net
    )
    records = list(made.records(work))
    provenance = Provenance.of(net, index.provenance.behaviour_hash, seed, time.monotonic() - began)
    said = "" if labels is None else f"; {labels.headline}"
    page = Catalogue(
        "Cutaway · features", f"{index.headline}{said}.", f"{index.name} of {index.provenance.network}.",
        _notes(index, labels, facts, source), facts_of(provenance), made.head(columns), records,
    )  # fmt: skip
    return FeatureDashboard(index.name, page, provenance)


def source_of(
    net: Network, index: Any, labels: Any = None, of: FeatureSet | None = None
) -> FeatureSet | None:
    """The set that an index is of; None where it was loaded without. `BadInput` for what does not belong together."""
    if not isinstance(index, FeatureIndex):
        raise BadInput(
            f"{type(index).__name__} is no index of features.", "Make one: cutaway.index_features(...)."
        )
    if index.provenance.network_hash != net.hash:
        raise BadInput(
            f"The index is of {index.provenance.network}, with other weights.", f"Make one of {net.name}."
        )
    if of is not None and (not isinstance(of, FeatureSet) or set_hash(of) != index.asked["features"]):
        raise BadInput("The set of features is not the one that was indexed.", "Give that one.")
    if labels is not None:
        if not isinstance(labels, FeatureLabels):
            raise BadInput(
                f"{type(labels).__name__} holds no labels.", "Make them: cutaway.label_features(net, index)."
            )
        wrong = [x for x in labels.labels if x.number >= len(index) or index.names[x.number] != x.feature]
        if wrong or labels.provenance.behaviour_hash != index.provenance.behaviour_hash:
            raise BadInput("The labels are of other features or texts.", "Make them from this index.")
    return of or index.source


def _columns(index: FeatureIndex, measures: Mapping[str, Sequence[float]] | None) -> list[dict[str, Any]]:
    found = []
    for name, given in (measures or {}).items():
        values = np.asarray(list(given), np.float64)
        if values.shape != (len(index),):
            raise BadInput(
                f"{name!r} has {len(values)} figures for {len(index)} features.", "Give one for each."
            )
        found.append({"name": visible(str(name)), "values": [figure(v) for v in values], "says": ""})
    return found


def _notes(
    index: FeatureIndex, labels: FeatureLabels | None, facts: DirectionFacts, source: FeatureSet | None
) -> list[str]:
    found = [
        f"{index.tokens:,} tokens of {index.texts} texts count; the first {index.asked['skip']} of each window do not.",
        f"An activation is shown in {STEPS} steps of the feature's largest; those in words are as they were read.",
    ]
    if index.signed:
        found.append(
            "These features rest nowhere: an activation counts where its size is above a floor of the feature's own."
        )
    if not index.complete:
        found.append("The index was stopped before the end of the texts.")
    if labels is not None:
        found.append(
            "Labels are scored on texts that they were not made on. “Supported”: a label predicts its feature better than "
            "another. “Causal”: taking the feature away lowers what it is said to say; all else is correlational."
        )
        found += list(labels.notes)
    if source is not None and (own := own_directions(source)) is not None:
        found.append(f"Directions are those {own[1]}.")
    if source is not None and facts.logits is not None:
        found.append(f"Logits are told from what is written at {_place(source)}.")
    return [visible(note) for note in (*found, *facts.missing)]


def _place(source: FeatureSet) -> str:
    """Where features write, in words."""
    return ", ".join(str(site) for site, _ in source.writes)
