"""From a network and a behaviour to a tested explanation: localise, identify, test on held-out data, judge."""

from cutaway.explanations.explanation import Explanation, load_maps
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.pipeline import explain
from cutaway.explanations.thresholds import Thresholds
from cutaway.explanations.trial import Trial

__all__ = [
    "Explanation",
    "Mechanism",
    "Thresholds",
    "Trial",
    "explain",
    "load_maps",
]
