"""What is told of a computation: its claims, and what its story, drawing and answers are made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cutaway.claims import Claim

if TYPE_CHECKING:
    from cutaway.explanations.computation.example import TaskExample
    from cutaway.reports import Said
    from cutaway.results import Provenance
    from cutaway.statistics import Estimate


class ToldComputation(Protocol):
    """What a story is made from (`Computation`)."""

    @property
    def example(self) -> TaskExample: ...  # noqa: D102
    @property
    def accuracy(self) -> Estimate: ...  # noqa: D102
    @property
    def results(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def missing(self) -> tuple[tuple[str, str], ...]: ...  # noqa: D102
    @property
    def chosen(self) -> str: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def seconds(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def provenance(self) -> Provenance: ...  # noqa: D102
    @property
    def claims(self) -> tuple[Claim, ...]: ...  # noqa: D102
    @property
    def story(self) -> tuple[Said, ...]: ...  # noqa: D102


def claims_of(result: Any) -> tuple[Claim, ...]:
    """All claims of a result, one or several.

    >>> claims_of(None)
    ()
    """
    several = getattr(result, "claims", None)
    if several is not None:
        return tuple(several)
    one = getattr(result, "claim", None)
    return (one,) if isinstance(one, Claim) else ()
