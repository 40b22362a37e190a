"""What becomes of a network's predictions where reconstructions stand in the place of a site's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import SiteUnavailable
from cutaway.features.lengths import Lengths
from cutaway.features.measures.contenders import Contender
from cutaway.features.texts import Batch, TextWindow, batch_size, batches, window_length
from cutaway.interventions import Patch
from cutaway.network.loss import require_next_tokens
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.network import Network, Run
    from cutaway.results import Work

#: What stands in the place of the values, beside reconstructions: nothing changed, zero, the mean.
CLEAN, ZERO, MEAN = "unchanged", "zero", "mean"
#: The dictionary at the first token of each window, too.
FIRST = "first token, too"


@dataclass(frozen=True, eq=False)
class PredictionSums:
    """Sums over the predictions of each text [t], with each value that is put in the site's place.

    Attributes:
        loss: -log p of the next token.
        divergence: KL divergence from what the network predicts to what it predicts then.
        predictions: how many there are.
    """

    loss: Mapping[str, np.ndarray]
    divergence: Mapping[str, np.ndarray]
    predictions: np.ndarray


def why_not(net: Network, windows: Sequence[TextWindow]) -> str:
    """Why predictions of the next token cannot be measured; "" where they can."""
    rows = [window.ids for window in windows if len(window.ids) > 1]
    if not rows:
        return "No text has a second token."
    try:
        require_next_tokens(net.core, rows)
    except SiteUnavailable as error:
        return str(error)
    return ""


def passes(contenders: int) -> int:
    """How often each text is run."""
    return contenders + 4


def spliced(
    net: Network, windows: Sequence[TextWindow], contenders: Sequence[Contender], writes: Site, mean: Tensor, skip: int,
    short: Mapping[str, Lengths], work: Work,
) -> PredictionSums:  # fmt: skip
    """Predictions with the values of a site replaced at every token that counts, by each dictionary, by zero, by their mean.

    The first `skip` tokens of each window, special ones, and those whose value at a site of `short` is too long keep their
    values, except under `FIRST`, where the first of the dictionaries replaces all. Counted are predictions made at replaced
    tokens of a next token that is no special one.
    """
    sites = list(dict.fromkeys([writes, *(net.resolve(r.reads)[0] for r in contenders)]))
    texts = np.unique([window.text for window in windows])
    names = [CLEAN, ZERO, MEAN, FIRST, *(contender.name for contender in contenders)]
    sums = {kind: {name: np.zeros(len(texts)) for name in names} for kind in ("loss", "divergence")}
    count = np.zeros(len(texts))
    length = window_length(net, None)
    size = batch_size(net, sites, length, work, 3 * length)
    for batch in batches(net, windows, sites, length, work, "predicting", size):
        run = net.run(batch.tokens, keep=sites)
        inside = _inside(run, batch, skip, short)
        row, column, at, following = _places(batch, inside, texts)
        if not len(row):
            continue
        before = _log_probabilities(run.logits, row, column)
        np.add.at(count, at, 1.0)
        for name, new in _replaced(net, run, batch, contenders, writes, mean, inside):
            work.check()
            edits = [] if new is None else [Patch(writes, new)]
            after = (
                before
                if new is None
                else _log_probabilities(net.run(batch.tokens, edits=edits).logits, row, column)
            )
            loss = -after.gather(1, following[:, None])[:, 0]
            divergence = (before.exp() * (before - after)).sum(1)
            np.add.at(sums["loss"][name], at, loss.cpu().numpy())
            np.add.at(sums["divergence"][name], at, divergence.cpu().numpy())
    return PredictionSums(sums["loss"], sums["divergence"], count)


def _inside(run: Run, batch: Batch, skip: int, short: Mapping[str, Lengths]) -> Tensor:
    """Which tokens are replaced: bool [rows columns]."""
    inside = batch.ordinary.clone()
    inside[:, :skip] = False
    for site, lengths in short.items():
        inside &= lengths(run[site].flatten(2)).to(inside.device)
    return inside


def _places(batch: Batch, inside: Tensor, texts: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray, Tensor]:
    """Row and column of every prediction that counts, the number of its text among all, and the token that follows."""
    both = inside[:, :-1] & batch.ordinary[:, 1:]
    row, column = both.nonzero(as_tuple=True)
    owner = np.array([window.text for window in batch.windows])[row.numpy()]
    return row, column, np.searchsorted(texts, owner), batch.tokens.ids[row, column + 1]


def _log_probabilities(logits: Tensor | None, row: Tensor, column: Tensor) -> Tensor:
    if logits is None:
        raise SiteUnavailable("The network gives no logits.", "Open a language model.")
    return logits[row, column].double().log_softmax(-1)


def _replaced(
    net: Network,
    run: Run,
    batch: Batch,
    contenders: Sequence[Contender],
    writes: Site,
    mean: Tensor,
    inside: Tensor,
) -> list[tuple[str, Tensor | None]]:
    """By name the whole value of the site with its tokens replaced; None for nothing changed."""
    value = run[writes]

    def put(make: Callable[[Tensor], Tensor], mask: Tensor) -> Tensor:
        new = value.clone()
        row, column = mask.nonzero(as_tuple=True)
        made = make(torch.stack([row, column]))
        new[row, column] = made.reshape(len(row), *value.shape[2:]).to(new)
        return new

    def by(contender: Contender) -> Callable[[Tensor], Tensor]:
        read = run[net.resolve(contender.reads)[0]]
        return lambda at: contender.dictionary.reconstruct(read[at[0], at[1]].flatten(1))

    size = value.shape[2:].numel()
    found: list[tuple[str, Tensor | None]] = [
        (CLEAN, None),
        (ZERO, put(lambda at: torch.zeros(at.shape[1], size), inside)),
        (MEAN, put(lambda at: mean.expand(at.shape[1], -1), inside)),
        (FIRST, put(by(contenders[0]), batch.tokens.mask)),
    ]
    return found + [(contender.name, put(by(contender), inside)) for contender in contenders]
