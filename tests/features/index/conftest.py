"""What the tests of the index share."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

import cutaway
from cutaway.network import Network
from cutaway.recipes.tales.scenes import stories

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tales() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return ["Mary", "", *(story.text for story in islice(stories("index"), 40)), "John was"]
