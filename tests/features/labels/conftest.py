"""What the tests of labels share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cutaway
from cutaway.network import Network

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tales() -> Network:
    return cutaway.open("zoo:tales")
