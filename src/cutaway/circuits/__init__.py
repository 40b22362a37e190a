"""Circuits: the graph of a network, finding the part of it that carries a behaviour, running it, and testing it."""

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.constants import learn_constants
from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.formats import read, write
from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.limits import CircuitLimits
from cutaway.circuits.methods import METHODS, MethodOptions, method, option_names, score
from cutaway.circuits.passes.certify import wiring
from cutaway.circuits.recipe import TraceRecipe
from cutaway.circuits.scores import Scores
from cutaway.circuits.testing import CircuitTest
from cutaway.circuits.testing import examine as test
from cutaway.circuits.tracing import trace

__all__ = [
    "METHODS", "Circuit", "CircuitLimits", "CircuitTest", "EdgeBench", "Graph", "MethodOptions", "Scores", "TraceRecipe",
    "learn_constants", "method", "option_names", "read", "score", "test", "trace", "wiring", "write",
]  # fmt: skip
