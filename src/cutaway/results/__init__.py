"""What all results share: where they come from, how they are stored, what they can do, and how work is done on them."""

from cutaway.results.atomic import atomic_folder, atomic_write
from cutaway.results.brief import brief
from cutaway.results.calling import named, strict, strict_as
from cutaway.results.fields import load_fields, pack, save_fields, unpack
from cutaway.results.files import (
    MANIFEST,
    Saved,
    add_page,
    copy_saved,
    load_folder,
    read_manifest,
    remove_saved,
    save_folder,
    write_manifest,
)
from cutaway.results.kinds import KINDS, Kind, Result, head, kind_of, load, read
from cutaway.results.plain import described, finite, to_json
from cutaway.results.price import Price
from cutaway.results.provenance import Provenance, versions
from cutaway.results.rounding import Rounding
from cutaway.results.stages import Stages
from cutaway.results.values import listed
from cutaway.results.work import Budget, Listener, Progress, Work, working

__all__ = [
    "KINDS", "MANIFEST", "Budget", "Kind", "Listener", "Price", "Progress", "Provenance", "Result", "Rounding", "Saved",
    "Stages", "Work", "add_page", "atomic_folder", "atomic_write", "brief", "copy_saved", "described", "finite", "head",
    "kind_of", "listed", "load", "load_fields", "load_folder", "named", "pack", "read", "read_manifest", "remove_saved",
    "save_fields", "save_folder", "strict", "strict_as", "to_json", "unpack", "versions", "working", "write_manifest",
]  # fmt: skip
