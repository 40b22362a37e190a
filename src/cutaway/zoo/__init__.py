"""Networks with known mechanisms, on a shelf: weights, cards, ground truth, twins. Recipes lie in `cutaway.recipes`.

>>> from cutaway import zoo
>>> "tales" in zoo.names()
True
"""

from .loaders import card, load, names, path, truth
from .registry import specimen

__all__ = ["card", "load", "names", "path", "specimen", "truth"]
