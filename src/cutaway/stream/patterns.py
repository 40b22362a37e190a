"""Attention patterns with their tokens, plain and weighted by what is moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch

from cutaway.errors import BadAddress
from cutaway.figures import Grid, heatmap, show_token
from cutaway.network.indices import indices, integer
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of
from cutaway.results import Provenance, Work, described, load_fields, save_fields, strict, working
from cutaway.stream.record import read_stream
from cutaway.stream.shared import one_text, origin
from cutaway.stream.split import sources, split

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Patterns:
    """Where the heads of one layer look in one text.

    A head that rests on a first token moves nothing from there; in the weighted pattern that attention is gone (Kobayashi et
    al. 2020).

    Attributes:
        tokens: [p] the text.
        heads: the layer's heads.
        pattern: [h dest src] the attention.
        weighted: [h dest src] each entry times the length of what the source's value writes, as share of the row's total.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "patterns"

    tokens: tuple[str, ...]
    heads: tuple[Part, ...]
    pattern: np.ndarray
    weighted: np.ndarray
    provenance: Provenance

    def to_pandas(self, head: Part | str | int | None = None, weighted: bool = False) -> pd.DataFrame:
        """One head's pattern as a table (rows look, columns are looked at); without a head, one row per head and pair."""
        names = [f"{i} {t}" for i, t in enumerate(self.tokens)]
        if head is not None:
            return pd.DataFrame(self._tables(weighted)[self._index(head)], index=names, columns=names)
        cells = which, dest, source = np.nonzero(
            np.tri(len(names), dtype=bool)[None].repeat(len(self.heads), 0)
        )
        heads, labels = np.array(list(map(str, self.heads))), np.array(names)
        return pd.DataFrame(
            {"head": heads[which], "from": labels[dest], "to": labels[source], "attention": self.pattern[cells],
             "weighted": self.weighted[cells]}
        )  # fmt: skip

    def _tables(self, weighted: bool) -> np.ndarray:
        return self.weighted if weighted else self.pattern

    def plot(self, head: Part | str | int = 0, weighted: bool = False) -> Any:
        """One head's pattern with its tokens; rows look, columns are looked at, the first token on top."""
        index = self._index(head)
        names = [show_token(t) for t in self.tokens]
        table = np.where(np.tri(len(names), dtype=bool), self._tables(weighted)[index], np.nan)[::-1]
        unit = "share of what is moved" if weighted else "attention"
        grid = Grid(table, names[::-1], names, "from", "to", unit=unit)
        return heatmap(grid, title=self.heads[index].words, span=(0.0, 1.0))

    def _index(self, head: Part | str | int) -> int:
        """Which of the heads is meant: by number, or as a part."""
        if isinstance(head, int) and not isinstance(head, bool):
            if 0 <= head < len(self.heads):
                return head
        elif isinstance(head, Part | str) and (part := Part.of(head)) in self.heads:
            return self.heads.index(part)
        raise BadAddress(
            f"There is no head {head} in these patterns.",
            f"There are {', '.join(str(known) for known in self.heads[:12])}.",
        )

    @property
    def headline(self) -> str:
        """What was read, in a sentence."""
        return f"Patterns of layer {self.heads[0].layer} on “{''.join(self.tokens)[:60]}”"

    def _strongest(self) -> pd.DataFrame:
        """For each head where the last token looks most, plain and weighted."""
        looks, moves = (
            [f"{i} {self.tokens[i]}" for i in table[:, len(self.tokens) - 1].argmax(-1)]
            for table in (self.pattern, self.weighted)
        )
        return pd.DataFrame(
            {"head": [head.words for head in self.heads], "looks at": looks, "moves from": moves}
        )

    def page(self) -> Page:
        """The weighted pattern of every head (of the first eight)."""
        figures = [
            Figure(self.plot(i, weighted=True), f"Where {head.words} looks, weighted by what is moved.")
            for i, head in enumerate(self.heads[:8])
        ]
        title = f"Where the heads of layer {self.heads[0].layer} look"
        text = "".join(self.tokens)
        lead = f"Text: “{text}”." if text not in self.headline else ""
        return page_of(self, "Cutaway · heads", title, figures, lead=lead)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        heads = list(map(str, self.heads))
        return described(self, "tokens", "pattern", "weighted", heads=heads)

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        return display_result(self, ["where the last token looks"], self._strongest())


@strict
def read_patterns(
    net: Network, text: str | Sequence[int], *, layer: int, work: Work | None = None
) -> Patterns:
    """The patterns of one layer in one text, plain and weighted by what is moved.

    Raises `SiteUnavailable` with the certificate's reason where patterns or values are refused or heads are not told apart.
    """
    began, work = time.monotonic(), working(work)
    layer = indices(integer(layer, "layer"), net.n_layers, "layer")[0]
    sites = [Site("pattern", layer), Site("v", layer), Site("head_out", layer)]
    for site in sites:
        net.resolve(site)
    tokens = one_text(net, text)
    stream = read_stream(net, tokens, by="head", work=work)
    terms = (t for s in stream.steps for t in s.terms)
    term = next(t for t in terms if t.writer.kind == "attention" and t.writer.layer == layer)
    part = split(net, stream.run, term, "head", stream.slack)
    assert part is not None
    run = net.run(tokens, keep=sites[:2], logits=False)
    moved = sources(run, run, layer)
    written = torch.einsum("bshe,hed->bshd", moved.values, part.weight.to(moved.values))
    weighted = moved.pattern * written.norm(dim=-1).movedim(1, 2)[:, :, None]
    weighted = weighted / weighted.sum(-1, keepdim=True).clamp(min=1e-30)
    heads = tuple(Part("head", layer, h) for h in range(moved.pattern.shape[1]))
    return Patterns(
        tuple(tokens.strings(0)), heads, moved.pattern[0].cpu().numpy(), weighted[0].cpu().numpy(),
        origin(net, tokens, began),
    )  # fmt: skip
