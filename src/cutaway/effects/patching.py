"""Activation patching: copy a site's value from one run of a pair into the other, and measure what changes.

Vig et al. 2020 (causal mediation), Meng et al. 2022 (causal tracing), Wang et al. 2022 (path patching's simplest form);
on the two directions and their meaning see Heimersheim and Nanda 2024, "How to use and interpret activation patching".
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from cutaway.effects.baselines import Baselines, Resampling, Side, measure
from cutaway.effects.effects import Effects
from cutaway.effects.summary import summarise, token_labels
from cutaway.errors import BadInput, SiteUnavailable
from cutaway.network.sites import SITES, Site
from cutaway.results import Provenance
from cutaway.sweeps import Cell, CellValues, State, Write, run_cells
from cutaway.sweeps.cells import Progress

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

Direction = Literal["restore", "corrupt"]
_BY = (("layer",), ("layer", "position"), ("layer", "head"), ("layer", "head", "position"))


@dataclass(frozen=True)
class Axes:
    """The cells of a sweep as a box: which layers, how many positions and heads (None where not a dimension)."""

    site: str
    by: tuple[str, ...]
    layers: tuple[int, ...]
    positions: int | None
    heads: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of entries along each dimension of `by`."""
        sizes = {"layer": len(self.layers), "position": self.positions, "head": self.heads}
        return tuple(int(sizes[name] or 0) for name in self.by)

    def cells(self) -> list[Cell]:
        """One cell for each entry of the box, the last dimension running fastest."""
        cells: list[Cell] = []
        for index in np.ndindex(*self.shape):
            place = dict(zip(self.by, index, strict=True))
            cells.append(
                (Write(self.site, self.layers[place["layer"]], place.get("head"), place.get("position")),)
            )
        return cells


def patch(
    net: Network,
    behaviour: Behaviour | str,
    at: str = "resid_pre",
    by: Sequence[str] = ("layer", "position"),
    direction: Direction = "restore",
    layers: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Effects:
    """Patch one site, cell by cell, and return the effect of each cell with its interval.

    Args:
        net: the network.
        behaviour: pairs of prompts, answers and metric, or the name of a built-in behaviour.
        at: which site, e.g. `resid_pre`, `z`, `mlp_write`.
        by: the dimensions of the sweep: layer; layer and position; layer and head; layer, head and position. What is
            not named is patched whole (all positions, all heads).
        direction: `restore` copies clean values into the corrupted run (what is enough to bring the behaviour back?);
            `corrupt` copies corrupted values into the clean run (what is needed for it?).
        layers: only these; default every layer that has the site.
        seed: of the bootstrap and the sign-flip test.
        progress: called with (cells finished, cells in all).

    Returns:
        `Effects`, normalised so that 1 is the whole gap between corrupted and clean baseline. Pairs of unequal length
        can only be patched at the answer position; that is then what `by=["layer"]` does, and the result says so.
        After Ctrl-C the finished cells are returned and marked as partial, with a warning.

    Raises:
        SiteUnavailable: the network has no such site, or it was not certified.
        BadInput: `by` or `direction` is not one of those, or the site has no such dimension.
        BadBehaviour: positions were asked for and pairs differ in length; or there is no gap to normalise by.
        NotFinite: the unpatched runs hold NaN or infinity (it says where).
    """
    started = time.perf_counter()
    if direction not in ("restore", "corrupt"):
        raise BadInput(f"There is no direction {direction!r}.", "Use 'restore' or 'corrupt'.")
    if isinstance(behaviour, str):
        from cutaway.behaviours import behaviour as make

        behaviour = make(behaviour, net, seed=seed)
    site, chosen, dims = _checked(net, behaviour, at, by, layers)
    ends = measure(net, behaviour, [Site(site, layer) for layer in chosen])
    base, source = (ends.corrupted, ends.clean) if direction == "restore" else (ends.clean, ends.corrupted)
    axes = _axes(site, dims, chosen, base)
    cells = axes.cells()
    sources, everywhere = _sources(ends, behaviour.aligned, base, source)
    work = ends.work(net, base, sources)
    result = run_cells(work, cells, base.metric, _states(cells, base, sources), progress=progress)
    if result.interrupted:
        finished = int((result.states != State.NOT_RUN).all(1).sum())
        warnings.warn(
            f"Stopped: {finished} of {len(cells)} cells are finished and kept; the rest is marked as not run.",
            stacklevel=2,
        )
    effect = (result.values - base.metric[None, :]) / ends.gap
    data = _dataset(axes, behaviour, effect, result, seed)
    data.attrs.update(_attrs(net, behaviour, ends, site, direction, not result.interrupted))
    if not everywhere:
        data.attrs["where"] = "answer position only: clean and corrupted prompts differ in length"
    data = data.assign_coords(_labels(axes, behaviour, ends.clean))
    data = data.assign(clean=("example", ends.clean.metric), corrupted=("example", ends.corrupted.metric))
    return Effects(data, Provenance.of(net, behaviour.hash, seed, time.perf_counter() - started))


def _checked(
    net: Network, behaviour: Behaviour, at: str, by: Sequence[str], layers: Sequence[int] | None
) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """Site name, layers and dimensions of a sweep that this network and behaviour allow."""
    dims = (by,) if isinstance(by, str) else tuple(by)
    if dims not in _BY:
        choices = "; ".join(", ".join(names) for names in _BY)
        raise BadInput(
            f"A sweep cannot run over {', '.join(dims) or 'nothing'}.", f"Choose one of: {choices}."
        )
    if any(sign in at for sign in "*?["):
        raise BadInput(
            f"A sweep is over one kind of site, and {at!r} is a pattern.", "Use resid_pre, z, mlp_write, ..."
        )
    sites = net.resolve(at)
    site, kind = sites[0].name, None if sites[0].module else SITES[sites[0].name]
    if kind is None or not kind.layered or kind.axes[:2] != ("batch", "pos"):
        raise BadInput(
            f"The site {site} is not one value per layer and position.", "Use resid_pre, z, mlp_write, ..."
        )
    if "head" in dims and not {"head", "kv_head"} & set(kind.axes):
        raise BadInput(f"The site {site} has no heads.", "Use z, q, k or v, or sweep by layer and position.")
    if "position" in dims:
        behaviour.require_aligned("A sweep over positions")
    has = [s.layer for s in sites if s.layer is not None]
    chosen = tuple(has if layers is None else layers)
    missing = [layer for layer in chosen if layer not in has]
    if missing or not chosen:
        raise SiteUnavailable(
            f"{site} does not exist in layer {missing[0] if missing else '-'}.", f"It exists in layers {has}."
        )
    return site, chosen, dims


def _axes(site: str, dims: tuple[str, ...], layers: tuple[int, ...], base: Side) -> Axes:
    heads = max(base.kept[Site(site, layer)].shape[2] for layer in layers) if "head" in dims else None
    positions = int(base.tokens.lengths.max()) if "position" in dims else None
    return Axes(site, dims, layers, positions, heads)


def _sources(ends: Baselines, aligned: bool, base: Side, source: Side) -> tuple[dict[Site, Tensor], bool]:
    """What is written, laid out like the base run; and whether that is the source at every position.

    With pairs of unequal length only the answer position corresponds: elsewhere the base's own value is written.
    """
    if aligned:
        return source.kept, True
    at = ends.positions[:, None]
    rows = torch.arange(base.tokens.n)
    here, there = base.tokens.columns(at)[:, 0].cpu(), source.tokens.columns(at)[:, 0].cpu()
    laid: dict[Site, Tensor] = {}
    for site, value in base.kept.items():
        laid[site] = value.clone()
        laid[site][rows, here] = source.kept[site][rows, there]
    return laid, False


def _states(cells: list[Cell], base: Side, sources: dict[Site, Tensor]) -> np.ndarray:
    """Which (cell, example) need no run: the address does not exist, or the written value is the present one, bit for bit.

    The comparison is of the values themselves, so it holds for every architecture.
    """
    states = np.full((len(cells), base.tokens.n), State.NOT_RUN, np.int8)
    lengths, first = base.tokens.lengths.cpu().numpy(), base.tokens.first.cpu().numpy()
    rows = np.arange(base.tokens.n)
    same: dict[Site, np.ndarray] = {}
    for i, cell in enumerate(cells):
        write = cell[0]
        if write.where not in same:
            same[write.where] = _same(base, sources, write.where)
        equal: np.ndarray = same[write.where]  # [n p] or [n p h]
        if write.head is not None:
            if write.head >= equal.shape[2]:
                states[i] = State.ABSENT
                continue
            equal = equal[:, :, write.head]
        elif equal.ndim == 3:
            equal = np.all(equal, axis=2)
        if write.position is None:
            states[i, np.all(equal, axis=1)] = State.KNOWN_ZERO
            continue
        there = write.position < lengths
        column = np.where(there, first + write.position, 0)
        states[i, there & equal[rows, column]] = State.KNOWN_ZERO
        states[i, ~there] = State.ABSENT
    return states


def _same(base: Side, sources: dict[Site, Tensor], where: Site) -> np.ndarray:
    """[n p] or [n p h]: is the source's value the base's own? Padding counts as the same."""
    own, new = base.kept[where], sources[where]
    equal = (own == new).all(-1)
    padding = ~base.tokens.mask.to(equal.device)
    return (equal | padding.reshape(*padding.shape, *([1] * (equal.ndim - 2)))).cpu().numpy()


def _dataset(
    axes: Axes, behaviour: Behaviour, effect: np.ndarray, result: CellValues, seed: int
) -> xr.Dataset:
    box, dims = axes.shape, list(axes.by)
    summary = summarise(effect, result.states, behaviour.template, seed)
    variables = {name: (dims, values.reshape(box)) for name, values in summary.items()}
    for name, values in (("effect", effect), ("metric", result.values), ("state", result.states)):
        variables[name] = ([*dims, "example"], values.reshape(*box, -1))
    coords: dict[str, list[int]] = {"layer": list(axes.layers), "example": list(range(effect.shape[1]))}
    for name, size in (("position", axes.positions), ("head", axes.heads)):
        if size is not None:
            coords[name] = list(range(size))
    return xr.Dataset(variables, coords)


def _attrs(
    net: Network, behaviour: Behaviour, ends: Baselines, at: str, direction: Direction, complete: bool
) -> dict[str, object]:
    return {
        "site": at,
        "direction": direction,
        "complete": complete,
        "network": net.name,
        "behaviour": behaviour.name,
        "metric": behaviour.metric.name,
        "clean_metric": float(ends.clean.metric.mean()),
        "corrupted_metric": float(ends.corrupted.metric.mean()),
        "gap": ends.gap,
        "intervals": Resampling.of(behaviour.template).sentence,
        "correction": "Benjamini-Hochberg over the cells of this sweep",
        "where": "",
    }


def _labels(axes: Axes, behaviour: Behaviour, clean: Side) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Each example's template and clean tokens, and one token label for each position."""
    labels: dict[str, tuple[tuple[str, ...], Any]] = {"template": (("example",), list(behaviour.template))}
    if axes.positions is not None:
        strings = [clean.tokens.strings(row) for row in range(clean.tokens.n)]
        grid = np.array([[*row, *[""] * (axes.positions - len(row))] for row in strings])
        labels["tokens"] = (("example", "position"), grid)
        labels["token"] = (("position",), token_labels(grid))
    return labels
