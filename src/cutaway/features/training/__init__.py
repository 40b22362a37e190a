"""Training dictionaries: rows from a network, sparse steps, and what is needed to go on or to use the result."""

from cutaway.features.training.planning import TrainingPlan
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.trained import DictionaryTraining, TrainedDictionary
from cutaway.features.training.trainee import StepReport, Trainee
from cutaway.features.training.training import plan_training, train_dictionaries, train_on_rows
from cutaway.features.training.wiring import memory_of, parameters_of, products_of

__all__ = [
    "DictionaryRecipe", "DictionaryTraining", "StepReport", "TrainedDictionary", "Trainee", "TrainingPlan", "memory_of",
    "parameters_of", "plan_training", "products_of", "train_dictionaries", "train_on_rows",
]  # fmt: skip
