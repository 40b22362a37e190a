"""Training dictionaries: rows from a network, sparse steps, and what is needed to go on or to use the result."""

from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.trainee import StepReport, Trainee
from cutaway.features.training.wiring import memory_of, parameters_of, products_of

__all__ = ["DictionaryRecipe", "StepReport", "Trainee", "memory_of", "parameters_of", "products_of"]
