"""What a lens is: something that reads a stream between the layers as if it were the last.

Layer l of a lens is the stream that enters layer l of the network (`resid_pre.l`); one more, the number of layers, is the
last stream, which the network itself reads. At that layer every lens that looks at the next token is the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from cutaway.network.indices import layer_numbers
from cutaway.network.precision import precise
from cutaway.network.sites import Site
from cutaway.results import brief
from cutaway.stream.targets import head_of
from cutaway.stream.writers import require_one_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cutaway.network import Network


@runtime_checkable
class Lens(Protocol):
    """Reads streams as logits. Whatever has these is a lens.

    Attributes:
        name: how it is called in tables.
        layers: which streams it reads.
        ahead: how many tokens beyond the next it reads.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def layers(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def ahead(self) -> int: ...  # noqa: D102

    def logits(self, stream: Tensor, layer: int, /) -> Tensor:
        """Logits [... v] of a stream [... d] that enters `layer`."""
        ...


@dataclass(frozen=True, eq=False)
class OutputHead:
    """The network's own way from the last stream to logits: final norm, unembedding, scales and soft-cap.

    It uses the network's modules, so it needs no norm of any particular form.

    Attributes:
        net: whose head it is.
    """

    net: Network

    def __post_init__(self) -> None:
        head_of(self.net)

    def __call__(self, stream: Tensor) -> Tensor:
        """Logits [... v] of a last stream [... d], in at least single precision."""
        head, model = head_of(self.net), self.net.model
        assert head.unembed is not None
        shape = stream.shape
        x = stream.reshape(1, -1, shape[-1]).to(self.net.dtype)
        if head.norm is not None:
            x = model.get_submodule(head.norm)(x)
        logits = model.get_submodule(head.unembed)(x * head.before) * head.scale
        logits = precise(logits)
        if head.softcap is not None:
            logits = torch.tanh(logits) * head.softcap
        return logits.reshape(*shape[:-1], logits.shape[-1])


def streams(net: Network) -> tuple[Site, ...]:
    """The sites that lenses read: what enters each layer, then what leaves the last.

    Raises `SiteUnavailable` with the certificate's reason where one is refused.
    """
    require_one_text(net)
    sites = [Site("resid_pre", i) for i in range(net.n_layers)] + [Site("resid_post", net.n_layers - 1)]
    for site in sites:
        net.resolve(site)
    return tuple(sites)


def chosen_layers(net: Network, layers: Sequence[int] | None, last: bool = False) -> tuple[int, ...]:
    """Layers of a lens as numbers from 0; negative ones count from the end; default all but the last stream (or all).

    Raises `BadAddress` where there are none, or one is out of range.
    """
    most = net.n_layers if last else net.n_layers - 1
    if layers is None:
        return tuple(range(most + 1))
    return tuple(dict.fromkeys(layer_numbers(layers, most + 1)))


@dataclass(frozen=True, eq=False)
class LogitLens:
    """The stream read as if it were the last (nostalgebraist 2020). Nothing of it is fitted, so there is nothing to save.

    Attributes:
        head: from stream to logits.
        layers: those that it reads.
        name: of the lens.
        ahead: how many tokens beyond the next one it reads: none.
    """

    head: OutputHead
    layers: tuple[int, ...]
    name: str = "logit"
    ahead: int = 0

    __repr__ = brief

    @classmethod
    def of(cls, net: Network) -> LogitLens:
        """The logit lens of a network. Raises `SiteUnavailable` where it is not known how its stream becomes logits."""
        streams(net)
        return cls(OutputHead(net), tuple(range(net.n_layers + 1)))

    def logits(self, stream: Tensor, _layer: int, /) -> Tensor:
        """Logits [... v] of a stream [... d]."""
        with torch.no_grad():
            return self.head(stream)
