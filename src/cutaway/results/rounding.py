"""What coarser arithmetic does to a behaviour: its metric beside that of float32, on the same prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The largest difference of the metric on any prompt, as a share of the gap, beyond which nothing is supported.
MOST = 0.05


@dataclass(frozen=True)
class Rounding:
    """How far matrix products in a coarser type are from float32, on prompts of one behaviour.

    Attributes:
        products: the type in which matrix products are computed.
        n: pairs on which both were run.
        largest: the largest difference of the metric on one prompt, clean or corrupted, as a share of the mean gap.
        median: the same, the median over prompts.
        flips: pairs of which the contrast of clean and corrupted prompt changed its sign.
        kl: mean divergence of next-token distributions from those of float32 [nats].
    """

    products: str
    n: int
    largest: float
    median: float
    flips: int
    kl: float

    @property
    def within(self) -> bool:
        """Is it small enough for claims: at most `MOST` of the gap on every prompt, and no contrast turned round?"""
        return self.largest <= MOST and self.flips == 0

    @property
    def sentence(self) -> str:
        """The error in words.

        >>> Rounding("bfloat16", 32, 0.019, 0.007, 0, 2e-4).sentence[:73]
        'Matrix products in bfloat16 change the metric by at most 1.9 % of the gap'
        """
        turned = (
            "no contrast changes its sign" if not self.flips else f"{self.flips} contrasts change their sign"
        )
        return (
            f"Matrix products in {self.products} change the metric by at most {100 * self.largest:.2g} % of the gap (median "
            f"{100 * self.median:.2g} %) against float32, on {self.n} pairs; {turned}; KL divergence {self.kl:.1g} nats."
            f"{'' if self.within else f' That is too much (at most {100 * MOST:g} %, and none): nothing is supported.'}"
        )

    @property
    def doubt(self) -> str:
        """Why nothing may be supported with this error; empty where it is small enough.

        >>> Rounding("bfloat16", 8, 0.2, 0.1, 1, 0.01).doubt[28:]
        'move the metric by up to 20 % of the gap, and turn 1 contrast round (at most 5 %, and none)'
        """
        if self.within:
            return ""
        turned = f"{self.flips} contrast{'s' * (self.flips > 1)}" if self.flips else "no contrast"
        return (
            f"matrix products in {self.products} move the metric by up to {100 * self.largest:.2g} % of the gap, and turn "
            f"{turned} round (at most {100 * MOST:g} %, and none)"
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Rounding:
        """What `dataclasses.asdict` gave."""
        return cls(**data)
