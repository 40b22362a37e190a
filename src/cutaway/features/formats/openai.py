"""OpenAI's autoencoders of GPT-2: one `.pt`, tensors beside words.

Source: openai/sparse_autoencoder, sparse_autoencoder/model.py (Autoencoder, TopK, from_state_dict).
"""

from __future__ import annotations

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import (
    Dictionary,
    Encoder,
    Nonlinearity,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.formats.reading import Stored, held, only, single, whole
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_KEYS = frozenset({"pre_bias", "latent_bias", "encoder.weight"})


def _files(source: DictionaryFiles) -> list[str]:
    return [name for name in source.tensor_files if source.keys(name) >= _KEYS]


def read(source: DictionaryFiles) -> Dictionary:
    """The autoencoder of one file. A TopK one reads rows less their mean, over their standard deviation."""
    given = held(source, only(_files(source), source))
    tied = "decoder.linear.weight" in given  # a transposed view of the encoder, stored twice
    enc = given.matrix("encoder.weight")
    activation = _activation(given)
    norm = (
        "layer-norm" if isinstance(activation, TopK) else "none"
    )  # the file does not say it; the package infers it so
    out = given.must("pre_bias")
    encoder = Encoder(enc.T, given.must("latent_bias"), activation, out, norm=norm)
    dec = enc if tied else given.matrix("decoder.weight").T
    notes = (
        "Its file does not name the site that it was trained on.",
        "Its decoder is its encoder." if tied else "",
    )
    said = {"k": encoder.k, "activation": given.get("activation", "ReLU")}
    return single(encoder, dec, out, Place("", "", encoder.width), format="openai", said=said, notes=notes)


def _activation(given: Stored) -> Nonlinearity:
    name = str(given.get("activation", "ReLU")).removesuffix("()")
    if name == "ReLU":
        return ReLU()
    if name != "TopK":
        raise BadFormat(f"{given.file} says the activation {name!r}.", "Known are ReLU and TopK.")
    after = str(given.get("activation_state_dict.postact_fn", "ReLU"))
    if after != "ReLU":
        raise BadFormat(
            f"{given.file} keeps its strongest latents without a ReLU ({after}).", "Known is ReLU."
        )
    return TopK(whole(given.get("activation_state_dict.k"), "k", given.file))


FORMATS = (Format("openai", "OpenAI's autoencoders", lambda source: bool(_files(source)), read),)
