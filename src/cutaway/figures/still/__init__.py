"""From a Plotly figure, which is the one description of a picture, to a still drawing by Matplotlib.

Matplotlib is loaded when something is drawn, and not before.
"""

from cutaway.figures.still.places import per_mark
from cutaway.figures.still.sizes import widths
from cutaway.figures.still.tidying import inlined
from cutaway.figures.still.words import plain
from cutaway.figures.still.writing import png_uri, save, svg

__all__ = ["inlined", "per_mark", "plain", "png_uri", "save", "svg", "widths"]
