"""Probes: what a representation encodes, and whether the network uses it."""

from cutaway.probes.data import ProbeData
from cutaway.probes.erasure import Eraser, Leace, leace, reprobe
from cutaway.probes.fitted import Probe
from cutaway.probes.options import Options
from cutaway.probes.pipeline import probe
from cutaway.probes.probing import Probing
from cutaway.probes.reading import Columns, probe_data
from cutaway.probes.use import UseOptions, use
from cutaway.probes.used import Use
from cutaway.probes.verdict import Finding

__all__ = [
    "Columns",
    "Eraser",
    "Finding",
    "Leace",
    "Options",
    "Probe",
    "ProbeData",
    "Probing",
    "Use",
    "UseOptions",
    "leace",
    "probe",
    "probe_data",
    "reprobe",
    "use",
]
