"""Vectors added at single tokens of prompts, and the logits there.

Prompts are run once; of every addition only its own token is run, from the lowest layer that is written on, behind the
keys and values that the prompt left. Many additions in one prompt so cost little more than the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutaway.network.sites import Site
from cutaway.sweeps.cells import Experiment
from cutaway.sweeps.changes import replayable
from cutaway.sweeps.masks import Overwrite
from cutaway.sweeps.passes import Ground, Pass
from cutaway.sweeps.record import take
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.stages import Stage, layer_parts
from cutaway.sweeps.validity import valid_rules
from cutaway.sweeps.waves import Wave

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens

#: Rows that travel together at most: each holds keys and values of all tokens before its own.
_ROWS = 64


@dataclass(frozen=True, eq=False)
class Additions:
    """What is added where, k times, each by itself.

    Attributes:
        rows: LongTensor [k], which prompt it is made in.
        columns: LongTensor [k], at which of its tokens.
        vectors: site -> [k d], what is added there.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    vectors: Mapping[Site, Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def layer(self) -> int:
        """The lowest layer that is written on."""
        return min(site.layer or 0 for site in self.vectors)

    def waves(self) -> list[NDArray[np.int64]]:
        """Which of them travel together: those at one column, whatever their prompts."""
        order = np.argsort(self.columns, kind="stable")
        edges = np.nonzero(np.diff(self.columns[order]))[0] + 1
        return [
            part[first : first + _ROWS]
            for part in np.split(order, edges)
            for first in range(0, len(part), _ROWS)
        ]

    def forwards(self, net: Network, width: int) -> float:
        """Forward-equivalents of all of them in prompts of this width, beside those of the prompts."""
        depth = max(1, net.n_layers)
        return len(self) * (depth - self.layer) / depth / max(1, width)


@dataclass(eq=False)
class AdditionRunner:
    """Runs additions in prompts of a network, as far as what the prompts left may stand in for what comes before.

    Attributes:
        net: the network.
        rules: the savings that hold on it.
    """

    net: Network
    rules: Rules
    _factors: dict[tuple[int, int, bool], dict[tuple[int, str], int]] = field(
        default_factory=dict, repr=False
    )

    @classmethod
    def of(cls, net: Network, tokens: Tokens, sites: Sequence[Site]) -> AdditionRunner | None:
        """For prompts like these, none wider, without padding; None where the network's keys and values do not allow it, or
        a site is none of a layer's at a token.
        """
        if not all(replayable(site) for site in sites):
            return None
        rules = valid_rules(_experiment(net, tokens))
        if not (rules.restart and rules.suffix):
            return None
        return cls(net, rules.without("Layers are run whole, for one token.", "stages", "tokens", "last"))

    def run(self, tokens: Tokens, additions: Additions) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Run the prompts [n p], then every addition: which ones [b], and the logits [b v] at their tokens, wave by wave."""
        layer, experiment = additions.layer, _experiment(self.net, tokens)
        record = take(experiment, [Site("resid_pre", layer)], [], cached=True)
        ground = Ground(
            experiment, (), record, layer_parts(self.net), self.rules, factors=self._factors
        )  # what shapes arguments have is the same for all prompts
        for which in additions.waves():
            column = int(additions.columns[which[0]])
            pairs = np.stack([which, additions.rows[which]], 1)
            wave = Wave(pairs, np.full(len(which), layer), (Stage(),) * len(which), column, column + 1)
            every = torch.ones(len(which), 1, 1, 1, dtype=torch.bool)
            chosen = torch.from_numpy(which)
            one = Pass(
                ground, wave, [_Added(site, every, v[chosen]) for site, v in additions.vectors.items()]
            )
            try:
                yield which, one.run()
            finally:
                one.let_go()


class _Added(Overwrite):
    """What a pass over a single column adds to a site: its source [k d] holds a vector for each row of the pass."""

    def apply(self, value: Tensor, pairs: slice, rows: Tensor, first: int) -> Tensor:
        """A value [b 1 d] of the pairs `pairs` with their vectors added."""
        del rows, first
        return value + self.source[pairs, None].to(value)


def _experiment(net: Network, tokens: Tokens) -> Experiment:
    ends = tokens.lengths.cpu() - 1
    return Experiment(net, tokens, ends, lambda logits, _rows: logits[:, 0], {})
