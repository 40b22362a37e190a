"""Every error that Cutaway raises on purpose: one sentence what is wrong, one sentence what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class CutawayError(Exception):
    """Base of all deliberate errors.

    >>> str(NotFound("There is no site 'resid_pots'.", "Did you mean resid_post?"))
    "There is no site 'resid_pots'. Did you mean resid_post?"
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[CutawayError], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class NotFound(CutawayError):
    """A name is unknown; the nearest known names are offered."""


class CorruptFile(CutawayError):
    """A file is truncated, or its content does not match its hash or header."""


class UnsafeFile(CutawayError):
    """A file or model would run foreign code when loaded."""


class NoWeights(CutawayError):
    """A model folder holds no weights."""


class SiteUnavailable(CutawayError):
    """A site does not exist on this network, or its identity was not certified."""


class BadAddress(CutawayError):
    """A layer, head, neuron, position or row is out of range, or does not apply to the site."""


class BadInput(CutawayError):
    """An argument has the wrong kind, shape or content."""


class NotFoldable(CutawayError):
    """A norm is not an affine map with one scale per position, so that contributions cannot be taken through it."""


class NotFinite(CutawayError):
    """NaN or infinity was found where numbers are needed."""


class TooLong(CutawayError):
    """A prompt is longer than the network's context."""


class OutOfMemory(CutawayError):
    """The device ran out of memory; the message says how much was needed and what to lower."""


class BadBehaviour(CutawayError):
    """A behaviour is empty, unaligned, degenerate or does not fit the tokenizer."""


class NotPerformed(CutawayError):
    """The network does not do the behaviour that was to be explained, or the pairs are too few to tell."""


class Stopped(CutawayError):
    """The work was asked to end before it was finished, and there is nothing worth keeping of it."""


class UnknownOption(BadInput):
    """An option that nothing reads; the nearest known names are offered."""


class SaveFailed(CutawayError):
    """A result could not be written; it stays available in memory and nothing half-written is left."""


class BadFormat(CutawayError):
    """A file does not follow the format it claims."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The known names that look most like `name`, best first.

    >>> nearest("resid_pots", ["resid_post", "resid_pre", "z"])[0]
    'resid_post'
    """
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.4)


def did_you_mean(name: object, known: Iterable[str], n: int = 1, show: Callable[[str], str] = str) -> str:
    """The remedy for a name that is not known: the `n` nearest ones that are, or all that there are.

    show: how a name is written, e.g. `repr`.

    >>> did_you_mean("stpes", ["steps", "seed"]), did_you_mean("size", ["q", "k"])
    ('Did you mean steps?', 'There are: q, k.')
    """
    names = list(known)
    near = nearest(str(name), names, n)
    offered = ", ".join(map(show, near or names))
    return f"Did you mean {offered}?" if near else f"There are: {offered or 'none'}."


def require_known(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise `UnknownOption` for the first name that is not known, with the nearest one that is.

    >>> require_known(["stpes"], ["steps", "seed"], "trace")
    Traceback (most recent call last):
    cutaway.errors.UnknownOption: trace has no option 'stpes'. Did you mean steps?
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise UnknownOption(f"{what} has no option {name!r}.", did_you_mean(name, names))
