"""dictionary_learning (saprmarks): `ae.pt` beside `config.json`; checkpoints; backups of training under the same name.

Source: dictionary_learning 0.1.0, dictionary.py, trainers/{top_k,batch_top_k,matryoshka_batch_top_k}.py, training.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadFormat, did_you_mean
from cutaway.features.dictionaries import (
    Dictionary,
    Encoder,
    Gated,
    JumpReLU,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.formats.reading import (
    Stored,
    above,
    held,
    jump,
    matched,
    only,
    single,
    unused,
    whole,
    wider,
)
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format
from cutaway.features.formats.writing import (
    Plain,
    inverse_exp,
    plain,
    put,
    refuse,
    text,
    thresholds,
    torch_file,
)

_LINEAR = frozenset({"encoder.weight", "encoder.bias", "decoder.weight"})
_MATRICES = frozenset({"W_enc", "b_enc", "W_dec", "b_dec"})
#: Which keys a class has, apart from k and threshold, which older files lack.
_CLASSES: dict[str, frozenset[str]] = {
    "AutoEncoder": _LINEAR | {"bias"},
    "AutoEncoderNew": _LINEAR | {"decoder.bias"},
    "GatedAutoEncoder": frozenset(
        {"decoder_bias", "encoder.weight", "r_mag", "gate_bias", "mag_bias", "decoder.weight"}
    ),
    "JumpReluAutoEncoder": _MATRICES | {"threshold"},
    "AutoEncoderTopK": _LINEAR | {"b_dec", "k"},
    "BatchTopKSAE": _LINEAR | {"b_dec", "k"},
    "MatryoshkaBatchTopKSAE": _MATRICES | {"k", "group_sizes"},
}
_MAYBE = frozenset({"threshold"})
#: What stands beside the weights in a backup of training.
_BACKUP = ("step", "ae", "optimizer", "config", "norm_factor")
_UNDERSTOOD = {
    "dict_class",
    "activation_dim",
    "dict_size",
    "k",
    "layer",
    "lm_name",
    "submodule_name",
    "trainer_class",
    "device",
}


def _file(source: DictionaryFiles) -> str | None:
    files = [name for name in source.tensor_files if name.endswith(".pt")]
    top = [name for name in files if name == "ae.pt"]
    return top[0] if top else files[0] if len(files) == 1 else None


def _prefix(keys: frozenset[str]) -> str:
    return "ae." if "norm_factor" in keys and "step" in keys else ""


def _fitting(keys: frozenset[str]) -> list[str]:
    prefix = _prefix(keys)
    bare = {k.removeprefix(prefix) for k in keys if k.startswith(prefix)} if prefix else set(keys)
    return [name for name, wanted in _CLASSES.items() if wanted <= bare and bare - wanted <= _MAYBE]


def _known(source: DictionaryFiles) -> bool:
    file = _file(source)
    if file is None or not _fitting(source.keys(file)):
        return False
    tensors = held(source, file, _prefix(source.keys(file)))
    weight = tensors.get("encoder.weight", tensors.get("W_enc"))
    return torch.is_tensor(weight) and weight.ndim == 2


def read(source: DictionaryFiles, dict_class: str | None = None) -> Dictionary:
    """The dictionary of `ae.pt`, or of one checkpoint."""
    file = _file(source) or only(source.tensor_files, source)
    keys = source.keys(file)
    prefix = _prefix(keys)
    given = held(source, file, prefix)
    config = source.config("config.json") or above(source, "config.json", "trainer")
    trainer = dict(config.get("trainer") or {})
    chosen = _class(_fitting(keys), trainer.get("dict_class"), dict_class, file)
    factor = held(source, file).get("norm_factor") if prefix else None
    encoder, decoder, bias, notes = _READERS[chosen](given, _scaled(factor), trainer)
    place, transcodes = _place(trainer, config.get("buffer") or {}, encoder.width)
    if prefix:
        notes += ("A backup of training, not its end.",)
    if factor is not None and float(factor) != 1:
        notes += (
            f"Rows were divided by {float(factor):g} in training; its biases and thresholds are multiplied with it.",
        )
    if transcodes:
        notes += (
            "A transcoder of a module's input to its output; its file does not say which site that is.",
        )
    buffer = config.get("buffer") or {}
    sizes = given.get("group_sizes")
    said = {
        "model": trainer.get("lm_name"), "hook": trainer.get("submodule_name"), "context_size": buffer.get("ctx_len"),
        "layer": trainer.get("layer"), "k": getattr(encoder.activation, "k", None) or _k(given, trainer, file),
        "group_sizes": sizes.tolist() if torch.is_tensor(sizes) else None, "class": chosen, "config": config or None,
    }  # fmt: skip
    writes = Place(place.said, "", int(decoder.shape[1])) if transcodes else None
    reads = Place(f"{place.said}:in", "", encoder.width) if transcodes else place
    return single(encoder, decoder, bias, reads, writes, format="dictionary_learning", said=said,
                  notes=(*notes, unused(trainer, _UNDERSTOOD)))  # fmt: skip


def _class(fitting: list[str], said: str | None, asked: str | None, file: str) -> str:
    if asked is not None and asked not in _CLASSES:
        raise BadFormat(f"There is no class {asked!r} of dictionaries.", did_you_mean(asked, _CLASSES))
    for name in (asked, said):
        if name is None:
            continue
        if name not in fitting:
            raise BadFormat(
                f"{file} is said to be a {name}, but its tensors are those of {' or '.join(fitting) or 'no class'}.",
                "Fetch the file and its config.json again.",
            )
        return name
    if len(fitting) == 1:
        return fitting[0]
    raise BadFormat(
        f"{file} may be {' or '.join(fitting)}: their tensors have the same names, and they encode differently.",
        "Put its config.json beside it, or give dict_class=.",
    )


def _k(given: Stored, trainer: Mapping[str, Any], file: str) -> int | None:
    stored, said = given.get("k"), trainer.get("k")
    if stored is None and said is None:
        return None
    k = whole(said if stored is None else stored, "k", file)
    if said is not None and whole(said, "k", "config.json") != k:
        raise BadFormat(f"{file} keeps {k} latents a row, config.json says {said}.", "Fetch both again.")
    return k


def _scaled(factor: Any) -> Callable[[Tensor], Tensor]:
    """What is done to biases: training saw rows divided by a factor, and a backup is not yet brought back."""
    if factor is None or float(factor) == 1:
        return lambda value: value
    return lambda value: value * float(factor)


_Made = tuple[Encoder, Tensor, Tensor | None, tuple[str, ...]]
_Scaling = Callable[[Tensor], Tensor]


def _auto_encoder(given: Stored, scaled: _Scaling, _: Mapping[str, Any]) -> _Made:
    enc, bias, dec = (
        given.matrix("encoder.weight").T,
        given.must("encoder.bias"),
        given.matrix("decoder.weight").T,
    )
    matched(enc, dec, given.file, bias)
    norms = dec.norm(dim=1)
    note: tuple[str, ...] = ()
    bias, centre = scaled(bias), scaled(given.must("bias"))
    if not torch.allclose(norms, torch.ones_like(norms)):
        enc, dec, bias = (
            enc.to(wider(enc)) * norms,
            dec.to(wider(dec)) / norms[:, None],
            bias.to(wider(bias)) * norms,
        )
        note = (
            "Its decoder is brought to norm one and the encoder multiplied with the norms, as its package loads it.",
        )
    return Encoder(enc, bias, ReLU(), centre), dec, centre, note


def _new(given: Stored, scaled: _Scaling, _: Mapping[str, Any]) -> _Made:
    encoder = Encoder(given.matrix("encoder.weight").T, scaled(given.must("encoder.bias")), ReLU())
    return encoder, given.matrix("decoder.weight").T, scaled(given.must("decoder.bias")), ()


def _gated(given: Stored, scaled: _Scaling, _: Mapping[str, Any]) -> _Made:
    centre = scaled(given.must("decoder_bias"))
    gate = Gated(scaled(given.must("gate_bias")), given.must("r_mag").exp(), scaled(given.must("mag_bias")))
    return (
        Encoder(given.matrix("encoder.weight").T, None, gate, centre),
        given.matrix("decoder.weight").T,
        centre,
        (),
    )


def _jump(given: Stored, scaled: _Scaling, _: Mapping[str, Any]) -> _Made:
    encoder = Encoder(
        given.matrix("W_enc"), scaled(given.must("b_enc")), jump(scaled(given.must("threshold")))
    )
    return encoder, given.matrix("W_dec"), scaled(given.must("b_dec")), ()


def _top(given: Stored, scaled: _Scaling, trainer: Mapping[str, Any]) -> _Made:
    centre = scaled(given.must("b_dec"))
    k = _k(given, trainer, given.file)
    encoder = Encoder(
        given.matrix("encoder.weight").T, scaled(given.must("encoder.bias")), TopK(k or 0), centre
    )
    return encoder, given.matrix("decoder.weight").T, centre, ()


def _batch(given: Stored, scaled: _Scaling, trainer: Mapping[str, Any]) -> _Made:
    matrices = "W_enc" in given
    centre = scaled(given.must("b_dec"))
    enc = given.matrix("W_enc") if matrices else given.matrix("encoder.weight").T
    dec = given.matrix("W_dec") if matrices else given.matrix("decoder.weight").T
    bias = scaled(given.must("b_enc" if matrices else "encoder.bias"))
    k = _k(given, trainer, given.file) or 0
    threshold = given.get("threshold")
    if torch.is_tensor(threshold) and threshold.numel() == 1 and float(threshold) >= 0:
        note = f"Trained to keep {k} latents a row on average; its running threshold decides row by row."
        return (
            Encoder(enc, bias, JumpReLU(scaled(threshold.reshape(()))), centre),
            dec,
            centre,
            (note,),
        )
    note = f"Its threshold was never set, so each row keeps its {k} strongest latents."
    return Encoder(enc, bias, TopK(k), centre), dec, centre, (note,)


_READERS: dict[str, Callable[[Stored, _Scaling, Mapping[str, Any]], _Made]] = {
    "AutoEncoder": _auto_encoder, "AutoEncoderNew": _new, "GatedAutoEncoder": _gated, "JumpReluAutoEncoder": _jump,
    "AutoEncoderTopK": _top, "BatchTopKSAE": _batch, "MatryoshkaBatchTopKSAE": _batch,
}  # fmt: skip


def _place(trainer: Mapping[str, Any], buffer: Mapping[str, Any], width: int) -> tuple[Place, bool]:
    """Where it was trained, and whether as a transcoder; only the residual stream's name is one that all files share."""
    said = str(trainer.get("submodule_name") or "")
    found = re.fullmatch(r"resid_post(?:_layer_(\d+))?", said)
    layer = found.group(1) or trainer.get("layer") if found else None
    io = buffer.get("io", "out")
    site = f"resid_post.{layer}" if layer is not None and io == "out" else ""
    return Place(f"{said}:in" if io == "in" else said, site, width), io == "in_and_out"


# writing ---------------------------------------------------------------------------------------------------------------


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write `ae.pt` and `config.json`. Raises `BadInput` for what none of its classes computes."""
    name = "dictionary_learning"
    made = plain(dictionary, name)
    if made.norm != "none":
        refuse(name, "rows that are normed")
    if made.skip is not None:
        refuse(name, "a skip connection")
    if made.transcodes and made.centred:
        refuse(name, "a transcoder that takes something from its rows")
    d, f, d_out = made.sizes
    if d != d_out:
        refuse(name, f"a transcoder of {d} to {d_out} numbers")
    chosen, values = _values(made, dictionary)
    said = dictionary.said
    trainer = {
        "dict_class": chosen, "activation_dim": d, "dict_size": f, "layer": _layer(made.reads.site, said),
        "lm_name": said.get("model"), "submodule_name": made.reads.said.removesuffix(":in") or made.reads.site,
    }  # fmt: skip
    if "k" in values:
        trainer["k"] = int(values["k"])
    buffer = {"ctx_len": said.get("context_size"), "io": "in_and_out" if made.transcodes else "out"}
    kept = said.get("config") or {}
    trainer = {**(kept.get("trainer") or {}), **trainer} if isinstance(kept, Mapping) else trainer
    put(folder, {"ae.pt": torch_file(values), "config.json": text({"trainer": trainer, "buffer": buffer})})


def _layer(site: str, said: Mapping[str, Any]) -> int | None:
    number = site.rpartition(".")[2]
    return int(number) if number.isdecimal() else said.get("layer")


def _values(made: Plain, dictionary: Dictionary) -> tuple[str, dict[str, Tensor]]:
    """The class that computes a dictionary, and its tensors."""
    activation, enc, dec = made.activation, made.encoder.T.contiguous(), made.decoder.T.contiguous()
    linear = {"encoder.weight": enc, "encoder.bias": made.bias, "decoder.weight": dec}
    matrices = {
        "W_enc": made.encoder.contiguous(),
        "b_enc": made.bias,
        "W_dec": made.decoder.contiguous(),
        "b_dec": made.out,
    }
    if isinstance(activation, ReLU):
        if not made.centred:
            return "AutoEncoderNew", {**linear, "decoder.bias": made.out}
        norms = made.decoder.norm(dim=1)
        if not torch.allclose(norms, torch.ones_like(norms)):
            refuse(
                "dictionary_learning",
                "this decoder as it is: it brings an AutoEncoder's to norm one, which rescales its latents",
            )
        return "AutoEncoder", {"bias": made.out, **linear}
    if isinstance(activation, Gated) and made.centred:
        if bool((made.bias != 0).any()):
            refuse("dictionary_learning", "a gated encoder with a bias of its own")
        return "GatedAutoEncoder", {
            "decoder_bias": made.out, "r_mag": inverse_exp(activation.scale), "gate_bias": activation.gate,
            "mag_bias": activation.magnitude, "encoder.weight": enc, "decoder.weight": dec,
        }  # fmt: skip
    if isinstance(activation, JumpReLU):
        return _jumping(made, activation, linear, matrices, dictionary)
    if not isinstance(activation, TopK) or not made.centred:
        refuse(
            "dictionary_learning",
            f"{activation.kind} with{'' if made.centred else 'out'} a bias taken from its rows",
        )
    k, sizes = torch.tensor(activation.k, dtype=torch.int), dictionary.said.get("group_sizes")
    threshold = torch.tensor(-1.0)
    if sizes:
        groups = torch.tensor(list(sizes))
        return "MatryoshkaBatchTopKSAE", {
            "k": k,
            "threshold": threshold,
            "group_sizes": groups,
            **matrices,
        }
    batch = dictionary.said.get("class") == "BatchTopKSAE"
    return "BatchTopKSAE" if batch else "AutoEncoderTopK", {
        "b_dec": made.out, "k": k, "threshold": threshold, **linear,
    }  # fmt: skip


def _jumping(
    made: Plain,
    activation: JumpReLU,
    linear: dict[str, Tensor],
    matrices: dict[str, Tensor],
    dictionary: Dictionary,
) -> tuple[str, dict[str, Tensor]]:
    each = thresholds(activation, made.sizes[1], "dictionary_learning")
    if not made.centred:
        return "JumpReluAutoEncoder", {**matrices, "threshold": each.contiguous()}
    if not bool((each == each[0]).all()):
        refuse(
            "dictionary_learning",
            "a threshold for each latent together with a bias that is taken from its rows",
        )
    k, sizes = dictionary.said.get("k"), dictionary.said.get("group_sizes")
    if k is None:
        refuse("dictionary_learning", "one threshold for all latents without the k that it was trained with")
    shared = {"k": torch.tensor(int(k or 0), dtype=torch.int), "threshold": each[0].clone()}
    if sizes:
        return "MatryoshkaBatchTopKSAE", {**shared, "group_sizes": torch.tensor(list(sizes)), **matrices}
    return "BatchTopKSAE", {"b_dec": made.out, **shared, **linear}


FORMATS = (
    Format(
        "dictionary_learning", "dictionary_learning", _known, read, write,
        takes={"dict_class": "which of its classes it is, where no config.json says so"},
    ),
)  # fmt: skip
