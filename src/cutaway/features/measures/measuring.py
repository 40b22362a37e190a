"""The verb `measure`: how well a dictionary reconstructs, what becomes of predictions, and whether controls do as well."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite
from cutaway.features.attach import check_width
from cutaway.features.binding import places_of
from cutaway.features.dictionaries import Dictionary
from cutaway.features.lengths import LONGEST, Lengths, check_longest
from cutaway.features.measures.comparing import (
    all_sums,
    concluded,
    given_contenders,
    halves,
    same_widths,
    usual_l0,
)
from cutaway.features.measures.contenders import Contender, contenders_of, neurons_contender, neurons_site
from cutaway.features.measures.result import DictionaryMeasures
from cutaway.features.measures.splicing import passes, spliced, why_not
from cutaway.features.measures.sums import RowSums, row_sums
from cutaway.features.texts import TextsLike, TextWindow, batches, window_length, windows_up_to
from cutaway.network.pricing import announce, until
from cutaway.network.sites import Site, SiteLike
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network

#: Tokens that are read, half of them to make controls of; and how many of each window's first are apart.
TOKENS, SINKS = 8192, 1
#: What a dictionary of the network with random weights is called.
TWIN = "random weights"


@strict
def measure(
    net: Network,
    dictionary: Dictionary,
    texts: TextsLike,
    *,
    reads: SiteLike | None = None,
    writes: SiteLike | None = None,
    beside: Mapping[str, Dictionary] | None = None,
    frozen: Mapping[str, Dictionary] | None = None,
    siblings: Mapping[str, Dictionary] | None = None,
    twin: tuple[Network, Dictionary] | None = None,
    tokens: int = TOKENS,
    longest: float | None = LONGEST,
    seed: int = 0,
    work: Work | None = None,
) -> DictionaryMeasures:
    """Measure a dictionary on texts beside controls of the same sparsity, which are made of other texts.

    Always beside it: principal components and random directions of which each token keeps as many as the dictionary has
    latents that fire, and, where a site is written by neurons, as many of these. Every score comes with how far it is ahead
    of each of them and of the best. Predictions are measured with the reconstruction in the value's place, at all tokens but
    the first of each text; shares of loss name what they are shares of. Intervals are over texts.

    Two claims come of it: that it reconstructs better than everything beside it, and that its latents are the data's and not
    its seed's, which needs siblings and a frozen twin.

    Args:
        net: the network.
        dictionary: of one source and one target.
        texts: at least three; half of them make the controls, all is measured on the others.
        reads: the site that is encoded, where the file does not say it.
        writes: the site that is reconstructed; default as the file says, or where it reads.
        beside: dictionaries of the same place to stand beside it, by name.
        frozen: twins of it by name of which one half stayed as it was drawn: what its training is to add something to.
        siblings: the same trained with other seeds, by name: which latents come again?
        twin: the network with random weights (`net.randomized()`) and the dictionary that was trained on it alike.
        tokens: how many are read at most; the first of each text is apart.
        longest: tokens whose value is so many times longer than the median are apart, too, and said to be; None for none.
        seed: of which texts make controls, of random directions, of the intervals.
        work: hears of progress, and may stop it.

    Raises:
        BadInput: for a dictionary of several sources or targets, of another width than the site, for too few texts.
        SiteUnavailable: where no site is known.
        NotFinite: for NaN or infinity in a dictionary or the network's values.
    """
    began, work = time.monotonic(), working(work)
    check_longest(longest)
    source, target = places_of(net, dictionary, reads, writes)
    name = str(dictionary.said.get("name") or "the dictionary")
    itself = Contender(name, dictionary, str(source), "itself")
    others = given_contenders(itself, beside or {}, frozen or {}, dictionary.writes[0].width)
    same_widths(siblings or {}, dictionary)
    if twin is not None:
        _check_twin(twin, itself, target)
    units = neurons_site(net, target)
    sites: list[Site] = list(dict.fromkeys([source, target] + ([units] if units else [])))
    windows = windows_up_to(net, texts, tokens, SINKS, window_length(net, None))
    controls = 2 + (units is not None)
    blind = _announce(net, windows, sites, 1 + controls + len(others), twin is not None, work, seed)
    read = _read(net, windows, sites, work)
    inside = read.position >= SINKS
    makes = np.isin(read.owner, np.unique(read.owner[inside][halves(read.owner[inside], seed)]))
    short = {str(site): Lengths.of(read.values[str(site)][torch.from_numpy(makes & inside)], longest)
             for site in dict.fromkeys((source, target))}  # fmt: skip
    inside &= read.short(short)
    fit, test = read.only(makes & inside), read.only(~makes & inside)
    k = usual_l0(itself, fit.values)
    neurons = None if units is None else neurons_contender(net, units, target, fit.values, k)
    contenders = [itself, *contenders_of(itself, str(target), fit.values, k, seed, neurons), *others]
    sums = all_sums(contenders, str(target), test.values, test.owner)
    predictions, tested = None, [w for w in windows if w.text in set(test.owner.tolist())]
    if not blind:
        mean = fit.values[str(target)].mean(0)
        predictions = spliced(net, tested, contenders, target, mean, SINKS, short, work)
    if twin is not None:
        counted = inside[np.isin(read.owner, test.owner) & (read.position >= SINKS)]
        sums[TWIN] = _of_twin(twin, itself.reads, str(target), tested, counted, work)
        contenders = [*contenders, Contender(TWIN, twin[1], itself.reads, "random weights")]
    where = str(target) if source == target else f"{source} to {target}"
    found = concluded(where, contenders, sums, predictions, siblings or {}, list(frozen or {}), seed)
    return DictionaryMeasures(
        name, dictionary.hash, str(source), str(target), found.figures.measured, found.figures.ahead,
        found.figures.ahead_divergence, found.figures.ends, _first(itself, str(target), read, ~makes, test), found.stability,
        found.firing, len(test.owner), len(np.unique(test.owner)), len(fit.owner), found.claim, found.recovering,
        tuple(_notes(blind, units, neurons, twin, siblings, frozen, short)),
        Provenance.of(net, dictionary.hash, seed, time.monotonic() - began),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Read:
    """Values [n d] of sites at ordinary tokens and the first of each window, with the text and the position of each."""

    values: dict[str, Tensor]
    owner: np.ndarray
    position: np.ndarray

    def only(self, rows: np.ndarray) -> _Read:
        """These rows [n] bool."""
        chosen = torch.from_numpy(rows)
        return _Read({s: v[chosen] for s, v in self.values.items()}, self.owner[rows], self.position[rows])

    def short(self, lengths: Mapping[str, Lengths]) -> np.ndarray:
        """Which rows are not too long at any of these sites: [n] bool."""
        return np.logical_and.reduce([found(self.values[site]).numpy() for site, found in lengths.items()])


def _read(net: Network, windows: Sequence[TextWindow], sites: Sequence[Site], work: Work) -> _Read:
    parts: dict[str, list[Tensor]] = {str(site): [] for site in sites}
    owner, position = [], []
    for batch in batches(net, windows, sites, window_length(net, None), work, "reading"):
        counts = batch.ordinary.clone()
        counts[:, :SINKS] = batch.tokens.mask[:, :SINKS]  # what begins a window is apart, special or not
        row, column = counts.nonzero(as_tuple=True)
        owner.append(torch.tensor([w.text for w in batch.windows])[row])
        position.append(column)
        for site in sites:
            value = batch.run[site][row, column].flatten(1).detach().cpu()
            if not bool(torch.isfinite(value).all()):
                raise NotFinite(f"{site} holds NaN or infinity on these texts.", "Use float32.")
            parts[str(site)].append(value)
    held = {site: torch.cat(values) for site, values in parts.items()}
    return _Read(held, torch.cat(owner).numpy(), torch.cat(position).numpy())


def _announce(
    net: Network,
    windows: Sequence[TextWindow],
    sites: Sequence[Site],
    contenders: int,
    twin: bool,
    work: Work,
    seed: int,
) -> str:
    """Say what all of it takes, and why predictions are not measured ("" where they are)."""
    texts = np.array([w.text for w in windows if len(w.ids) > SINKS])
    tested = len(windows) - int(halves(texts, seed).sum()) if len(texts) else 0
    blind = why_not(net, windows)
    part = until(net, sites)
    forwards = (
        len(windows) * part + (0 if blind else tested * passes(contenders)) + (tested * part if twin else 0)
    )
    announce(
        net, [list(w.ids) for w in windows[:16]], work, "measuring", forwards, rows=len(windows), least=part
    )
    return blind


def _check_twin(twin: tuple[Network, Dictionary], itself: Contender, target: Site) -> None:
    net, dictionary = twin
    if not dictionary.single:
        raise BadInput(
            "The dictionary of the network with random weights has several sources.", "Give one layer."
        )
    for site, width in ((net.resolve(itself.reads)[0], dictionary.encoders[0].width),
                        (net.resolve(target)[0], dictionary.writes[0].width)):  # fmt: skip
        check_width(net, site, width)


def _of_twin(
    twin: tuple[Network, Dictionary],
    reads: str,
    writes: str,
    windows: Sequence[TextWindow],
    counted: np.ndarray,
    work: Work,
) -> RowSums:
    """What a dictionary of the random network leaves unexplained there, of the same tokens. counted: bool, which of those
    behind the first of each text."""
    net, dictionary = twin
    sites = list(dict.fromkeys([net.resolve(reads)[0], net.resolve(writes)[0]]))
    read = _read(net, windows, sites, work)
    read = read.only(read.position >= SINKS).only(counted)
    return row_sums(dictionary.checked(), read.values[reads], read.values[writes], read.owner)


def _first(itself: Contender, writes: str, read: _Read, tested: np.ndarray, test: _Read) -> float | None:
    """Squared error at first tokens over the variance of the others."""
    first = read.only(tested & (read.position < SINKS))
    if not len(first.owner):
        return None
    made = itself.dictionary.reconstruct(first.values[itself.reads]).double()
    error = (made - first.values[writes].double()).square().sum(1).mean()
    wanted = test.values[writes].double()
    return float(error / (wanted - wanted.mean(0)).square().sum(1).mean().clamp(min=1e-300))


def _notes(
    blind: str, units: Site | None, neurons: Contender | None, twin: object, siblings: object, frozen: object,
    short: Mapping[str, Lengths],
) -> list[str]:  # fmt: skip
    notes = [f"Predictions are not measured: {blind}"] if blind else []
    notes += [said for site, lengths in short.items() if (said := lengths.said(site))]
    if units is None:
        notes.append(
            "This site is written by no neurons of one layer alone, so none stand beside the dictionary."
        )
    elif neurons is None:
        notes.append(
            "This site is no linear map of its neurons, so these do not stand beside the dictionary."
        )
    for given, what in ((frozen, "twin with a frozen half"), (siblings, "dictionary of another seed"),
                        (twin, "dictionary of the network with random weights")):  # fmt: skip
        if not given:
            notes.append(f"No {what} was given.")
    return notes
