"""A short input on which a network is observed at opening: enough to run it once, made from its configuration alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn

from cutaway.errors import BadInput
from cutaway.network.inputs import Inputs, Tokens, pack
from cutaway.network.interface import Interface, text_part
from cutaway.network.opened import Opened

#: Rows and columns of the probe. Odd lengths keep positions, heads and widths from being taken for one another.
ROWS, COLUMNS, OTHER_COLUMNS = 2, 7, 5


def vocabulary(model: nn.Module) -> int | None:
    """Number of token ids that the model can be given, from its configuration."""
    config = getattr(model, "config", None)
    parts = (config, getattr(config, "text_config", None), getattr(config, "decoder", None))
    return _first_size(getattr(part, "vocab_size", None) for part in parts)


def special_ids(model: nn.Module) -> set[int]:
    """Token ids with a meaning of their own (padding, image placeholders), which a probe had better not contain."""
    config = getattr(model, "config", None)
    parts = [part for part in (config, getattr(config, "text_config", None)) if part is not None]
    return {
        value
        for part in parts
        for name, value in vars(part).items()
        if name.endswith(("token_id", "token_index", "_id")) and type(value) is int
    }


def context(model: nn.Module) -> int | None:
    """Longest prompt, where the configuration names one."""
    config = text_part(getattr(model, "config", None))
    keys = "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length seq_length"
    return _first_size(getattr(config, key, None) for key in keys.split())


def _first_size(sizes: Iterable[Any]) -> int | None:
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


class Probed(Protocol):
    """What must be known of a network to make prompts for it."""

    @property
    def model(self) -> nn.Module:
        """The module."""
        ...

    @property
    def opened(self) -> Opened:
        """How it was opened."""
        ...

    @property
    def interface(self) -> Interface:
        """What its forward takes."""
        ...

    @property
    def n_ctx(self) -> int | None:
        """Longest prompt."""
        ...

    @property
    def d_vocab_in(self) -> int | None:
        """Number of token ids that can be given."""
        ...


def probe_rows(net: Probed, columns: int, seed: int) -> list[list[int]]:
    """Random token ids for a network, special ones left out: at most `columns` in a row, as many as it reads.

    Where neither configuration nor tables tell how many it reads, as many as the example that it was opened with.

    Raises `BadInput` where it is not known how many token ids there are.
    """
    given = (net.opened.example or {}).get(net.interface.ids or "")
    longest = net.n_ctx or (int(given.shape[1]) if torch.is_tensor(given) else columns)
    return random_rows(net.model, min(columns, longest), seed, size=vocabulary(net.model) or net.d_vocab_in)


def random_rows(
    model: nn.Module, columns: int, seed: int, rows: int = ROWS, size: int | None = None
) -> list[list[int]]:
    """Random token ids below a size (without one, the configuration's), special ones left out."""
    size = vocabulary(model) if size is None else size
    if size is None:
        raise BadInput(
            "It is not known how many token ids this model knows.",
            "Give example inputs: cutaway.open(model, example={...}).",
        )
    generator = torch.Generator().manual_seed(seed)
    avoid = special_ids(model)
    allowed = torch.tensor([i for i in range(min(size, 5000)) if i not in avoid] or [0])
    picked = allowed[torch.randint(len(allowed), (rows, columns), generator=generator)]
    return picked.tolist()


def device_of(model: nn.Module) -> torch.device:
    """The device that a model's inputs belong on."""
    hf = getattr(model, "device", None)
    if isinstance(hf, torch.device) and hf.type != "meta":
        return hf
    first = next((p for p in model.parameters() if p.device.type != "meta"), None)
    return torch.device("cpu") if first is None else first.device


def probe_inputs(model: nn.Module, seed: int = 0, example: dict[str, Any] | None = None) -> Inputs:
    """One short batch for the model: tokens, pixels or both, as its forward asks for them.

    Raises `BadInput` when the model's arguments are not of a known kind and no example was given.
    """
    device = device_of(model)
    if example is not None:
        return from_mapping(example, device, Interface.of(model, example).ids)
    interface = Interface.of(model)
    config = getattr(model, "config", None)
    kwargs: dict[str, Any] = {}
    tokens: Tokens | None = None
    if interface.accepts("input_ids") and vocabulary(model) is not None:
        tokens = pack(random_rows(model, min(COLUMNS, context(model) or COLUMNS), seed))
        kwargs["input_ids"] = tokens.ids.to(device)
    elif not interface.accepts("pixel_values"):
        raise BadInput(
            f"It is not known what to give to {type(model).__name__} to look at it once.",
            "Pass an example: cutaway.open(model, example={'x': tensor}).",
        )
    needs_pixels = interface.accepts("pixel_values") and (
        tokens is None or type(model).__name__ in ("CLIPModel", "SiglipModel")
    )
    if needs_pixels:
        kwargs["pixel_values"] = _pixels(model, config, seed).to(device)
    if interface.decodes:
        decoder = pack(random_rows(model, OTHER_COLUMNS, seed + 1))
        kwargs["decoder_input_ids"] = decoder.ids.to(device)
        tokens = decoder
    return Inputs(kwargs | interface.uncached, tokens, ROWS)


def _pixels(model: nn.Module, config: Any, seed: int) -> torch.Tensor:
    vision = getattr(config, "vision_config", None) or config
    size = getattr(vision, "image_size", 32)
    height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
    channels = getattr(vision, "num_channels", 3)
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    return torch.randn(ROWS, channels, height, width, generator=generator).to(dtype)


def from_mapping(example: dict[str, Any], device: torch.device, name: str | None = "input_ids") -> Inputs:
    """Keyword arguments given by the user, with their batch size and, if they hold token ids, their token rows.

    name: of the argument that token ids are for.
    """
    kwargs = {k: v.to(device) if torch.is_tensor(v) else v for k, v in example.items()}
    tensors = [v for v in kwargs.values() if torch.is_tensor(v) and v.ndim > 0]
    if not tensors:
        raise BadInput("The inputs hold no tensor.", "Give at least input_ids or pixel_values.")
    ids = kwargs.get("decoder_input_ids", kwargs.get(name or ""))
    tokens = None
    if torch.is_tensor(ids) and ids.ndim == 2 and not ids.is_floating_point():
        mask = kwargs.get("decoder_attention_mask" if "decoder_input_ids" in kwargs else "attention_mask")
        tokens = Tokens.of_ids(ids, mask)
    return Inputs(kwargs, tokens, int(tensors[0].shape[0]))
