"""Low-rank sparse attention (OpenMOSS Lorsa): replaces an attention layer, and is no dictionary of rows. Refused."""

from __future__ import annotations

from typing import NoReturn

from cutaway.errors import BadFormat
from cutaway.features.formats.layered import keys_in
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_KEYS = ("W_Q", "W_K", "W_V", "W_O")
_WHY = (
    "Lorsa replaces a whole attention layer: what a latent does at a token depends on all tokens before it."
)


def known(source: DictionaryFiles) -> bool:
    """Is it one? Its heads are sparse, so that W_V and W_O are [heads d] rather than [heads d d_head]."""
    for name in source.tensor_files:
        prefix = next(
            (p for p in ("", "sae.") if keys_in(source, name).issuperset(f"{p}{k}" for k in _KEYS)), None
        )
        if prefix is not None:
            shapes = source.shapes(name)
            return len(shapes[f"{prefix}W_V"]) == 2 and len(shapes[f"{prefix}W_Q"]) == 3
    return False


def _read(_: DictionaryFiles) -> NoReturn:
    raise BadFormat(_WHY, "Open a sparse autoencoder or transcoder of the same release (llamascopium).")


FORMATS: tuple[Format, ...] = (Format("lorsa", "OpenMOSS Lorsa", known, _read, refuses=_WHY),)
