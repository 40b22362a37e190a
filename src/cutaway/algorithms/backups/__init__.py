"""Mechanisms that overlap: which parts stand in for others that are removed, and which parts two behaviours share.

`removing` takes parts away and measures what is left, also directly; `growing` looks for parts whose effect grows when
others are removed; `telling` says what may be claimed; `result` holds it; `verb` does it all. `sharing` and `shared` ask
the same of two behaviours.
"""

from cutaway.algorithms.backups.limits import BackupLimits, SharedLimits
from cutaway.algorithms.backups.result import Backups
from cutaway.algorithms.backups.shared import SharedParts
from cutaway.algorithms.backups.sharing import shared_parts
from cutaway.algorithms.backups.verb import backups

__all__ = ["BackupLimits", "Backups", "SharedLimits", "SharedParts", "backups", "shared_parts"]
