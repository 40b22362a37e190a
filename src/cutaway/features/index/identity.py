"""What tells one set of features from another."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from cutaway.features.sets import FeatureSet


def set_hash(features: FeatureSet) -> str:
    """SHA-256 of what a set is, of its directions, and of the dictionary that it comes from."""
    said = (
        features.kind,
        features.name,
        [str(site) for site in features.sites],
        features.names,
        features.signed,
    )
    digest = hashlib.sha256(repr(said).encode())
    if features.source is not None:
        digest.update(features.source.hash.encode())
    for part in (features.reads, *(directions for _, directions in features.writes)):
        digest.update(b"none" if part is None else _bytes(part))
    return digest.hexdigest()


def _bytes(value: Tensor) -> bytes:
    plain = value.detach().cpu().contiguous()
    return str(tuple(plain.shape)).encode() + plain.flatten().view(torch.uint8).numpy().tobytes()
