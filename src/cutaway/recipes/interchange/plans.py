"""What is exchanged in a training step, and what the causal model says must come out.

Three kinds of rows, after Geiger et al. 2022 (interchange-intervention training) and Gupta et al. 2024 (InterpBench,
strict form):

- *interchange*: parts where some variables live take their values from another prompt; the answer must be that of the
  causal model with these variables set so;
- *strict*: parts where nothing lives take their values from another prompt; the answer must not change;
- *edges*: a variable's parts take their values from another prompt while those of its readers are held; the answer
  must not change, unless the answer itself reads the variable.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..algorithms import Algorithm
from .parts import Exchange, part_list

HELD_OUT = 5
"""One pair of prompts in this many is never trained on."""


@dataclass(frozen=True)
class Layout:
    """Where the variables of a task live, as masks: `variables[name]` and `outside` are bool `[parts p]`."""

    algorithm: Algorithm
    heads: int
    variables: dict[str, Tensor] = field(init=False)
    outside: Tensor = field(init=False)

    def __post_init__(self) -> None:
        parts = part_list(self.algorithm.layers, self.heads)
        masks: dict[str, Tensor] = {}
        for variable in self.algorithm.variables:
            mask = torch.zeros(len(parts), self.algorithm.length, dtype=torch.bool)
            positions = variable.place.positions or range(self.algorithm.length)
            mask[parts.index(variable.place.part), list(positions)] = True
            masks[variable.name] = mask
        object.__setattr__(self, "variables", masks)
        object.__setattr__(self, "outside", ~torch.stack(list(masks.values())).any(0))


@dataclass(frozen=True)
class Plan:
    """Rows of one kind: which base prompts, what is exchanged, the right answers, and which rows may be learnt from."""

    base: Tensor
    exchanges: tuple[Exchange, ...]
    right: Tensor
    usable: Tensor


def held_out(base: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Is this pair of prompts kept for the examination? About one in five is, by the tokens of both, `[n]`."""
    length = base.shape[1]
    rng = np.random.default_rng(length)
    left, right = rng.integers(1, 2**40, (2, length))
    return ((base @ left + source @ right) >> 7) % HELD_OUT == 0


def interchange(
    layout: Layout,
    ids: np.ndarray,
    source: np.ndarray,
    chosen: dict[str, np.ndarray],
    extra: np.ndarray | None = None,
) -> Plan:
    """Rows `ids`, in each of which the `chosen` variables (name -> bool `[n]`) are those of row `source[n]`.

    `extra` (int `[n]`): in addition, everything outside is that of those rows.
    """
    other = layout.algorithm.values(ids[source])
    given = {name: (where, other[name]) for name, where in chosen.items()}
    right = layout.algorithm.answers(ids, given)
    mask = torch.stack(
        [torch.from_numpy(where)[:, None, None] & layout.variables[name] for name, where in chosen.items()]
    ).any(0)
    exchanges = (Exchange(mask, torch.from_numpy(source)),)
    if extra is not None:
        exchanges += (Exchange(layout.outside.expand(len(ids), -1, -1), torch.from_numpy(extra)),)
    return Plan(
        torch.arange(len(ids)),
        exchanges,
        torch.from_numpy(right),
        torch.from_numpy(~held_out(ids, ids[source])),
    )


def strict(layout: Layout, ids: np.ndarray, source: np.ndarray, parts: np.ndarray) -> Plan:
    """Rows `ids` with the parts outside, of those in `parts` (bool `[n parts]`), as in row `source[n]`."""
    mask = layout.outside & torch.from_numpy(parts)[:, :, None]
    return Plan(
        torch.arange(len(ids)),
        (Exchange(mask, torch.from_numpy(source)),),
        torch.from_numpy(layout.algorithm.answers(ids)),
        torch.from_numpy(~held_out(ids, ids[source])),
    )


def edges(layout: Layout, ids: np.ndarray, source: np.ndarray, name: str) -> Plan | None:
    """Rows `ids` with one variable as in `source[n]` and its readers held; None where the answer reads it."""
    readers = layout.algorithm.children(name)
    if "answer" in readers:
        return None
    rows = torch.arange(len(ids))
    hold = torch.stack([layout.variables[reader] for reader in readers]).any(0)
    full = (len(ids), -1, -1)
    return Plan(
        rows,
        (
            Exchange(layout.variables[name].expand(*full), torch.from_numpy(source)),
            Exchange(hold.expand(*full), rows),
        ),
        torch.from_numpy(layout.algorithm.answers(ids)),
        torch.from_numpy(~held_out(ids, ids[source])),
    )
