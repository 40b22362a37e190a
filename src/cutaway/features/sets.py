"""Features of any kind under one form: neurons, heads, latents, directions, components and channels are read, written and
named alike, so that a claim about one kind can stand beside the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput, CutawayError, NotFinite, SiteUnavailable
from cutaway.features.attach import site_meant, sites_of
from cutaway.features.components import independent_components, principal_components, random_units
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, Signed
from cutaway.features.texts import TextsLike, values_at
from cutaway.network.precision import precise
from cutaway.network.sites import Site, SiteLike
from cutaway.results import Work, working

if TYPE_CHECKING:
    from cutaway.network import Network

SetKind = Literal["latents", "neurons", "heads", "directions", "components", "channels", "random"]


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features that are read at the same place.

    Attributes:
        kind: what they are.
        name: all of them together, in words.
        sites: whose values are read, side by side.
        names: of each feature: a part (`f5.12`, `n2.7`, `a3.h1`) where it is one, else words.
        read: the values [n ...] of the sites, one tensor for each -> activations [n F].
        reads: [F d] the direction at these sites along which each is read; None where there is none (the length of what a
            head writes) or where each is read by itself (a neuron, a channel).
        writes: the site and the directions [F d] in which they write, for each place; empty where nothing is known.
        signed: may activations be below zero?
        source: the dictionary that they are latents of; None for the others.
        offset: [d] what is taken from a row before it is read along `reads`; None for nothing.
    """

    kind: SetKind
    name: str
    sites: tuple[Site, ...]
    names: tuple[str, ...]
    read: Callable[[Sequence[Tensor]], Tensor] = field(repr=False)
    reads: Tensor | None = field(default=None, repr=False)
    writes: tuple[tuple[Site, Tensor], ...] = field(default=(), repr=False)
    signed: bool = False
    source: Dictionary | None = field(default=None, repr=False)
    offset: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str | int) -> int:
        """The number of a feature. Raises `BadAddress` for one that is not there."""
        if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(self):
            return name
        if isinstance(name, str) and name in self.names:
            return self.names.index(name)
        raise BadAddress(
            f"There is no feature {name!r} in {self.name}.", f"There are {self.names[0]} to {self.names[-1]}."
        )

    def dictionary(self) -> Dictionary:
        """The same features as a dictionary, to be attached: `with_dictionary(net, features.dictionary(), name="pca")`.

        Raises `BadInput` for features that are read otherwise than along directions of one site, or write nowhere.
        """
        if self.source is not None:
            return self.source
        if self.reads is None or len(self.sites) != 1 or len(self.writes) != 1:
            raise BadInput(
                f"{self.name} are not read along directions of one site and written at one.",
                "Name their parts instead: neurons and heads are parts of the network.",
            )
        (site,), ((target, directions),) = self.sites, self.writes
        place, wide = (
            Place(str(site), str(site), self.reads.shape[1]),
            Place(str(target), str(target), directions.shape[1]),
        )
        encoder = Encoder(self.reads.T.contiguous(), None, Signed(), centre=self.offset)
        same = site == target
        return Dictionary(
            "autoencoder" if same else "transcoder", (encoder,), (Decoder(0, 0, directions),),
            (self.offset if same else None,), ((place,),), (wide,), said={"name": self.name},
        )  # fmt: skip


def latents(
    net: Network,
    dictionary: Dictionary,
    reads: Any = None,
    writes: Any = None,
    source: int = 0,
    name: str = "",
) -> FeatureSet:
    """The latents of one source of a dictionary, at the sites that it names or that are given.

    reads, writes: as in `with_dictionary`, for this source and the targets that it writes to. name: the name under which the
    dictionary is attached, if it is; features are then called `name.f5.12`.

    Raises `SiteUnavailable` where no site is known, `BadInput` for as many sites as the dictionary has not.
    """
    given = (
        sites_of(net, reads) if reads is not None else [site_meant(net, p) for p in dictionary.reads[source]]
    )
    decoders = dictionary.decoders_of(source)
    if writes is not None:
        targets = sites_of(net, writes)
    elif reads is not None and dictionary.kind in ("autoencoder", "crosscoder"):
        targets = given
    else:
        targets = [site_meant(net, dictionary.writes[d.target]) for d in decoders]
    if len(given) != len(dictionary.reads[source]) or len(targets) != len(decoders):
        raise BadInput(
            f"{len(given)} sites are read and {len(targets)} written, and source {source} has "
            f"{len(dictionary.reads[source])} and {len(decoders)}.",
            "Name each.",
        )
    layer = max((site.layer or 0 for site in given), default=0)
    begins = f"{name}." if name else ""
    encoder = dictionary.encoders[source]

    def read(values: Sequence[Tensor]) -> Tensor:
        return dictionary.encode([v.flatten(1) for v in values], source)

    return FeatureSet(
        "latents", f"latents {begins}f{layer} of {', '.join(map(str, given))}", tuple(given),
        tuple(f"{begins}f{layer}.{i}" for i in range(encoder.size)), read, encoder.directions(),
        tuple((site, d.weight) for site, d in zip(targets, decoders, strict=True)),
        signed=encoder.activation.kind in ("abstopk", "signed"), source=dictionary,
    )  # fmt: skip


def activations_of(features: FeatureSet, values: Sequence[Tensor]) -> Tensor:
    """Activations [n F] of a set in at least single precision, of the values [n ...] of its sites."""
    return precise(features.read(list(values)))


def neurons(net: Network, layer: int) -> FeatureSet:
    """The neurons of one layer's MLP; where its output matrix can be told, they write along its rows.

    Raises `SiteUnavailable`, `BadAddress` where the layer has none.

    >>> import cutaway
    >>> found = neurons(cutaway.open("zoo:tales"), 2)
    >>> found.names[7], found.writes[0][1].shape[0] == len(found)
    ('n2.7', True)
    """
    site, size = _site(net, ("mlp_act", layer))
    writes: tuple[tuple[Site, Tensor], ...] = ()
    try:
        out = net.weights("W_out", layer=site.layer).value
        out = out if torch.is_tensor(out) else None
    except CutawayError:  # experts, or no matrix: what they write is not along one direction
        out = None
    if out is not None and tuple(out.shape[:1]) == (size,):
        writes = ((net.resolve(("mlp_out", layer))[0], precise(out.detach())),)
    names = tuple(f"n{site.layer}.{i}" for i in range(size))
    return FeatureSet(
        "neurons", f"neurons of layer {site.layer}", (site,), names, _plain, writes=writes, signed=True
    )


def heads(net: Network, layer: int) -> FeatureSet:
    """The attention heads of one layer: how long what each writes is.

    Raises `SiteUnavailable`, `BadAddress` where the layer has none.
    """
    site = net.resolve(("head_out", layer))[0]
    names = tuple(f"a{site.layer}.h{i}" for i in range(net.heads(site.layer or 0) or 0))

    def read(values: Sequence[Tensor]) -> Tensor:
        return precise(values[0]).norm(dim=-1)

    return FeatureSet("heads", f"heads of layer {site.layer}", (site,), names, read)


def directions(
    net: Network,
    at: SiteLike,
    vectors: Any,
    *,
    names: Sequence[str] | None = None,
    kind: SetKind = "directions",
) -> FeatureSet:
    """Directions at a site: a probe's, a difference of means, any. An activation is the inner product with the vector as it
    is given, and an activation of one more is written as the shortest step that has this inner product, v / |v|^2.

    vectors: [k d], or one [d]. names: of each; default `site #0`, ...

    Raises `BadInput` for vectors of another width, of zero, or as many names as there are not; `NotFinite`.
    """
    site, width = _site(net, at)
    rows = precise(torch.as_tensor(np.asarray(vectors) if not torch.is_tensor(vectors) else vectors).detach())
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise BadInput(
            f"Vectors of shape {tuple(rows.shape)} do not fit {site}, where a token has {width}.",
            "Give [k d].",
        )
    if not bool(torch.isfinite(rows).all()):
        raise NotFinite(f"A direction at {site} holds NaN or infinity.", "Look at how it was made.")
    square = rows.square().sum(1, keepdim=True)
    if not bool((square > 0).all()):
        raise BadInput(f"A direction at {site} is zero.", "Give one with a length.")
    called = tuple(names) if names is not None else tuple(f"{site} #{i}" for i in range(len(rows)))
    if len(called) != len(rows) or len(set(called)) != len(called):
        raise BadInput(f"{len(called)} names do not tell {len(rows)} directions apart.", "Give one for each.")
    return FeatureSet(
        kind, f"{len(rows)} {'random ' if kind == 'random' else ''}directions at {site}", (site,), called, _along(rows),
        rows, ((site, rows / square),), signed=True,
    )  # fmt: skip


def random_directions(net: Network, at: SiteLike, n: int, *, seed: int = 0) -> FeatureSet:
    """So many directions of length one, drawn uniformly: what any claim about directions stands beside.

    Raises `BadInput` for n below 1.
    """
    if isinstance(n, bool) or n < 1:
        raise BadInput(f"n={n!r} is no number of directions.", "Give at least 1.")
    site, width = _site(net, at)
    rows = random_units(n, width, torch.Generator().manual_seed(seed)).float()
    return directions(net, site, rows, names=[f"random #{i}" for i in range(n)], kind="random")


def components(
    net: Network,
    texts: TextsLike,
    at: SiteLike,
    k: int,
    *,
    independent: bool = False,
    tokens: int = 20_000,
    skip: int = 1,
    seed: int = 0,
    work: Work | None = None,
) -> FeatureSet:
    """The principal or independent components of a site's values at the tokens of texts, the strongest first.

    Principal components are unit directions of largest variance; independent ones (Hyvarinen 1999, FastICA, symmetric, tanh)
    are those in whose coordinates, of variance one, the values are least Gaussian. Their signs make the skewness positive.

    Args:
        net: the network.
        texts: as for `top_examples`.
        at: the site.
        k: how many; at most its width, and fewer than there are tokens.
        independent: independent components instead of principal ones.
        tokens: how many are read at most.
        skip: leave out the first so many tokens of each text.
        seed: of the search for independent components.
        work: hears of progress.

    Raises:
        BadInput: for a k that the site or the texts do not allow.
        NotFinite: for NaN or infinity at the site.
    """
    site, width = _site(net, at)
    values, _owner = values_at(net, texts, [site], tokens, working(work), skip=skip)
    rows = precise(values[site].flatten(1)).double()
    most = min(width, len(rows) - 1)
    if isinstance(k, bool) or not 1 <= k <= most:
        raise BadInput(
            f"k={k!r} components of {len(rows)} tokens of {width} numbers cannot be told.",
            f"Give 1 to {most}.",
        )
    mean = rows.mean(0)
    found = (
        independent_components(rows - mean, k, seed) if independent else principal_components(rows - mean, k)
    )
    what = "independent" if independent else "principal"
    reads, writes = (t.float() for t in found)
    return replace(
        directions(net, site, reads, names=[f"{what} component {i} of {site}" for i in range(k)], kind="components"),
        name=f"{k} {what} components of {site}", read=_along(reads, mean.float()), offset=mean.float(),
        writes=((site, writes),),
    )  # fmt: skip


def channels(net: Network, place: str) -> FeatureSet:
    """The channels of a map, by the dotted path of the module that gives it: one activation for each pixel or patch.

    Rows are the map's pixels: `map_rows` brings a map [b c h w] to them.

    Raises `NotFound` for a path that is not there, `BadInput` where the module gives no map.
    """
    site = net.resolve(place)[0]
    module = net.modules.get(place)
    size = getattr(module, "out_channels", None) or getattr(module, "num_features", None)
    if not isinstance(size, int):
        raise BadInput(
            f"{place} is not known to give a map of channels.", "Name a convolution or the norm behind it."
        )
    return FeatureSet(
        "channels",
        f"channels of {place}",
        (site,),
        tuple(f"[{place}].c{i}" for i in range(size)),
        _plain,
        signed=True,
    )


def map_rows(value: Tensor) -> Tensor:
    """A map [b c h w] as rows [b h w, c], one for each pixel."""
    return value.movedim(1, -1).flatten(0, -2)


def _plain(values: Sequence[Tensor]) -> Tensor:
    return precise(values[0])


def _along(rows: Tensor, mean: Tensor | None = None) -> Callable[[Sequence[Tensor]], Tensor]:
    def read(values: Sequence[Tensor]) -> Tensor:
        value = precise(values[0]).flatten(1)
        return (value if mean is None else value - mean.to(value)) @ rows.to(value).T

    return read


def _site(net: Network, at: Any) -> tuple[Site, int]:
    """One site and how many numbers a token has there."""
    sites = sites_of(net, at)
    if len(sites) != 1:
        raise BadAddress(
            f"{at} names {len(sites)} sites.", f"Name one: {sites[0]}." if sites else "Name one."
        )
    value = net.run([[0]], keep=sites, logits=False)[sites[0]]
    if value.ndim < 3:
        raise SiteUnavailable(
            f"{sites[0]} has no value for each token.", "Name a site of the stream, of heads or of neurons."
        )
    return sites[0], int(value.shape[2:].numel())
