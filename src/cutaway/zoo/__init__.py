"""Networks with known mechanisms: recipes, weights, and the door to them.

>>> from cutaway import zoo
>>> "tales" in zoo.names()
True
"""

from .loaders import card, load, names, path

__all__ = ["card", "load", "names", "path"]
