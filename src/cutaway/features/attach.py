"""A dictionary's latents as sites of a network: read, edited, swept and explained like any other site."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.features.dictionaries import Dictionary, Place
from cutaway.network.anatomy import ErrorTap, LatentTap, PortTap, Tap
from cutaway.network.coefficients import is_one
from cutaway.network.sites import SITES, Site, SiteLike

if TYPE_CHECKING:
    from cutaway.network import Network

_NAME = re.compile(r"[A-Za-z_]\w*")


def with_dictionary(
    net: Network,
    dictionary: Dictionary,
    reads: Sequence[SiteLike] | SiteLike | None = None,
    writes: Sequence[SiteLike] | SiteLike | None = None,
    name: str = "",
) -> Network:
    """The same network with a dictionary's latents as sites: `features.L`, and `feature_error.L` for what it leaves.

    Nothing is computed otherwise: a change of latents is added, times their directions, where the dictionary writes; latents
    that nobody changes change nothing. Setting the error to zero (`Ablate("feature_error.5")`) puts the reconstruction in
    place of the value.

    Args:
        net: the network; it stays as it is.
        dictionary: its rows must be as wide as the sites.
        reads: the sites that are encoded, for all sources in order; default what the dictionary says.
        writes: the site of each target; default what the dictionary says, or, of autoencoders, where it reads.
        name: tells several dictionaries apart: with `name="sae"` the sites are `sae.features.5`, the parts `sae.f5.12`.

    Raises:
        SiteUnavailable: where the dictionary does not say its sites and none are given.
        BadInput: for a site of another width, a name that is taken, or as many sites as the dictionary has not.

    >>> import cutaway, torch
    >>> from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, ReLU
    >>> net = cutaway.open("zoo:induction")
    >>> place = Place("", "resid_post.0", net.d_model)
    >>> eye = torch.eye(net.d_model)
    >>> both = torch.cat([eye, -eye])
    >>> encoder, decoder = Encoder(both.T, None, ReLU()), Decoder(0, 0, both)
    >>> signs = Dictionary("autoencoder", (encoder,), (decoder,), (None,), ((place,),), (place,))
    >>> run = with_dictionary(net, signs).run([[1, 2, 3]], keep=["features.0", "feature_error.0"])
    >>> run["features.0"].shape[-1] == 2 * net.d_model, float(run["feature_error.0"].abs().max()) < 1e-5
    (True, True)
    """
    if name and not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot be a name of sites.", "Use letters, digits and underscores.")
    anatomy = net.core.anatomy
    if name in (
        anatomy.dictionaries if not name else [s.name for s in anatomy.stacks] + list(anatomy.dictionaries)
    ):
        raise BadInput(
            "A dictionary without a name is there already." if not name else f"The name {name!r} is taken.",
            'Give this one another: name="second".',
        )
    given = (
        sites_of(net, reads)
        if reads is not None
        else [site_meant(net, p) for ps in dictionary.reads for p in ps]
    )
    if writes is not None:
        targets = sites_of(net, writes)
    elif reads is not None and dictionary.kind in ("autoencoder", "crosscoder"):
        targets = given
    else:
        targets = [site_meant(net, p) for p in dictionary.writes]
    widths = [p.width for ps in dictionary.reads for p in ps], [p.width for p in dictionary.writes]
    for sites, wanted, verb in ((given, widths[0], "read"), (targets, widths[1], "written")):
        if len(sites) != len(wanted):
            raise BadInput(
                f"{len(sites)} sites are to be {verb}, and the dictionary has {len(wanted)}.", "Name each."
            )
        for site, width in zip(sites, wanted, strict=True):
            check_width(net, site, width)
            if site.stack and not name:
                raise BadInput(f"{site} is not of the main stack.", 'Give the dictionary a name: name="sae".')
    taps = _taps(net, dictionary, given, targets, name)
    said = dictionary.said.get("name") or dictionary.format or dictionary.kind
    from cutaway.network import Network

    return Network(net.core.with_taps(taps, f"{net.name} with {name or said}", dictionary.hash))


def sites_of(net: Network, given: Sequence[SiteLike] | SiteLike) -> list[Site]:
    """One site or several, by name."""
    one = isinstance(given, str | Site) or (
        isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], int)
    )
    return [site for spec in ([given] if one else given) for site in net.resolve(spec)]  # type: ignore[union-attr]


def site_meant(net: Network, place: Place) -> Site:
    """The site that a place means in this network: by its name, or as the module whose input or output it is.

    Raises `SiteUnavailable` where neither is known here, `NotFound`, `BadAddress` for a site that is not there.
    """
    if place.site:
        return net.resolve(place.site)[0]
    path, side = place.said.removesuffix(":in"), "in" if place.said.endswith(":in") else "out"
    if path:
        full = [p for p in net.core.modules if p == path or p.endswith(f".{path}")]
        anatomy = net.core.anatomy
        for site, tap in sorted(anatomy.taps.items(), key=lambda item: item[0].rank, reverse=True):
            if (
                isinstance(tap, PortTap)
                and tap.port.side == side
                and tap.port.path in full
                and is_one(tap.factor)
            ):
                return net.resolve(site)[0]
        if len(full) == 1:
            return net.resolve(place.said if path == full[0] else full[0] + (":in" if side == "in" else ""))[
                0
            ]
    raise SiteUnavailable(
        f"The dictionary says of its place: {place}; which site of {net.name} that is, is not known.",
        "Say it: reads='resid_post.5', and writes= for a transcoder.",
    )


def widths(net: Network) -> dict[Site, int]:
    """How many numbers a token has at each site that has a value for each token, from one short run."""

    def measured() -> dict[Site, int]:
        sites = [s for s in net.sites() if SITES[s.name].axes[:2] == ("batch", "pos") and s.name != "logits"]
        run = net.run([[0]], keep=sites, logits=False)
        return {site: int(run[site].shape[2:].numel()) for site in sites}

    return net.fact("widths of tokens", measured)


def check_width(net: Network, site: Site, width: int) -> None:
    """Raise `BadInput` unless a token has so many numbers at a site."""
    found = (
        net.run([[0]], keep=[site], logits=False)[site].shape[2:].numel()
        if site.module
        else widths(net).get(site)
    )
    if found is None:
        raise BadInput(
            f"{site} has no value for each token.", "Name a site of the stream, of heads or of neurons."
        )
    if found != width:
        raise BadInput(
            f"A token has {found} numbers at {site}, and the dictionary takes {width}.",
            "It belongs to another site or another network.",
        )


def _taps(
    net: Network, dictionary: Dictionary, reads: Sequence[Site], writes: Sequence[Site], name: str
) -> dict[Site, Tap]:
    taps: dict[Site, Tap] = {}
    sources: list[LatentTap] = []
    start = 0
    for number, places in enumerate(dictionary.reads):
        mine = reads[start : start + len(places)]
        start += len(places)
        layer = max((site.layer or 0 for site in mine), default=0)
        where = tuple(
            (d.target, writes[d.target], net.tap(writes[d.target])) for d in dictionary.decoders_of(number)
        )
        sources.append(
            LatentTap(
                dictionary,
                number,
                dictionary.sizes[number],
                tuple((site, net.tap(site)) for site in mine),
                where,
            )
        )
        taps[Site("features", layer, name)] = sources[-1]
    for target, site in enumerate(writes):
        writers = tuple(tap for tap in sources if any(t == target for t, _, _ in tap.writes))
        own = min(target, len(sources) - 1)
        taps[Site("feature_error", site.layer or 0, name)] = ErrorTap(
            dictionary, target, (site, net.tap(site)), writers, own
        )
    if len(taps) != len(sources) + len(writes):
        raise BadInput(
            "Two sources, or two targets, of this dictionary lie in one layer.",
            "Attach them one by one, each with a name.",
        )
    return taps
