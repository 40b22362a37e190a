"""The certificate: what was checked of a network, as plain data. Made by `certification`, read by everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from cutaway.network.sites import Site

#: Largest relative error (of the largest value compared) that counts as equality, by dtype. In float64 it is that of
#: single precision's rounding, because many models compute norms and softmaxes in float32 whatever their type.
TOLERANCE: dict[torch.dtype, float] = {
    torch.float64: 1e-6, torch.float32: 5e-5, torch.float16: 2e-2, torch.bfloat16: 6e-2
}  # fmt: skip


#: A certificate in a console has at most so many lines.
_LINES = 24
#: A notebook shows at most so many checks, those that fail first.
_SHOWN = 12


@dataclass(frozen=True)
class Check:
    """One identity: its formula, a plain sentence, the largest relative error found, and whether it holds.

    Attributes:
        name: of the identity.
        sentence: the same in plain words.
        error: the largest relative error found.
        tolerance: what is allowed.
        places: at how many places it was tried.
        failures: the errors of the places at which it does not hold.
        held: the places at which it was tried and holds.
    """

    name: str
    sentence: str
    error: float
    tolerance: float
    places: int
    failures: Mapping[str, float] = field(default_factory=dict)
    held: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance everywhere it was checked."""
        return not self.failures


@dataclass(frozen=True)
class Certificate:
    """What was checked on this network, to what error, and what is refused because of it.

    Attributes:
        checks: the identities.
        refusals: the sites that are refused, each with its reason.
        bitwise: are the logits the bare model's, bit for bit, while sites are read? None where no logits were found, so
            that nothing was compared.
        pads_right, pads_left: may rows be padded on that side? None where it was not tried.
        made: was anything checked at all?
    """

    checks: tuple[Check, ...]
    refusals: Mapping[str, str]
    bitwise: bool | None
    pads_right: bool | None
    pads_left: bool | None
    made: bool = True

    def __repr__(self) -> str:
        failed = [c.name for c in self.checks if not c.holds]
        lines = [self._said(), *(f"  {c.name}: {c.error:.1e}" for c in self.checks if c.name != "writing")]
        return "\n".join([*lines, *(f"  fails: {name}" for name in failed)][:_LINES])

    def _said(self) -> str:
        if not self.made:
            return "Certificate: nothing was checked"
        holds = sum(c.holds for c in self.checks)
        exact = ", reading leaves the logits bitwise as they were" if self.bitwise else ""
        return f"Certificate: {holds} of {len(self.checks)} identities hold, {len(self.refusals)} sites are refused{exact}"

    def _repr_html_(self) -> str:
        import pandas as pd

        from cutaway.reports import display

        rows = [("holds" if c.holds else "fails", c.name, f"{c.error:.1e}", c.sentence) for c in self.checks]
        rows.sort(key=lambda row: row[0] == "holds")
        shown = pd.DataFrame(rows[:_SHOWN], columns=["", "identity", "error", "in words"])
        rest = [f"and {len(rows) - _SHOWN} more that hold: .checks"] if len(rows) > _SHOWN else []
        return display(self._said(), rest, shown)

    def check(self, name: str) -> Check | None:
        """The check of that name, if it applied."""
        return next((c for c in self.checks if c.name == name), None)

    def to_dict(self) -> dict[str, object]:
        """The certificate as plain data."""
        return {
            "made": self.made, "bitwise": self.bitwise, "pads_right": self.pads_right, "pads_left": self.pads_left,
            "checks": [
                {**vars(c), "holds": c.holds, "failures": dict(c.failures), "held": list(c.held)} for c in self.checks
            ],
            "refusals": dict(self.refusals),
        }  # fmt: skip


def uncertified(refusals: Mapping[Site, str] = MappingProxyType({})) -> Certificate:
    """The certificate of a network that was opened without being checked, with what was not found in it, and why."""
    return Certificate((), {str(s): r for s, r in refusals.items()}, None, None, None, made=False)
