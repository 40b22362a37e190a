"""What the tests of dashboards share."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

import cutaway
from cutaway.features.index import FeatureIndex, index_features
from cutaway.features.labels import FeatureLabels, label_features
from cutaway.features.sets import FeatureSet
from cutaway.network import Network
from cutaway.recipes.tales.scenes import stories

sys.path.insert(0, str(Path(__file__).parents[1] / "index"))

from featuresets import LENGTH, topk  # type: ignore[import-not-found]


@pytest.fixture(scope="session")
def tales() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [story.text for story in islice(stories("index"), 60)]


@pytest.fixture(scope="session")
def features(tales: Network) -> FeatureSet:
    return topk(tales, 48)


@pytest.fixture(scope="session")
def index(tales: Network, features: FeatureSet, texts: list[str]) -> FeatureIndex:
    return index_features(tales, features, texts, length=LENGTH)


@pytest.fixture(scope="session")
def labels(tales: Network, index: FeatureIndex) -> FeatureLabels:
    return label_features(tales, index, features=12, causal=1)
