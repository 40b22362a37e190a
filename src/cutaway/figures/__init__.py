"""From numbers to figures. Nothing else in Cutaway draws.

The functions take plain arrays and labels, so that every room above can use them without being known here. What they give
is a `Picture`: a Plotly figure that can also be drawn still, for a page, a notebook or a paper.
"""

from cutaway.figures.along_text import along_text
from cutaway.figures.bars import Bar, bars, first_and_rest, groups_of_bars
from cutaway.figures.curve import faithfulness_curve
from cutaway.figures.heatmap import Grid, heatmap, heatmap_table
from cutaway.figures.lines import lines, spread
from cutaway.figures.movement import VariableMove, VariableStop, movement_figure
from cutaway.figures.node_grids import Panel, node_grids
from cutaway.figures.pictures import picture
from cutaway.figures.random_sets import Comparison, against_random
from cutaway.figures.showing import Picture
from cutaway.figures.small import grid_picture, small_bars, small_heads, small_map
from cutaway.figures.tokens import show_token

__all__ = [
    "Bar", "Comparison", "Grid", "VariableMove", "Panel", "Picture", "VariableStop", "against_random", "along_text", "bars",
    "faithfulness_curve", "first_and_rest", "grid_picture", "groups_of_bars", "heatmap", "heatmap_table", "lines",
    "movement_figure", "node_grids", "picture", "show_token", "small_bars", "small_heads", "small_map", "spread",
]  # fmt: skip
