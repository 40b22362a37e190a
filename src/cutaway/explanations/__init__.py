"""From a network and a behaviour to a tested explanation: localise, identify, test on held-out data, judge."""

from cutaway.explanations.explanation import Explanation
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.pipeline import explain

__all__ = ["Explanation", "Mechanism", "SearchLimits", "explain"]
