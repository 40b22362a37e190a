"""Measuring dictionaries: on planted truth, and on any network beside what they must do better than."""

from cutaway.features.measures.comparing import RowComparison, compare_rows
from cutaway.features.measures.detecting import LatentDetection, detects
from cutaway.features.measures.measuring import measure
from cutaway.features.measures.recovery import FeatureRecovery, oracle, recovery
from cutaway.features.measures.result import DictionaryMeasures

__all__ = [
    "DictionaryMeasures", "FeatureRecovery", "LatentDetection", "RowComparison", "compare_rows", "detects", "measure",
    "oracle", "recovery",
]  # fmt: skip
