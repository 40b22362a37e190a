"""How much memory a sweep takes before anything of it is run, and what it does without where that is too much."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cutaway.errors import OutOfMemory
from cutaway.network.memory import are_square, budget_bytes, bytes_of, row_bytes
from cutaway.network.sites import Site
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.stages import layer_parts
from cutaway.sweeps.validity import REPLAYING

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work
    from cutaway.sweeps.cells import Experiment

#: Bytes up to which a sweep is planned whatever the budget: a measured piece of it then says exactly what is needed.
_LITTLE = 32 << 20
#: A forward pass takes a quarter of the budget at most (`memory.rows_at_once`); what is kept must fit into the rest.
_WITH_PASS = 4 / 3
#: Rules that are left out one set after the other where the base run does not fit: what stages keep is the most.
_LESS = ((), ("stages",), ("stages", "suffix", "last"), REPLAYING)
#: Bytes for each cell and example while a sweep is planned: state, layer, column, stage, and the order of the waves.
_PER_PAIR = 100


def affordable(
    experiment: Experiment, cells: int, rules: Rules, sites: Collection[Site], held: int, work: Work
) -> Rules:
    """The rules whose base run fits into the budget beside what is held already; the savings of the others are not used.

    cells: how many. sites: that are written. held: bytes that are kept for the sweep already.

    Raises `OutOfMemory` where not even whole forwards fit: it says what is needed.
    """
    net, n = experiment.net, experiment.tokens.n
    beside = held + cells * n * _PER_PAIR + row_bytes(net, experiment.tokens.size, square=are_square(sites))
    budget, needed = max(_LITTLE, budget_bytes(net, work)), 0.0
    for dropped in _LESS:
        fewer = rules.without("The base run that it needs does not fit into the memory.", *dropped)
        needed = _WITH_PASS * (beside + n * record_row_bytes(experiment, fewer, sites))
        if needed <= budget:
            return fewer
    raise too_much(f"This sweep of {cells:,} cells on {n} examples", needed, budget)


def record_row_bytes(experiment: Experiment, rules: Rules, sites: Collection[Site]) -> int:
    """About how many bytes of one row the base run keeps under these rules."""
    net, width = experiment.net, experiment.tokens.width
    parts = layer_parts(net) if rules.restart else {}
    kept = {*sites, *(Site("resid_pre", layer) for layer in parts)}
    size = torch.empty(0, dtype=net.dtype).element_size()
    total = bytes_of(net, kept, width) + size * (net.d_vocab or 0)
    if rules.suffix or rules.last:
        total += bytes_of(net, [Site(name, i) for i in parts for name in "kv"], width)
    if rules.stages:
        paths = [path for part in parts.values() for path in (*part.attention, *part.mlp)]
        total += size * width * sum(_width(net.modules[path], net.d_model or 64) for path in paths)
    return total


def _width(module: nn.Module, stream: int) -> int:
    size = getattr(module, "out_features", stream)
    return size if isinstance(size, int) else stream


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors take together, those that share their storage counted once."""
    storages = {s.data_ptr(): s.nbytes() for t in tensors if (s := t.untyped_storage()).nbytes()}
    return sum(storages.values())


def require_room(net: Network, sites: Collection[Site], rows: int, width: int, work: Work) -> None:
    """Refuse to keep sites of so many rows where the budget does not suffice, before anything is run.

    Raises `OutOfMemory`: it says what is needed.
    """
    needed = _WITH_PASS * (
        row_bytes(net, width, square=are_square(sites)) + rows * bytes_of(net, sites, width)
    )
    if needed > (budget := max(_LITTLE, budget_bytes(net, work))):
        raise too_much(f"Keeping {len(sites)} sites of {rows} prompts", needed, budget)


def too_much(what: str, needed: float, budget: float) -> OutOfMemory:
    """The error that says how much memory something needs, and how much it would take to go on."""
    return OutOfMemory(
        f"{what} needs {_size(needed)}, and the budget is {_size(budget)}.",
        f"Give a budget of memory={int(1.25 * needed) + 1} bytes, or use fewer examples, layers or shorter prompts.",
    )


def _size(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"
