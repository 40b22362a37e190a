"""Which parts matter: patching, ablation, path patching, pairs, and the labelled array of effects that they give."""

from cutaway.effects.attribution import attribution_patch
from cutaway.effects.effects import Effects
from cutaway.effects.pairs import pair_effects
from cutaway.effects.patching import ablate, patch, plan
from cutaway.effects.paths import path_patch, receivers
from cutaway.effects.planned import PlannedSweep, plan_interventions

__all__ = [
    "Effects", "PlannedSweep", "ablate", "attribution_patch", "pair_effects", "patch", "path_patch", "plan",
    "plan_interventions", "receivers",
]  # fmt: skip
