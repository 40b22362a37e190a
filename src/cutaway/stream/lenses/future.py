"""The future lens: what a stream says about tokens beyond the next one.

Pal et al. 2023, "Future Lens: Anticipating Subsequent Tokens from a Single Hidden State", its linear form: the last stream
at a later position is predicted from the stream here by least squares, and read by the network's own head.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from cutaway.errors import BadInput
from cutaway.network.memory import rows_at_once
from cutaway.results import Work, strict, working
from cutaway.stream.lenses.affine import AffineLens, Translator
from cutaway.stream.lenses.protocol import OutputHead, chosen_layers, streams
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.stream.shared import origin

if TYPE_CHECKING:
    from cutaway.network import Network


@strict
def future_lens(
    net: Network,
    texts: Texts | Rows,
    *,
    ahead: int = 1,
    layers: Sequence[int] | None = None,
    length: int = 64,
    ridge: float = 1e-3,
    work: Work | None = None,
) -> AffineLens:
    """Fit a future lens: it reads, from the stream at a position, the token `ahead` places beyond the next one.

    ridge: penalty, as share of the mean variance of the stream's coordinates. One pass over the text; the sums of squares
    are kept in double precision.

    Raises `BadInput` where there are fewer positions than coordinates, or `ahead` does not fit the rows.
    """
    began, work = time.monotonic(), working(work)
    head, sites = OutputHead(net), streams(net)
    chosen = chosen_layers(net, layers, last=True)
    rows = rows_of(net, texts, length=length)
    most = rows.ids.shape[1] - rows.special - 1
    if isinstance(ahead, bool) or not isinstance(ahead, int) or not 1 <= ahead < most:
        raise BadInput(f"ahead={ahead!r} does not fit rows of {rows.ids.shape[1]} tokens.", "Use 1, 2, 3.")
    width = net.d_model or 0
    squares = torch.zeros(len(chosen), width + 1, width + 1, dtype=torch.float64)
    products = torch.zeros(len(chosen), width + 1, width, dtype=torch.float64)
    count = 0
    batch = rows_at_once(net, int(rows.ids.shape[1]), work, kept=len(sites) * width)
    with work.interruptible():
        for start in range(0, rows.n, batch):
            run = net.run(rows.ids[start : start + batch], keep=sites, logits=False)
            last = run[sites[-1]][:, rows.special + ahead :].reshape(-1, width).double().cpu()
            for n, layer in enumerate(chosen):
                x = run[sites[layer]][:, rows.special : -ahead].reshape(-1, width).double().cpu()
                x = torch.cat([x, x.new_ones(len(x), 1)], 1)
                squares[n] += x.T @ x
                products[n] += x.T @ last
            count += len(last)
            work.step("fitting the lens", min(start + batch, rows.n), rows.n)
    if count < 2 * width:
        raise BadInput(
            f"{count} positions are too few to fit maps of width {width}.",
            f"Give text of at least {2 * width} tokens.",
        )
    maps = {}
    for n, layer in enumerate(chosen):
        penalty = ridge * squares[n].diagonal()[:-1].mean()
        damp = torch.diag(torch.cat([penalty.expand(width), penalty.new_zeros(1)]))
        solved = torch.linalg.solve(squares[n] + damp, products[n])
        maps[layer] = Translator(solved[:-1].T.float(), solved[-1].float())
    how = {"ahead": ahead, "positions": count, "ridge": ridge, "network": net.hash}
    source = origin(net, rows.ids, began)
    return AffineLens(f"future+{ahead}", head, maps, ahead, how, net.n_layers, source)
