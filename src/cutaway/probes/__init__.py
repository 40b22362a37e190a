"""Probes: what a representation encodes, and whether the network uses it."""

from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.tables import Columns, probe_data
from cutaway.probes.map.linear_probe import Probe
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.pipeline import probe
from cutaway.probes.map.probing import Probing
from cutaway.probes.map.verdict import Finding
from cutaway.probes.use.erasure import Eraser, leace, reprobe
from cutaway.probes.use.options import UseOptions
from cutaway.probes.use.pipeline import use
from cutaway.probes.use.result import Use
from cutaway.statistics.fits.leace import Leace

__all__ = [
    "Columns",
    "Eraser",
    "Finding",
    "Leace",
    "ProbeOptions",
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
