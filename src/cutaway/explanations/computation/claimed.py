"""The claims of a result, of whatever kind."""

from __future__ import annotations

from typing import Any

from cutaway.claims import Claim


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
