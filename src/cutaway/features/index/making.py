"""The verb that makes an index: texts once through the network, all features at once, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import weakref
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import BadFormat, BadInput, SaveFailed, did_you_mean
from cutaway.features.index.feature_index import FeatureIndex
from cutaway.features.index.identity import set_hash
from cutaway.features.index.merging import merge
from cutaway.features.index.reading import JOURNAL, PartReader
from cutaway.features.sets import FeatureSet
from cutaway.features.texts import Count, TextsLike, announce_windows, window_length, windows_of
from cutaway.network.memory import budget_bytes
from cutaway.results import MANIFEST, Provenance, Work, head, strict, working, write_manifest

if TYPE_CHECKING:
    from cutaway.network import Network

#: Bytes of one product of a feature and one beside it, and the share of the budget that all of them may take.
_NUMBER, _SHARE = 8, 4


@strict
def index_features(
    net: Network,
    features: FeatureSet,
    texts: TextsLike,
    *,
    folder: str | os.PathLike[str] | None = None,
    beside: FeatureSet | None = None,
    neighbours: int = 10,
    dtype: str = "float32",
    share: float = 0.05,
    special: bool = False,
    skip: int = 1,
    length: int | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> FeatureIndex:
    """Index features of any kind over many texts in one pass: where each is active, exactly, on disk, by columns.

    An entry is a token and an activation, at 8 bytes (6 in half precision). Of features that are never below zero every
    activation above zero is an entry. Signed ones rest nowhere: of them an activation is an entry where its size is above a
    floor of the feature's own, told from the first tokens, so that all that is strong is there. Every statistic is of the
    entries, and zero elsewhere.

    Called again with the same question on the same folder, it goes on where it was stopped.

    Args:
        net: the network.
        features: a set of them: `features.sets.latents(net, dictionary)`, neurons, heads, directions.
        texts: a list or iterator of texts, rows of a data set with a field text, or a path (.txt, one a line; .jsonl).
        folder: where to write; new, empty, or of the same question. Default a temporary one, gone with the result.
        beside: other features (the neurons of a layer) with which correlations are wanted, read from the same runs.
        neighbours: how many of the features that are most correlated with each are kept; 0 for none, which is quicker.
        dtype: of activations on disk: float32 or float16.
        share: of tokens that are entries of a signed feature, about.
        special: count special tokens (beginning of text, separators) as well; padding never counts.
        skip: leave out the first so many tokens of each window, on which many networks rest.
        length: tokens that are run at once; longer texts are cut into pieces.
        seed: of the examples that are drawn.
        work: may stop it; what was read by then comes back, marked as not complete.

    Raises:
        BadInput: for texts without a token that counts, or a folder of another question.
        NotFinite: for a value or an activation of NaN or infinity.
        SaveFailed: where the folder holds anything else, which stays as it is, or the disk is full.
    """
    began, work = time.monotonic(), working(work)
    _check(features, neighbours=(neighbours, 0), skip=(skip, 0))
    if dtype not in ("float32", "float16"):
        raise BadInput(f"dtype={dtype!r} is none of an index.", did_you_mean(dtype, ["float32", "float16"]))
    if not 0 < share <= 1:
        raise BadInput(
            f"share={share!r} is no share of tokens.", "Give share=0.05 or another between 0 and 1."
        )
    length = window_length(net, length)
    if beside is not None and len(beside) * len(features) * _NUMBER > budget_bytes(net, work) // _SHARE:
        raise BadInput(
            f"{len(features)} features beside {len(beside)} are too many correlations to hold.",
            "Leave out beside=.",
        )
    asked = {
        "features": set_hash(features), "beside": None if beside is None else set_hash(beside), "network": net.hash,
        "dtype": dtype, "share": share, "special": special, "skip": skip, "length": length, "neighbours": neighbours,
    }  # fmt: skip
    place, temporary = _place(folder)
    try:
        reader = PartReader(net, features, beside, place, asked, Count(), work)
        before = _finished(place, asked)
        done = 0 if before is not None else reader.begun()
        if before is None:
            announce_windows(net, texts, length, reader.sites, work, "reading texts", done)
        found = _made(net, features, beside, texts, reader, before, asked, seed, began, work)
    except BaseException:
        if temporary:
            shutil.rmtree(place, ignore_errors=True)
        raise
    return replace(found, keeper=Keeper(place)) if temporary else found


class Keeper:
    """Removes a temporary folder when no result that lies in it is left."""

    def __init__(self, place: Path) -> None:
        self.end = weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)


def _check(features: Any, **numbers: tuple[Any, int]) -> None:
    if not isinstance(features, FeatureSet):
        raise BadInput(
            f"{type(features).__name__} is no set of features.",
            "Make one: cutaway.features.sets.latents(net, dictionary).",
        )
    for name, (number, least) in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise BadInput(
                f"{name}={number!r} is no whole number of at least {least}.", f"Give {name}={least} or more."
            )


def _place(folder: Any) -> tuple[Path, bool]:
    """Where to write, and whether that is a temporary folder. `SaveFailed` where something else lies there."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="cutaway-index-")), True
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise SaveFailed(f"{place} is a file.", "Choose a new folder.")
    there = place.is_dir() and any(place.iterdir())
    if there and not (place / MANIFEST).is_file() and not (place / JOURNAL).is_file():
        raise SaveFailed(
            f"{place} exists and holds something else.", "Choose a new folder; nothing in it was touched."
        )
    return place, False


def _finished(place: Path, asked: dict[str, Any]) -> FeatureIndex | None:
    """A complete index that lies there already; None where there is none. `SaveFailed` where it is of another question."""
    if not (place / MANIFEST).is_file() or (place / JOURNAL).is_file():
        return None
    try:
        found = FeatureIndex.load(place)
    except (BadFormat, KeyError, TypeError, ValueError) as error:
        raise SaveFailed(
            f"{place} exists and holds something else.", "Choose a new folder; nothing in it was touched."
        ) from error
    other = [name for name, value in asked.items() if found.asked.get(name) != value]
    if other:
        raise SaveFailed(
            f"{place} holds an index with another {', another '.join(other)}.", "Choose a new folder."
        )
    return found


def _made(
    net: Network, features: FeatureSet, beside: FeatureSet | None, texts: TextsLike, reader: PartReader,
    before: FeatureIndex | None, asked: dict[str, Any], seed: int, began: float, work: Work,
) -> FeatureIndex:  # fmt: skip
    windows = windows_of(net, texts, asked["length"], reader.count)
    if before is not None:
        if reader.hashed(windows) != before.provenance.behaviour_hash:
            raise SaveFailed(f"{before.folder} holds an index of other texts.", "Choose a new folder.")
        return replace(before, source=features)
    complete = reader.all(windows)
    rows = sum(part.rows for part in reader.parts)
    if not rows:
        raise BadInput(
            "No token of these texts counts: they are special tokens, or skipped.",
            "Use special=True, or a smaller skip.",
        )
    quiet = work if complete else Work()  # what was read is put together, although no more is read
    last, place = reader.parts[-1], reader.place
    made = merge(net, place, reader.parts, asked["dtype"] == "float16", asked["neighbours"], quiet)
    texts_read, empty = (reader.count.texts, reader.count.empty) if complete else (last.texts, last.empty)
    provenance = Provenance.of(net, last.digest, seed, time.monotonic() - began)
    content = {
        "name": features.name, "set_kind": features.kind, "names": list(features.names),
        "sites": [str(site) for site in features.sites], "signed": features.signed, "asked": asked, "tokens": rows,
        "texts": texts_read, "empty": empty, "beside": [] if beside is None else list(beside.names),
        "files": [asdict(file) for file in made.files], "complete": complete,
    }  # fmt: skip
    write_manifest(place, head(FeatureIndex.kind, provenance, content=content), made.listing)
    if complete:
        (place / JOURNAL).unlink(missing_ok=True)
        for part in reader.parts:
            with contextlib.suppress(OSError):
                (place / part.file).unlink()
    return replace(FeatureIndex.load(place), source=features)
