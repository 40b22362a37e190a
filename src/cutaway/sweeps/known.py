"""Verdicts on the rules that are remembered from one process to the next: by network, prompts' shape, and code."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.network.cache import cache_folder, recall, remember
from cutaway.network.remembered import key_of
from cutaway.sweeps.rules import Rules

if TYPE_CHECKING:
    from cutaway.network import Network

KIND = "rules"


def known_rules(net: Network, key: Hashable, make: Callable[[], Rules]) -> Rules:
    """The verdict of an earlier trial on the same network and prompts of the same shape, else what `make` finds, kept.

    key: all that a trial depends on beside the network. Nothing is remembered of a network that was opened with
    `remember=False`, or of one that `network.remembered` cannot tell from others.
    """
    if not net.opened.remember or cache_folder() is None:
        return make()
    named = net.fact("remembered as", lambda: key_of(net.model))
    if named is None:
        return make()
    whole = f"{named} {_own_code()} {key!r}"
    found = _read(recall(KIND, whole))
    if found is None:
        found = make()
        reasons = {str(name): str(reason) for name, reason in found.reasons.items()}
        remember(KIND, whole, {"names": found.names, "reasons": reasons})
    return found


def _read(plain: Any) -> Rules | None:
    try:
        names, reasons = plain["names"], plain["reasons"]
        chosen = {f.name: f.name in names for f in fields(Rules) if f.name != "reasons"}
        return Rules(**chosen, reasons={str(k): str(v) for k, v in reasons.items()})
    except (KeyError, TypeError, AttributeError):
        return None


@functools.cache
def _own_code() -> str:
    """A hash of the code by which sweeps are run."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
