"""Probes that are not linear in one vector, each beside the linear one that it must beat."""
