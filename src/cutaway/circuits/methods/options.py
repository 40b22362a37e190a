"""Options of methods: what every method is told, what several share, and how a wrong value is refused.

A method's own class stands beside the method; `cutaway.circuits.METHODS` says which is whose. It holds what the method
reads and nothing else, so that an option that does nothing cannot be given.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from cutaway.circuits.passes.ablation import WAYS
from cutaway.errors import BadInput, did_you_mean
from cutaway.results.values import check_fields

Positions = Literal["position", "span"]


@dataclass(frozen=True)
class MethodOptions:
    """What every method is told.

    Attributes:
        ablation: what an edge outside the circuit carries: in methods that remove edges, where the size of the circuit is
            chosen, and later in its test.
        seed: of everything random.

    Raises BadInput for a value of the wrong type, naming the option.
    """

    ablation: str = "counterfactual"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, {"seed": (0, 2**63 - 1)})
        if self.ablation not in WAYS:
            raise BadInput(f"There is no ablation {self.ablation!r}.", did_you_mean(self.ablation, WAYS, 3))


@dataclass(frozen=True)
class ScoreOptions(MethodOptions):
    """Options of methods that score example by example.

    Attributes:
        examples: keep the scores of single examples, for intervals and stability; a large graph takes less memory without.
    """

    examples: bool = True


@dataclass(frozen=True)
class PositionOptions(ScoreOptions):
    """Options of methods that can tell positions apart.

    Attributes:
        positions: "position" or "span": score every position, or every named span, for itself, too; None: only their sum.
    """

    positions: Positions | None = None


def plain(options: MethodOptions) -> dict[str, Any]:
    """The options as plain data, by name; what plain data cannot say (scores to start from) is left out."""
    named = {option.name: getattr(options, option.name) for option in fields(options)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in named.items() if _is_plain(v)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)
