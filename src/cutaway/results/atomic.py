"""Files and folders that appear whole or not at all, and replace nothing that is not theirs.

A file is written beside its place and renamed. A folder is filled beside its place and exchanged with what is there in one
step where the system can (Linux), so that a killed process leaves the old result or the new one under the name. Elsewhere it
takes two renames; what a kill between them leaves is put back by `recover` when the folder is next written or read.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cutaway.errors import SaveFailed

#: renameat2: paths are relative to the working directory, and are exchanged.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
#: Longer names are not taken into the names of temporary files [bytes].
_LONGEST = 100

#: Of a folder that exists and the new one: which paths of the old one may be replaced, relative to it. Raises `SaveFailed`
#: where the old one is not ours at all.
Ours = Callable[[Path, Path], Collection[str]]


def _failed(path: Path, error: OSError) -> SaveFailed:
    reason = error.strerror or type(error).__name__
    return SaveFailed(
        f"{path} could not be written: {reason}.",
        "The result is still in memory and nothing half-written is left; save it to another place.",
    )


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file whole or not at all: to a temporary file beside it, then renamed. Makes the parent folders.

    Raises SaveFailed when the disk is full or read-only; an older file of that name is then as it was.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        handle, temporary = tempfile.mkstemp(prefix=_mine(target), suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise _failed(target, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], ours: Ours) -> Iterator[Path]:
    """A temporary folder to fill, put in the place of `path` when the block ends well, removed when it does not.

    What `ours` names of an older folder there is replaced; everything else in it stays. Raises SaveFailed on any error of
    the disk, and when something that is not ours would be in the way.
    """
    target = Path(path)
    if target.is_symlink():
        target = target.resolve()
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        _sweep(target)
        if target.exists() and not target.is_dir():
            raise SaveFailed(f"{target} is a file.", "Choose a new folder.")
        if target.exists() and any(target.iterdir()):
            ours(target, target)
        work = Path(tempfile.mkdtemp(prefix=_mine(target), suffix=".part", dir=target.parent))
        os.chmod(work, 0o777 & ~_umask())
        yield work
        if target.exists():
            if any(target.iterdir()):
                _keep_others(target, work, ours(target, work))
            _exchange(work, target)
        else:
            os.rename(work, target)
    except OSError as error:
        raise _failed(target, error) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _keep_others(old: Path, new: Path, ours: Collection[str]) -> None:
    """Take into the new folder what is in the old one and not ours, as links to the same files where the disk has them.

    Raises `SaveFailed` where something of the user's has the name of a file that is to be written.
    """
    for here, _, names in os.walk(old):
        place = Path(here).relative_to(old)
        links = [n for n in os.listdir(here) if (Path(here) / n).is_symlink()]
        for name in {*names, *links}:
            if (place / name).as_posix() in ours:
                continue
            there = new / place / name
            if there.exists() or there.is_symlink():
                raise SaveFailed(
                    f"{old / place / name} is in the way, and no result that is saved there says that it is its own.",
                    "Choose a new folder, or move that file.",
                )
            there.parent.mkdir(parents=True, exist_ok=True)
            source = old / place / name
            if source.is_symlink():
                os.symlink(os.readlink(source), there)
                continue
            try:
                os.link(source, there)
            except OSError:
                shutil.copy2(source, there)
        if not names and not links and not os.listdir(here) and place.as_posix() not in ours:
            (new / place).mkdir(parents=True, exist_ok=True)


def _exchange(work: Path, target: Path) -> None:
    """Put `work` in the place of `target`, and what was there in the place of `work`."""
    if _exchanged(work, target):
        return
    old = target.parent / f"{_mine(target)}{work.name[-13:-5]}.old"
    os.rename(target, old)
    try:
        os.rename(work, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False where the system or the disk cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def recover(target: Path) -> None:
    """Put back a folder that a process was replacing by two renames when it was killed, if its name stands empty."""
    if target.exists() or not target.parent.is_dir():
        return
    for old in sorted(_leftovers(target, ".old")):
        with contextlib.suppress(OSError):
            os.rename(old, target)
            return


def _mine(target: Path) -> str:
    """How the names of this process's temporary files for a target begin."""
    return f"{_start(target)}{os.getpid()}."


def _start(target: Path) -> str:
    """How the names of this machine's temporary files for a target begin; a long name is cut, as names have a limit."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}.{socket.gethostname()}."


def _leftovers(target: Path, suffix: str) -> Iterator[Path]:
    """Temporary files and folders of a target whose process, on this machine, is no more."""
    start = _start(target)
    for path in target.parent.iterdir():
        if path.name.startswith(start) and path.suffix == suffix:
            process = path.name.removeprefix(start).partition(".")[0]
            if process.isdecimal() and not _alive(int(process)):
                yield path


def _sweep(target: Path) -> None:
    """Remove what killed processes left of a target, whose place is taken by a whole one or was never filled."""
    gone = list(_leftovers(target, ".part"))
    if target.exists():
        gone += _leftovers(target, ".old")
    for path in gone:
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
