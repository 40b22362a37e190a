"""Networks with known mechanisms: recipes, weights, ground truth, twins, and the door to them.

>>> from cutaway import zoo
>>> "tales" in zoo.names()
True
"""

from .loaders import card, load, names, path, truth
from .registry import specimen

__all__ = ["card", "load", "names", "path", "specimen", "truth"]
