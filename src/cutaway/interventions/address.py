"""Addresses: which layers, heads, neurons, positions and rows of a site an intervention works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import BadAddress
from cutaway.network.anatomy import LatentTap
from cutaway.network.edits import Here
from cutaway.network.indices import Index, indices, position_table, without_repeats
from cutaway.network.inputs import Pos
from cutaway.network.sites import SITES, Site, SiteLike

if TYPE_CHECKING:
    from cutaway.network.network import Network

_HEAD_AXES = ("head", "kv_head")
_UNIT_AXES = ("width", "head_width", "hidden", "expert", "feature", "vocab", "channel")


@dataclass(frozen=True, eq=False, kw_only=True)
class Address:
    """A part of a site. `None` means all of that axis.

    Attributes:
        layer: layers, where `at` names none.
        head: query heads (key/value heads at `k` and `v`).
        neuron: entries of the last axis (channels of an image-like map).
        pos: row-relative positions, one list for all rows or one per row; destinations at `scores` and `pattern`.
        src: sources at `scores` and `pattern`.
        row: rows of the batch.
    """

    layer: Index = None
    head: Index = None
    neuron: Index = None
    pos: Pos = None
    src: Pos = None
    row: Index = None

    def sites(self, net: Network, at: SiteLike) -> list[Site]:
        """The sites meant, after checking every part of the address against the network.

        Raises `BadAddress`, `NotFound`, `SiteUnavailable`.
        """
        sites = net.resolve(at)
        if self.layer is not None:
            sites = self._at_layers(net, at, sites)
        for site in sites:
            self._check(net, site)
        return sites

    def _at_layers(self, net: Network, at: SiteLike, sites: list[Site]) -> list[Site]:
        first = sites[0]
        if first.module or not SITES[first.name].layered:
            raise BadAddress(f"{first} has no layers, but layer={self.layer} was given.", "Leave layer out.")
        depth = len(net.anatomy.stack(net.anatomy.home(first.stack)).layers)  # type: ignore[union-attr]
        wanted = without_repeats(indices(self.layer, depth, "layer"), "layer")
        chosen = [s for i in wanted for s in net.resolve(Site(first.name, i, first.stack))]
        missing = [s for s in chosen if s not in sites]
        if missing:
            raise BadAddress(
                f"{at!r} names its layer, but layer={self.layer} was given too.", "Give the layer once."
            )
        return chosen

    def _check(self, net: Network, site: Site) -> None:
        if site.module:
            return
        axes = site.axes
        _require_axes(self, str(site), axes)
        for name, index, kinds in (("head", self.head, _HEAD_AXES), ("neuron", self.neuron, _UNIT_AXES)):
            if index is None:
                continue
            axis = next(a for a in axes if a in kinds)
            size = axis_size(net, site, axis)
            if size is not None:
                indices(index, size, name, str(site))
        for positions in (self.pos, self.src):
            if positions is not None:
                position_table(positions)

    def mask(self, value: Tensor, here: Here) -> Tensor | None:
        """Which entries of a value are meant: a boolean tensor that broadcasts to it; None for all of them.

        Raises `BadAddress` where an index lies outside the value.
        """
        axes = here.axes or _axes_of(value)
        _require_axes(self, str(here.site), axes)
        masks: list[Tensor | None] = []
        for axis, name in enumerate(axes):
            index = self._index_for(name)
            if name in ("pos", "dest", "src"):
                masks.append(self._positions(value, here, axis, index))
            elif index is not None:
                chosen = indices(index, value.shape[axis], "row" if name == "batch" else name, str(here.site))
                flags = torch.zeros(value.shape[axis], dtype=torch.bool, device=value.device)
                flags[chosen] = True
                masks.append(flags.reshape([-1 if i == axis else 1 for i in range(value.ndim)]))
        if "y" in axes and self.pos is not None:
            masks.append(self._pixels(value))
        flags_of_axes = [mask for mask in masks if mask is not None]
        return reduce(and_, flags_of_axes) if flags_of_axes else None

    def _index_for(self, axis: str) -> Any:
        if axis == "batch":
            return self.row
        if axis in _HEAD_AXES:
            return self.head
        if axis in _UNIT_AXES:
            return self.neuron
        return self.src if axis == "src" else self.pos if axis in ("pos", "dest") else None

    def _positions(self, value: Tensor, here: Here, axis: int, index: Any) -> Tensor | None:
        name = here.axes[axis] if here.axes else "pos"
        rows = None if self.row is None else indices(self.row, value.shape[0], "row", str(here.site))
        entries = here.index(index, value.shape[axis], value.device, "src" if name == "src" else "pos", rows)
        if entries is None:
            return None
        flags = torch.zeros(here.batch, value.shape[axis], dtype=torch.bool, device=value.device)
        flags[entries] = True
        shape = [1] * value.ndim
        shape[0], shape[axis] = here.batch, value.shape[axis]
        return flags.reshape(shape)

    def _pixels(self, value: Tensor) -> Tensor:
        """Spatial positions (y, x) of an image-like map [b channel y x]."""
        height, width = value.shape[-2:]
        table = position_table(self.pos)
        if torch.is_tensor(table) and table.dtype == torch.bool and table.shape == (height, width):
            table = table.nonzero()
        if not torch.is_tensor(table) or table.dtype == torch.bool or table.ndim == 0 or table.shape[-1] != 2:
            raise BadAddress(
                f"{self.pos!r:.60} names no places of a {height} x {width} map.",
                "Give (y, x), a list of such pairs, or a boolean mask of the map.",
            )
        points = table.reshape(-1, 2).cpu()
        if bool((points < 0).any()) or bool((points >= torch.tensor([height, width])).any()):
            raise BadAddress(
                f"A spatial position of {points.tolist()} is outside the {height} x {width} map.",
                "Give (y, x) inside it.",
            )
        flags = torch.zeros(1, 1, height, width, dtype=torch.bool, device=value.device)
        flags[0, 0, points[:, 0], points[:, 1]] = True
        return flags


#: The fields of an address that name entries of an axis, and which axes serve.
_FIELDS: dict[str, tuple[str, ...]] = {
    "head": _HEAD_AXES, "neuron": _UNIT_AXES, "pos": ("pos", "dest", "y"), "src": ("src",)
}  # fmt: skip


def _require_axes(address: Address, where: str, axes: Sequence[str]) -> None:
    """Raise `BadAddress` where an address names entries of an axis that is not there."""
    for name, kinds in _FIELDS.items():
        if getattr(address, name) is not None and not set(kinds) & set(axes):
            what = {"pos": "positions", "src": "source positions"}.get(name, f"axis of {name}s")
            raise BadAddress(
                f"{where} has no {what}: its axes are {', '.join(axes) or 'not known'}.", f"Leave {name} out."
            )


def _axes_of(value: Tensor) -> tuple[str, ...]:
    """Axis names of a module's output, by its shape: an image-like map, rows of vectors, or vectors."""
    known = {4: ("batch", "channel", "y", "x"), 3: ("batch", "pos", "width"), 2: ("batch", "width")}
    return known.get(value.ndim, ("batch", *["?"] * (value.ndim - 1)))


def axis_size(net: Network, site: Site, axis: str) -> int | None:
    """Length of one axis of a site as far as the anatomy tells without running; None otherwise."""
    stack, tap = net.anatomy.stack(net.anatomy.home(site.stack)), net.anatomy.taps.get(site)
    if isinstance(tap, LatentTap):
        return tap.size
    if axis == "width":
        return None if stack is None else stack.width
    if axis == "vocab":
        return net.d_vocab
    layer = stack.layers[site.layer] if stack is not None and site.layer is not None else None
    if layer is None:
        return None
    attention = layer.attention(cross=site.name.startswith("cross_"))
    if axis in ("head", "kv_head", "head_width") and attention is not None:
        return {"head": attention.heads, "kv_head": attention.kv_heads}.get(axis)
    mlp = next((s.mlp for s in layer.sublayers if s.mlp is not None), None)
    if axis == "expert" and mlp is not None:
        return mlp.experts
    if axis == "hidden" and mlp is not None and mlp.down is not None:
        size = getattr(net.modules[mlp.down], "in_features", None)
        return size if isinstance(size, int) else None
    return None
