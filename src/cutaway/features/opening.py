"""A dictionary opened on a network: read from its file, bound by measurement, its latents attached as sites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import BadInput
from cutaway.features.attach import with_dictionary
from cutaway.features.binding import Binding, bind
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats import read
from cutaway.features.texts import TextsLike
from cutaway.network.sites import SiteLike
from cutaway.results import Work, strict_as

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class OpenedDictionary:
    """A dictionary on its network.

    Attributes:
        net: the network, with the latents as sites: `features.L`, `feature_error.L`.
        dictionary: what was read.
        binding: how it was measured that it belongs there; None where it was not.
    """

    net: Network
    dictionary: Dictionary
    binding: Binding | None

    def __repr__(self) -> str:
        measured = "not measured" if self.binding is None else self.binding.claim.verdict
        return f"OpenedDictionary({self.dictionary!r}, {measured})"


@strict_as("features.open")
def open_dictionary(
    path: str | Path,
    net: Network,
    texts: TextsLike | None = None,
    *,
    format: str | None = None,
    reads: SiteLike | None = None,
    writes: SiteLike | None = None,
    name: str = "",
    force: bool = False,
    seed: int = 0,
    work: Work | None = None,
    **given: Any,
) -> OpenedDictionary:
    """Read a dictionary, measure that it belongs to this network as its file says, and attach it, exported as
    `cutaway.features.open`.

    Args:
        path: a folder or a file, of any format that `cutaway.features.formats.formats()` lists.
        net: the network.
        texts: on which it is measured; without texts nothing is measured, which the result says.
        format: which one, where files could be of several.
        reads: the site that is encoded, where the file does not say it.
        writes: the site that is reconstructed; default as the file says, or where it reads.
        name: tells several dictionaries on one network apart.
        force: attach it although it does not fit.
        seed: of the intervals.
        work: hears of progress.
        given: what the format needs beside its files, such as k.

    Raises:
        BadInput: where it does not fit and is not forced, with the reading that would; and what `bind` raises.
        BadFormat, CorruptFile, UnsafeFile: for files that are not read.
    """
    dictionary = read(path, format=format, **given)
    binding = None
    if texts is not None and dictionary.single:
        binding = bind(net, dictionary, texts, reads=reads, writes=writes, seed=seed, work=work)
        if binding.claim.verdict == "refuted" and not force:
            raise BadInput(
                f"{binding.claim.statement}.", "Open it so, or attach it as it is with force=True."
            )
    return OpenedDictionary(with_dictionary(net, dictionary, reads, writes, name), dictionary, binding)
