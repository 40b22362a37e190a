"""Tasks, each with the algorithm that solves it as a causal model; `recipes.interchange` trains networks to run them."""

from __future__ import annotations

from cutaway.errors import NotFound, did_you_mean

from . import agreement, brackets, cases, docstring, greater_than, indirect_object, two_step
from .causal import INPUT, CausalVariable, TaskAlgorithm

__all__ = ["ALGORITHMS", "INPUT", "TaskAlgorithm", "CausalVariable", "algorithm"]

_MODULES = (indirect_object, greater_than, brackets, cases, docstring, agreement)
_ALL = (*(module.ALGORITHM for module in _MODULES), two_step.TWO_STEP, two_step.ONE_STEP)
ALGORITHMS: dict[str, TaskAlgorithm] = {algorithm.name: algorithm for algorithm in _ALL}
"""The algorithms, by the name of their task."""


def algorithm(name: str) -> TaskAlgorithm:
    """The algorithm of this name. Raises NotFound, with the nearest name, when there is none.

    >>> algorithm("agreement").length
    7
    """
    if name not in ALGORITHMS:
        raise NotFound(f"There is no algorithm {name!r}.", did_you_mean(name, ALGORITHMS))
    return ALGORITHMS[name]
