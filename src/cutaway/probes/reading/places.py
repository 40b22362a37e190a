"""Where probes look: the cells of a map, each a site at a layer, perhaps a head, perhaps a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site, SiteLike, having
from cutaway.probes.data.examples import ProbeData

if TYPE_CHECKING:
    from cutaway.network import Network

_HEAD_AXES = ("head", "kv_head")
_NO_POSITIONS = having(lambda kind: "pos" not in kind.axes)


@dataclass(frozen=True)
class Cell:
    """One place.

    Attributes:
        site: where.
        head: a head of it; None: all, side by side.
        position: which of the positions that are read.
    """

    site: Site
    head: int | None
    position: int

    def label(self, positions: Sequence[Any]) -> str:
        """In words."""
        head = "" if self.head is None else f" head {self.head}"
        where = f" position {positions[self.position]}" if len(positions) > 1 else ""
        return f"{self.site}{head}{where}"


@dataclass(frozen=True, eq=False)
class Places:
    """All cells of a sweep, by dimension.

    Attributes:
        sites: in order of computation.
        heads: number of heads of each cell where `by` has head, else None.
        positions: row-relative positions, or the name of what is read where examples have spans.
        by: the dimensions that were asked for.
    """

    sites: tuple[Site, ...]
    heads: int | None
    positions: tuple[Any, ...]
    by: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """Site by site, head by head, position by position."""
        heads: Sequence[int | None] = [None] if self.heads is None else range(self.heads)
        return [Cell(s, h, p) for s in self.sites for h in heads for p in range(len(self.positions))]

    def near(self, cell: Cell) -> Places:
        """The place of one cell alone; it is then at position 0."""
        return Places((cell.site,), self.heads, (self.positions[cell.position],), self.by)

    @property
    def shape(self) -> tuple[int, ...]:
        """(sites, heads, positions), without heads where they are not told apart."""
        middle = () if self.heads is None else (self.heads,)
        return (len(self.sites), *middle, len(self.positions))

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of `shape`."""
        layered = len({s.name for s in self.sites}) == 1 and self.sites[0].layer is not None
        return ("layer" if layered else "site", *(() if self.heads is None else ("head",)), "position")

    def coordinates(self) -> dict[str, list[Any]]:
        """Values along each dimension."""
        first = self.dims[0]
        out: dict[str, list[Any]] = {first: [s.layer if first == "layer" else str(s) for s in self.sites]}
        if self.heads is not None:
            out["head"] = list(range(self.heads))
        return out | {"position": list(self.positions)}


def plan(
    net: Network,
    data: ProbeData,
    at: SiteLike | Sequence[SiteLike],
    by: Sequence[str],
    pos: int | Sequence[int] | None,
) -> Places:
    """The cells that are meant.

    at: sites, all layers of each where none is named. by: of layer, position, head. pos: row-relative positions; default
    the last token, or with position in `by` every position that all rows have.

    Raises `SiteUnavailable` for sites without positions, `BadInput` for dimensions that do not apply.
    """
    unknown = [b for b in by if b not in ("layer", "position", "head")]
    if unknown:
        raise BadInput(f"by={unknown[0]!r} is no dimension of a map of probes.", "Use layer, position, head.")
    asked: Sequence[Any] = [at] if isinstance(at, str | Site) or _is_pair(at) else list(at)  # type: ignore[arg-type]
    sites = sorted({s for spec in asked for s in net.resolve(spec)}, key=lambda s: (s.stack, s.rank))
    for site in sites:
        if site.name in _NO_POSITIONS:
            what = f"{site} has no one vector per position, so no probe can be fitted to it."
            raise SiteUnavailable(what, "Probe z, v, q or k.")
    heads = None
    if "head" in by:
        lone = next((s for s in sites if s.module or not set(s.axes) & set(_HEAD_AXES)), None)
        if lone is not None:
            raise BadInput(f"{lone} has no heads.", "Leave head out of `by`, or probe z, q, k or v.")
        counts = {_heads(net, s) for s in sites}
        if len(counts) != 1:
            several = ", ".join(map(str, sorted(counts)))
            raise BadInput(f"The sites have {several} heads.", "Probe one kind of site at a time by head.")
        heads = counts.pop()
    sizes = lengths(net, data)
    if sizes is not None and net.interface.encoder_decoder:
        pos = _decoder(sites, data, by, pos)
    return Places(tuple(sites), heads, _positions(data, by, pos, sizes), tuple(by))


def _decoder(
    sites: Sequence[Site], data: ProbeData, by: Sequence[str], pos: int | Sequence[int] | None
) -> int | Sequence[int] | None:
    """The positions, where texts are given to the encoder: the decoder has then read one token, which starts its answer."""
    theirs = [s for s in sites if not s.stack and not s.module]
    if not theirs:
        return pos
    whole = data.spans is None and "position" not in by
    if len(theirs) == len(sites) and whole and pos in (None, 0, (0,), [0]):
        return 0
    what = f"{theirs[0]} is the decoder's, which has read one token, the one that starts its answer."
    raise BadInput(what, 'Probe it there (pos=0) by itself, or probe the encoder: at="encoder.resid_post".')


def one_site(net: Network, at: SiteLike) -> Site:
    """The site that is named. Raises `BadInput` where it is several."""
    sites = net.resolve(at)
    if len(sites) != 1:
        raise BadInput(f"{at!r} is {len(sites)} sites.", f"Name one, such as {sites[-1]}.")
    return sites[0]


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int)


def _heads(net: Network, site: Site) -> int:
    stack, crossing = net.anatomy.stack(site.stack), site.name.startswith("cross_")
    attention = stack.layers[site.layer or 0].attention(cross=crossing) if stack else None
    if attention is None:
        raise BadInput(f"The heads of {site} are not known.", "Leave head out of `by`.")
    return attention.kv_heads if "kv_head" in site.axes else attention.heads


def lengths(net: Network, data: ProbeData) -> np.ndarray | None:
    """Tokens of each input [m]; None where inputs are not made of tokens."""
    if not data.of_tokens:
        return None
    return net.encode(data.inputs).lengths.cpu().numpy()  # type: ignore[arg-type]


def _positions(
    data: ProbeData, by: Sequence[str], pos: int | Sequence[int] | None, sizes: np.ndarray | None
) -> tuple[Any, ...]:
    if sizes is None:
        return ("all",)
    if data.spans is not None:
        if pos is not None or "position" in by:
            remedy = "Leave pos and position out of the sweep."
            raise BadInput("These examples have spans, so their positions are theirs.", remedy)
        return ("span",)
    used = sizes[np.unique(np.asarray(data.rows))]
    if pos is None:
        return tuple(range(int(used.min()))) if "position" in by else (-1,)
    chosen = (pos,) if isinstance(pos, int) else tuple(pos)
    for p in chosen:
        if not isinstance(p, int) or not -used.min() <= p < used.min():
            row = int(used.argmin())
            raise BadInput(
                f"Position {p!r} is outside the shortest input (row {row}), which has {int(used.min())} tokens.",
                f"Use positions 0 to {int(used.min()) - 1}, or -1 for the last one.",
            )
    return chosen


def columns(
    places: Places, data: ProbeData, tokens: Tokens, rows: np.ndarray, examples: np.ndarray, which: str = "last"
) -> Tensor:  # fmt: skip
    """The columns [e k] of a batch's tensors that each example reads.

    rows: which row of the batch each example stands in. which: of a span, its "last" or "first" token.
    """
    first = tokens.first[rows]
    size = tokens.lengths[rows]
    if data.spans is not None:
        spans = torch.tensor([data.spans[e] for e in examples], dtype=torch.long)
        bad = (spans[:, 0] < 0) | (spans[:, 1] > size) | (spans[:, 0] >= spans[:, 1])
        if bool(bad.any()):
            e = int(bad.nonzero()[0, 0])
            raise BadInput(
                f"The span {tuple(spans[e].tolist())} of example {int(examples[e])} lies outside its {int(size[e])} tokens.",
                "Give half-open token ranges counted from the first token.",
            )
        return (first + (spans[:, 1] - 1 if which == "last" else spans[:, 0]))[:, None]
    wanted = torch.tensor(places.positions)[None].expand(len(rows), -1)
    return first[:, None] + torch.where(wanted < 0, wanted + size[:, None], wanted)
