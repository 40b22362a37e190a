"""Attention patterns with their tokens, plain and weighted by what is moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from cutaway.errors import BadAddress
from cutaway.network.sites import Site
from cutaway.stream.record import read_stream
from cutaway.stream.split import sources, split

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Patterns:
    """The patterns of one layer in one text: pattern and weighted, both [h dest src].

    weighted: each entry times the length of what the source's value writes, as share of the row's total. A head that rests
    on a first token moves nothing from there; in the weighted pattern that attention is gone (Kobayashi et al. 2020).
    """

    tokens: tuple[str, ...]
    layer: int
    pattern: np.ndarray
    weighted: np.ndarray
    network: str

    def to_pandas(self, head: int, weighted: bool = False) -> pd.DataFrame:
        """One head's pattern as a table: rows look, columns are looked at."""
        table = self._of(head, weighted)
        names = [f"{i} {t}" for i, t in enumerate(self.tokens)]
        return pd.DataFrame(table, index=names, columns=names)

    def plot(self, head: int, weighted: bool = False) -> Any:
        """One head's pattern with its tokens; rows look, columns are looked at, the first token on top."""
        from cutaway.figures import Grid, heatmap, show_token

        names = [show_token(t) for t in self.tokens]
        table = np.where(np.tri(len(names), dtype=bool), self._of(head, weighted), np.nan)[::-1]
        unit = "share of what is moved" if weighted else "attention"
        return heatmap(
            Grid(table, names[::-1], names, "from", "to", unit=unit),
            title=f"head {self.layer}.{head}",
            limit=1.0,
        )

    def _of(self, head: int, weighted: bool) -> np.ndarray:
        if not 0 <= head < len(self.pattern):
            raise BadAddress(
                f"There is no head {self.layer}.{head}.", f"Layer {self.layer} has {len(self.pattern)} heads."
            )
        return (self.weighted if weighted else self.pattern)[head]


def read_patterns(net: Network, text: str | Sequence[int], layer: int) -> Patterns:
    """The patterns of one layer in one text, plain and weighted by what is moved.

    Raises `SiteUnavailable` with the certificate's reason where patterns or values are refused or heads are not told apart.
    """
    sites = [Site("pattern", layer), Site("v", layer), Site("head_out", layer)]
    for site in sites:
        net.resolve(site)
    tokens = net.encode([text] if isinstance(text, str) else [list(text)])
    stream = read_stream(net, tokens, by="head")
    terms = (t for s in stream.steps for t in s.terms)
    term = next(t for t in terms if t.writer.kind == "attention" and t.writer.layer == layer)
    part = split(net, stream.run, term, "head", stream.slack)
    assert part is not None
    run = net.run(tokens, keep=sites[:2], logits=False)
    moved = sources(run, run, layer)
    written = torch.einsum("bshe,hed->bshd", moved.values, part.weight.to(moved.values))
    weighted = moved.pattern * written.norm(dim=-1).movedim(1, 2)[:, :, None]
    weighted = weighted / weighted.sum(-1, keepdim=True).clamp(min=1e-30)
    return Patterns(
        tuple(tokens.strings(0)), layer, moved.pattern[0].cpu().numpy(), weighted[0].cpu().numpy(), net.name
    )
