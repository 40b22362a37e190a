"""What is read at every token: a neuron, a latent, what a head writes, or a direction at a site, as one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadFormat, BadInput, NotFinite, nearest
from cutaway.features.sets import FeatureSet
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import SITES, Site, SiteLike

if TYPE_CHECKING:
    from cutaway.network import Network

#: One thing to read: "n3.120", "f5.17", "a3.h1", a site (or head) with a direction; or a set of features, each of them.
One = str | Part | FeatureSet | tuple[SiteLike | Part, Any]
#: Several: a list, names with what each means, or parts with commas between them.
OfLike = One | Sequence[One] | Mapping[str, One]

#: More features than these are read by an index, not one by one.
_MANY = 64
_WRITE = 'Write "n3.120" (a neuron), ("resid_post.5", vector) (a direction), or ("a3.h1", vector) (what a head writes).'


@dataclass(frozen=True, eq=False)
class Reader:
    """One number at every token.

    Attributes:
        name: what it is called.
        site: where it is read.
        read: the site's value [b p ...] -> [b p].
    """

    name: str
    site: Site
    read: Callable[[Tensor], Tensor]


def readers_of(net: Network, of: OfLike) -> list[Reader]:
    """What is to be read, checked against the network.

    Raises `BadInput` for a direction of zero, of another size than the site, or of NaN; `NotFound`, `BadAddress` and
    `SiteUnavailable` for what the network does not have.
    """
    if isinstance(of, str) and "," in of:
        of = [part.strip() for part in of.split(",") if part.strip()]
    if isinstance(of, Mapping):
        named = [(name, one) for name, one in of.items()]
    elif isinstance(of, str | Part | FeatureSet) or _is_pair(of):
        named = [("", of)]
    elif isinstance(of, Sequence) and len(of):
        named = [("", one) for one in of]
    else:
        raise BadInput(f"of={of!r:.60} names nothing to read.", _WRITE)
    found = [reader for name, one in named for reader in _readers(net, str(name), one)]
    names = [reader.name for reader in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise BadInput(f"{double} is asked for twice.", "Name them: of={'first': ..., 'second': ...}.")
    return found


def _is_pair(of: object) -> bool:
    return isinstance(of, tuple) and len(of) == 2 and not isinstance(of[1], str | Part | tuple)


def _readers(net: Network, name: str, one: Any) -> list[Reader]:
    if isinstance(one, str | Part):
        return [_part(net, name, one)]
    if isinstance(one, FeatureSet):
        return _of_set(one, name)
    if _is_pair(one):
        return _along(net, name, *one)
    raise BadInput(f"{one!r:.60} names nothing to read.", _WRITE)


def _parsed(place: Any) -> Part | None:
    try:
        return Part.of(place) if isinstance(place, str | Part) else None
    except BadFormat:
        return None


def _part(net: Network, name: str, one: str | Part) -> Reader:
    part = _parsed(one)
    if part is None:
        near = nearest(str(one), SITES, 1)
        said = (
            f"Give it a direction: ({str(one)!r}, vector)." if str(one).partition(".")[0] in SITES else _WRITE
        )
        raise BadInput(
            f"{str(one)!r} is no neuron, feature or head.",
            said if not near or "direction" in said else f"{_WRITE}",
        )
    if part.kind == "neuron":
        site = net.resolve(Site("mlp_act", part.layer))[0]
        size, index = _shape(net, site)[-1], part.index or 0
        if index >= size:
            raise BadAddress(f"There is no {part.words}.", f"Layer {part.layer} has neurons 0 to {size - 1}.")
        return Reader(name or str(part), site, lambda value: value[..., index])
    if part.kind == "head":
        site, index = _head(net, part)
        return Reader(name or str(part), site, lambda value: value[:, :, index].norm(dim=-1))
    if part.kind == "feature":
        site, index = net.resolve(Site("features", part.layer, part.place))[0], part.index or 0
        size = _shape(net, site)[-1]
        if index >= size:
            raise BadAddress(f"There is no {part.words}.", f"{site} has features 0 to {size - 1}.")
        return Reader(name or str(part), site, lambda value: value[..., index])
    raise BadInput(f"{part.words} is no neuron, feature or head.", _WRITE)


def _of_set(features: FeatureSet, name: str) -> list[Reader]:
    """One reader for each feature of a set at one site.

    Raises `BadInput` for a set that reads several sites, or so many features that an index serves better.
    """
    if len(features.sites) != 1 or len(features) > _MANY:
        why = "reads several sites" if len(features.sites) != 1 else f"has {len(features)} features"
        raise BadInput(
            f"{features.name} {why}.", "Use features.index_features, which reads all of them in one pass."
        )

    def reading(i: int) -> Callable[[Tensor], Tensor]:
        return lambda value: features.read([value.flatten(0, 1)])[:, i].unflatten(0, value.shape[:2])

    return [
        Reader(f"{name} {n}".strip(), features.sites[0], reading(i)) for i, n in enumerate(features.names)
    ]


def _head(net: Network, part: Part) -> tuple[Site, int]:
    site = net.resolve(Site("head_out", part.layer))[0]
    count, index = net.heads(part.layer or 0) or 0, part.index or 0
    if index >= count:
        raise BadAddress(f"There is no {part.words}.", f"Layer {part.layer} has heads 0 to {count - 1}.")
    return site, index


def _along(net: Network, name: str, place: Any, direction: Any) -> list[Reader]:
    part = _parsed(place)
    index: int | None = None
    if part is not None and part.kind == "head":
        site, index = _head(net, part)
        shape = _shape(net, site)[1:]
    elif part is not None:
        raise BadInput(f"{part.words} has no direction of its own.", _WRITE)
    else:
        sites = net.resolve(place)
        if len(sites) != 1:
            raise BadAddress(f"{place} names {len(sites)} sites.", f"Name one: {sites[0]}.")
        site = sites[0]
        if not site.module and site.axes[:2] != ("batch", "pos"):
            raise BadInput(
                f"{site} has no value for each token.", "Read a site of the stream, of heads or of neurons."
            )
        shape = _shape(net, site)
    label = name or (str(part) if part is not None else str(site))
    rows = _vectors(direction, shape, label)
    names = [label] if len(rows) == 1 else [f"{label} #{i}" for i in range(len(rows))]

    def reading(row: Tensor) -> Callable[[Tensor], Tensor]:
        def read(value: Tensor) -> Tensor:
            chosen = value if index is None else value[:, :, index]
            return precise(chosen).flatten(2) @ row.to(precise(chosen))

        return read

    return [Reader(n, site, reading(row)) for n, row in zip(names, rows, strict=True)]


def _shape(net: Network, site: Site) -> tuple[int, ...]:
    """What one token has at a site."""
    value = net.run([[0]], keep=[site], logits=False)[site]
    if value.ndim < 3:
        raise BadInput(
            f"{site} has no value for each token.", "Read a site of the stream, of heads or of neurons."
        )
    return tuple(value.shape[2:])


def _vectors(direction: Any, shape: tuple[int, ...], label: str) -> Tensor:
    """One or several directions as rows [k n]."""
    try:
        given = torch.as_tensor(
            np.asarray(direction) if not torch.is_tensor(direction) else direction
        ).detach()
    except (TypeError, ValueError) as error:
        raise BadInput(f"The direction at {label} is no tensor of numbers.", _WRITE) from error
    size = int(np.prod(shape))
    fits = tuple(given.shape) == shape or given.shape[-1:] == (size,) or tuple(given.shape[1:]) == shape
    if given.dtype == torch.bool or given.is_complex() or not fits or given.numel() % size:
        raise BadInput(
            f"A direction of shape {tuple(given.shape)} does not fit {label}, where a token has {shape}.",
            f"Give {size} numbers, or several rows of so many.",
        )
    rows = precise(given).reshape(-1, size)
    if not bool(torch.isfinite(rows).all()):
        raise NotFinite(f"A direction at {label} holds NaN or infinity.", "Look at how it was made.")
    if not bool((rows != 0).any(1).all()):
        raise BadInput(f"A direction at {label} is zero.", "Give one with a length.")
    return rows
