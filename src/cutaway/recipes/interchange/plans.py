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

from ..algorithms import TaskAlgorithm
from .exchanges import RowExchange, part_list

HELD_OUT = 5
"""One pair of prompts in this many is never trained on."""


@dataclass(frozen=True)
class Seating:
    """Where the variables of a task live, as masks.

    Attributes:
        algorithm: with its variables in their parts.
        heads: in a layer.
        variables: by name, bool [parts p].
        outside: where none lives, bool [parts p].
    """

    algorithm: TaskAlgorithm
    heads: int
    variables: dict[str, Tensor] = field(init=False)
    outside: Tensor = field(init=False)

    def __post_init__(self) -> None:
        parts = part_list(self.algorithm.layers, self.heads)
        masks: dict[str, Tensor] = {}
        for variable in self.algorithm.variables:
            mask = torch.zeros(len(parts), self.algorithm.length, dtype=torch.bool)
            mask[parts.index(variable.part), list(variable.columns(self.algorithm.length))] = True
            masks[variable.name] = mask
        object.__setattr__(self, "variables", masks)
        object.__setattr__(self, "outside", ~torch.stack(list(masks.values())).any(0))


@dataclass(frozen=True)
class ExchangePlan:
    """Rows of one kind.

    Attributes:
        base: int [rows], which prompts.
        exchanges: what is exchanged in them, later ones last.
        right: bool [rows v], the right answers.
        usable: bool [rows], which may be learnt from.
    """

    base: Tensor
    exchanges: tuple[RowExchange, ...]
    right: Tensor
    usable: Tensor


def held_out(base: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Is this pair of prompts kept for the examination? About one in five is, by the tokens of both, `[n]`."""
    length = base.shape[1]
    rng = np.random.default_rng(length)
    left, right = rng.integers(1, 2**40, (2, length))
    return ((base @ left + source @ right) >> 7) % HELD_OUT == 0


def interchange(
    seating: Seating,
    ids: np.ndarray,
    source: np.ndarray,
    chosen: dict[str, np.ndarray],
    extra: np.ndarray | None = None,
) -> ExchangePlan:
    """Rows `ids`, in each of which the `chosen` variables (name -> bool `[n]`) are those of row `source[n]`.

    `extra` (int `[n]`): in addition, everything outside is that of those rows.
    """
    other = seating.algorithm.values(ids[source])
    given = {name: (where, other[name]) for name, where in chosen.items()}
    right = seating.algorithm.answers(ids, given)
    mask = torch.stack(
        [torch.from_numpy(where)[:, None, None] & seating.variables[name] for name, where in chosen.items()]
    ).any(0)
    exchanges = (RowExchange(mask, torch.from_numpy(source)),)
    if extra is not None:
        exchanges += (RowExchange(seating.outside.expand(len(ids), -1, -1), torch.from_numpy(extra)),)
    return _plan(ids, source, exchanges, right)


def _plan(
    ids: np.ndarray, source: np.ndarray, exchanges: tuple[RowExchange, ...], right: np.ndarray
) -> ExchangePlan:
    """Every row in turn; those joined with a row that the examination keeps for itself may not be learnt from."""
    usable = torch.from_numpy(~held_out(ids, ids[source]))
    return ExchangePlan(torch.arange(len(ids)), exchanges, torch.from_numpy(right), usable)


def strict(seating: Seating, ids: np.ndarray, source: np.ndarray, parts: np.ndarray) -> ExchangePlan:
    """Rows `ids` with the parts outside, of those in `parts` (bool `[n parts]`), as in row `source[n]`."""
    mask = seating.outside & torch.from_numpy(parts)[:, :, None]
    return _plan(ids, source, (RowExchange(mask, torch.from_numpy(source)),), seating.algorithm.answers(ids))


def edges(seating: Seating, ids: np.ndarray, source: np.ndarray, name: str) -> ExchangePlan | None:
    """Rows `ids` with one variable as in `source[n]` and its readers held; None where the answer reads it."""
    readers = seating.algorithm.children(name)
    if "answer" in readers:
        return None
    hold = torch.stack([seating.variables[reader] for reader in readers]).any(0)
    full = (len(ids), -1, -1)
    exchanges = (
        RowExchange(seating.variables[name].expand(*full), torch.from_numpy(source)),
        RowExchange(hold.expand(*full), torch.arange(len(ids))),
    )
    return _plan(ids, source, exchanges, seating.algorithm.answers(ids))
