"""The Jacobian lens: a stream taken to the end by the mean Jacobian of everything that lies between.

For each layer l the derivative of the last stream with respect to the stream at l, at the same position, is averaged over
text: J_l = E[d last / d stream_l]. A stream is read as mean_last + J_l (stream - mean_l), the first-order expansion around
the means. Nothing is trained: the Jacobians come from batched vector-Jacobian products.

One product serves all positions at once. The last stream at every position is weighed with a random sign and the gradient
at every position with the same sign again: what a position owes to itself keeps its sign (s * s = 1), and what it owes to
later positions, which is not wanted here, is left with signs that average to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import BadInput, Stopped
from cutaway.network.memory import rows_at_once
from cutaway.results import Work, strict, working
from cutaway.results.meter import spend, spent
from cutaway.stream.lenses.affine import AffineLens, Translator
from cutaway.stream.lenses.protocol import OutputHead, chosen_layers, streams
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.stream.shared import origin

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.sites import Site

#: Rows of one pass: more are no faster, since the products of one backward pass fill the processor already.
_MOST_ROWS = 8


@dataclass(frozen=True)
class Sampling:
    """Over what the mean Jacobian is taken.

    Attributes:
        rows: rows of text, all positions of each but the first `skip`.
        length: tokens per row.
        at_once: vector-Jacobian products per backward pass.
        skip: positions at the front of each row that do not count.
    """

    rows: int = 32
    length: int = 64
    at_once: int = 64
    skip: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or self.at_once < 1:
            raise BadInput("A mean Jacobian needs at least one row.", "Give rows=32.")


@strict
def jacobian_lens(
    net: Network,
    texts: Texts | Rows,
    *,
    sampling: Sampling | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> AffineLens:
    """Fit a Jacobian lens on text; the seed is that of the signs.

    Where the work is stopped, the mean over the rows that were finished (`origin["rows"]`) is returned.

    Raises `BadInput` where the text is too short, `SiteUnavailable` where a stream is refused, `Stopped` where the work was
    stopped before any row was finished.
    """
    began = time.monotonic()
    sampling = sampling or Sampling()
    head, sites, chosen = OutputHead(net), streams(net), chosen_layers(net, layers)
    given = rows_of(net, texts, length=sampling.length, most=sampling.rows)
    ids = given.ids[: sampling.rows]
    first = min(given.special + sampling.skip, ids.shape[1] - 1)
    signs = torch.randint(0, 2, ids.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0
    signs[:, :first] = 0.0
    width = net.d_model or 0
    read = [*(sites[i] for i in chosen), sites[-1]]
    total = torch.zeros(len(chosen), width, width, dtype=torch.float64)
    means = torch.zeros(len(chosen) + 1, width, dtype=torch.float64)
    done = 0
    with working(work).interruptible() as work:
        kept = 16 * sampling.at_once * width
        batch = rows_at_once(net, int(ids.shape[1]), work, kept=kept, most=_MOST_ROWS)
        try:
            for start in range(0, len(ids), batch):
                part = slice(start, start + batch)
                jacobian, values = _jacobians(net, ids[part], signs[part], read, sampling.at_once)
                total, means, done = total + jacobian, means + values, done + len(ids[part])
                work.step("Jacobians", done, len(ids))
        except Stopped:
            if not done:
                raise
    count = done * (ids.shape[1] - first)
    total, means = total / count, means / count
    maps = {
        layer: Translator(matrix.float(), (means[-1] - matrix @ mean).float())
        for layer, matrix, mean in zip(chosen, total, means, strict=False)
    }
    length = int(ids.shape[1])
    how = {"rows": done, "asked": len(ids), "length": length, "seed": seed, "network": net.hash}
    return AffineLens("jacobian", head, maps, 0, how, net.n_layers, origin(net, ids, began, seed))


def _jacobians(
    net: Network, rows: Tensor, signs: Tensor, sites: Sequence[Site], at_once: int
) -> tuple[Tensor, Tensor]:
    """Sums over rows and positions (where signs [b p] are not 0) of the Jacobians [l d d], and of the streams [l+1 d]."""
    run = net.run(rows, keep=sites, logits=False, grad=True)
    inputs, last = [run[s] for s in sites[:-1]], run[sites[-1]]
    weight = signs.to(last)
    values = torch.stack(
        [torch.einsum("bp,bpd->d", weight.square(), t.detach()).double().cpu() for t in (*inputs, last)]
    )
    jacobians = torch.zeros(len(inputs), last.shape[-1], last.shape[-1], dtype=torch.float64)
    eye = torch.eye(last.shape[-1], device=last.device, dtype=last.dtype)
    summed = torch.einsum("bp,bpd->d", weight, last)
    for start in range(0, len(eye), at_once):
        part = eye[start : start + at_once]
        for i, g in enumerate(_products(summed, inputs, part)):
            if g is not None:
                weighed = torch.einsum("bp,cbpd->cd", weight.to(g), g)
                jacobians[i, start : start + len(part)] = weighed.double().cpu()
    return jacobians, values


def _products(output: Tensor, inputs: Sequence[Tensor], cotangents: Tensor) -> Sequence[Tensor | None]:
    """Vector-Jacobian products for many cotangents [c ...] in one batched backward pass; one by one where that fails."""
    before = spent()
    try:
        products = torch.autograd.grad(
            output, inputs, cotangents, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        spend((spent() - before) * (len(cotangents) - 1))  # a batched pass comes to each layer once
        return products
    except RuntimeError:
        single = [
            torch.autograd.grad(output, inputs, c, retain_graph=True, allow_unused=True) for c in cotangents
        ]
        return [None if parts[0] is None else torch.stack(list(parts)) for parts in zip(*single, strict=True)]
