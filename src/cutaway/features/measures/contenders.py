"""What a dictionary must do better than: as many numbers a row of principal components, of neurons, of random directions.

Each is a dictionary itself, made on texts that are not those on which it is then measured, so that reconstruction, loss and
divergence are measured alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.features.components import principal_components, random_units
from cutaway.features.dictionaries import AbsTopK, Decoder, Dictionary, Encoder, Place
from cutaway.features.unexplained import squares
from cutaway.network.parts import KINDS
from cutaway.network.sites import SITES, Site

if TYPE_CHECKING:
    from cutaway.network import Network

#: Weight of the penalty of a linear map, beside the mean square of what it reads.
_RIDGE = 1e-3
#: Neurons are a basis of what their MLP writes where all of them leave at most this share unexplained.
_EXACT = 1e-3


@dataclass(frozen=True, eq=False)
class Contender:
    """A dictionary that stands beside the one that is measured.

    Attributes:
        name: in words.
        dictionary: of one source and one target.
        reads: the name of the site that it encodes.
        role: "itself"; "control", made here; "given", by whoever asks.
    """

    name: str
    dictionary: Dictionary
    reads: str
    role: str


def contenders_of(
    itself: Contender, writes: str, values: Mapping[str, Tensor], k: int, seed: int, neurons: Contender | None
) -> list[Contender]:
    """Principal components, random directions and, where there are any, neurons, of which each row has k.

    values: rows [n d] of each site, of the texts that are for this.
    """
    read, wanted = values[itself.reads].double(), values[writes].double()
    same = itself.reads == writes
    most = min(read.shape[1], max(1, len(read) - 1))
    axes = principal_components(read - read.mean(0), most)[0]
    drawn = random_units(itself.dictionary.sizes[0], read.shape[1], torch.Generator().manual_seed(seed))
    found = [
        Contender(name, _linear(unit, read, wanted, k, itself.reads, writes, same), itself.reads, "control")
        for name, unit in (("principal components", axes), ("random directions", drawn))
    ]
    return found + ([neurons] if neurons is not None else [])


def _linear(
    unit: Tensor, read: Tensor, wanted: Tensor, k: int, reads: str, writes: str, same: bool
) -> Dictionary:
    """Directions of which each row keeps the k on which it lies furthest from the mean, and what they write: themselves at
    the scale that fits best, or, elsewhere than they read, what least squares say.
    """
    centre, mean = read.mean(0), wanted.mean(0)
    encoder = Encoder(unit.T.contiguous().float(), None, AbsTopK(min(k, len(unit))), centre=centre.float())
    codes = encoder(read.float()).double()
    if same:
        made = codes @ unit
        scale = float((made * (wanted - mean)).sum() / made.square().sum().clamp(min=1e-30))
        decoder = scale * unit
    else:
        gram = codes.T @ codes
        gram += _RIDGE * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=gram.dtype)
        decoder = torch.linalg.solve(gram, codes.T @ (wanted - mean))
    return _dictionary(encoder, decoder.float(), mean.float(), reads, writes)


def _dictionary(encoder: Encoder, decoder: Tensor, bias: Tensor, reads: str, writes: str) -> Dictionary:
    source, target = Place("", reads, encoder.width), Place("", writes, decoder.shape[1])
    kind = "autoencoder" if reads == writes else "transcoder"
    return Dictionary(kind, (encoder,), (Decoder(0, 0, decoder),), (bias,), ((source,),), (target,))


def neurons_site(net: Network, writes: Site) -> Site | None:
    """The neurons that a site is written by, or that it is itself; None where there are none."""
    kind = KINDS["neuron"]
    if writes.module or writes.name not in (kind.site, SITES[kind.site].carrier, kind.write):
        return None
    try:
        return net.resolve((kind.site, writes.layer or 0))[0]
    except CutawayError:
        return None


def neurons_contender(
    net: Network, site: Site, writes: Site, values: Mapping[str, Tensor], k: int
) -> Contender | None:
    """The neurons of which each row keeps the k that write most, beside their mean; None where the site is not a linear map
    of them (a norm stands between).
    """
    acts, wanted = values[str(site)].float(), values[str(writes)].float()
    if site == writes:
        out = torch.eye(acts.shape[1])
    else:
        try:
            out = net.weights("W_out", layer=site.layer).value
        except CutawayError:
            return None
    if not torch.is_tensor(out) or tuple(out.shape) != (acts.shape[1], wanted.shape[1]):
        return None
    out = out.detach().float().cpu()
    centre, mean = acts.mean(0), wanted.mean(0)
    error, spread = squares((acts - centre) @ out + mean, wanted)
    if float(error.sum()) > _EXACT * float(spread.sum()):
        return None
    lengths = out.norm(dim=1).clamp(min=1e-12)
    encoder = Encoder(torch.diag(lengths), None, AbsTopK(min(k, len(out))), centre=centre)
    made = _dictionary(encoder, out / lengths[:, None], mean, str(site), str(writes))
    return Contender("neurons", made, str(site), "control")
