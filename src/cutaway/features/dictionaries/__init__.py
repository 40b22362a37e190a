"""Dictionaries in one form: what they read, how they encode it, what they write."""

from cutaway.features.dictionaries.dictionary import Decoder, Dictionary, Place
from cutaway.features.dictionaries.encoder import Encoder
from cutaway.features.dictionaries.nonlinearities import (
    AbsTopK,
    Gated,
    GroupMax,
    JumpReLU,
    Nonlinearity,
    ReLU,
    Signed,
    TopK,
)

__all__ = [
    "AbsTopK",
    "Decoder",
    "Dictionary",
    "Encoder",
    "Gated",
    "GroupMax",
    "JumpReLU",
    "Nonlinearity",
    "Place",
    "ReLU",
    "Signed",
    "TopK",
]
