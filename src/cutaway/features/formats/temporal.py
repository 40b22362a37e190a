"""Temporal autoencoders, which are recognised and refused: `conf.yaml` beside `latest_ckpt.safetensors`.

Source: Lubana et al. 2025 (arXiv 2511.01836); sae_lens 6.54.12, saes/temporal_sae.py.
"""

from __future__ import annotations

from typing import NoReturn

from cutaway.errors import BadFormat
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_WHY = "A temporal autoencoder predicts a token's code from those before it with attention: no row is encoded by itself."


def _known(source: DictionaryFiles) -> bool:
    return any(
        {"D", "E", "b"} <= keys and any(k.startswith("attn_layers.") for k in keys)
        for keys in map(source.keys, source.tensor_files)
    )


def read(_: DictionaryFiles) -> NoReturn:
    """Refuses. Raises `BadFormat`."""
    raise BadFormat(
        _WHY, "Use another dictionary of the same site; SAELens runs this one on whole sequences."
    )


FORMATS = (Format("temporal", "temporal autoencoders", _known, read, refuses=_WHY),)
