"""Methods of discovery, each a function (network, behaviour, options) -> scores."""

from __future__ import annotations

import importlib
from typing import cast

from cutaway.circuits.methods.protocol import Method, Options
from cutaway.errors import NotFound, nearest

#: name -> (module, function); loaded when used.
METHODS: dict[str, tuple[str, str]] = {
    "eap": ("attribution", "eap"),
    "eap-ig": ("attribution", "eap_ig"),
    "eap-ig-activations": ("attribution", "eap_ig_activations"),
    "clean-corrupted": ("attribution", "clean_corrupted"),
    "atp": ("nodes", "atp"),
    "node-ig": ("nodes", "node_ig"),
    "neurons": ("nodes", "neurons"),
    "atp-star": ("atp_star", "atp_star"),
    "relp": ("relp", "relp"),
    "flow": ("flow", "information_flow"),
    "node-patching": ("exact", "node_patching"),
    "path-patching": ("exact", "path_patching"),
    "acdc": ("acdc", "acdc"),
    "mask-edges": ("masks", "edge_masks"),
    "mask-nodes": ("masks", "node_masks"),
    "ensemble": ("ensemble", "ensemble"),
    "random": ("ensemble", "random_scores"),
}
_OTHER_NAMES = {
    "eap-ig-inputs": "eap-ig", "information-flow-routes": "flow", "ifr": "flow", "atp*": "atp-star",
    "activation-patching": "node-patching", "eap-ig-act": "eap-ig-activations", "ugs": "mask-edges",
}  # fmt: skip


def method(name: str) -> Method:
    """The method of this name; NotFound with the nearest names.

    >>> method("eap_ig").__name__
    'eap_ig'
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    key = _OTHER_NAMES.get(key, key)
    if key not in METHODS:
        raise NotFound(
            f"There is no method {name!r}.", f"Did you mean {', '.join(nearest(key, METHODS) or METHODS)}?"
        )
    module, function = METHODS[key]
    return cast(Method, getattr(importlib.import_module(f"{__name__}.{module}"), function))


__all__ = ["METHODS", "Method", "Options", "method"]
