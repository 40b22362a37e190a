"""What the features of a dictionary add to a logit: a dictionary is any set of directions with activations at a site."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.network.coefficients import is_one, like
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import SHORT, Site, SiteLike
from cutaway.stream.attribution import Attribution
from cutaway.stream.shared import origin
from cutaway.stream.split import written_through
from cutaway.stream.targets import direction

if TYPE_CHECKING:
    from cutaway.stream.record import Stream

_OUT = {f"{short}_out": kind for kind, short in SHORT.items()}
_WRITE = {f"{short}_write": kind for kind, short in SHORT.items()}


def direction_at(stream: Stream, site: SiteLike, target: Tensor, foil: Tensor | None = None) -> Tensor:
    """The direction [b k d] along which a vector at a site adds to the logit (difference), by its direct path.

    site: `resid_pre`, `resid_post`, a sublayer's `..._write` or its raw `..._out`. target, foil: token ids [b].

    Raises `SiteUnavailable` for another site.
    """
    (site,) = stream.net.resolve(site)
    layer = -2 if site.layer is None else site.layer
    known = ("resid_pre", "resid_post", *_WRITE, *_OUT)
    if site.name not in known:
        raise SiteUnavailable(f"{site} does not write to the stream directly.", f"Use {', '.join(known)}.")
    aim = direction(stream.net, target, foil)
    last = precise(stream.run[Site("resid_post", stream.depth - 1)])
    g = aim.vector[:, None].to(last).expand(*last.shape[:2], -1)
    for step in reversed(stream.steps):
        if step.layer < layer or (step.layer == layer and site.name == "resid_post"):
            return g
        if step.fold is not None:
            g = step.fold.back(g)
        for term in step.terms:
            kind = _WRITE.get(site.name) or _OUT.get(site.name)
            if kind is not None and term.writer == Part(kind, layer):
                if site.name in _WRITE:
                    return g
                fold = written_through(stream.net, stream.run, term)
                factor = 1.0 if term.sublayer is None else term.sublayer.factor
                g = g * like(factor, g)
                return g if fold is None else fold.back(g)
        if not is_one(step.carry):
            g = g * like(step.carry, g)
    return g


def attribute_features(
    stream: Stream,
    site: SiteLike,
    activations: Tensor,
    decoder: Tensor,
    target: Tensor,
    foil: Tensor | None = None,
    *,
    bias: Tensor | None = None,
) -> Attribution:
    """What each feature of a dictionary adds to a logit (difference) by its direct path from a site.

    activations: [b k f] at the positions that the stream was read at; decoder: [f d], one direction per feature; bias: [d].
    What the dictionary misses of the site's value, and its bias, are contributions of their own, so that all together are
    what the site's value adds.

    Raises `BadInput` where shapes do not fit.
    """
    began = time.monotonic()
    g = direction_at(stream, site, target, foil)
    (resolved,) = stream.net.resolve(site)
    pos = stream.columns - stream.tokens.first[:, None]
    run = stream.net.run(stream.tokens, keep=[resolved], edits=stream.edits, logits=False, pos=pos)
    value = precise(run[resolved]).reshape(g.shape)
    if activations.shape[:2] != g.shape[:2] or decoder.shape != (activations.shape[-1], g.shape[-1]):
        raise BadInput(
            f"Activations {tuple(activations.shape)} and decoder {tuple(decoder.shape)} do not fit {tuple(g.shape)}.",
            "Give activations [b k f] at the positions that were read, and a decoder [f d].",
        )
    decoder, activations = decoder.to(value), activations.to(value)
    parts = (activations * (g @ decoder.T)).double().movedim(-1, 0)
    missed = value - activations @ decoder
    shift = torch.zeros_like(missed) if bias is None else bias.to(value).expand_as(missed)
    rest = [((missed - shift) * g).sum(-1, dtype=torch.float64), (shift * g).sum(-1, dtype=torch.float64)]
    table = torch.cat([parts, torch.stack(rest)]).cpu().numpy()
    layer = resolved.layer
    writers = [Part("feature", layer, i) for i in range(decoder.shape[0])]
    writers += [Part("rest", layer), Part("constant", layer)]
    wanted = (value * g).sum(-1, dtype=torch.float64).cpu().numpy()
    aim = direction(stream.net, target, foil)
    names = stream.net.token_strings
    return Attribution(
        tuple(writers), (None,) * len(writers), table, wanted, tuple(names(target.tolist())),
        None if foil is None else tuple(names(foil.tolist())), np.asarray(stream.columns),
        tuple(tuple(stream.tokens.strings(i)) for i in range(stream.tokens.n)), "feature", aim.softcap,
        origin(stream.net, stream.tokens, began),
    )  # fmt: skip
