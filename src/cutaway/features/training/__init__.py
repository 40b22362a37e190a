"""Training dictionaries: rows from a network, sparse steps, and what is needed to go on or to use the result."""

from cutaway.features.training.recipe import DictionaryRecipe

__all__ = ["DictionaryRecipe"]
