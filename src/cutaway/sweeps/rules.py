"""The rules by which a sweep costs less, and whether each of them is valid on a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace


@dataclass(frozen=True)
class Rules:
    """Which savings are used. Each can be switched off; the numbers stay.

    You meet them where a sweep is slower than expected: a plan prints which are off, and why.

    Attributes:
        restart: layers below the lowest edit are not run.
        stages: within the layer of the edit, sublayers that the edit leaves alone are taken from the base run, and linear
            changes are added to it.
        suffix: positions before the first changed one are not run.
        zeros: where nothing changes, nothing is run.
        last: at the last layer only the answer's position is run.
        tokens: logits of the tokens that the metric reads only.
        prefix: columns before the first one in which the two prompts of a pair differ are run once for both.
        reasons: for a rule that is off, why.
    """

    restart: bool = True
    stages: bool = True
    suffix: bool = True
    zeros: bool = True
    last: bool = True
    tokens: bool = True
    prefix: bool = True
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def none(cls) -> Rules:
        """All off: every cell is a whole forward pass."""
        return cls(False, False, False, False, False, False, False)

    @property
    def names(self) -> list[str]:
        """The rules that are on."""
        return [f.name for f in fields(self) if f.name != "reasons" and getattr(self, f.name)]

    def without(self, reason: str, *names: str) -> Rules:
        """The same with some rules off, and why."""
        reasons = dict(self.reasons) | {n: self.reasons.get(n, reason) for n in names if getattr(self, n)}
        return replace(self, **dict.fromkeys(names, False), reasons=reasons)

    def both(self, other: Rules) -> Rules:
        """The rules that are on in both."""
        off = {f.name: False for f in fields(self) if not getattr(other, f.name) and f.name != "reasons"}
        return replace(self, **off, reasons={**other.reasons, **self.reasons})
