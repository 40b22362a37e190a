"""Dashboards: all features of an index on one page, and the files that other programs look features up in."""

from cutaway.features.dashboards.dashboard import FeatureDashboard, dashboard
from cutaway.features.dashboards.delphi import export_delphi
from cutaway.features.dashboards.neuronpedia import export_neuronpedia

__all__ = ["FeatureDashboard", "dashboard", "export_delphi", "export_neuronpedia"]
