"""The difference of means: the simplest direction that tells two sets of texts apart, and a strong one.

Rimsky et al. 2024 (contrastive activation addition, arXiv 2312.06681); Marks and Tegmark 2024 (mass-mean, arXiv 2310.06824);
for single pairs Turner et al. 2023 (activation addition, arXiv 2308.10248).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cutaway.control.direction import FEWEST, SteeringVector, require_direction
from cutaway.errors import BadInput
from cutaway.network.memory import numbers_of, rows_at_once
from cutaway.network.pricing import announce, until
from cutaway.network.sites import Site
from cutaway.network.textsets import batches, digest, rows_in, texts_in
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network


@strict
def difference_of_means(
    net: Network,
    positive: Any,
    negative: Any,
    *,
    at: str,
    pos: int | None = -1,
    folds: int = 5,
    column: str = "text",
    seed: int = 0,
    work: Work | None = None,
) -> SteeringVector:
    """The mean of a site over positive texts less that over negative ones, and how well it tells held-out texts apart.

    Held-out places: the texts are cut into `folds` (where both sets are equally many, pairs of the same number together),
    and each text is put along the direction of the other folds.

    Args:
        net: the network.
        positive: texts that have what the direction is to mean: a list, or a file (`pathlib.Path`; .txt: one a line).
        negative: texts that do not, otherwise as like as possible.
        at: one site of one layer, e.g. `resid_post.8`.
        pos: which token of each text is read, counted from its first, or from its last (-1); None: the mean of all.
        folds: how often a part of the texts is held out.
        column: of a table, the one that holds the texts.
        seed: of the folds.
        work: hears of progress, and may end it.

    Raises BadInput for an empty set, a text in both sets, a site without a layer, and a direction of zero; BadAddress for a
    position that a text does not have.
    """
    began, work = time.monotonic(), working(work)
    site = _site(net, at)
    if folds < 2:
        raise BadInput(f"With folds={folds} nothing is held out.", "Use folds=5.")
    sets = [texts_in(texts, column) for texts in (positive, negative)]
    both = {repr(text) for text in sets[0]} & {repr(text) for text in sets[1]}
    if both:
        raise BadInput(f"{sorted(both)[0]:.60} is in both sets.", "Leave it out of one of them.")
    named = zip(("positive", "negative"), sets, strict=True)
    price = until(net, [site]) * sum(map(len, sets))
    announce(net, rows_in(net.core, sets[0][:32]), work, "reading texts", price, rows=len(sets[0]))
    values = [_read(net, site, texts, pos, work.within(name)) for name, texts in named]
    means = [v.mean(0) for v in values]
    lengths = [float(np.linalg.norm(m)) for m in means]
    vector = (means[0] - means[1]).astype(np.float32)
    require_direction(vector, max(lengths), str(site))
    read = "mean over tokens" if pos is None else "last token" if pos == -1 else f"position {pos}"
    origin = Provenance.of(net, digest([digest(texts) for texts in sets]), seed, time.monotonic() - began)
    n, held = [len(texts) for texts in sets], _held_out(values, [_kinds(t) for t in sets], folds, seed)
    return SteeringVector(
        str(site), vector, lengths[0], lengths[1], held[0], held[1], n[0], n[1], read, origin
    )


def _site(net: Network, at: str) -> Site:
    """The one site that is meant."""
    if any(sign in at for sign in "*?["):
        raise BadInput(f"{at!r} is a pattern of sites.", "Name one layer: at='resid_post.8'.")
    sites = net.resolve(at)
    if len(sites) != 1:
        first, last = sites[0].layer, sites[-1].layer
        raise BadInput(f"{at!r} names no layer.", f"Name one of {first} to {last}: at='{at}.{last}'.")
    if "pos" not in sites[0].axes and not sites[0].module:
        raise BadInput(f"{at} has no value for each token.", "Use resid_post, resid_pre, mlp_write, z, ...")
    return sites[0]


def _read(net: Network, site: Site, texts: Sequence[Any], pos: int | None, work: Work) -> np.ndarray:
    """Each text's entry of a site at one position, or the mean of all: [n ...], in double precision."""
    rows = rows_in(net.core, texts)
    longest = max(map(len, rows))
    found: list[np.ndarray | None] = [None] * len(rows)
    cut = batches(net.core, rows, rows_at_once(net, longest, work, kept=numbers_of(net, site, 1)))
    for done, batch in enumerate(cut):
        work.step("reading texts", done, len(cut))
        tokens = net.encode([rows[i] for i in batch])
        value = net.run(tokens, keep=[site], pos=pos, logits=False)[site].double()
        if pos is None:
            real = tokens.mask.to(value.device).reshape(*tokens.mask.shape, *[1] * (value.ndim - 2))
            value = (value * real).sum(1) / tokens.lengths.to(value).reshape(-1, *[1] * (value.ndim - 2))
        else:
            value = value[:, 0]
        for i, one in zip(batch, value.cpu().numpy(), strict=True):
            found[i] = one
    return np.stack([one for one in found if one is not None])


def _kinds(texts: Sequence[Any]) -> np.ndarray:
    """A number for each text, the same for equal ones, counted in the order in which they come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(repr(text), len(numbers)) for text in texts])


def _held_out(
    values: Sequence[np.ndarray], kinds: Sequence[np.ndarray], folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The place of every text along the direction of the other folds' texts, relative to the middle of their means.

    Equal texts, which have one kind, are in one fold: what was looked at is not held out.
    """
    flat = [v.reshape(len(v), -1) for v in values]
    sizes = [int(kind.max()) + 1 for kind in kinds]
    if min(sizes) < FEWEST:
        return np.zeros(0), np.zeros(0)
    folds = min(folds, *sizes)
    generator = torch.Generator().manual_seed(seed)
    order = [torch.randperm(size, generator=generator).numpy() for size in sizes]
    if np.array_equal(kinds[0], kinds[1]):
        order[1] = order[0]
    parts = [(np.argsort(o, kind="stable") % folds)[kind] for o, kind in zip(order, kinds, strict=True)]
    places = [np.zeros(len(v)) for v in flat]
    for fold in range(folds):
        means = [v[part != fold].mean(0) for v, part in zip(flat, parts, strict=True)]
        along = means[0] - means[1]
        length = max(float(along @ along), 1e-300)
        for v, part, place in zip(flat, parts, places, strict=True):
            place[part == fold] = (v[part == fold] - (means[0] + means[1]) / 2) @ along / length
    return places[0], places[1]
