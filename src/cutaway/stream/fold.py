"""Norms as affine maps, frozen at a run; see `cutaway.network.norms`."""

from cutaway.network.norms import TOLERANCE, AffineNorm, Fold, common_weight, probe_norm

__all__ = ["TOLERANCE", "AffineNorm", "Fold", "common_weight", "probe_norm"]
