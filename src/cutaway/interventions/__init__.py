"""Interventions: what is done to a network while it runs, as plain data."""

from cutaway.interventions.address import Address
from cutaway.interventions.files import load, save
from cutaway.interventions.kinds import (
    KINDS,
    Ablate,
    Add,
    Apply,
    Clamp,
    Erase,
    Freeze,
    Interchange,
    Intervention,
    Patch,
    Project,
    Scale,
)  # fmt: skip
from cutaway.interventions.sources import Source

__all__ = [
    "KINDS", "Ablate", "Add", "Address", "Apply", "Clamp", "Erase", "Freeze", "Interchange", "Intervention", "Patch",
    "Project", "Scale", "Source", "load", "save",
]  # fmt: skip
