"""Tiny random networks of any transformers architecture: the beds on which exactness is tested.

A network is built from transformers' own configuration class of a model type. Every configuration field
whose name is in `FIELDS` is shrunk (widths to 32, heads to 4, key/value heads to 2, ...), lists with one
entry per layer are cut so that every kind of layer is still there, and `OVERRIDES` holds the few facts that a
rule cannot know, each with its reason. Weights are redrawn so that no identity holds by accident: no zero
bias, no norm weight of exactly one.

>>> model = tiny("gpt2")
>>> model(**example_input(model)).logits.shape
torch.Size([2, 7, 128])
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, cycle, islice
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto

from cutaway.errors import BadInput, NotFound, did_you_mean
from cutaway.network.interface import encodes
from cutaway.zoo.tiny_tables import FIELDS, LAYER_LISTS, NESTED, OVERRIDES, SCALARS, UNSET, VOCABULARY

_TASKS: dict[str, tuple[str, str]] = {
    "causal-lm": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    "seq2seq": ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    "speech": ("AutoModelForSpeechSeq2Seq", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"),
    "masked-lm": ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    "image": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    "base": ("AutoModel", "MODEL_MAPPING_NAMES"),
}


def causal_lm_types() -> list[str]:
    """Every model type that transformers maps to a causal language model, sorted.

    >>> "gpt2" in causal_lm_types()
    True
    """
    return sorted(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny(model_type: str, seed: int = 0, task: str | None = None, **overrides: Any) -> nn.Module:
    """A tiny random network of `model_type`, in eval mode and float32.

    `task` is one of causal-lm, seq2seq, speech, masked-lm, image, base; left out, the first of these that
    transformers maps the type to. `overrides` are configuration fields (`num_hidden_layers=2`) and
    `attn_implementation`; fields of a nested configuration are a mapping (`text_config={"head_dim": 4}`).

    Raises NotFound for an unknown model type, BadInput for a task that the type does not have; whatever the
    architecture itself raises when it cannot be built passes through.

    >>> tiny("llama").config.num_key_value_heads
    2
    """
    chosen = _task_of(model_type, task)
    implementation = overrides.pop("attn_implementation", None)
    auto = getattr(transformers, _TASKS[chosen][0])
    extra = {} if implementation is None else {"attn_implementation": implementation}
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = tiny_config(model_type, chosen, **overrides)
        if chosen == "causal-lm" and model_type in NESTED:
            kind: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            model = kind._from_config(getattr(config, NESTED[model_type]), dtype=torch.float32, **extra)
        else:
            model = auto.from_config(config, dtype=torch.float32, **extra)
    redraw_(model, seed)
    return model.eval()


def tiny_config(model_type: str, task: str | None = None, **overrides: Any) -> PreTrainedConfig:
    """The shrunken configuration of `model_type`; arguments as for `tiny`.

    >>> tiny_config("gpt2").n_embd
    32
    """
    if model_type not in transformers.CONFIG_MAPPING:
        remedy = did_you_mean(model_type, transformers.CONFIG_MAPPING.keys(), 3)
        raise NotFound(f"transformers has no model type '{model_type}'.", remedy)
    kind = transformers.CONFIG_MAPPING[model_type]
    return _shrunk(kind, {**_facts(model_type, task), **overrides})


def example_input(model: nn.Module, batch: int = 2, positions: int = 7, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments for one forward of a transformers model: random ordinary tokens, or pixels.

    `input_ids` is [batch positions]; encoder-decoders also get `decoder_input_ids` [batch positions - 2];
    image models `pixel_values` [batch channels height width]; speech models `input_features`
    [batch mels frames].

    >>> sorted(example_input(tiny("t5")))
    ['attention_mask', 'decoder_input_ids', 'input_ids']
    """
    config: Any = model.config
    draw = torch.Generator().manual_seed(seed)
    main = str(getattr(model, "main_input_name", "input_ids"))
    inputs: dict[str, Any] = {}
    if main == "pixel_values" or config.model_type in {"clip", "siglip"}:
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 32)
        size = size if isinstance(size, int) else size[0]
        channels = getattr(vision, "num_channels", 3)
        inputs["pixel_values"] = torch.randn(batch, channels, size, size, generator=draw)
    if main == "input_features":
        frames = 2 * config.max_source_positions
        inputs["input_features"] = torch.randn(batch, config.num_mel_bins, frames, generator=draw)
    elif not inputs or hasattr(config, "text_config"):
        inputs["input_ids"] = _tokens(config, batch, positions, draw)
        if "pixel_values" not in inputs:
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if not hasattr(config.get_text_config(decoder=True), "num_hidden_layers"):
        inputs["use_cache"] = False
    if encodes(config) and "input_ids" in inputs or main == "input_features":
        inputs["decoder_input_ids"] = _tokens(config, batch, positions - 2, draw)
    return inputs


def special_ids(config: PreTrainedConfig) -> set[int]:
    """Every token id that a configuration (or one nested in it) gives a meaning.

    >>> sorted(special_ids(tiny_config("gpt2")))
    [126, 127]
    """
    special: set[int] = set()
    for name, value in _fields(config).items():
        if isinstance(value, PreTrainedConfig):
            special |= special_ids(value)
        elif _is_token_id(name):
            values = value if isinstance(value, list | tuple) else [value]
            special |= {v for v in values if _is_plain_int(v)}
    return special


def redraw_(model: nn.Module, seed: int = 0, gain: float = 1.0) -> None:
    """Redraw every weight in place so that nothing is zero, one or negligible by accident.

    For networks that were never trained; `Network.randomized` draws a trained one anew and keeps its spreads.

    Matrices drawn around zero become normal with standard deviation gain / sqrt(fan in); vectors, and tensors
    whose values mean something (decay rates, scales), keep their values and get noise of 0.1 to 0.2.

    >>> model = tiny("gpt2"); bool((model.transformer.ln_f.weight == 1).any())
    False
    """
    draw = torch.Generator().manual_seed(seed + 1)
    seen: set[int] = set()
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) in seen or not parameter.is_floating_point():
                continue
            seen.add(id(parameter))
            parameter.copy_(_redrawn(parameter, draw, gain))


def _redrawn(value: Tensor, draw: torch.Generator, gain: float) -> Tensor:
    noise = torch.randn(value.shape, generator=draw, dtype=torch.float32).to(value.dtype)
    old = torch.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)
    centred = value.numel() < 2 or bool(old.mean().abs() < 3 * old.std() / math.sqrt(old.numel()) + 1e-8)
    if value.ndim >= 2 and centred and max(value.shape) > 1:
        fan_in = min(value.shape[-1], value.shape[-2]) if value.ndim == 2 else value.shape[-1]
        return noise * gain / math.sqrt(max(fan_in, 4))
    return old + (0.1 + 0.1 * old.abs()).clamp(max=0.2) * noise


def _facts(model_type: str, task: str | None = None) -> dict[str, Any]:
    row = OVERRIDES.get(f"{model_type}:{task}") or OVERRIDES.get(model_type)
    return row[0] if row else {}


def _shrunk(kind: type[PreTrainedConfig], overrides: Mapping[str, Any]) -> PreTrainedConfig:
    """A configuration of class `kind` with every known field made small, then `overrides` applied."""
    fields = _fields(kind())
    small = {name: rule(fields) for name, rule in FIELDS.items() if _shrinks(fields, name)}
    small |= {name: value for name, value in SCALARS.items() if _is_neutral(name, fields.get(name))}
    small |= _layer_lists(fields, small)
    small |= _small_token_ids(fields, small)
    given = dict(overrides)
    for name, value in fields.items():
        if isinstance(value, PreTrainedConfig) and not isinstance(given.get(name), PreTrainedConfig):
            small[name] = _shrunk(type(value), {**_facts(value.model_type), **given.pop(name, {})})
    small.update(given)
    return kind(**{name: value for name, value in small.items() if value is not ...})


def _layer_lists(fields: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Per-layer lists cut to a few layers that still hold every kind, and the layer count for them."""
    count_names = [n for n in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if n in small]
    total = next((fields[n] for n in count_names), None)
    lists = {
        name: list(fields[name])
        for name in LAYER_LISTS
        if isinstance(fields.get(name), list | tuple) and len(fields[name]) == total
    }
    if not lists:
        return {}
    kinds = {name: list(dict.fromkeys(values)) for name, values in lists.items()}
    most = max(len(values) for values in kinds.values())
    count = {1: 3, 2: 4, 3: 5}.get(most, most)
    out: dict[str, Any] = dict.fromkeys(count_names, count)
    for name, values in kinds.items():
        rest = values if LAYER_LISTS[name] == "cycle" else values[-1:]
        out[name] = [*islice(chain(values, cycle(rest)), count)]
    return out


def _small_token_ids(fields: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Token ids that would fall outside the small vocabulary, moved to its end, each to its own place."""
    top = int(small.get("vocab_size", VOCABULARY))
    moved: dict[str, Any] = {}
    for name, value in sorted(fields.items()):
        if not _is_token_id(name):
            continue
        several = isinstance(value, list | tuple)
        if any(isinstance(v, int) and v >= top for v in (value if several else [value])):
            moved[name] = [top - 1 - len(moved)] if several else top - 1 - len(moved)
    return moved


def _fields(config: PreTrainedConfig) -> dict[str, Any]:
    """Public values of a configuration under their own names; nested configurations stay objects."""
    plain = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
    nested = {name: getattr(config, name, None) for name, value in plain.items() if isinstance(value, dict)}
    return plain | {name: value for name, value in nested.items() if isinstance(value, PreTrainedConfig)}


def _tokens(config: PreTrainedConfig, batch: int, positions: int, draw: torch.Generator) -> Tensor:
    text = config.get_text_config(decoder=True)
    size = int(getattr(text, "vocab_size", 0) or getattr(config, "vocab_size", VOCABULARY))
    free = torch.tensor([i for i in range(size) if i not in special_ids(config)])
    return free[torch.randint(0, len(free), (batch, positions), generator=draw)]


def _task_of(model_type: str, task: str | None) -> str:
    if task is not None and task not in _TASKS:
        raise BadInput(f"There is no task '{task}'.", f"Use one of {', '.join(_TASKS)}.")
    for name in [task] if task else _TASKS:
        if model_type in getattr(modeling_auto, _TASKS[name][1]):
            return name
    if task is None:
        remedy = did_you_mean(model_type, transformers.CONFIG_MAPPING.keys(), 3)
        raise NotFound(f"transformers has no model of type '{model_type}'.", remedy)
    raise BadInput(f"transformers has no {task} model of type '{model_type}'.", "Leave task out.")


def _shrinks(fields: Mapping[str, Any], name: str) -> bool:
    """A field shrinks when it is a whole number; those in `UNSET` also when left empty."""
    return _is_plain_int(fields.get(name)) or (name in UNSET and name in fields and fields[name] is None)


def _is_neutral(name: str, value: object) -> bool:
    """A factor of one, or a soft-cap, at its default."""
    if isinstance(value, list | tuple):
        return all(item == 1 for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == 1 or "cap" in name


def _is_plain_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_token_id(name: str) -> bool:
    return name.endswith(("_token_id", "_token_index", "_token_ids", "begin_suppress_tokens"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' advice about default configurations while a tiny one is made."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
