"""The biography of a direction in one text: token by token where it is written, where it is read, where it is erased.

Written and erased is read from the writers' own values: what each adds along the direction, beside what was there before.
Read is tested: the direction's component is taken out of what a sublayer sees, and the change of what it writes is compared
with the change after a vector of the same length in a random direction was taken out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.figures import Grid, grid_picture, heatmap, show_token
from cutaway.interventions import Apply
from cutaway.network.inputs import Tokens
from cutaway.network.parts import Part, in_words
from cutaway.network.precision import precise
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.stream.record import read_stream
from cutaway.stream.shared import one_text, origin, require_count, table_in_words
from cutaway.stream.writers import layers_of

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Biography:
    """A direction's life in one text.

    Attributes:
        tokens: [p] the text.
        present: [l+1 p], the stream's coordinate along it as it enters each layer, the last as it leaves.
        writers: who writes to the stream.
        writes: [c p], what each writer adds.
        readers: the sublayers that read it.
        reads: [r p], the change of each reader's write when the direction is taken out of what it sees, as a share of that
            write.
        chance: [r p], the largest such change among the random directions.
        name: what the direction is called.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "biography"

    tokens: tuple[str, ...]
    present: np.ndarray
    writers: tuple[Part, ...]
    writes: np.ndarray
    readers: tuple[Part, ...]
    reads: np.ndarray
    chance: np.ndarray
    name: str
    provenance: Provenance

    __repr__ = brief

    def events(self, least: float = 0.1) -> pd.DataFrame:
        """What happened, in order: token, layer, writer or reader, event and size.

        written: adds to the coordinate, away from zero; erased: takes away from it; each at least `least` of the largest
        coordinate anywhere. read: changes by at least `least` of its write and by more than any random direction does.
        """
        scale = float(np.abs(self.present).max()) or 1.0
        rows: list[tuple[int, str, int | None, str, str, float]] = []
        for p, token in enumerate(self.tokens):
            there = 0.0
            for writer, value in zip(self.writers, self.writes[:, p], strict=True):
                if abs(value) >= least * scale:
                    kind = "written" if abs(there + value) > abs(there) else "erased"
                    rows.append((p, token, writer.layer, str(writer), kind, float(value)))
                there += float(value)
            for reader, change, chance in zip(self.readers, self.reads[:, p], self.chance[:, p], strict=True):
                if change >= least and change > chance:
                    rows.append((p, token, reader.layer, str(reader), "read", float(change)))
        rows.sort(key=lambda row: (row[0], -1 if row[2] is None else row[2]))
        return pd.DataFrame(rows, columns=["position", "token", "layer", "who", "event", "size"])

    def plot(self) -> Any:
        """The coordinate, layer by token."""
        return heatmap(self._grid())

    def _grid(self) -> Grid:
        names = [str(i) for i in range(len(self.present) - 1)] + ["end"]
        columns = [show_token(t) for t in self.tokens]
        return Grid(self.present, names, columns, "layer", "token", unit=f"along {self.name}")

    def to_pandas(self) -> pd.DataFrame:
        """What happened, in order: `events()`."""
        return self.events()

    @property
    def headline(self) -> str:
        """How often it is written, read and erased, and most by whom, in a sentence."""
        events = self.events()
        if not len(events):
            return f"Nothing writes, reads or erases {self.name} here beyond what a random direction sees"
        said = []
        for event in ("written", "read", "erased"):
            found = events[events["event"] == event]
            most = ""
            if len(found):
                top = found.iloc[int(np.argmax(np.abs(np.asarray(found["size"], float))))]
                most = f" (most by {in_words(str(top['who']))} at {show_token(str(top['token']), escape=False)!r})"
            times = {0: "never", 1: "once"}.get(len(found), f"{len(found)} times")
            said.append(f"{event} {times}{most}")
        name = f"{self.name[0].upper()}{self.name[1:]}"
        return f"{name} is {', '.join(said[:-1])} and {said[-1]}"

    def _in_words(self) -> pd.DataFrame:
        return table_in_words(self.events(), "who")

    def page(self) -> Page:
        """The coordinate as a heat map, and what happened."""
        table = self._in_words()[["token", "who", "event", "size"]]
        table = table.assign(token=[show_token(token, escape=False) for token in table["token"]])
        blocks = [Figure(self.plot(), f"The stream's coordinate along {self.name}."), table_of(table)]
        return page_of(
            self, "Cutaway · stream", f"Who writes, reads and erases {self.name}, in {self.provenance.network}.", blocks,
            lead=f"Text: “{''.join(self.tokens)}”.",
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "tokens", "present", direction=self.name, events=self.events())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        return display_result(self, table=self._in_words().head(8), picture=grid_picture(self._grid()))


@strict
def biography(
    net: Network,
    text: str | Sequence[int] | Tokens,
    direction: Tensor,
    *,
    name: str = "the direction",
    by: str = "head",
    n_random: int = 8,
    seed: int = 0,
    work: Work | None = None,
) -> Biography:
    """Follow a direction [d] of the stream through one text.

    Raises `BadInput` where the direction does not fit the stream or is zero, `SiteUnavailable` where streams are refused.
    """
    began, work = time.monotonic(), working(work)
    require_count("n_random", n_random)
    direction = torch.as_tensor(direction).detach().float().reshape(-1)
    if direction.shape[0] != net.d_model or not float(direction.norm()) > 0:
        raise BadInput(
            f"A direction of {direction.shape[0]} numbers and length {float(direction.norm()):.2g} is none of this stream.",
            f"Give {net.d_model} numbers, not all zero.",
        )
    unit = direction / direction.norm()
    tokens = one_text(net, text)
    stream = read_stream(net, tokens, by=by, work=work)
    parts, piled = stream.decompose(), stream.accumulated()
    along = unit.to(parts.values)
    generator = torch.Generator().manual_seed(seed)
    others = torch.randn(n_random, len(unit), generator=generator)
    others = others / others.norm(dim=1, keepdim=True)
    readers, reads, chance = _reads(net, tokens.ids, unit, others, work)
    return Biography(
        tuple(tokens.strings(0)), (piled.values @ along)[:, 0].cpu().numpy(),
        tuple(w for w in parts.writers if isinstance(w, Part)), (parts.values @ along)[:, 0].cpu().numpy(),
        readers, reads, chance, name, origin(net, tokens, began, seed),
    )  # fmt: skip


def _reads(
    net: Network, ids: Tensor, unit: Tensor, others: Tensor, work: Work
) -> tuple[tuple[Part, ...], np.ndarray, np.ndarray]:
    """Readers; the change of each one's write without the direction [r p]; the largest without a random one [r p]."""
    readers, reads, chance = [], [], []
    targets = torch.cat([torch.zeros_like(unit)[None], unit[None], others])
    layers = layers_of(net)
    for layer in layers:
        work.step("testing who reads", layer.index, len(layers))
        for kind in dict.fromkeys(s.kind for s in layer.sublayers):
            part = Part(kind, layer.index)
            write = Site(part.row.write, layer.index)
            mid = Site("resid_mid", layer.index)
            seen = mid if kind == "mlp" and net.has(mid) else Site("resid_pre", layer.index)
            if not net.has(write):
                continue

            def without(value: Tensor) -> Tensor:
                amount = value @ unit.to(value)
                return value - amount[..., None] * targets[:, None].to(value)

            rows = ids.expand(len(targets), -1)
            edit = Apply(str(seen), without)
            run = net.run(rows, keep=[write], edits=[edit], logits=False, stop_at=write)
            value = precise(run[write])
            change = (value - value[:1]).norm(dim=-1) / value[:1].norm(dim=-1).clamp(min=1e-12)
            readers.append(part)
            reads.append(change[1].cpu().numpy())
            chance.append(change[2:].amax(0).cpu().numpy())
    return tuple(readers), np.stack(reads), np.stack(chance)
