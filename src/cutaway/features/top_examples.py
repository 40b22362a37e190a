"""Top activating examples: where in many texts a neuron, a head or a direction is strongest, weakest, and in between."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.errors import BadAddress, BadInput, NotFinite, Stopped
from cutaway.features.examples import Extremes, Reservoir, Seen, TokenExample, TokenPlace
from cutaway.features.readers import OfLike, Reader, readers_of
from cutaway.features.texts import (
    Batch,
    Count,
    TextsLike,
    announce_windows,
    batches,
    window_length,
    windows_of,
)
from cutaway.figures import Bar, bars, show_token
from cutaway.network.parts import in_words
from cutaway.reports import Page, Section, TokenPassage, TokenPassages, display_result, page_of
from cutaway.results import Provenance, Work, described, load_fields, save_fields, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network

#: Numbers that the sample may hold, all features together; tokens that it holds at most and at least.
_HELD, _MOST, _LEAST = 2_000_000, 2_048, 64
#: Features that a page shows.
_SHOWN = 12


@dataclass(frozen=True)
class FeatureExamples:
    """One feature's examples.

    Attributes:
        name: of the neuron, head or direction.
        top: strongest first.
        bottom: weakest first.
        sample: for each of equal shares of all tokens, from the weakest to the strongest, some drawn at random.
        ends: of these shares; one more than there are shares, estimated from the sample.
        mean: over all tokens that count.
        low, high: the smallest and the largest.
        positive: the share of tokens above zero.
    """

    name: str
    top: tuple[TokenExample, ...]
    bottom: tuple[TokenExample, ...]
    sample: tuple[tuple[TokenExample, ...], ...]
    ends: tuple[float, ...]
    mean: float
    low: float
    high: float
    positive: float

    def sets(self) -> dict[str, tuple[TokenExample, ...]]:
        """All examples by the name of their set."""
        shares = {f"quantile {i + 1} of {len(self.sample)}": part for i, part in enumerate(self.sample)}
        return {"top": self.top, "bottom": self.bottom, **shares}


@dataclass(frozen=True, eq=False)
class TopExamples:
    """Where features are strongest in many texts.

    Attributes:
        features: one for each neuron, head or direction.
        texts: how many were read.
        empty: how many were left out because they held no token.
        tokens: how many tokens count: no padding, and no special ones unless these were asked for.
        one_per_text: whether a text gives one example to a set at most.
        complete: were all texts read, or was the work stopped?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "top-examples"

    features: tuple[FeatureExamples, ...]
    texts: int
    empty: int
    tokens: int
    one_per_text: bool
    complete: bool
    provenance: Provenance

    def __getitem__(self, name: str | int) -> FeatureExamples:
        """One feature by name or number."""
        names = [feature.name for feature in self.features]
        if isinstance(name, int) and not isinstance(name, bool) and -len(names) <= name < len(names):
            return self.features[name]
        if name not in names:
            raise BadAddress(f"There are no examples of {name!r}.", f"There are: {', '.join(names[:12])}.")
        return self.features[names.index(str(name))]

    def to_pandas(self) -> pd.DataFrame:
        """One row per example: its feature, set and rank, where it is, what was read, and the tokens around it."""
        rows = [
            (f.name, name, rank, e.text, e.position, e.tokens[e.at], e.activation, "".join(e.tokens))
            for f in self.features
            for name, examples in f.sets().items()
            for rank, e in enumerate(examples)
        ]
        columns = ["feature", "set", "rank", "text", "position", "token", "activation", "context"]
        return pd.DataFrame(rows, columns=columns)

    def top(self, n: int = 12) -> pd.DataFrame:
        """The strongest examples of the first feature."""
        table = self.to_pandas()
        chosen = table.loc[table["set"] == "top", ["feature", "activation", "token", "context"]]
        return pd.DataFrame(chosen.head(n))

    def plot(self, feature: str | int = 0) -> Any:
        """The strongest examples of one feature as bars, each with the token before and after it."""
        found = self[feature]
        labels = [
            " ".join(show_token(t) for t in e.tokens[max(0, e.at - 2) : e.at + 2]) + f" · {e.text}"
            for e in found.top
        ]
        return bars(
            [Bar.of(label, e.activation) for label, e in zip(labels, found.top, strict=True)], unit=found.name
        )

    @property
    def headline(self) -> str:
        """Where the first feature is strongest, in a sentence."""
        first = self.features[0]
        tokens = list(dict.fromkeys(e.tokens[e.at].strip() or e.tokens[e.at] for e in first.top))[:5]
        others = len(self.features) - 1
        more = f" ({others} more feature{'s' * (others != 1)} below)" if others else ""
        name = in_words(first.name)
        return (
            f"{name[0].upper()}{name[1:]} is strongest on {', '.join(map(repr, tokens))} "
            f"among {self.tokens} tokens of {self.texts} texts{more}"
        )

    def page(self) -> Page:
        """The strongest, the weakest and a sample of each feature, tokens coloured by what was read."""
        sections = []
        for number, feature in enumerate(self.features[:_SHOWN]):
            scale = max(abs(feature.low), abs(feature.high)) or 1.0
            blocks = [
                TokenPassages(tuple(_passage(e, scale) for e in examples), name.capitalize())
                for name, examples in feature.sets().items()
                if examples
            ]
            lead = (
                f"Mean {feature.mean:.3g}, from {feature.low:.3g} to {feature.high:.3g}; above zero at "
                f"{100 * feature.positive:.1f} % of the tokens."
            )
            sections.append(Section(f"feature-{number}", in_words(feature.name), blocks, lead))
        left = len(self.features) - _SHOWN
        lead = f"{left} more features are in the result itself: to_pandas() has them all." if left > 0 else ""
        return page_of(
            self,
            "Cutaway · features",
            f"Where features of {self.provenance.network} are strongest.",
            sections,
            lead=lead,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "texts", "empty", "tokens", "one_per_text", "complete", "features")

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        table = self.top(5).to_string(index=False, max_colwidth=60, float_format="%.3g")
        return f"TopExamples({self.headline})\n{table}"[:1900]

    def _repr_html_(self) -> str:
        return display_result(self, table=self.top())


def _passage(example: TokenExample, scale: float) -> TokenPassage:
    label = f"{example.activation:.3g} · text {example.text}, token {example.position}"
    return TokenPassage(
        example.tokens, tuple(value / scale for value in example.activations), example.at, label
    )


@strict
def top_examples(
    net: Network,
    texts: TextsLike,
    *,
    of: OfLike,
    k: int = 20,
    context: int = 10,
    one_per_text: bool = True,
    quantiles: int = 5,
    per_quantile: int = 4,
    special: bool = False,
    skip: int = 0,
    length: int | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> TopExamples:
    """Find where in many texts neurons, heads or directions are strongest and weakest: exact, in bounded memory.

    Args:
        net: the network.
        texts: a list or iterator of texts, rows of a data set with a field text, or a path (.txt, one a line; .jsonl).
        of: a neuron `"n3.120"`; a head `"a3.h1"`, by the length of what it writes; a direction `("resid_post.5", vector)`,
            by the inner product with the vector as it is given; what a head writes along one, `("a3.h1", vector)`; or
            several, as a list or by name.
        k: how many of the strongest and of the weakest.
        context: how many tokens to show on either side.
        one_per_text: take one token of each text at most.
        quantiles: into how many equal shares of all tokens the sample is cut.
        per_quantile: how many examples of each.
        special: count special tokens (beginning of text, separators) as well; padding never counts.
        skip: leave out the first so many tokens of each text, on which many networks rest.
        length: tokens that are run at once; longer texts are cut into pieces.
        seed: of the sample.
        work: may stop it; what was read by then comes back, marked as not complete.

    Raises:
        BadInput: for texts without a token, a direction of zero or of the wrong size, or k below 1.
        NotFound, BadAddress, SiteUnavailable: for what the network does not have.
        NotFinite: where what is read is NaN or infinity.
    """
    began, work = time.monotonic(), working(work)
    for name, number, least in (
        ("k", k, 1), ("context", context, 0), ("quantiles", quantiles, 1), ("per_quantile", per_quantile, 0),
        ("skip", skip, 0),
    ):  # fmt: skip
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise BadInput(
                f"{name}={number!r} is no whole number of at least {least}.", f"Give {name}={least} or more."
            )
    readers = readers_of(net, of)
    length = window_length(net, length)
    size = max(_LEAST, min(_MOST, _HELD // (len(readers) * (2 * context + 1))))
    tally = _Tally(net, readers, k, context, one_per_text, Reservoir(size, context, seed), work)
    sites, count = list(dict.fromkeys(reader.site for reader in readers)), Count()
    complete = True
    announce_windows(net, texts, length, sites, work, "reading texts")
    try:
        for batch in batches(
            net, windows_of(net, texts, length, count), sites, length, work, "reading texts"
        ):
            tally.add(batch, special, skip)
    except Stopped:
        if not tally.n:
            raise
        complete = False
    if not tally.n:
        raise BadInput(
            "No token of these texts counts: they are special tokens, or skipped.",
            "Use special=True, or a smaller skip.",
        )
    features = tuple(tally.feature(net, i, quantiles, per_quantile) for i in range(len(readers)))
    provenance = replace(Provenance.of(net, tally.digest.hexdigest(), seed, time.monotonic() - began))
    return TopExamples(features, count.texts, count.empty, tally.n, one_per_text, complete, provenance)


class _Tally:
    """What is kept of the tokens seen so far."""

    def __init__(
        self, net: Network, readers: list[Reader], k: int, context: int, one_per_text: bool, sample: Reservoir,
        work: Work,
    ) -> None:  # fmt: skip
        self.net, self.readers, self.sample, self.work = net, readers, sample, work
        self.best = [Extremes(k, context, one_per_text, 1) for _ in readers]
        self.worst = [Extremes(k, context, one_per_text, -1) for _ in readers]
        self.sums, self.above = np.zeros(len(readers)), np.zeros(len(readers), np.int64)
        self.low, self.high = np.full(len(readers), np.inf), np.full(len(readers), -np.inf)
        self.n = 0
        self.digest = hashlib.sha256()

    def add(self, batch: Batch, special: bool, skip: int) -> None:
        """Take in a batch."""
        self.digest.update(repr([window.ids for window in batch.windows]).encode())
        counted = (batch.tokens.mask if special else batch.ordinary).numpy().copy()
        starts = np.array([window.start for window in batch.windows])[:, None]
        place = starts + np.arange(counted.shape[1])
        counted &= place >= skip
        if not counted.any():
            return
        row, column = np.nonzero(counted)
        text = np.array([window.text for window in batch.windows])[row]
        seen = []
        read = self.work.once("batch", partial(self._read, batch), dict, dict, lambda: self._of(batch))
        for i, reader in enumerate(self.readers):
            whole = read[str(i)]
            values = whole[row, column]
            if not np.isfinite(values).all():
                raise NotFinite(
                    f"{reader.name} is NaN or infinite in text {text[~np.isfinite(values)][0]}.",
                    "Run in float32.",
                )
            seen.append(Seen(batch.windows, row, column, text, place[row, column], values, whole))
        for i, one in enumerate(seen):
            self.best[i].add(one)
            self.worst[i].add(one)
            self.sums[i] += one.values.sum(dtype=np.float64)
            self.above[i] += int((one.values > 0).sum())
            self.low[i], self.high[i] = (
                min(self.low[i], one.values.min()),
                max(self.high[i], one.values.max()),
            )
        self.sample.add(seen)
        self.n += len(row)

    def _read(self, batch: Batch) -> dict[str, np.ndarray]:
        """[b p] of every reader, by its number."""
        return {
            str(i): reader.read(batch.run[reader.site]).float().cpu().numpy()
            for i, reader in enumerate(self.readers)
        }

    def _of(self, batch: Batch) -> list[object]:
        return [self.net.hash, [reader.name for reader in self.readers], [list(w.ids) for w in batch.windows]]

    def feature(self, net: Network, i: int, quantiles: int, each: int) -> FeatureExamples:
        """The examples of one feature, with tokens as text."""
        parts, ends = self.sample.quantiles(i, quantiles, each)

        def named(places: list[TokenPlace]) -> tuple[TokenExample, ...]:
            return tuple(place.named(net.token_strings(place.ids)) for place in places)

        return FeatureExamples(
            self.readers[i].name, named(self.best[i].places), named(self.worst[i].places),
            tuple(named(part) for part in parts) if each else (), tuple(ends), float(self.sums[i] / self.n),
            float(self.low[i]), float(self.high[i]), float(self.above[i] / self.n),
        )  # fmt: skip
