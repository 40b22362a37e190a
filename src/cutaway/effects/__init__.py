"""Which parts matter: activation patching, and the labelled array of effects that it gives."""

from cutaway.effects.effects import Effects
from cutaway.effects.patching import patch

__all__ = ["Effects", "patch"]
