"""The index of features: where in many texts each is active, by columns, on disk; what is strongest, and together."""

from cutaway.features.index.feature_index import FeatureIndex
from cutaway.features.index.making import index_features

__all__ = ["FeatureIndex", "index_features"]
