"""What the modules below the face ask of a network: they take a `Network`, and do not know its class."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from cutaway.network.anatomy import Anatomy
from cutaway.network.inputs import Tokens
from cutaway.network.run import Run
from cutaway.network.sites import Site


class Asked(Protocol):
    """A network, as far as it is asked here; what each name means is said at `Network`."""

    @property
    def model(self) -> nn.Module:
        """The module."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Its modules by dotted path."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""

    @property
    def anatomy(self) -> Anatomy:
        """Where each site lives."""

    @property
    def config(self) -> Any:
        """The model's configuration."""

    @property
    def device(self) -> torch.device:
        """Where inputs belong."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""

    @property
    def n_layers(self) -> int:
        """Layers of the main stack."""

    @property
    def d_model(self) -> int | None:
        """Width of the main stream."""

    @property
    def n_heads(self) -> int | None:
        """Heads per layer."""

    @property
    def d_vocab(self) -> int | None:
        """Number of output tokens."""

    @property
    def run(self) -> Callable[..., Run]:
        """Run the network once."""

    @property
    def fact(self) -> Callable[[Hashable, Callable[[], Any]], Any]:
        """The network's memo."""

    @property
    def has(self) -> Callable[..., bool]:
        """Whether a site exists."""

    def heads(self, layer: int, stack: str = "") -> int | None:
        """Attention heads of a layer."""

    def sites(self) -> list[Site]:
        """Every site that can be read and written."""

    def layers_with(self, name: str, stack: str = "") -> list[int]:
        """Layers at which a site exists."""

    def encode(self, inputs: Any) -> Tokens:
        """Text or token ids as rows of tokens."""
