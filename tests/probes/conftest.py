"""The networks with written weights, for the tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from xor_networks import Specimen, specimen

import cutaway


@pytest.fixture(scope="session")
def made() -> Specimen:
    return specimen(0)


@pytest.fixture(scope="session")
def net(made: Specimen) -> cutaway.Network:
    return cutaway.open(made.model)
