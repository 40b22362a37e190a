"""Does a dictionary belong to this site of this network, read in this way? Measured on text, beside every other reading."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.claims import Claim, Evidence
from cutaway.errors import BadInput
from cutaway.features.dictionaries import Dictionary
from cutaway.features.fitting import FitSums, elsewhere, in_words, measured, stated
from cutaway.features.texts import TextsLike, values_at
from cutaway.features.unexplained import fvu
from cutaway.figures import Bar, bars
from cutaway.network.sites import Site, SiteLike
from cutaway.reports import Figure, Page, display_result, result_page, table_of
from cutaway.results import Provenance, Work, described, load_fields, save_fields, strict, working
from cutaway.statistics import Estimate, statistic_of
from cutaway.trials.judging import claim_of

if TYPE_CHECKING:
    from cutaway.network import Network

#: Another reading is clearly better where it leaves less than this share of what the stated one leaves unexplained.
CLEARLY = 0.8
#: A dictionary whose file records how many latents fire has at most so many times more, or fewer.
SPARSITY = 2.0
#: A reading in which more latents fire explains more for that reason alone: it may have so many times as many as the stated
#: one, or as the file records.
DENSER = 1.25
#: Tokens that are read, and how many of each text's first positions are left out: attention sinks drown everything else.
TOKENS, SINKS = 2048, 1
#: With more sites than these fewer tokens are read, but not below this number.
_SITES, _FEWEST = 48, 256
#: So much of the values' variance it must explain at least for the reading to mean anything.
EXPLAINED = 0.1


@dataclass(frozen=True)
class Fit:
    """How one reading fits.

    Attributes:
        reading: in words; "as stated" for that of the file.
        reads, writes: the sites.
        fvu: fraction of the variance unexplained: squared error of the reconstruction over squared distance from the mean.
        ratio: the same over that of the stated reading.
        l0: latents that fire on a token, mean.
        silent: share of tokens on which none fires.
    """

    reading: str
    reads: str
    writes: str
    fvu: Estimate
    ratio: Estimate
    l0: float
    silent: float


@dataclass(frozen=True, eq=False)
class Binding:
    """Whether a dictionary belongs where it is said to, with how every other reading fits.

    Attributes:
        dictionary: what it is, in words.
        dictionary_hash: of its numbers.
        reads, writes: the sites at which it is bound.
        fits: the stated reading first, the others by how much they leave unexplained.
        recorded: how many latents fire on a token, as its file says; None where it does not.
        tokens, texts: how much was read.
        claim: the verdict and its evidence.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "binding"

    dictionary: str
    dictionary_hash: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    fits: tuple[Fit, ...]
    recorded: float | None
    tokens: int
    texts: int
    claim: Claim
    provenance: Provenance

    @property
    def stated(self) -> Fit:
        """The reading that the file states, or that was asked for."""
        return self.fits[0]

    @property
    def better(self) -> tuple[Fit, ...]:
        """Readings that are clearly better, the best first."""
        return tuple(fit for fit in self._comparable if fit.ratio.above(CLEARLY) is False)

    @property
    def alike(self) -> tuple[Fit, ...]:
        """Readings that are better, though not clearly: it may have been meant so."""
        return tuple(
            fit for fit in self._comparable if fit.ratio.above(1.0) is False and fit not in self.better
        )

    @property
    def _comparable(self) -> tuple[Fit, ...]:
        return tuple(fit for fit in self.fits[1:] if _comparable(fit, self.stated, self.recorded))

    @property
    def as_sparse(self) -> tuple[Fit, ...]:
        """Readings with as many active latents as the file records, the best first, where the stated one has not."""
        if self.recorded is None or _as_sparse(self.stated, self.recorded):
            return ()
        return tuple(fit for fit in self.fits[1:] if _as_sparse(fit, self.recorded) and _explains(fit))

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        return self.claim.statement

    def to_pandas(self) -> pd.DataFrame:
        """One row for each reading: sites, variance unexplained with its interval, share of the stated one's, sparsity."""
        rows = []
        for fit in self.fits:
            low, high = fit.fvu.ends(float("nan"))
            rows.append(
                (
                    fit.reading,
                    fit.reads,
                    fit.writes,
                    fit.fvu.value,
                    low,
                    high,
                    fit.ratio.value,
                    fit.l0,
                    fit.silent,
                )
            )
        names = ["reading", "reads", "writes", "fvu", "low", "high", "of_stated", "l0", "silent"]
        return pd.DataFrame(rows, columns=names)

    def plot(self) -> Any:
        """What each reading leaves unexplained."""
        shown = self.fits[:16]
        return bars([Bar.of(_named(fit), fit.fvu) for fit in shown], unit="fraction of variance unexplained")

    def page(self) -> Page:
        """All readings, as a figure and as a table."""
        caption = (
            "What each reading leaves unexplained; the first is the stated one. At one nothing is explained."
        )
        names = {
            "fvu": "unexplained",
            "of_stated": "of the stated",
            "l0": "latents that fire",
            "silent": "tokens with none",
        }
        blocks = [
            Figure(self.plot(), caption),
            table_of(
                self.to_pandas().rename(columns=names), "Every reading that was tried, on the same tokens."
            ),
        ]
        about = f"{self.dictionary}, on {self.tokens:,} tokens of {self.texts} texts."
        return result_page(
            about, "Cutaway · features", self.headline.removesuffix(".") + ".", blocks, self.provenance,
            verdict=self.claim.verdict, claims=[self.claim],
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(
            self, "kind", "dictionary", "dictionary_hash", "reads", "writes", "fits", "recorded", "tokens", "texts", "claim"
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return display_result(self, [self.dictionary], self.to_pandas())

    save = save_fields

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Binding:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        return load_fields(cls, path)


@strict
def bind(
    net: Network,
    dictionary: Dictionary,
    texts: TextsLike,
    *,
    reads: SiteLike | Sequence[SiteLike] | None = None,
    writes: SiteLike | Sequence[SiteLike] | None = None,
    tokens: int = TOKENS,
    seed: int = 0,
    work: Work | None = None,
) -> Binding:
    """Measure whether a dictionary belongs where its file says, beside neighbouring sites and other ways to read it.

    Supported: it explains some of the variance at the stated site, no other reading leaves clearly less unexplained, and as
    many latents fire as its file records. Refuted: another reading is clearly better, which the statement then names.
    Every interval is over texts.

    Args:
        net: the network.
        dictionary: of one source and target, or of several, which are bound together: unexplained is then the mean over
            targets.
        texts: on which it is measured, at least two.
        reads: the site that is encoded, where the file does not say it or is not to be believed.
        writes: the site that is reconstructed; default as the file says, or where it reads.
        tokens: how many are read at most; the first of each text is left out.
        seed: of the intervals.
        work: hears of progress, and may stop it.

    Raises:
        BadInput: for another width than the site, as many sites as the dictionary has not, or too few texts.
        SiteUnavailable: where no site is known.
        NotFinite: for NaN or infinity in the dictionary or the network's values.
    """
    began, work = time.monotonic(), working(work)
    first = stated(net, dictionary, reads, writes)
    others = elsewhere(net, first)
    sites = list(dict.fromkeys(site for reading in (first, *others) for site in reading.sites))
    # a dictionary of all layers is tried at very many sites: fewer tokens of each
    most = tokens if dictionary.single else min(tokens, max(_FEWEST, tokens * _SITES // len(sites)))
    values, owner = values_at(net, texts, sites, most, work, skip=SINKS)
    values = {site: value.flatten(1) for site, value in values.items()}
    if len(np.unique(owner)) < 2:
        raise BadInput("Intervals are over texts, and there is one.", "Give several texts.")
    recorded = _recorded(dictionary)
    found = list(measured(first, others, values, owner, recorded, work))
    fits = _fits(found, len(np.unique(owner)), seed)
    name = str(dictionary.said.get("name") or repr(dictionary))
    claim = _claim(name, net.name, fits, recorded)
    read = tuple(str(site) for sites in first.reads for site in sites)
    return Binding(
        name, dictionary.hash, read, tuple(map(str, first.writes)), fits, recorded, len(owner), len(np.unique(owner)),
        claim, Provenance.of(net, dictionary.hash, seed, time.monotonic() - began),
    )  # fmt: skip


def places_of(
    net: Network, dictionary: Dictionary, reads: Any = None, writes: Any = None
) -> tuple[Site, Site]:
    """The site that a dictionary of one source and one target reads, and the one that it reconstructs, checked.

    Raises `BadInput` for several sources or targets or another width, `SiteUnavailable` where a site is not known,
    `NotFinite` for numbers that are none.
    """
    if not dictionary.single:
        raise BadInput(
            f"{dictionary!r} has {len(dictionary.encoders)} sources and {len(dictionary.writes)} targets.",
            "Take one layer of it: dictionary.layer(3).",
        )
    first = stated(net, dictionary, reads, writes)
    return first.reads[0][0], first.writes[0]


def _fits(found: Sequence[FitSums], texts: int, seed: int) -> tuple[Fit, ...]:
    stated = found[0]

    def left(counts: np.ndarray, of: FitSums) -> np.ndarray:
        return fvu(counts @ of.error, counts @ of.spread)

    def fit(sums: FitSums) -> Fit:
        own = statistic_of(lambda counts: left(counts, sums)[:, None], texts, seed=seed)[0]
        of_stated = statistic_of(
            lambda counts: (left(counts, sums) / left(counts, stated))[:, None], texts, seed=seed
        )
        against, reading = of_stated[0], sums.reading
        read = in_words([site for sites in reading.reads for site in sites])
        return Fit(reading.says, read, in_words(reading.writes), own, against, sums.l0, sums.silent)

    fits = [fit(sums) for sums in found]
    return (fits[0], *sorted(fits[1:], key=lambda f: f.fvu.value))


def _recorded(dictionary: Dictionary) -> float | None:
    """How many latents fire on a token, as its file says."""
    value = dictionary.said.get("l0")
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _as_sparse(fit: Fit, recorded: float) -> bool:
    return recorded / SPARSITY <= fit.l0 <= recorded * SPARSITY


def _comparable(fit: Fit, stated: Fit, recorded: float | None) -> bool:
    return fit.l0 <= DENSER * max(stated.l0, recorded or 0.0)


def _explains(fit: Fit) -> bool:
    return fit.fvu.above(1 - EXPLAINED) is False


def _claim(name: str, net: str, fits: Sequence[Fit], recorded: float | None) -> Claim:
    stated = fits[0]
    best = min(fits, key=lambda fit: fit.fvu.value)
    others = [fit for fit in fits[1:] if _comparable(fit, stated, recorded)]
    better = [fit for fit in others if fit.ratio.above(CLEARLY) is False]
    little = stated.fvu.above(1 - EXPLAINED)
    evidence = [
        Evidence(
            "explains the stated site", stated.fvu, None, 1 - EXPLAINED, None if little is None else not little,
            f"It leaves {stated.fvu} of the variance unexplained.", "of the variance unexplained",
        ),
        Evidence(
            "no other reading is clearly better", None, float(len(better)), 0.0, not better,
            f"{len(fits) - 1} other readings were tried; " + (
                "none leaves less than four fifths of that." if not better else
                f"{_named(better[0])} leaves {better[0].fvu}."), "readings that are clearly better",
        ),
    ]  # fmt: skip
    sparse: list[Fit] = []
    if recorded is not None:
        sparse = [fit for fit in fits if _as_sparse(fit, recorded) and _explains(fit)]
        evidence.append(Evidence(
            "as sparse as its file says", None, stated.l0, recorded, _as_sparse(stated, recorded),
            f"{stated.l0:.1f} latents fire on a token, and its file says {recorded:g}.", "latents fire on a token",
        ))  # fmt: skip
    notes = [
        f"{_named(fit)} leaves somewhat less unexplained ({fit.fvu})." for fit in others
        if fit.ratio.above(1.0) is False and fit not in better
    ][:5]  # fmt: skip
    where = stated.reads if stated.reads == stated.writes else f"{stated.reads} to {stated.writes}"
    if better:
        said = f"{name} does not belong at {where} of {net} as stated: it would fit {_named(better[0])}"
    elif all(e.passed for e in evidence):
        said = f"{name} belongs at {where} of {net}: it leaves {stated.fvu} of the variance unexplained"
    elif not _explains(best):
        said = f"{name} explains next to nothing at {where} of {net}, nor anywhere near, in whatever way it is read"
    elif sparse and recorded is not None and not _as_sparse(stated, recorded):
        said = f"{name} does not belong at {where} of {net} as stated: as sparse as its file says it is {_named(sparse[0])}"
    else:
        said = f"{name} is not shown to belong at {where} of {net}"
    return claim_of(said, evidence, notes=notes)


def _named(fit: Fit) -> str:
    where = fit.reads if fit.reads == fit.writes else f"{fit.reads} to {fit.writes}"
    return where if fit.reading == "as stated" else f"{where}, {fit.reading}"
