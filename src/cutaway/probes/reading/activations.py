"""Activations, streamed from the network: each batch's slices go to whoever collects, and nothing else is kept."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, OutOfMemory
from cutaway.network.memory import MOST_TOKENS, rows_at_once
from cutaway.network.pricing import announce, until
from cutaway.network.sites import Site
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.reading.places import Cell, Places, columns
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network

#: Inputs that are a model's own tensors (images) are run so many at a time: what they take is not known beforehand.
_INPUTS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class ActivationBatch:
    """Some examples' values.

    Attributes:
        examples: their numbers [e].
        values: site -> [e k d] or [e k h d].
    """

    examples: np.ndarray
    values: dict[Site, Tensor]


def stream(
    net: Network, data: ProbeData, places: Places, work: Work, what: str = "reading", most: int | None = None
) -> Generator[ActivationBatch, None, None]:
    """Run the network once over all inputs, some at a time, and give the slices that the cells read, in float32.

    Rows are run in order of length, so that little is spent on padding. The batch is halved when memory runs out.
    most: no more than so many inputs, the shortest.
    Raises `NotFinite`, with the place, where an activation is NaN or infinite.
    """
    by_row: dict[int, list[int]] = {}
    for example, row in enumerate(np.asarray(data.rows).tolist()):
        by_row.setdefault(row, []).append(example)
    batches = (_token_batches if data.of_tokens else _own_batches)(net, data, places, by_row, work, most)
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.examples)
        work.step(what, done, data.n)


def reading_price(net: Network, data: ProbeData, places: Places) -> float:
    """What one pass over the inputs takes, up to the last site that is read."""
    return len(set(np.asarray(data.rows).tolist())) * until(net, places.sites)


def announce_reading(
    net: Network, data: ProbeData, places: Places, work: Work, label: str, more: Any = ()
) -> None:
    """Say what one pass over the inputs takes, and what comes beside it."""
    forwards = [("reading", reading_price(net, data, places)), *more]
    some: Any = data.inputs[:16] if data.of_tokens else [[0]]  # type: ignore[index]
    announce(net, some, work, label, forwards, rows=len(set(np.asarray(data.rows).tolist())))


def _token_batches(
    net: Network, data: ProbeData, places: Places, by_row: dict[int, list[int]], work: Work, most: int | None
) -> Generator[ActivationBatch, None, None]:
    tokens = net.encode(data.inputs)  # type: ignore[arg-type]
    size = tokens.lengths.cpu().numpy()
    order = sorted(by_row, key=lambda r: (size[r], r))[:most]
    equal = net.certificate.pads_right is False  # then rows of one length at a time
    start, rows = 0, rows_at_once(net, int(size.max()), work, read=0, most=MOST_TOKENS)
    while start < len(order):
        part = order[start : start + rows]
        if equal:
            part = [r for r in part if size[r] == size[part[0]]]
        batch = tokens[torch.tensor(part)]
        width = int(batch.lengths.max())
        if int(batch.first.max()) == 0:
            batch = type(batch)(batch.ids[:, :width], batch.mask[:, :width], batch.names)
        examples = np.array([e for r in part for e in by_row[r]])
        where = np.array([i for i, r in enumerate(part) for _ in by_row[r]])
        column = columns(places, data, batch, where, examples)
        # with one example in each row, only the columns that are read are kept of each site
        lone = len(examples) == batch.n
        pos = column - batch.first[:, None] if lone else None
        try:
            run = net.run(batch, keep=list(places.sites), pos=pos, logits=False)
        except OutOfMemory:
            if rows == 1:
                raise
            rows = max(1, rows // 2)
            continue
        values = {}
        for site in places.sites:
            value = run[site]
            if value.ndim == 2:  # a module's output without positions
                value = value[torch.as_tensor(where, device=value.device)][:, None]
            elif not lone or value.shape[1] != column.shape[1]:
                index = torch.as_tensor(where, device=value.device)[:, None]
                value = value[index, column.to(value.device)]
            values[site] = _finite(value.float().cpu(), site, examples)
        yield ActivationBatch(examples, values)
        start += len(part)


def _own_batches(
    net: Network, data: ProbeData, places: Places, by_row: dict[int, list[int]], _work: Work, most: int | None
) -> Generator[ActivationBatch, None, None]:
    """Inputs that are a model's own tensors (images): a site's value is pooled over all axes but the last, or taken as it
    is where it has one vector per input."""
    order = sorted(by_row)[:most]
    for start in range(0, len(order), _INPUTS_AT_ONCE):
        part = order[start : start + _INPUTS_AT_ONCE]
        kwargs = {k: v[torch.tensor(part)] for k, v in data.inputs.items()}  # type: ignore[union-attr]
        run = net.run(kwargs, keep=list(places.sites), logits=False)
        examples = np.array([e for r in part for e in by_row[r]])
        where = torch.tensor([i for i, r in enumerate(part) for _ in by_row[r]])
        values = {}
        for site in places.sites:
            value = run[site].float().cpu()
            if value.ndim == 4 and site.module:
                value = value.flatten(2).mean(2)
            elif value.ndim > 2:
                value = value.flatten(1, -2).mean(1)
            values[site] = _finite(value[where][:, None], site, examples)
        yield ActivationBatch(examples, values)


def _finite(value: Tensor, site: Site, examples: np.ndarray) -> Tensor:
    bad = ~torch.isfinite(value)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        remedy = "Run in float32, or look at the layer before; such examples are not left out silently."
        raise NotFinite(f"{site} is NaN or infinite for example {int(examples[row])}.", remedy)
    return value


@dataclass(frozen=True, eq=False)
class Kept:
    """All slices in memory: site -> [n k d] or [n k h d], float32.

    Attributes:
        values: by site.
        places: which slices they are.
    """

    values: dict[Site, Tensor]
    places: Places

    def cell(self, cell: Cell) -> Tensor:
        """The features [n d] of one cell (heads side by side where they are not told apart)."""
        value = self.values[cell.site][:, cell.position]
        return value[:, cell.head] if cell.head is not None else value.flatten(1)

    @property
    def width(self) -> int:
        """The largest number of features of a cell."""
        alone = [c.head is not None for c in self.places.cells]
        return max(v.shape[-1] if all(alone) else v[0, 0].numel() for v in self.values.values())

    @property
    def bytes(self) -> int:
        """How much memory the slices take."""
        return sum(v.numel() * v.element_size() for v in self.values.values())


def bytes_of(net: Network, data: ProbeData, places: Places) -> int:
    """How much all slices would take in float32, found by running one input."""
    batch = next(stream(net, data, places, Work(), most=1))
    return sum(v.numel() * 4 for v in batch.values.values()) // len(batch.examples) * data.n


def collect(net: Network, data: ProbeData, places: Places, work: Work, what: str = "reading") -> Kept:
    """One pass over the data, every slice kept."""
    held: dict[Site, Tensor] = {}
    for batch in stream(net, data, places, work, what):
        index = torch.as_tensor(batch.examples)
        for site, value in batch.values.items():
            if site not in held:
                held[site] = torch.empty((data.n, *value.shape[1:]), dtype=torch.float32)
            held[site][index] = value
    return Kept(held, places)


@dataclass(frozen=True, eq=False)
class Moments:
    """What ridge regression needs of one kind of site, summed fold by fold; the activations themselves are gone.

    Attributes:
        cells: the c places of width d that are summed.
        count: examples [f].
        total: sums [f c d] about `shift`.
        gram: sums of outer products [f c d d] about `shift`.
        cross: sums of products with the targets [f c d t].
        targets, squares: sums of the targets and of their squares [f t].
        shift: the first batch's mean [c d], so that the sums are of small numbers.
    """

    cells: list[Cell]
    count: Tensor
    total: Tensor
    gram: Tensor
    cross: Tensor
    targets: Tensor
    squares: Tensor
    shift: Tensor

    @property
    def bytes(self) -> int:
        """How much memory the sums take."""
        return sum(t.numel() * t.element_size() for t in (self.total, self.gram, self.cross))


def accumulate(
    net: Network, data: ProbeData, places: Places, targets: Tensor, folds: np.ndarray, work: Work
) -> list[Moments]:
    """One pass over the data, sums kept: for each width one `Moments` with all its cells.

    targets: [n t]. folds: [n]. Sums are in float64, whatever the network computes in.
    """
    k, groups = int(folds.max()) + 1, {}
    for batch in stream(net, data, places, work, "summing"):
        of, y = torch.as_tensor(folds[batch.examples]), targets[torch.as_tensor(batch.examples)].double()
        for site, value in batch.values.items():
            cells = value if places.heads is not None and value.ndim == 4 else value.flatten(2)[:, :, None]
            x = cells.transpose(1, 2).flatten(1, 2).double()  # [e heads*positions d]
            if site not in groups:
                groups[site] = _empty(x, y.shape[1], k)
            sums: Any = groups[site]
            x = x - sums["shift"]
            for fold in of.unique():
                mask = of == fold
                part = x[mask].transpose(0, 1)
                sums["count"][fold] += int(mask.sum())
                sums["total"][fold] += part.sum(1)
                sums["gram"][fold] += part.mT @ part
                sums["cross"][fold] += part.mT @ y[mask]
                sums["targets"][fold] += y[mask].sum(0)
                sums["squares"][fold] += (y[mask] ** 2).sum(0)
    if not groups:
        raise BadInput("Nothing was read.", "Give examples.")
    order = places.cells
    return [Moments([c for c in order if c.site == site], **sums) for site, sums in groups.items()]


def _empty(x: Tensor, t: int, k: int) -> dict[str, Tensor]:
    _, c, d = x.shape
    shapes = {
        "count": (),
        "total": (c, d),
        "gram": (c, d, d),
        "cross": (c, d, t),
        "targets": (t,),
        "squares": (t,),
    }
    sums = {name: torch.zeros(k, *shape, dtype=torch.float64) for name, shape in shapes.items()}
    return sums | {"shift": x.mean(0)}
