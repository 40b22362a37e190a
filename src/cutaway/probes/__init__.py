"""Probes: what a representation encodes, and whether the network uses it.

`data` holds what is probed for, `reading` where a network is read and moved, `fits` how probes are fitted and scored, `map`
the verb `probe`, `use` the verbs `use`, `align` and `leace`, `others` probes that are not linear in one vector.
"""

from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.tables import Columns, probe_data
from cutaway.probes.map.linear_probe import Probe
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.pipeline import probe
from cutaway.probes.map.probing import Probing
from cutaway.probes.map.verdict import Finding
from cutaway.probes.others.contrast_consistent import contrast_consistent
from cutaway.probes.others.nonlinear import beside_linear
from cutaway.probes.others.pooled import pooled
from cutaway.probes.use.alignment import Alignment, SearchOptions, align
from cutaway.probes.use.erasure import Eraser, leace, reprobe
from cutaway.probes.use.options import UseOptions
from cutaway.probes.use.pipeline import use
from cutaway.probes.use.result import Use
from cutaway.statistics.fits.leace import Leace

__all__ = [
    "Alignment", "Columns", "Eraser", "Finding", "Leace", "Probe", "ProbeData", "ProbeOptions", "Probing",
    "SearchOptions", "Use", "UseOptions", "align", "beside_linear", "contrast_consistent", "leace",
    "pooled", "probe", "probe_data", "reprobe", "use",
]  # fmt: skip
