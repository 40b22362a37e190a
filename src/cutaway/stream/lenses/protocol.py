"""What a lens is: something that reads a stream between the layers as if it were the last.

Layer l of a lens is the stream that enters layer l of the network (`resid_pre.l`); one more, the number of layers, is the
last stream, which the network itself reads. At that layer every lens that looks at the next token is the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadFormat, BadInput
from cutaway.network.sites import Site
from cutaway.results import load_folder, save_folder
from cutaway.stream.targets import head_of
from cutaway.stream.writers import require_one_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cutaway.network import Network


@runtime_checkable
class Lens(Protocol):
    """Reads streams as logits.

    name: how it is called in tables; layers: which streams it reads; ahead: how many tokens beyond the next it reads.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def layers(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def ahead(self) -> int: ...  # noqa: D102

    def logits(self, stream: Tensor, layer: int) -> Tensor:
        """Logits [... v] of a stream [... d] that enters `layer`."""
        ...


@dataclass(frozen=True, eq=False)
class OutputHead:
    """The network's own way from the last stream to logits: final norm, unembedding, scales and soft-cap.

    It uses the network's modules, so it needs no norm of any particular form.
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
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if head.softcap is not None:
            logits = torch.tanh(logits) * head.softcap
        return logits.reshape(*shape[:-1], logits.shape[-1])


def streams(net: Network) -> tuple[Site, ...]:
    """The sites that lenses read: what enters each layer, then what leaves the last.

    Raises `SiteUnavailable` with the certificate's reason where one is refused.
    """
    require_one_text(net)
    found = [Site("resid_pre", i) for i in range(net.n_layers)] + [Site("resid_post", net.n_layers - 1)]
    for site in found:
        net.resolve(site)
    return tuple(found)


def chosen_layers(net: Network, layers: Sequence[int] | None, last: bool = False) -> tuple[int, ...]:
    """Layers of a lens as numbers from 0; negative ones count from the end; default all but the last stream (or all).

    Raises `BadInput` where there are none, `BadAddress` where one is out of range.
    """
    most = net.n_layers if last else net.n_layers - 1
    if layers is None:
        return tuple(range(most + 1))
    given = list(layers)
    if not given:
        raise BadInput("The range of layers is empty.", f"Use layers 0 to {most}, or leave it out for all.")
    for layer in given:
        if isinstance(layer, bool) or not isinstance(layer, int) or not -most - 1 <= layer <= most:
            raise BadAddress(f"Layer {layer!r} is out of range.", f"Use layers 0 to {most}.")
    return tuple(dict.fromkeys(layer % (most + 1) for layer in given))


@dataclass(frozen=True, eq=False)
class LogitLens:
    """The stream read as if it were the last (nostalgebraist 2020)."""

    head: OutputHead
    layers: tuple[int, ...]
    name: str = "logit"
    ahead: int = 0

    @classmethod
    def of(cls, net: Network) -> LogitLens:
        """The logit lens of a network. Raises `SiteUnavailable` where it is not known how its stream becomes logits."""
        streams(net)
        return cls(OutputHead(net), tuple(range(net.n_layers + 1)))

    def logits(self, stream: Tensor, layer: int) -> Tensor:
        """Logits [... v] of a stream [... d]."""
        with torch.no_grad():
            return self.head(stream)


@dataclass(frozen=True, eq=False)
class Translator:
    """An affine map of streams: x -> x @ matrix.T + shift, [d d] and [d]."""

    matrix: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The map's value at vectors [... d]."""
        return x @ self.matrix.to(x).T + self.shift.to(x)


@dataclass(frozen=True, eq=False)
class AffineLens:
    """A lens that translates a stream by an affine map before the network's own head reads it.

    Tuned, Jacobian and future lenses are of this form; they differ in where the maps come from. origin: how it was made.
    """

    name: str
    head: OutputHead
    translators: dict[int, Translator]
    ahead: int = 0
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        """The streams that it has a map for, and, where it reads the next token, the last one."""
        last = () if self.ahead else (self.head.net.n_layers,)
        return tuple(dict.fromkeys((*sorted(self.translators), *last)))

    def translated(self, stream: Tensor, layer: int) -> Tensor:
        """A stream [... d] that enters `layer` as the last stream that it is read as."""
        stream = stream if stream.dtype == torch.float64 else stream.float()
        found = self.translators.get(layer)
        if found is None:
            if layer == self.head.net.n_layers and not self.ahead:
                return stream
            raise BadAddress(
                f"The {self.name} lens has no map for layer {layer}.", f"It reads layers {list(self.layers)}."
            )
        return found(stream)

    def logits(self, stream: Tensor, layer: int) -> Tensor:
        """Logits [... v] of a stream [... d]."""
        with torch.no_grad():
            return self.head(self.translated(stream, layer))

    def save(self, path: str | Path) -> Path:
        """Write the maps (safetensors) and how they were made as a folder, whole or not at all."""
        tensors = {f"{layer}/matrix": t.matrix for layer, t in self.translators.items()}
        tensors |= {f"{layer}/shift": t.shift for layer, t in self.translators.items()}
        manifest = {
            "kind": _KIND,
            "name": self.name,
            "ahead": self.ahead,
            "network": self.head.net.name,
            "network_hash": self.head.net.hash,
            "origin": self.origin,
        }
        return save_folder(path, manifest, tensors)


_KIND = "cutaway lens"


def load_lens(path: str | Path, net: Network) -> AffineLens:
    """Read a saved lens back, for the network it was made for.

    Raises `BadFormat` where the folder holds no lens, `CorruptFile` where it was damaged, `BadInput` where it was made for
    another network.
    """
    saved = load_folder(path)
    if saved.manifest.get("kind") != _KIND:
        raise BadFormat(f"{path} is not a saved lens.", "Pass a folder that a lens was saved to.")
    if saved.manifest["network_hash"] != net.hash:
        raise BadInput(
            f"This lens was made for {saved.manifest['network']}, whose weights are not those of {net.name}.",
            "Open that network, or fit a lens anew.",
        )
    layers = sorted({int(name.split("/")[0]) for name in saved.tensors})
    maps = {i: Translator(saved.tensors[f"{i}/matrix"], saved.tensors[f"{i}/shift"]) for i in layers}
    return AffineLens(
        str(saved.manifest["name"]),
        OutputHead(net),
        maps,
        int(saved.manifest["ahead"]),
        dict(saved.manifest["origin"]),
    )
