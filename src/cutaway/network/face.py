"""What the modules below the face ask of a network: they take a `Network`, and do not know its class."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from cutaway.network.anatomy import Anatomy
from cutaway.network.certificate import Certificate
from cutaway.network.indices import Index
from cutaway.network.inputs import Tokens
from cutaway.network.run import Run
from cutaway.network.sites import Site, SiteLike


class Face(Protocol):
    """A network, as far as it is asked here; what each name means is said at `Network`."""

    name: str
    hash: str
    model: nn.Module
    modules: dict[str, nn.Module]
    tokenizer: Any
    anatomy: Anatomy
    config: Any
    device: torch.device
    dtype: torch.dtype
    products: torch.dtype | None
    n_layers: int
    d_model: int | None
    n_heads: int | None
    d_vocab: int | None
    d_vocab_in: int | None
    n_ctx: int | None
    certificate: Certificate

    @property
    def run(self) -> Callable[..., Run]:
        """Run the network once."""
        ...

    @property
    def fact(self) -> Callable[[Hashable, Callable[[], Any]], Any]:
        """The network's memo."""
        ...

    @property
    def refusal(self) -> Callable[..., str | None]:
        """Why a site is refused; None where it is there."""
        ...

    @property
    def has(self) -> Callable[..., bool]:
        """Whether a site exists."""
        ...

    def heads(self, layer: int, stack: str = "") -> int | None:
        """Attention heads of a layer."""

    def sites(self) -> list[Site]:
        """Every site that can be read and written."""
        ...

    def layers_with(self, name: str, stack: str = "") -> list[int]:
        """Layers at which a site exists."""
        ...

    def resolve(self, spec: SiteLike, layers: Index = None) -> list[Site]:
        """The sites that a name stands for."""
        ...

    def encode(self, inputs: Any) -> Tokens:
        """Text or token ids as rows of tokens."""
        ...

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        ...

    def to_single_token(self, text: str) -> int:
        """The token that a piece of text is."""
        ...
