"""The verb that names features: labels made on some texts, scored on others, beside the same label for another feature."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import BadInput, did_you_mean
from cutaway.features.index import FeatureIndex
from cutaway.features.index.identity import set_hash
from cutaway.features.labels.fitting import ActiveRows
from cutaway.features.labels.labelers import Labeler
from cutaway.features.labels.marks import MarksLike
from cutaway.features.labels.result import FeatureLabels
from cutaway.features.labels.saying import raised
from cutaway.features.labels.splitting import split_texts
from cutaway.features.labels.traits import FORMS, TokenTrait, traits_of
from cutaway.features.labels.trial import LabelTrial
from cutaway.features.sets import FeatureSet
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network


@strict
def label_features(
    net: Network,
    index: FeatureIndex,
    *,
    features: Sequence[str | int] | int | None = None,
    marks: MarksLike | None = None,
    forms: Sequence[str] | None = None,
    labeler: Labeler | None = None,
    control: FeatureIndex | None = None,
    of: FeatureSet | None = None,
    causal: int = 32,
    seed: int = 0,
    work: Work | None = None,
) -> FeatureLabels:
    """Name features by readable predictors of their activation, and score each name on texts that it was not made on.

    A label is a set of tokens, of their first or last letters, of tokens before, of pairs of tokens, of positions, of values
    of a mark, or "say X": tokens that the feature's direction raises, where one of them comes next. It is made on three
    fifths of the texts: the best by F1, less what form and size cost. It is scored on the others, where half of the
    negatives are hard: one of the five nearest features is active there and this one is not.

    Supported: on those texts it predicts the feature better than it predicts another one, with both intervals over texts,
    and among all features (Benjamini and Hochberg, 5 %). A label "say X" is causal where taking the feature away on those
    texts lowers X more than random directions of the same length do; every other label is correlational.

    Args:
        net: the network.
        index: of the features, over many texts.
        features: which, by name or number; or so many of the most frequent; default all that are ever active.
        marks: by name, for each text a label (or None) for each of its tokens; see `marks_of_spans`.
        forms: which forms a label may take: mark, token, position, previous, prefix, suffix, n-gram, say. Default all.
        labeler: whoever gives labels in words, and predicts from them; its labels are scored in place of these.
        control: an index of features that mean nothing, over the same texts: of a dictionary with a frozen random decoder.
        of: the set itself, for "say X", where the index was loaded from disk.
        causal: of how many labels "say X" at most it is measured what taking the feature away does.
        seed: of the division of the texts, of examples and intervals.
        work: hears of progress, and may stop it.

    Raises:
        BadInput: for an index of another network, of one text, for a control over other texts, or an unknown form.
        BadAddress: for a feature that is not there.
    """
    began, work = time.monotonic(), working(work)
    chosen_forms = _check(net, index, forms, control, of, labeler)
    which = _which(index, features)
    if isinstance(causal, bool) or causal < 0:
        raise BadInput(f"causal={causal!r} is no number of labels.", "Give 0 or more.")
    split = split_texts(index.rows, seed)
    source = of or index.source
    says = None if source is None or "say" not in chosen_forms else raised(net, source, which)
    notes = () if says is not None or "say" not in chosen_forms else (_no_say(source),)
    traits = traits_of(index, marks, [form for form in chosen_forms if form != "say" or says is not None])
    if not traits:
        raise BadInput("No form of label is left to try.", " ".join(notes) or "Give marks=, or other forms.")
    trial = LabelTrial(index, which, ActiveRows.of(index.matrix(which)), split, traits, seed, work)
    trial.fit(_allowed(index, traits, says))
    if control is not None:
        trial.match(control)
    if labeler is not None:
        trial.ask(labeler)
    trial.score()
    if says is not None and source is not None:
        notes += trial.take_away(net, source, causal)
    n = len(split.test)
    return FeatureLabels(
        index.name, trial.labels(), split.texts, split.overlap, (index.tokens - n, n), chosen_forms,
        "" if control is None else control.name, notes,
        Provenance.of(net, index.provenance.behaviour_hash, seed, time.monotonic() - began),
    )  # fmt: skip


def _check(
    net: Network, index: Any, forms: Sequence[str] | None, control: Any, of: Any, labeler: Any
) -> tuple[str, ...]:
    if not isinstance(index, FeatureIndex):
        raise BadInput(
            f"{type(index).__name__} is no index of features.", "Make one: cutaway.index_features(...)."
        )
    if index.provenance.network_hash != net.hash:
        raise BadInput(
            f"The index is of {index.provenance.network}, with other weights.", f"Make one of {net.name}."
        )
    if control is not None:
        if not isinstance(control, FeatureIndex):
            raise BadInput(
                f"{type(control).__name__} is no index of features.", "Make one: cutaway.index_features(...)."
            )
        same = (
            control.provenance.behaviour_hash == index.provenance.behaviour_hash
            and control.tokens == index.tokens
        )
        if not same:
            raise BadInput(
                "The control is an index of other texts.", "Index both over the same, with the same skip."
            )
    if of is not None and (not isinstance(of, FeatureSet) or set_hash(of) != index.asked["features"]):
        raise BadInput("The set of features is not the one that was indexed.", "Give that one.")
    if labeler is not None and not isinstance(labeler, Labeler):
        raise BadInput(
            f"{type(labeler).__name__} is no labeler.", "It needs label(examples) and predict(label, tokens)."
        )
    given = list(FORMS) if forms is None else [forms] if isinstance(forms, str) else list(forms)
    for form in given:
        if form not in FORMS:
            raise BadInput(f"{form!r} is no form of a label.", did_you_mean(str(form), FORMS))
    if not given:
        raise BadInput("No form of label is named.", f"Name some of {', '.join(FORMS)}.")
    return tuple(form for form in FORMS if form in given)


def _which(index: FeatureIndex, features: Any) -> list[int]:
    """The numbers of the features that are meant: alive ones, where they are not named."""
    alive = np.nonzero(index.counts > 0)[0]
    if features is None:
        found = alive.tolist()
    elif isinstance(features, int):
        if isinstance(features, bool) or features < 1:
            raise BadInput(f"features={features} is no number of features.", "Give one at least, or names.")
        found = sorted(alive[np.argsort(-index.counts[alive], kind="stable")[:features]].tolist())
    else:
        named = [features] if isinstance(features, str) else list(features)
        found = list(dict.fromkeys(index.number(feature) for feature in named))
    if not found:
        raise BadInput("No feature is ever active on these texts.", "Index more texts.")
    return found


def _no_say(source: FeatureSet | None) -> str:
    if source is None:
        return 'Labels "say X" were not tried: the index was loaded without its set of features; give of=.'
    return 'Labels "say X" were not tried: what these features write does not lead to the logits on a path that is known.'


def _allowed(index: FeatureIndex, traits: Sequence[TokenTrait], says: Any) -> Any:
    """[G values of the next token] may a feature be said to say it?"""
    trait = next((t for t in traits if t.form == "say"), None)
    if trait is None or says is None:
        return None
    after = index.rows.beside(1)
    number = np.full(max(int(index.rows.ids.max(initial=0)), int(says.max(initial=0))) + 1, -1, np.int64)
    there = after >= 0
    number[after[there]] = trait.values[there]
    allowed = np.zeros((len(says), trait.size), bool)
    at = number[says]
    feature, place = np.nonzero(at >= 0)
    allowed[feature, at[feature, place]] = True
    return allowed
