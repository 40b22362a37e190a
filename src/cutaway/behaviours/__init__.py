"""What is asked of a network: contrast pairs with answers, metrics, and whether it does the behaviour."""

from cutaway.behaviours.checks import (
    Performance,
    answer_log_prob,
    answer_logits,
    measure,
    performance,
)
from cutaway.behaviours.data import Behaviour, ItemPairs
from cutaway.behaviours.formats import from_dataset, from_frame, read, write
from cutaway.behaviours.generators import GENERATORS, Fact, FactTable
from cutaway.behaviours.generators.told import TOLD, BuiltIn
from cutaway.behaviours.images import ImagePairs
from cutaway.behaviours.making import behaviour, generator
from cutaway.behaviours.metrics import METRICS, Answers, Metric, custom, metric, shares
from cutaway.behaviours.prompts import Prompts, two_prompts
from cutaway.behaviours.requiring import refusal, require_performed
from cutaway.behaviours.shuffling import exchange_answers

__all__ = [
    "GENERATORS", "METRICS", "TOLD", "Answers", "Behaviour", "BuiltIn", "Fact", "FactTable", "ImagePairs", "ItemPairs",
    "Metric", "Performance", "Prompts", "answer_log_prob", "answer_logits", "behaviour", "custom", "exchange_answers",
    "from_dataset", "from_frame", "generator", "measure", "metric", "performance", "read", "refusal",
    "require_performed", "shares", "two_prompts", "write",
]  # fmt: skip
