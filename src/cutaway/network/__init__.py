"""Networks: sites, anatomy, certificate, attention access, run, generate."""

from cutaway.network.certificate import Certificate, Check
from cutaway.network.edits import Edit, Here
from cutaway.network.inputs import Inputs, Tokens, pack
from cutaway.network.network import Network
from cutaway.network.opening import open_network
from cutaway.network.run import Run
from cutaway.network.sites import SITES, Site, SiteLike, parse

__all__ = [
    "SITES", "Certificate", "Check", "Edit", "Here", "Inputs", "Network", "Run", "Site", "SiteLike", "Tokens",
    "open_network", "pack", "parse",
]  # fmt: skip
