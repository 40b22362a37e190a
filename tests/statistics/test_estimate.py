from __future__ import annotations

from cutaway.statistics import Estimate, Interval


def test_above() -> None:
    estimate = Estimate(0.5, Interval(0.4, 0.6), 10)
    assert estimate.above(0.3) is True
    assert estimate.above(0.7) is False
    assert estimate.above(0.5) is None
    assert Estimate(0.5, None, 1).above(0.1) is None
    assert Estimate.from_dict(estimate.to_dict()) == estimate
    assert Estimate.from_dict(Estimate(0.5, None, 1).to_dict()) == Estimate(0.5, None, 1)
