"""Running many interventions on one behaviour at the least cost: always the numbers of one forward per cell.

`cells` says what is written, `rules` which savings there are and `validity` which of them hold on a network; `record` is
the base run, `changes` what each cell changes of it, `stages` where in its layer; `replay` runs a wave of cells through
the model, `engine` sorts cells into waves, `pricing` says what it costs, `plan` runs it, `naive` is the plain loop.
"""

from cutaway.sweeps.base_runs import handing_over, keeping_base_runs
from cutaway.sweeps.cells import Cell, CellState, CellValues, Experiment, Write, write_of
from cutaway.sweeps.metered import announce_sweep
from cutaway.sweeps.plan import Plan, plan_cells, run_cells
from cutaway.sweeps.pricing import Cost
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.unedited import base_run, run_beside, run_for_sweep

__all__ = [
    "Cell", "CellState", "CellValues", "Cost", "Experiment", "Plan", "Rules", "Write", "announce_sweep", "base_run",
    "handing_over", "keeping_base_runs", "plan_cells", "run_beside", "run_cells", "run_for_sweep", "write_of",
]  # fmt: skip
