"""Running many interventions on one behaviour: one cell after another or many at once, always the same numbers."""

from cutaway.sweeps.naive import Cell, CellValues, State, Work, Write, run_cells

__all__ = ["Cell", "CellValues", "State", "Work", "Write", "run_cells"]
