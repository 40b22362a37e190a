"""What a model's forward takes: names of its arguments, encoder and decoder, cache, logits to keep, positions."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import require_known


def encodes(config: Any) -> bool:
    """Whether a configuration is that of an encoder-decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def text_part(config: Any) -> Any:
    """The part of a configuration that is about text: of a model for text and images, the language model's."""
    return getattr(config, "text_config", None) or config


def _holds_ids(value: Any) -> bool:
    """Whether an argument is a table of whole numbers [b p]."""
    return (
        isinstance(value, Tensor)
        and value.ndim == 2
        and not (value.is_floating_point() or value.dtype == torch.bool)
    )


def _extras(model: nn.Module) -> frozenset[str] | None:
    """What a forward with open keywords takes beside its arguments: of a transformers model what these all pass on."""
    from transformers import PreTrainedModel
    from transformers.utils.generic import TransformersKwargs

    known = isinstance(model, PreTrainedModel)
    return frozenset({*TransformersKwargs.__annotations__, "return_dict"}) if known else None


@dataclass(frozen=True)
class Interface:
    """What one model's forward takes. One asks it before handing over an argument that not every model knows.

    Attributes:
        names: the arguments of forward, in order.
        encoder_decoder: whether the configuration says that an encoder's stream is read by a decoder.
        main: the argument that a lone tensor is for, where that is known.
        start_token: the token with which a decoder starts.
        ids: the argument that token ids are for; None where there is none.
        extras: further names that forward takes by keyword; None where it takes any.
    """

    names: tuple[str, ...]
    encoder_decoder: bool = False
    main: str | None = None
    start_token: int = 0
    ids: str | None = "input_ids"
    extras: frozenset[str] | None = frozenset()

    @classmethod
    def of(cls, model: nn.Module, example: Mapping[str, Any] | None = None) -> Interface:
        """Read off a model's forward (under an adapter, that of the model within) and its configuration.

        example: a batch of keyword arguments, of which one may hold token ids [b p].
        """
        get = getattr(model, "get_base_model", None)
        target: Any = get() if callable(get) else model
        parameters = list(inspect.signature(type(target).forward).parameters.values())
        names = tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))[1:]
        named = getattr(model, "main_input_name", None)
        main = named if named in names else next(iter(names), None)
        config = getattr(model, "config", None)
        start = getattr(config, "decoder_start_token_id", None)
        start = start if start is not None else getattr(config, "bos_token_id", 0) or 0
        any_name = any(p.kind == p.VAR_KEYWORD for p in parameters)
        shown = next((k for k, v in (example or {}).items() if _holds_ids(v)), None)
        ids = "input_ids" if "input_ids" in names else shown or ("input_ids" if any_name else main)
        ids = None if ids == main and named not in (None, ids) and shown is None else ids
        start = start if isinstance(start, int) else 0
        return cls(names, encodes(config), main, start, ids, _extras(target) if any_name else frozenset())

    def accepts(self, name: str) -> bool:
        """Whether forward takes an argument of that name."""
        return name in self.names

    def require(self, given: Iterable[str]) -> None:
        """Refuse arguments that forward does not have, which many models swallow without a word.

        Raises `UnknownOption` with the nearest name.
        """
        if self.extras is not None:
            require_known(given, [*self.names, *sorted(self.extras)], "The model's forward")

    @property
    def masks(self) -> bool:
        """Whether it can be told which tokens are padding."""
        return self.accepts("attention_mask") or (self.extras != frozenset() and self.ids == "input_ids")

    @property
    def decodes(self) -> bool:
        """Whether token ids are given to a decoder apart from the encoder's."""
        return self.encoder_decoder and self.accepts("decoder_input_ids")

    @property
    def cache(self) -> bool:
        """Whether forward takes keys and values of earlier positions."""
        return self.accepts("past_key_values")

    @property
    def logits_to_keep(self) -> bool:
        """Whether the logits of some columns only can be asked for."""
        return self.accepts("logits_to_keep") and not self.encoder_decoder

    @property
    def position_ids(self) -> bool:
        """Whether positions can be given beside the tokens."""
        return self.accepts("position_ids")

    @property
    def uncached(self) -> dict[str, Any]:
        """The argument by which forward makes no cache, where it takes one."""
        return {"use_cache": False} if self.accepts("use_cache") else {}
