"""Every way in which a dictionary may have been meant to be read, and how well each fits the network's values.

A dictionary of one source and target is tried at every site of its width in its layer and those beside it; one of several
at its sites in the layers before and behind, and at the other sites of each layer. Each is also read in the other ways of
`readings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.features.attach import check_width, site_meant, sites_of, widths
from cutaway.features.dictionaries import Dictionary
from cutaway.features.readings import otherwise
from cutaway.features.unexplained import by_text, squares
from cutaway.network.sites import SITES, Site

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work

STATED = "as stated"


@dataclass(frozen=True, eq=False)
class DictionaryReading:
    """A dictionary read in one way at some places.

    Attributes:
        says: the way, in words.
        dictionary: read so.
        reads: the sites of each source, side by side.
        writes: the site of each target.
    """

    says: str
    dictionary: Dictionary
    reads: tuple[tuple[Site, ...], ...]
    writes: tuple[Site, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys([*(site for sites in self.reads for site in sites), *self.writes]))


@dataclass(frozen=True, eq=False)
class FitSums:
    """How one reading fits, by text.

    Attributes:
        reading: which.
        error: [t] squared error, of each target in units of its own spread.
        spread: [t] squared distance from the mean, likewise.
        l0: latents of one source that fire on a token, mean over sources.
        silent: share of tokens on which none fires.
    """

    reading: DictionaryReading
    error: np.ndarray
    spread: np.ndarray
    l0: float
    silent: float


def stated(net: Network, dictionary: Dictionary, reads: Any = None, writes: Any = None) -> DictionaryReading:
    """A dictionary at the sites that it names or that are given, checked.

    Raises `BadInput` for as many sites as it has not or another width, `SiteUnavailable` where a site is not known,
    `NotFinite` for numbers that are none.
    """
    dictionary.checked()
    places = [place for places in dictionary.reads for place in places]
    given = sites_of(net, reads) if reads is not None else [site_meant(net, place) for place in places]
    if writes is not None:
        targets = sites_of(net, writes)
    elif dictionary.kind in ("autoencoder", "crosscoder") and len(given) == len(dictionary.writes):
        targets = given
    else:
        targets = [_target(net, dictionary, number, reads) for number in range(len(dictionary.writes))]
    for sites, wanted, verb in ((given, places, "read"), (targets, dictionary.writes, "written")):
        if len(sites) != len(wanted):
            raise BadInput(
                f"{len(sites)} sites are to be {verb}, and the dictionary has {len(wanted)}.",
                f"Name each, such as {sites[0]}." if sites else "Name each.",
            )
        for site, place in zip(sites, wanted, strict=True):
            check_width(net, site, place.width)
    return DictionaryReading(STATED, dictionary, _grouped(dictionary, given), tuple(targets))


def _target(net: Network, dictionary: Dictionary, number: int, reads: Any) -> Site:
    try:
        return site_meant(net, dictionary.writes[number])
    except SiteUnavailable:
        if reads is None:
            raise
        raise SiteUnavailable(
            "Which site the dictionary reconstructs is not known.", "Say it: writes='mlp_write.5'."
        ) from None


def _grouped(dictionary: Dictionary, sites: Sequence[Site]) -> tuple[tuple[Site, ...], ...]:
    """Sites by source."""
    found, start = [], 0
    for places in dictionary.reads:
        found.append(tuple(sites[start : start + len(places)]))
        start += len(places)
    return tuple(found)


def elsewhere(net: Network, first: DictionaryReading) -> list[DictionaryReading]:
    """The same dictionary at other sites of the same width."""
    if first.dictionary.single:
        return _beside(net, first)
    size, width = widths(net), first.dictionary.encoders[0].width // max(1, len(first.reads[0]))
    moved = [_moved(first, layers=by) for by in (-1, 1)]
    kinds = dict.fromkeys(
        site.name
        for site, wide in size.items()
        if wide == width
        and not site.stack
        and site.layer is not None
        and SITES[site.name].axes[-1] == "width"
    )
    for kind in kinds:
        if first.dictionary.kind == "crosscoder":
            moved.append(_moved(first, reads=kind, writes=kind))
        else:
            moved += [_moved(first, reads=kind), _moved(first, writes=kind)]
    own = {(first.reads, first.writes)}
    return [m for m in moved if all(s in size for s in m.sites) and (m.reads, m.writes) not in own]


def _moved(first: DictionaryReading, layers: int = 0, reads: str = "", writes: str = "") -> DictionaryReading:
    def at(site: Site, kind: str) -> Site:
        return Site(kind or site.name, (site.layer or 0) + layers, site.stack)

    taken = tuple(tuple(at(site, reads) for site in sites) for sites in first.reads)
    return replace(first, reads=taken, writes=tuple(at(site, writes) for site in first.writes))


def _beside(net: Network, first: DictionaryReading) -> list[DictionaryReading]:
    """Of one source and target: at sites in the same layer and those beside it."""
    ((source,),), (target,) = first.reads, first.writes
    width, layer = first.dictionary.encoders[0].width, source.layer or 0
    near = [s for s in net.sites() if not s.stack and s.layer is not None and abs(s.layer - layer) <= 1]
    size = widths(net)
    alike = [
        s for s in near if size.get(s) == width and SITES[s.name].axes != ("batch", "pos", "head", "width")
    ]
    found: list[DictionaryReading] = []
    for site in dict.fromkeys([source, target, *alike]):
        if first.dictionary.kind == "autoencoder":
            found += [replace(first, reads=((site,),), writes=(site,))] * (site != source)
        elif site not in (source, target):
            found += [replace(first, reads=((site,),)), replace(first, writes=(site,))]
    return found


def measured(
    first: DictionaryReading,
    others: Sequence[DictionaryReading],
    values: Mapping[Site, Tensor],
    owner: np.ndarray,
    recorded: float | None,
    work: Work,
) -> Iterator[FitSums]:
    """How every reading fits, the stated one first. values: [n d] of every site. owner: the text of each row [n]."""
    lengths = [float(_row(values, sites).norm(dim=1).mean()) for sites in first.reads]
    outs = [float(values[site].norm(dim=1).mean()) for site in first.writes]
    k = first.dictionary.encoders[0].k or (None if recorded is None else max(1, round(recorded)))
    ways = otherwise(first.dictionary, (lengths, outs), k)
    tried = [first, *(replace(first, says=way.says, dictionary=way.dictionary) for way in ways), *others]
    for i, reading in enumerate(tried):
        work.check()
        yield sums(reading, values, owner)
        work.step("trying readings", i + 1, len(tried))


def _row(values: Mapping[Site, Tensor], sites: Sequence[Site]) -> Tensor:
    return values[sites[0]] if len(sites) == 1 else torch.cat([values[site] for site in sites], 1)


def sums(reading: DictionaryReading, values: Mapping[Site, Tensor], owner: np.ndarray) -> FitSums:
    """How one reading fits the values [n d] of its sites."""
    dictionary = reading.dictionary
    rows = [_row(values, sites) for sites in reading.reads]
    latents = [dictionary.encode(row, source) for source, row in enumerate(rows)]
    fires = torch.stack([(found != 0).sum(1).double() for found in latents])
    error = spread = np.zeros(len(np.unique(owner)))
    for target, site in enumerate(reading.writes):
        own = rows[min(target, len(rows) - 1)]
        missed, away = squares(dictionary.decode(latents, own, target), values[site])
        unit = 1.0 if dictionary.single else max(float(away.sum()), 1e-300)
        error, spread = error + by_text(missed, owner) / unit, spread + by_text(away, owner) / unit
    silent = float((fires.sum(0) == 0).double().mean())
    return FitSums(reading, error, spread, float(fires.mean()), silent)


def in_words(sites: Sequence[Site]) -> str:
    """Sites in a few words: `resid_post.3`, `mlp_in.0 to mlp_in.5`.

    >>> in_words([Site("mlp_in", 0), Site("mlp_in", 1), Site("mlp_in", 2)]), in_words([Site("z", 1), Site("q", 1)])
    ('mlp_in.0 to mlp_in.2', 'z.1, q.1')
    """
    layers = [site.layer for site in sites]
    row = layers == list(range(layers[0] or 0, (layers[0] or 0) + len(sites)))
    if len(sites) > 2 and len({site.name for site in sites}) == 1 and row:
        return f"{sites[0]} to {sites[-1]}"
    return ", ".join(map(str, sites))
