"""What is remembered from one process to the next: small JSON files in the user's cache folder, safe to delete at any time.

Each entry is one file, written whole or not at all, sealed with a hash of its content, and taken only where its seal, its
kind and its key are what is asked for. Whatever else lies there is passed over: an entry can save time, and nothing more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from cutaway.errors import SaveFailed
from cutaway.results import atomic_write

#: The environment variable that names another folder, or switches remembering off.
VARIABLE = "CUTAWAY_CACHE"
#: Words of that variable that switch it off.
OFF = ("off", "0", "no", "false", "none")
#: So many entries and bytes are kept; the least recently used go first.
MOST_ENTRIES, MOST_BYTES = 256, 64 << 20


def cache_folder() -> Path | None:
    """The folder of what is remembered: `CUTAWAY_CACHE`, else `cutaway` in the user's cache folder; None where it is off."""
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() in OFF:
        return None
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        own, usual = "", "~/Library/Caches"
    elif sys.platform == "win32":
        own, usual = os.environ.get("LOCALAPPDATA", ""), "~/AppData/Local"
    else:
        own, usual = os.environ.get("XDG_CACHE_HOME", ""), "~/.cache"
    base = Path(own if own and Path(own).is_absolute() else usual).expanduser()
    return base / "cutaway" if base.is_absolute() else None  # a user without a home folder


def recall(kind: str, key: str) -> Any:
    """What was remembered of that kind under that key; None where nothing was, or where the entry is damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    path = _place(folder, kind, key)
    try:
        entry = json.loads(path.read_bytes())
        content = entry["content"]
        if (entry["kind"], entry["key"], entry["seal"]) != (kind, key, _seal(kind, key, content)):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return content


def remember(kind: str, key: str, content: Any) -> bool:
    """Keep plain data under a kind and a key; False where that is switched off or the disk does not take it."""
    folder = cache_folder()
    if folder is None:
        return False
    entry = {"kind": kind, "key": key, "seal": _seal(kind, key, content), "content": content}
    try:
        atomic_write(_place(folder, kind, key), json.dumps(entry))
        _trim(folder)
    except (OSError, SaveFailed):
        return False
    return True


def _place(folder: Path, kind: str, key: str) -> Path:
    return folder / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _seal(kind: str, key: str, content: Any) -> str:
    return hashlib.sha256(json.dumps([kind, key, content], sort_keys=True).encode()).hexdigest()


def _trim(folder: Path) -> None:
    """Remove the entries that were used longest ago, as far as there are too many; other files stay."""
    found: list[tuple[float, int, Path]] = []
    for path in folder.glob("*-*.json"):
        with contextlib.suppress(OSError):  # another process removed it
            state = path.stat()
            found.append((state.st_mtime, state.st_size, path))
    total = 0
    for count, (_, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if count and (count >= MOST_ENTRIES or total > MOST_BYTES):
            with contextlib.suppress(OSError):
                path.unlink()
