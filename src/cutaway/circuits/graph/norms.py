"""Norms as the gradient sees them; see `cutaway.network.norms`."""

from cutaway.network.norms import Norm, along

__all__ = ["Norm", "along"]
