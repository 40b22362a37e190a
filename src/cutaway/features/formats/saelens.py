"""Reading SAELens: `cfg.json` beside `sae_weights.safetensors`, versions 3 to 6, with what training left beside them.

Source: sae_lens 6.54.12, saes/*.py (what each architecture computes), loading/pretrained_sae_loaders.py (older
configurations), training/activation_scaler.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import (
    AbsTopK,
    Dictionary,
    Encoder,
    Gated,
    Nonlinearity,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.formats.checks import wider
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.reading import (
    Stored,
    flag,
    held,
    jump,
    keys_of,
    matched,
    positive,
    single,
    unused,
    whole,
)
from cutaway.features.formats.saelens_old import renewed
from cutaway.features.formats.saelens_writing import write
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
#: Why an architecture cannot be read.
_NOT_READ = {
    "temporal": "predicts each token's code from those before it with attention, so no row can be encoded by itself",
    "matching_pursuit": "chooses latents one after the other from what is left of the row, which no single product does",
}
#: Settings that say how the dictionary is used.
_UNDERSTOOD = {
    "architecture", "d_in", "d_sae", "d_out", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
    "reshape_activations", "metadata", "k", "rescale_acts_by_decoder_norm", "matryoshka_widths",
}  # fmt: skip
#: What its words for a norm are here.
_NORMS: dict[str, Literal["none", "layer-norm", "constant-norm"]] = {
    "none": "none", "layer_norm": "layer-norm", "constant_norm_rescale": "constant-norm",
    "expected_average_only_in": "none", "covariance_whitening": "none",
}  # fmt: skip
_LIKE_JUMPRELU = (
    "jumprelu",
    "batchtopk",
    "matryoshka_batchtopk",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
_TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
_ARCHITECTURES = ("standard", "gated", "topk", "abstopk", *_LIKE_JUMPRELU, *_TRANSCODERS[:2])


@dataclass(frozen=True, eq=False)
class _Weights:
    """The tensors of an autoencoder as SAELens names them, while they are folded."""

    enc: Tensor
    b_enc: Tensor | None
    dec: Tensor
    b_dec: Tensor
    gated: Gated | None
    threshold: Tensor | None

    def cast(self) -> _Weights:
        """In at least single precision."""
        return replace(self, enc=self.enc.to(wider(self.enc)), dec=self.dec.to(wider(self.dec)))


def _known_six(source: DictionaryFiles) -> bool:
    return source.has(CONFIG, WEIGHTS) and isinstance(source.config(CONFIG).get("metadata"), Mapping)


def _known_old(source: DictionaryFiles) -> bool:
    config = source.config(CONFIG) if source.has(CONFIG, WEIGHTS) else {}
    return "metadata" not in config and bool({"hook_name", "hook_point"} & set(config)) and "d_sae" in config


def read(source: DictionaryFiles, scale: float | None = None) -> Dictionary:
    """The dictionary of a folder of SAELens 6."""
    return _read(source, source.config(CONFIG), scale, "saelens")


def read_old(source: DictionaryFiles, scale: float | None = None) -> Dictionary:
    """The dictionary of a folder of SAELens 3 to 5, whose configuration is renewed first."""
    return _read(source, renewed(source.config(CONFIG)), scale, "saelens-old")


def _read(source: DictionaryFiles, config: dict[str, Any], scale: float | None, format: str) -> Dictionary:
    architecture = str(config.get("architecture", "standard"))
    if architecture in _NOT_READ:
        raise BadFormat(
            f"SAELens's architecture {architecture} {_NOT_READ[architecture]}.",
            "Use another dictionary of the same site; SAELens itself runs this one.",
        )
    if architecture not in _ARCHITECTURES:
        raise BadFormat(
            f"{CONFIG} says architecture {architecture!r}.", f"Known are {', '.join(_ARCHITECTURES)}."
        )
    norm = str(config.get("normalize_activations") or "none")
    if norm not in _NORMS:
        raise BadFormat(f"{CONFIG} says normalize_activations {norm!r}.", f"Known are {', '.join(_NORMS)}.")
    if (config.get("reshape_activations") or "none") not in ("none", "hook_z"):
        raise BadFormat(
            f"{CONFIG} says reshape_activations {config['reshape_activations']!r}.", "Known is hook_z."
        )
    given = held(source, WEIGHTS)
    weights, notes = _weights(given, config, architecture)
    transcodes = architecture in _TRANSCODERS
    weights, folded = _unscaled(source, config, weights, norm, scale, transcodes)
    if flag(config, "rescale_acts_by_decoder_norm") and norm != "covariance_whitening":
        weights = _unit_decoder(weights)
        folded = (
            *folded,
            "Its pre-activations are compared times the norms of its decoder, which are folded into it.",
        )
    centred = flag(config, "apply_b_dec_to_input", True) and not transcodes
    encoder = Encoder(
        weights.enc, weights.b_enc, _activation(weights, config, architecture),
        weights.b_dec if centred else None, norm=_NORMS[norm], restores=not transcodes,
    )  # fmt: skip
    reads, writes = _places(config, weights, transcodes)
    return single(
        encoder, weights.dec, weights.b_dec, reads, writes, format=format, said=_said(source, config),
        skip=given.matrix("W_skip") if "skip" in architecture else None,
        notes=(*notes, *folded, unused(config, _UNDERSTOOD)),
    )  # fmt: skip


def _weights(given: Stored, config: Mapping[str, Any], architecture: str) -> tuple[_Weights, tuple[str, ...]]:
    enc, dec = given.matrix("W_enc"), given.matrix("W_dec")
    for name, size in (("d_in", enc.shape[0]), ("d_sae", enc.shape[1])):
        if config.get(name, size) != size:
            raise BadFormat(
                f"{CONFIG} says {name} {config[name]}, but W_enc is {tuple(enc.shape)}.", "Fetch both again."
            )
    gated = threshold = None
    notes: tuple[str, ...] = ()
    if architecture == "gated":
        gated = Gated(given.must("b_gate"), given.must("r_mag").exp(), given.must("b_mag"))
    if architecture in _LIKE_JUMPRELU:
        threshold, notes = _threshold(given, enc)
    factor = given.vector("scaling_factor", needed=False)
    matched(enc, dec, given.file, factor)
    if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
        if not flag(config, "finetuning_scaling_factor"):
            raise BadFormat(
                f"{given.file} holds a scaling_factor that is not one, but {CONFIG} says it is not used.",
                "Only its owner can say which is right.",
            )
        dec = dec.to(wider(dec)) * factor[:, None]
        notes = (*notes, "Its finetuned scaling of activations is folded into the decoder.")
    known = ("W_enc", "W_dec", "b_enc", "b_dec", "b_gate", "r_mag", "b_mag", "threshold", "log_threshold", "topk_threshold",
             "W_skip", "scaling_factor")  # fmt: skip
    if left := [key for key in given.values if key not in known]:
        raise BadFormat(
            f"{given.file} holds {', '.join(sorted(left))}, which is not known.", "Its version may be newer."
        )
    b_enc = None if architecture == "gated" else given.must("b_enc")
    matched(
        enc,
        dec,
        given.file,
        b_enc,
        threshold,
        *(() if gated is None else (gated.gate, gated.scale, gated.magnitude)),
    )
    return _Weights(enc, b_enc, dec, given.must("b_dec"), gated, threshold), notes


def _threshold(given: Stored, enc: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    if "threshold" in given:
        return given.must("threshold"), ()
    if "log_threshold" in given:
        return given.must("log_threshold").exp(), ("Its thresholds are stored as logarithms.",)
    value = given.number("topk_threshold")
    if value is None:
        given.must("threshold")
    note = "A checkpoint of training: of a batch it keeps the strongest; row by row its running threshold is used."
    return torch.full((enc.shape[1],), float(value or 0.0), dtype=wider(enc)), (note,)


def _activation(weights: _Weights, config: Mapping[str, Any], architecture: str) -> Nonlinearity:
    if weights.gated is not None:
        return weights.gated
    if weights.threshold is not None:
        return jump(weights.threshold)
    if architecture in ("topk", "abstopk"):
        k = whole(config.get("k"), "k", CONFIG)
        return TopK(k) if architecture == "topk" else AbsTopK(k)
    return ReLU()


def _unscaled(
    source: DictionaryFiles,
    config: Mapping[str, Any],
    weights: _Weights,
    norm: str,
    scale: float | None,
    transcodes: bool,
) -> tuple[_Weights, tuple[str, ...]]:
    """Weights that read raw rows, where training saw them scaled or whitened, and a note."""
    if norm not in ("expected_average_only_in", "covariance_whitening"):
        if scale is not None:
            raise BadFormat(
                f"{CONFIG} says that rows were not scaled, so scale= is not needed.", "Leave it out."
            )
        return weights, ()
    if transcodes:
        raise BadFormat(
            f"A transcoder with normalize_activations {norm} does not say how its outputs were scaled.",
            "Fold the scale before saving it: sae.fold_activation_norm_scaling_factor(...).",
        )
    if norm == "expected_average_only_in":
        saved = source.config("activation_scaler.json").get("scaling_factor")
        factor = positive(scale, "scale") if scale is not None else saved
        if factor is None:
            raise BadFormat(
                "Rows were multiplied by a factor before they were encoded, and the folder does not hold it.",
                "Give scale=, the square root of d over the mean norm of rows (1 if it was folded already), or put "
                "activation_scaler.json beside it.",
            )
        return _scaled(weights, float(factor), flag(config, "rescale_acts_by_decoder_norm")), (
            f"The factor {float(factor):g} of its rows is folded into its weights.",
        )
    file = "activation_whitening.safetensors"
    if not keys_of(source, file):
        raise BadFormat(
            "Rows were whitened before they were encoded, and the folder does not say how.",
            f"Put {file} beside it.",
        )
    return _whitened(weights, held(source, file), flag(config, "apply_b_dec_to_input", True), config)


def _scaled(weights: _Weights, factor: float, rescaled: bool) -> _Weights:
    """Weights that read raw rows, of weights that read rows times a factor.

    Thresholds stay, as pre-activations do; only where these are compared times the norms of the decoder, which the factor
    divides, it divides the thresholds too.
    """
    wide = weights.cast()
    threshold = wide.threshold / factor if rescaled and wide.threshold is not None else wide.threshold
    out = wide.b_dec.to(wider(wide.b_dec)) / factor
    return replace(wide, enc=wide.enc * factor, dec=wide.dec / factor, b_dec=out, threshold=threshold)


def _whitened(
    weights: _Weights, stats: Stored, centred: bool, config: Mapping[str, Any]
) -> tuple[_Weights, tuple[str, ...]]:
    """Weights that read raw rows, of weights that read (row - mean) @ matrix, in the precision of the statistics."""
    mean, matrix, inverse = stats.must("mean"), stats.matrix("matrix"), stats.matrix("inverse_matrix")
    width = int(weights.enc.shape[0])
    for name, value in (
        ("b_dec", weights.b_dec),
        ("mean", mean),
        ("matrix", matrix),
        ("inverse_matrix", inverse),
    ):
        if set(value.shape) != {width}:
            raise BadFormat(
                f"{name} is {tuple(value.shape)}, but rows have {width} numbers.", "Fetch the files again."
            )
    if flag(config, "rescale_acts_by_decoder_norm"):
        weights = _unit_decoder(weights)  # norms choose latents, and whitening changes them
    as_is = weights.cast()
    enc = (matrix @ as_is.enc.to(wider(as_is.enc, matrix))).to(as_is.enc.dtype)
    dec = (as_is.dec.to(wider(as_is.dec, matrix)) @ inverse).to(as_is.dec.dtype)
    out = as_is.b_dec.to(wider(as_is.b_dec, matrix)) @ inverse + mean
    made = replace(as_is, enc=enc, dec=dec, b_dec=out.to(wider(as_is.b_dec)))
    if not centred:
        shift = mean @ enc.to(wider(enc, mean))
        if made.b_enc is not None:
            made = replace(made, b_enc=(made.b_enc - shift).to(wider(made.b_enc)))
        if (gated := made.gated) is not None:
            gate, magnitude = gated.gate - shift, gated.magnitude - shift * gated.scale
            made = replace(
                made, gated=Gated(gate.to(gated.gate.dtype), gated.scale, magnitude.to(gated.magnitude.dtype))
            )
    return made, ("The whitening of its rows is folded into its weights.",)


def _unit_decoder(weights: _Weights) -> _Weights:
    """The same with rows of the decoder of norm one, their norms taken into the encoder."""
    wide = weights.cast()
    norms = wide.dec.norm(dim=-1).clamp(min=1e-8)
    bias = None if wide.b_enc is None else wide.b_enc.to(wider(wide.b_enc)) * norms
    return replace(wide, enc=wide.enc * norms, b_enc=bias, dec=wide.dec / norms[:, None])


def _places(config: Mapping[str, Any], weights: _Weights, transcodes: bool) -> tuple[Place, Place | None]:
    about = config.get("metadata") or {}
    reads = hook_place(str(about.get("hook_name") or ""), int(weights.enc.shape[0]))
    if about.get("hook_head_index") is not None:
        reads = replace(reads, said=f"{reads.said} of head {about['hook_head_index']}", site="")
    if not transcodes:
        return reads, None
    return reads, hook_place(str(about.get("hook_name_out") or ""), int(weights.dec.shape[1]))


def _said(source: DictionaryFiles, config: Mapping[str, Any]) -> dict[str, Any]:
    about = dict(config.get("metadata") or {})
    sparsity = None
    if "sparsity" in keys_of(source, "sparsity.safetensors"):
        sparsity = float((10.0 ** source.tensors("sparsity.safetensors")["sparsity"].double()).sum())
    return {
        "model": about.get("model_name"), "hook": about.get("hook_name"), "hook_out": about.get("hook_name_out"),
        "dataset": about.get("dataset_path"), "context_size": about.get("context_size"),
        "prepend_bos": about.get("prepend_bos"), "l0": sparsity, "k": config.get("k"), "dtype": config.get("dtype"),
        "heads_flat": config.get("reshape_activations") == "hook_z" or None, "metadata": about or None,
        "config": {name: value for name, value in config.items() if name != "metadata"},
    }  # fmt: skip


_SCALE = {"scale": "the factor by which rows were multiplied in training, where the folder does not hold it"}
FORMATS = (
    Format("saelens", "SAELens 6", _known_six, read, write, takes=_SCALE),
    Format("saelens-old", "SAELens 3 to 5", _known_old, read_old, takes=_SCALE),
)
