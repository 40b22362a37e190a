"""Running many interventions on one behaviour at the least cost: always the numbers of one forward per cell.

`cells` says what is written, `rules` which savings there are and `validity` which of them hold on a network; `record` is
the base run, `changes` what each cell changes of it, `stages` where in its layer; `replay` runs a wave of cells through
the model, `engine` sorts cells into waves, `plan` says what it costs and runs it, `naive` is the plain loop.
"""

from cutaway.sweeps.base_runs import keeping_base_runs
from cutaway.sweeps.cells import Cell, CellState, CellValues, Experiment, Write, write_of
from cutaway.sweeps.metered import announce_sweep
from cutaway.sweeps.plan import Cost, Plan, plan_cells, run_cells
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.unedited import base_run

__all__ = [
    "Cell", "CellState", "CellValues", "Cost", "Experiment", "Plan", "Rules", "Write",
    "announce_sweep", "base_run",
    "keeping_base_runs", "plan_cells", "run_cells", "write_of",
]  # fmt: skip
