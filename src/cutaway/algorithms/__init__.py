"""What is computed, as a causal model over named variables; tested by exchanging their values between prompts."""

from cutaway.algorithms.limits import AlgorithmLimits
from cutaway.algorithms.model import Algorithm, Step, algorithm
from cutaway.algorithms.places import VariablePlace, places_of
from cutaway.algorithms.result import AlgorithmTest, Apart, RivalTest, VariableTest
from cutaway.algorithms.specimens import algorithms_of
from cutaway.algorithms.testing import examine_algorithm as test_algorithm

__all__ = [
    "Algorithm", "AlgorithmLimits", "AlgorithmTest", "Apart", "RivalTest", "Step", "VariablePlace", "VariableTest",
    "algorithm", "algorithms_of", "places_of", "test_algorithm",
]  # fmt: skip
