"""The result: where every feature is active in many texts, read from disk where it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cutaway.errors import BadAddress, BadFormat, BadInput, did_you_mean
from cutaway.features.examples import TokenExample
from cutaway.features.index.entries import Entries
from cutaway.features.index.merging import ROWS, STATISTICS, WORDS
from cutaway.features.index.pages import density_figure, index_page
from cutaway.features.index.store import EntryFile, IndexStore
from cutaway.features.index.together import FeatureSums, Nearest, correlation, jaccard
from cutaway.features.index.token_rows import TokenRows
from cutaway.features.sets import FeatureSet
from cutaway.reports import Page, display_result
from cutaway.results import MANIFEST, Provenance, copy_saved, described, kind_of, read_manifest

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureIndex:
    """Where features are active in many texts, by columns.

    A row is a token that counts; its number is the same for all features. Of a feature, a name or a number may be given.

    Attributes:
        folder: where it lies.
        name: of all features together.
        set_kind: what they are: latents, neurons, ...
        names: of each.
        sites: that were read.
        signed: may activations be below zero? Then entries are those above a floor in size: `floors`.
        asked: the question, as plain data: window length, tokens skipped, precision.
        tokens: rows.
        texts: how many were read.
        empty: how many were left out because they held no token.
        beside: names of the features with which correlations were wanted.
        files: of entries.
        complete: were all texts read, or was the work stopped?
        provenance: what is needed to repeat it.
        source: the set itself, where it was made in this session; None after loading.
        keeper: removes a temporary folder when no result that lies in it is left.
    """

    kind: ClassVar[str] = "feature-index"

    folder: Path
    name: str
    set_kind: str
    names: tuple[str, ...]
    sites: tuple[str, ...]
    signed: bool
    asked: Mapping[str, Any]
    tokens: int
    texts: int
    empty: int
    beside: tuple[str, ...]
    files: tuple[EntryFile, ...]
    complete: bool
    provenance: Provenance
    source: FeatureSet | None = field(default=None, repr=False)
    keeper: object = field(default=None, repr=False)
    _held: dict[str, Any] = field(default_factory=dict, repr=False)

    # what is stored ----------------------------------------------------------------------------------------------------

    @property
    def store(self) -> IndexStore:
        """The files, checked as they are read."""
        if "store" not in self._held:
            self._held["store"] = IndexStore(self.folder, read_manifest(self.folder)[1])
        return self._held["store"]

    @property
    def rows(self) -> TokenRows:
        """The tokens: their ids, texts, positions and windows."""
        if "rows" not in self._held:
            arrays = self.store.arrays(ROWS)
            names = ("ids", "starts", "text", "first", "counted")
            self._held["rows"] = TokenRows(*(np.array(arrays[name]) for name in names))
        return self._held["rows"]

    @property
    def sums(self) -> FeatureSums:
        """Counts, sums, squares, maxima and minima of all features."""
        held = self.store.arrays(STATISTICS)
        names = ("counts", "total", "squares", "maxima", "minima")
        return FeatureSums(self.tokens, *(np.array(held[name]) for name in names))

    @property
    def nearest(self) -> Nearest:
        """Of all features, the others with which each is most correlated."""
        held = self.store.arrays(STATISTICS)
        return Nearest(*(np.array(held[f"near_{n}"]) for n in ("which", "correlation", "jaccard", "both")))

    @property
    def floors(self) -> NDArray[np.float32]:
        """[F] above which in size an activation is an entry."""
        return np.array(self.store.arrays(STATISTICS)["floors"])

    def words(self, ids: Sequence[int] | NDArray[Any]) -> list[str]:
        """Tokens as text."""
        if "words" not in self._held:
            self._held["words"] = json.loads(self.store.check(WORDS).read_text(encoding="utf-8"))
        return [self._held["words"][str(int(i))] for i in ids]

    def __len__(self) -> int:
        return len(self.names)

    def number(self, feature: str | int) -> int:
        """The number of a feature. Raises `BadAddress` for one that is not there."""
        if (
            isinstance(feature, int | np.integer)
            and not isinstance(feature, bool)
            and 0 <= feature < len(self)
        ):
            return int(feature)
        if isinstance(feature, str) and feature in self.names:
            return self.names.index(feature)
        said = did_you_mean(feature, self.names) if isinstance(feature, str) else ""
        raise BadAddress(
            f"There is no feature {feature!r} in the index of {self.name}.",
            said or f"There are {self.names[0]} to {self.names[-1]}, 0 to {len(self) - 1}.",
        )

    # of one feature ----------------------------------------------------------------------------------------------------

    def entries(self, feature: str | int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows at which a feature is active, ascending, and its activation at each."""
        i = self.number(feature)
        file = next(f for f in self.files if f.first <= i < f.end)
        return self.store.entries(file.file).of(i - file.first)

    def strongest(self, feature: str | int, k: int = 10) -> NDArray[np.int64]:
        """The rows of the k largest activations, the largest first; of equal ones the earlier."""
        rows, values = self.entries(feature)
        if k < 1:
            raise BadInput(f"k={k} is no number of examples.", "Give one at least.")
        return rows[np.argsort(-values, kind="stable")[:k]]

    def quantiles(self, feature: str | int, n: int = 5) -> Floats:
        """The n + 1 ends of n equal shares of the activations that are entries; NaN where there are none."""
        _, values = self.entries(feature)
        return (
            np.quantile(values.astype(np.float64), np.linspace(0, 1, n + 1))
            if len(values)
            else np.full(n + 1, np.nan)
        )

    def histogram(self, feature: str | int, bins: int = 40) -> tuple[NDArray[np.int64], Floats]:
        """How many entries lie in each of so many equal bins, and the ends of the bins, zero among them or between them."""
        _, values = self.entries(feature)
        low, high = min(0.0, float(values.min(initial=0.0))), max(0.0, float(values.max(initial=0.0)))
        counts, ends = np.histogram(values.astype(np.float64), bins, (low, high if high > low else 1.0))
        return counts, ends

    def examples(
        self, feature: str | int, k: int = 10, context: int = 10, *, one_per_text: bool = False
    ) -> tuple[TokenExample, ...]:
        """The k strongest tokens with their neighbours, strongest first.

        one_per_text: take one token of each text at most.
        """
        if not one_per_text:
            return self.shown(feature, self.strongest(feature, k), context)
        ranked = self.strongest(feature, max(1, self.tokens))
        _, first = np.unique(self.rows.texts[ranked], return_index=True)
        return self.shown(feature, ranked[np.sort(first)[:k]], context)

    def quantile_examples(
        self, feature: str | int, n: int = 5, each: int = 4, context: int = 10, seed: int | None = None
    ) -> tuple[tuple[TokenExample, ...], ...]:
        """For each of n equal shares of the entries, weakest first, some drawn at random; fewer where there are fewer."""
        rows, values = self.entries(feature)
        generator = np.random.default_rng(
            [self.provenance.seed if seed is None else seed, self.number(feature)]
        )
        parts = np.array_split(np.argsort(values, kind="stable"), n)
        drawn = [np.sort(generator.permutation(part)[:each]) for part in parts]
        return tuple(self.shown(feature, rows[part], context) for part in drawn)

    def shown(self, feature: str | int, rows: Any, context: int = 10) -> tuple[TokenExample, ...]:
        """Rows as examples of a feature: the token and its neighbours in the window, with what was read at each.

        Tokens that do not count, and those below a floor, have an activation of 0. Raises `BadAddress` for a row that is
        not there.
        """
        own, values = self.entries(feature)
        table, found = self.rows, []
        for row in np.asarray(rows, np.int64).tolist():
            if not 0 <= row < self.tokens:
                raise BadAddress(f"There is no row {row}.", f"Rows are 0 to {self.tokens - 1}.")
            begin, end = table.around(row, context)
            around = np.zeros(end - begin, np.float32)
            first, last = table.rows_between(begin, end)
            low, high = np.searchsorted(own, [first, last])
            around[table.counted[own[low:high]] - begin] = values[low:high]
            at = int(table.counted[row]) - begin
            found.append(
                TokenExample(
                    int(table.texts[row]), int(table.positions[row]), float(around[at]),
                    tuple(self.words(table.ids[begin:end])), tuple(map(float, around)), at,
                )
            )  # fmt: skip
        return tuple(found)

    # of one with others --------------------------------------------------------------------------------------------------

    def together(self, feature: str | int) -> NDArray[np.int64]:
        """[F] on how many tokens each feature is active where this one is; of itself, how often it is."""
        rows, _ = self.entries(feature)
        here = np.zeros(self.tokens, np.float64)
        here[rows] = 1.0
        return np.rint(self._along(here, ones=True)).astype(np.int64)

    def jaccard(self, feature: str | int) -> Floats:
        """[F] of the tokens where this one or the other is active, the share at which both are."""
        counts = self.sums.counts.astype(np.float64)
        return jaccard(self.together(feature), counts[self.number(feature)], counts)

    def correlations(self, feature: str | int) -> Floats:
        """[F] the correlation of its activation with that of each feature, over all tokens."""
        i, sums = self.number(feature), self.sums
        rows, values = self.entries(i)
        here = np.zeros(self.tokens)
        here[rows] = values
        mean, spread = sums.mean, sums.spread
        return correlation(self._along(here), self.tokens, (mean[i], mean), (spread[i], spread))

    def _along(self, here: Floats, ones: bool = False) -> Floats:
        """[F] the inner product of every feature's activations (or of 1 where it is active) with numbers by rows."""
        found = []
        for file in self.files:
            held = self.store.entries(file.file)
            weights = here[held.rows] if ones else here[held.rows] * held.values.astype(np.float64)
            owner = np.repeat(np.arange(held.size), np.diff(held.starts))
            found.append(np.bincount(owner, weights=weights, minlength=held.size))
        return np.concatenate(found)

    def neighbours(self, feature: str | int) -> pd.DataFrame:
        """The features most correlated with one: name, correlation, Jaccard index, tokens at which both are active."""
        i, near = self.number(feature), self.nearest
        there = near.which[i] >= 0
        return pd.DataFrame({
            "feature": [self.names[j] for j in near.which[i][there]], "correlation": near.correlation[i][there],
            "jaccard": near.jaccard[i][there], "together": near.both[i][there],
        })  # fmt: skip

    def correlated(self, feature: str | int) -> pd.DataFrame:
        """The features beside (`beside=`) that are most correlated with one. Raises `BadInput` where none were asked for."""
        if not self.beside:
            raise BadInput(
                "No correlations with other features were asked for.", "Make the index with beside=."
            )
        i, held = self.number(feature), self.store.arrays(STATISTICS)
        which = held["beside_which"][i]
        return pd.DataFrame(
            {"feature": [self.beside[j] for j in which], "correlation": held["beside_correlation"][i]}
        )

    # of all --------------------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> NDArray[np.int64]:
        """[F] on how many tokens each is active."""
        return self.sums.counts

    @property
    def density(self) -> Floats:
        """[F] on which share of the tokens each is active."""
        return self.counts / max(1, self.tokens)

    @property
    def maxima(self) -> Floats:
        """[F] the largest activation; 0 where a feature is never active."""
        return self.sums.maxima

    @property
    def dead(self) -> tuple[str, ...]:
        """The features that are active on no token."""
        return tuple(self.names[i] for i in np.nonzero(self.counts == 0)[0])

    @property
    def size(self) -> int:
        """How many entries there are."""
        return sum(file.size for file in self.files)

    def matrix(self, features: Sequence[int] | None = None) -> Any:
        """Activations as a sparse matrix [rows features] by columns (scipy), of some features or all."""
        from scipy.sparse import hstack  # half a second of import, for who asks only

        wanted = None if features is None else np.array([self.number(i) for i in features], np.int64)
        if wanted is not None and not len(wanted):
            return Entries(np.zeros(1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32)).matrix(
                self.tokens
            )
        ends = [file.end for file in self.files]
        where = None if wanted is None else np.searchsorted(ends, wanted, side="right")
        parts = []
        for i, file in enumerate(self.files):
            if where is None or wanted is None:
                parts.append(self.store.entries(file.file).matrix(self.tokens))
            elif (inside := wanted[where == i] - file.first).size:
                parts.append(self.store.entries(file.file).matrix(self.tokens)[:, inside])
        joined: Any = parts[0] if len(parts) == 1 else hstack(parts, format="csc")
        return joined if where is None else joined[:, np.argsort(np.argsort(where, kind="stable"))]

    def to_pandas(self) -> pd.DataFrame:
        """One row per feature: how often it is active, its largest and mean activation, its nearest other feature."""
        sums, near = self.sums, self.nearest
        mean = np.where(sums.counts > 0, sums.total / np.maximum(sums.counts, 1), np.nan)
        table = pd.DataFrame({
            "feature": self.names, "tokens": sums.counts, "density": self.density, "max": sums.maxima,
            "mean_when_active": mean,
        })  # fmt: skip
        if near.which.shape[1]:
            first = near.which[:, 0]
            table["nearest"] = [self.names[j] if j >= 0 else "" for j in first]
            table["correlation"] = np.where(first >= 0, near.correlation[:, 0], np.nan)
        return table

    def top(self, n: int = 12) -> pd.DataFrame:
        """The features that are active most often."""
        return self.to_pandas().sort_values("tokens", ascending=False, kind="stable").head(n)

    def plot(self) -> Any:
        """How many features are active how often."""
        return density_figure(self.counts, self.tokens)

    @property
    def headline(self) -> str:
        """What there is, in a sentence."""
        dead = len(self.dead)
        active = self.size / max(1, self.tokens)
        left = "" if self.complete else ", stopped before the end"
        return (
            f"{len(self)} {self.name} on {self.tokens:,} tokens of {self.texts} texts: {active:.1f} are active on a token, "
            f"{dead} never{left}"
        )

    def page(self) -> Page:
        """How often features are active, the most and the least frequent, the dead."""
        return index_page(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: what is there, not the numbers."""
        return described(
            self, "name", "set_kind", "sites", "signed", "tokens", "texts", "empty", "complete", "headline",
            features=len(self), entries=self.size, dead=list(self.dead), folder=str(self.folder),
            table=self.to_pandas().to_dict("records") if len(self) <= 4096 else None,
        )  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the folder to another place; where it is the same, nothing is done.

        Raises `SaveFailed` where something else lies there.
        """
        return copy_saved(self.folder, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureIndex:
        """Open a folder; its files are checked when they are first read.

        Raises `BadFormat` where it is none, `CorruptFile` where the manifest was changed.
        """
        folder = Path(path)
        manifest, listing = read_manifest(folder)
        if kind_of(manifest)[0] != cls.kind:
            raise BadFormat(f"{folder} holds no index of features.", "Open it with cutaway.load(...).")
        said = manifest["content"]
        files = tuple(EntryFile(**file) for file in said["files"])
        if any(listing.get(f.file) != f.sha256 for f in files) or any(Path(n).name != n for n in listing):
            raise BadFormat(
                f"{folder / MANIFEST} names files that it does not list.", "Make the index again."
            )
        return cls(
            folder, str(said["name"]), str(said["set_kind"]), tuple(map(str, said["names"])), tuple(said["sites"]),
            bool(said["signed"]), dict(said["asked"]), int(said["tokens"]), int(said["texts"]), int(said["empty"]),
            tuple(said["beside"]), files, bool(said["complete"]), Provenance.from_dict(manifest["provenance"]),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"FeatureIndex({self.headline})"

    def _repr_html_(self) -> str:
        return display_result(self, [str(self.folder)], self.top())
