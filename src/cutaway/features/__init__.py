"""Activations over many texts: where a neuron or a direction is strongest, and whole sites written to disk."""

from cutaway.features.activations import Activations, activations
from cutaway.features.top_examples import TopExamples, top_examples

__all__ = ["Activations", "TopExamples", "activations", "top_examples"]
