"""Intervals hold the true value as often as they promise, or as often as is said of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "intervals.py"


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("intervals_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = _benchmark()


@pytest.mark.parametrize("case", bench.CASES, ids=lambda c: f"{c.figure}, {c.data}, {c.n}")
def test_a6_an_interval_holds_the_truth_as_often_as_it_promises(case: Any) -> None:
    got = bench.covered(case, tries=200, seed=7)
    assert got.held.interval is not None
    assert got.held.interval.high >= case.least
    assert got.none <= 0.5


def test_the_page_has_every_case() -> None:
    page = (FILE.parents[1] / "docs" / "benchmarks" / "intervals.md").read_text(encoding="utf-8")
    for case in bench.CASES:
        assert f"| {case.figure} | {case.data} | {case.n} |" in page
