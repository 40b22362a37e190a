"""What a sweep is made of: writes, cells of writes that belong together, and what all cells share.

A *cell* is a set of writes that are made at the same time (patch this head; replace all components but these). Its value
is the metric of every example with those writes made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFound, SiteUnavailable
from cutaway.network.parts import Part
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Inputs, Tokens


class CellState(IntEnum):
    """What is known of one cell on one example."""

    NOT_RUN = 0
    RUN = 1
    KNOWN_ZERO = 2  # nothing can change here, so the base value stands
    NOT_FINITE = 3  # the metric came out as NaN or infinity
    ABSENT = 4  # there is no such position or head


@dataclass(frozen=True)
class Write:
    """One address that takes its value from a source: a site of a layer, perhaps one head, neuron, position or span.

    Attributes:
        site, layer: where.
        head, neuron: which; None for all of them.
        position: row-relative (0 = first real token), counting destinations at `scores` and `pattern`; None for all.
        span: names positions that differ by example.
        source: names the values that are written ("" for the experiment's own).
        module: is the site a module's path (a map of an image network)?
        stack: the stack, or the name of the dictionary, that the site belongs to.
    """

    site: str
    layer: int | None
    head: int | None = None
    position: int | None = None
    neuron: int | None = None
    span: str = ""
    source: str = ""
    module: bool = field(default=False, repr=False)  # the site is a module's path: a map of an image network
    stack: str = field(default="", repr=False)

    @property
    def where(self) -> Site:
        """The site without head and position."""
        return Site(self.site, self.layer, self.stack, self.module)


def write_of(part: Part, position: int | None = None, span: str = "", source: str = "") -> Write:
    """The write that replaces a part's output, at every position unless one (or a span) is named.

    Raises `BadInput` for a part that cannot be replaced by itself (a bias, the rest of a sum, an input of several stacks),
    `SiteUnavailable` for an expert, whose share of its MLP's output is no site.

    >>> write_of(Part("head", 3, 1))
    Write(site='z', layer=3, head=1, position=None, neuron=None, span='', source='')
    """
    if part.kind == "expert":
        remedy = "Use circuits.score with method='node-patching', or its routing weight at the site router."
        raise SiteUnavailable(f"What {part.words} adds to its MLP's output has no site to sweep.", remedy)
    site, axis = part.site, part.row.axis
    if site is None or (site.stack and part.kind not in ("feature", "feature_error")):
        remedy = "Name a head, an MLP, a mixer, a neuron."
        raise BadInput(f"{part.words} cannot be replaced by itself.", remedy)
    head = part.index if axis == "head" else None
    unit = None if axis in ("head", "") else part.index
    return Write(site.name, site.layer, head, position, unit, span, source, site.module, site.stack)


#: Writes that are made together.
Cell = tuple[Write, ...]


@dataclass(frozen=True, eq=False)
class AxisLayout:
    """Which axis of a site's tensor counts positions, heads and units; None where it has no such axis.

    Attributes:
        position, head, unit: number of the axis.
    """

    position: int | None
    head: int | None
    unit: int

    @classmethod
    def of(cls, site: Site, ndim: int = 0) -> AxisLayout:
        """The layout of a site; ndim: how many axes its tensor has, for a module's output, whose shape is its own.

        A module gives an image-like map [b channel y x], rows of vectors [b pos width], or vectors [b width].

        >>> AxisLayout.of(Site("pattern", 0)).position
        2
        """
        if site.module:
            return cls(1 if ndim == 3 else None, None, 2 if ndim == 3 else 1)
        axes = site.axes
        position = next((i for i, a in enumerate(axes) if a in ("pos", "dest")), None)
        head = next((i for i, a in enumerate(axes) if a in ("head", "kv_head")), None)
        return cls(position, head, len(axes) - 1)


@dataclass(frozen=True, eq=False)
class Experiment:
    """What all cells of a sweep share.

    Attributes:
        net: the network.
        tokens: the base prompts, n rows.
        positions: LongTensor [n], the row-relative position whose logits the metric reads.
        score: (logits [k v], row numbers [k]) -> metric [k].
        sources: site -> what is written, laid out like the base run's own tensor [n p ...] (a first axis of 1 serves all).
        named: further sources by name, each like `sources`; a write says which it takes.
        spans: name -> BoolTensor [n p], columns that belong to a span, for writes that name one.
        vocabulary: LongTensor [k] where the metric reads the logits of these tokens only; `score` then gets
            [rows k] logits if `score_few` is given.
        score_few: (logits [rows k] of `vocabulary`, row numbers) -> metric.
        inputs: the model's own arguments, where token rows do not say all (an encoder-decoder's two rows of tokens).
    """

    net: Network
    tokens: Tokens
    positions: Tensor
    score: Callable[[Tensor, Tensor], Tensor]
    sources: Mapping[Site, Tensor]
    named: Mapping[str, Mapping[Site, Tensor]] = field(default_factory=dict)
    spans: Mapping[str, Tensor] = field(default_factory=dict)
    vocabulary: Tensor | None = None
    score_few: Callable[[Tensor, Tensor], Tensor] | None = None
    inputs: Inputs | None = None

    def source(self, write: Write) -> Tensor:
        """The values that a write takes: [n p ...].

        Raises `NotFound` where the source has no values for its site.
        """
        values = self.named[write.source] if write.source else self.sources
        if write.where not in values:
            what = f"The source {write.source or 'of this sweep'!r} holds no values of {write.where}."
            raise NotFound(what, f"Keep {write.where} in the run that the values come from.")
        return values[write.where]

    @property
    def answer_columns(self) -> np.ndarray:
        """Column [n] of each row whose logits the metric reads."""
        return self.tokens.columns(self.positions[:, None].cpu())[:, 0].cpu().numpy()


@dataclass(frozen=True)
class CellValues:
    """The metric of every cell and example.

    Attributes:
        values: [cells n], NaN where there is none.
        states: [cells n] of `CellState`.
        interrupted: whether the sweep was stopped before its end.
    """

    values: np.ndarray
    states: np.ndarray
    interrupted: bool = False


def not_run(cells: int, n: int) -> np.ndarray:
    """The states [cells n] of a sweep of which nothing has been run."""
    return np.full((cells, n), CellState.NOT_RUN, np.int8)


def put(values: np.ndarray, states: np.ndarray, pairs: np.ndarray, scores: np.ndarray) -> None:
    """Enter the metric [k] of (cell, row) pairs [k 2] into values and states [cells n]; what is not finite is marked."""
    finite, where = np.isfinite(scores), tuple(pairs.T)
    values[where] = np.where(finite, scores, np.nan)
    states[where] = np.where(finite, CellState.RUN, CellState.NOT_FINITE)


def columns_of(experiment: Experiment, write: Write) -> Tensor:
    """The columns that a write covers: BoolTensor [n p], padding left out."""
    mask = experiment.tokens.mask.cpu()
    if write.span:
        return experiment.spans[write.span].cpu() & mask
    if write.position is None:
        return mask
    lengths, first = experiment.tokens.lengths.cpu(), experiment.tokens.first.cpu()
    position = torch.full_like(first, write.position)
    position = torch.where(position < 0, position + lengths, position)
    there = (position >= 0) & (position < lengths)
    return (torch.arange(mask.shape[1]) == (first + position)[:, None]) & there[:, None]


def scores_of(experiment: Experiment, logits: Tensor, rows: Tensor, few: bool) -> np.ndarray:
    """Metric [k] of logits [k v] (or of the few tokens that it reads); NaN where the logits are not finite."""
    usable = ~(torch.isnan(logits) | (logits == float("inf"))).any(1).cpu()
    scores = np.full(len(rows), np.nan)
    if bool(usable.any()):
        chosen = usable.nonzero()[:, 0]
        score = experiment.score_few if few and experiment.score_few is not None else experiment.score
        values = score(logits[chosen.to(logits.device)], rows[chosen])
        scores[chosen.numpy()] = values.detach().double().cpu().numpy()
    return scores
