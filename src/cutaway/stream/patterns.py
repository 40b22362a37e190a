"""Attention patterns with their tokens, plain and weighted by what is moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch

from cutaway.errors import BadAddress, BadInput, OutOfMemory
from cutaway.figures import show_token, small_heads
from cutaway.figures.attention import MOST_CELLS, attention_map, small_patterns
from cutaway.network.indices import indices, integer, layer_numbers
from cutaway.network.inputs import Tokens
from cutaway.network.memory import budget_bytes, bytes_of
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.pricing import announce, until
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.stream.head_weights import head_named
from cutaway.stream.record import read_stream
from cutaway.stream.shared import one_text, origin
from cutaway.stream.split import sources, split

if TYPE_CHECKING:
    from cutaway.network import Network


#: Heads that a page shows in full size.
_IN_FULL = 8
_IN_NOTEBOOK = 4


@dataclass(frozen=True, eq=False)
class Patterns:
    """Where heads look in one text.

    A head that rests on a first token moves nothing from there; in the weighted pattern that attention is gone (Kobayashi et
    al. 2020).

    Attributes:
        tokens: [p] the text.
        heads: the heads, in order.
        pattern: [h dest src] the attention, from 0 to 1.
        weighted: [h dest src] each entry times the length of what the source's value writes, as share of the row's total;
            None where that was not asked for.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "patterns"

    tokens: tuple[str, ...]
    heads: tuple[Part, ...]
    pattern: np.ndarray
    weighted: np.ndarray | None
    provenance: Provenance

    __repr__ = brief

    @cached_property
    def seen(self) -> np.ndarray:
        """[dest src] whether a token can look there: at earlier ones only where no head looks ahead."""
        p = len(self.tokens)
        ahead = self.pattern[:, ~np.tri(p, dtype=bool)]
        return np.tri(p, dtype=bool) if not ahead.any() else np.ones((p, p), bool)

    def to_pandas(self, head: Part | str | int | None = None, weighted: bool = False) -> pd.DataFrame:
        """One head's pattern as a table (rows look, columns are looked at); without a head, one row per head and pair."""
        names = [f"{i} {t}" for i, t in enumerate(self.tokens)]
        if head is not None:
            return pd.DataFrame(self._tables(weighted)[self._index(head)], index=names, columns=names)
        cells = which, dest, source = np.nonzero(self.seen[None].repeat(len(self.heads), 0))
        heads, labels = np.array(list(map(str, self.heads))), np.array(names)
        table = {
            "head": heads[which],
            "from": labels[dest],
            "to": labels[source],
            "attention": self.pattern[cells],
        }
        return pd.DataFrame(table if self.weighted is None else table | {"weighted": self.weighted[cells]})

    def _tables(self, weighted: bool) -> np.ndarray:
        if weighted and self.weighted is None:
            raise BadInput("These patterns are not weighted by what is moved.", "Ask for it: weighted=True.")
        return self.weighted if weighted and self.weighted is not None else self.pattern

    def plot(self, head: Part | str | int | None = None, weighted: bool = False) -> Any:
        """One head's pattern with its tokens, or, without one, all heads at once in small; the scale runs from 0 to 1.

        Rows look, columns are looked at, the first token on top.
        """
        unit = "share of what is moved" if weighted else "attention"
        tables = np.where(self.seen, self._tables(weighted), np.nan)
        if head is None and len(self.heads) > 1:
            places = [part.layer or 0 for part in self.heads], [part.index or 0 for part in self.heads]
            return small_patterns(tables, *places, unit=unit)
        index = 0 if head is None else self._index(head)
        return attention_map(tables[index], self.tokens, self.tokens, self.heads[index].words, unit)

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
    def _whose(self) -> str:
        layers = {head.layer for head in self.heads}
        if len(self.heads) == 1:
            return self.heads[0].words
        return f"layer {min(layers)}" if len(layers) == 1 else f"{len(self.heads)} heads"  # type: ignore[type-var]

    @property
    def headline(self) -> str:
        """Which head looks most decidedly, in a sentence."""
        best = int(np.argmax(self._sharp()))
        table = np.where(self.seen, self.pattern[best], 0.0)
        last = len(self.tokens) - 1
        at = int(table[last].argmax())
        looked, from_ = (show_token(self.tokens[i], escape=False) for i in (at, last))
        most = "" if len(self.heads) == 1 else f"Of {len(self.heads)} heads, "
        most += f"{self.heads[best].words} looks{'' if len(self.heads) == 1 else ' most decidedly'}"
        return f"{most}: from the last token, {from_!r}, at {looked!r} with {table[last, at]:.2f}"

    def _sharp(self) -> np.ndarray:
        """[h] how decidedly each head looks at one earlier token other than the first: the mean over tokens."""
        p = len(self.tokens)
        other = self.seen & ~np.eye(p, dtype=bool)
        other[:, 0] = False
        rows = other.any(1)
        table = self._tables(self.weighted is not None)
        return np.where(other, table, 0)[:, rows].max(-1).mean(-1) if rows.any() else table.max((-1, -2))

    def top(self, n: int = 10) -> pd.DataFrame:
        """The heads that look most decidedly at a token but the first and their own, and where the last token looks."""
        order = np.argsort(-self._sharp(), kind="stable")[:n]
        last = len(self.tokens) - 1
        table: dict[str, Any] = {
            "head": [self.heads[i].words for i in order],
            "decided": self._sharp()[order],
        }
        for name, values in (("looks at", self.pattern), ("moves from", self.weighted)):
            if values is not None:
                table[name] = [f"{j} {self.tokens[j]}" for j in values[order, last].argmax(-1)]
        return pd.DataFrame(table)

    def page(self) -> Page:
        """All heads in small, then those that look most decidedly in full size."""
        weighted = self.weighted is not None
        how = ", weighted by what is moved" if weighted else ""
        shown = [int(i) for i in np.argsort(-self._sharp(), kind="stable")[:_IN_FULL]]
        if len(self.heads) <= _IN_FULL:
            shown = list(range(len(self.heads)))
        figures = [Figure(self.plot(i, weighted), f"Where {self.heads[i].words} looks{how}.") for i in shown]
        if len(self.heads) > 1:
            blocks = -(-len(self.tokens) // MOST_CELLS)
            note = f" {blocks} tokens share a cell, which is as dark as the darkest." if blocks > 1 else ""
            says = f"Every head{how}: rows look, columns are looked at, the first token on top.{note}"
            figures.insert(0, Figure(self.plot(weighted=weighted), says))
        table = table_of(self.top(), "The most decided heads, and where the last token looks.", numeric=(1,))
        text = "".join(self.tokens)
        text = text if len(text) <= 200 else f"{text[:200]}…"
        about = f"Attention patterns of {self._whose} of {self.provenance.network} on “{text}”."
        return page_of(self, "Cutaway · heads", about, [*figures, table])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        heads = list(map(str, self.heads))
        return described(self, "tokens", "pattern", "weighted", heads=heads)

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        shown = [int(i) for i in np.argsort(-self._sharp(), kind="stable")[:_IN_NOTEBOOK]]
        tables = np.where(self.seen, self._tables(self.weighted is not None), np.nan)
        picture = small_heads([tables[i] for i in shown], [self.heads[i].words for i in shown])
        rest = len(self.heads) - len(shown)
        lines = (
            [f"The {len(shown)} most decided heads of {len(self.heads)}; plot() draws all."] if rest else []
        )
        return display_result(self, lines, self.top(5), picture)


@strict
def patterns(
    net: Network,
    text: str | Sequence[int] | Tokens,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[str] | None = None,
    weighted: bool = False,
    work: Work | None = None,
) -> Patterns:
    """Where every head of a network looks in one text.

    Args:
        net: the network.
        text: one text, its token ids, or what `net.chat` made.
        layers: only the heads of these layers.
        heads: only these heads, as `a3.h1` or `head 3.1`.
        weighted: weigh each pattern by what is moved as well (one more run for each layer).
        work: may stop it.

    Raises:
        SiteUnavailable: with the certificate's reason, where no pattern can be read.
        BadAddress: for a layer or head that is not there.
        OutOfMemory: where the patterns of so long a text do not fit; name layers then.
    """
    began, work = time.monotonic(), working(work)
    chosen = net.layers_with("pattern") if layers is None else layer_numbers(layers, net.n_layers)
    wanted = None
    if heads is not None:
        if isinstance(heads, str) or not heads:
            raise BadInput(f"heads={heads!r} is no list of heads.", 'Write heads=["a3.h1"].')
        wanted = [head_named(net, head) for head in heads]
        named = {part.layer or 0 for part in wanted}
        chosen = sorted(named if layers is None else named & set(chosen))
    if not chosen:
        net.resolve("pattern")
        raise BadInput("None of these heads is in the layers that were named.", "Leave layers out.")
    for layer in chosen:
        net.resolve(Site("pattern", layer))
    tokens = one_text(net, text)
    need = bytes_of(net, [Site("pattern", i) for i in chosen], tokens.width)
    if need > budget_bytes(net, work):
        raise OutOfMemory(
            f"The patterns of {len(chosen)} layers on {tokens.width} tokens take {need / 2**30:.1f} GiB.",
            "Name layers, or shorten the text.",
        )
    sites = [Site("pattern", i) for i in chosen]
    again = sum(until(net, [Site("z", i)]) for i in chosen) if weighted else 0.0
    announce(net, tokens, work, "reading patterns", until(net, sites) + again)
    run = net.run(tokens, keep=["pattern"], layers=chosen, logits=False)
    kept, parts = [], []
    for layer in chosen:
        work.step("reading patterns", len(kept), len(chosen))
        table = precise(run["pattern", layer])[0].cpu().numpy()
        kept.append(table)
        parts += [Part("head", layer, h) for h in range(len(table))]
    moved = None
    if weighted:
        moved = np.concatenate([_weighted(net, tokens, layer, work) for layer in chosen])
    index = [i for i, part in enumerate(parts) if wanted is None or part in wanted]
    return Patterns(
        tuple(tokens.strings(0)), tuple(parts[i] for i in index), np.concatenate(kept)[index],
        None if moved is None else moved[index], origin(net, tokens, began),
    )  # fmt: skip


@strict
def read_patterns(
    net: Network, text: str | Sequence[int] | Tokens, *, layer: int, work: Work | None = None
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
    weighted = _weighted(net, tokens, layer, work)
    pattern = precise(net.run(tokens, keep=sites[:1], logits=False)[sites[0]])[0].cpu().numpy()
    heads = tuple(Part("head", layer, h) for h in range(len(pattern)))
    return Patterns(tuple(tokens.strings(0)), heads, pattern, weighted, origin(net, tokens, began))


def _weighted(net: Network, tokens: Tokens, layer: int, work: Work) -> np.ndarray:
    """The patterns of one layer [h dest src], weighted by what is moved.

    Raises `SiteUnavailable` where its heads are not told apart.
    """
    sites = [Site("pattern", layer), Site("v", layer), Site("head_out", layer)]
    for site in sites:
        net.resolve(site)
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
    return weighted[0].cpu().numpy()
