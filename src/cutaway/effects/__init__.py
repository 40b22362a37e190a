"""Which parts matter: patching, ablation, path patching, pairs, and the labelled array of effects that they give."""

from cutaway.effects.components import Component
from cutaway.effects.effects import Effects
from cutaway.effects.pairs import pair_effects
from cutaway.effects.patching import ablate, patch
from cutaway.effects.paths import Receiver, path_patch, receivers
from cutaway.effects.planned import PlannedSweep, plan

__all__ = [
    "Component",
    "Effects",
    "PlannedSweep",
    "Receiver",
    "ablate",
    "pair_effects",
    "patch",
    "path_patch",
    "plan",
    "receivers",
]
