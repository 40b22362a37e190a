"""Lenses that move a stream by an affine map before the network's own head reads it: tuned, Jacobian, future."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput
from cutaway.figures.lens import Line, lines
from cutaway.network.precision import precise
from cutaway.reports import Figure, Page, display_result, page_of
from cutaway.results import Provenance, brief, described, head, read, save_folder
from cutaway.stream.lenses.protocol import Lens, OutputHead

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Translator:
    """An affine map of streams: x -> x @ matrix.T + shift.

    Attributes:
        matrix: [d d].
        shift: [d].
    """

    matrix: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The map's value at vectors [... d]."""
        return x @ self.matrix.to(x).T + self.shift.to(x)


@dataclass(frozen=True, eq=False)
class AffineLens:
    """A lens that translates a stream by an affine map before the network's own head reads it.

    Tuned, Jacobian and future lenses are of this form; they differ in where the maps come from. A lens that was read from a
    folder has no network yet: `on(net)` puts it on one, and the verbs of lenses do that by themselves.

    Attributes:
        name: how it is called in tables.
        head: the network's own way to logits; None where it was read from a folder and is on no network yet.
        translators: layer -> its map.
        ahead: how many tokens beyond the next it reads.
        origin: how it was made.
        depth: layers of the network that it was made for, where that is known.
        source: what is needed to make it again; None for one put together by hand.
    """

    kind: ClassVar[str] = "lens"

    name: str
    head: OutputHead | None
    translators: dict[int, Translator]
    ahead: int = 0
    origin: dict[str, Any] = field(default_factory=dict)
    depth: int | None = None
    source: Provenance | None = None

    __repr__ = brief

    @property
    def provenance(self) -> Provenance:
        """What is needed to make it again."""
        return self.source if self.source is not None else Provenance.of(self._bound().net)

    @property
    def last(self) -> int | None:
        """The number of the network's last stream, where that is known."""
        return self.depth if self.head is None else self.head.net.n_layers

    @property
    def layers(self) -> tuple[int, ...]:
        """The streams that it has a map for, and, where it reads the next token, the last one."""
        last = () if self.ahead or self.last is None else (self.last,)
        return tuple(dict.fromkeys((*sorted(self.translators), *last)))

    def on(self, net: Network) -> AffineLens:
        """The same lens on a network; as it is where it is on one already.

        Raises `BadInput` where it was made for other weights.
        """
        if self.head is not None:
            return self
        if self.provenance.network_hash != net.hash:
            raise BadInput(
                f"This lens was made for {self.provenance.network}, whose weights are not those of {net.name}.",
                "Open that network, or fit a lens anew.",
            )
        return replace(self, head=OutputHead(net))

    def _bound(self) -> OutputHead:
        if self.head is None:
            raise BadInput(
                f"The {self.name} lens was read from a folder and is on no network.", "Use lens.on(net)."
            )
        return self.head

    def translated(self, stream: Tensor, layer: int) -> Tensor:
        """A stream [... d] that enters `layer` as the last stream that it is read as."""
        stream = precise(stream)
        translator = self.translators.get(layer)
        if translator is None:
            if layer == self.last and not self.ahead:
                return stream
            raise BadAddress(
                f"The {self.name} lens has no map for layer {layer}.", f"It reads layers {list(self.layers)}."
            )
        return translator(stream)

    def logits(self, stream: Tensor, layer: int, /) -> Tensor:
        """Logits [... v] of a stream [... d]."""
        with torch.no_grad():
            return self._bound()(self.translated(stream, layer))

    def to_pandas(self) -> pd.DataFrame:
        """One row per map: its distance from the identity, as a share of the identity's size, and the shift's length."""
        rows = []
        for layer, t in sorted(self.translators.items()):
            eye = torch.eye(len(t.matrix), dtype=t.matrix.dtype)
            turn = float((t.matrix.cpu() - eye).norm() / eye.norm())
            rows.append({"layer": layer, "turn": turn, "shift": float(t.shift.norm())})
        return pd.DataFrame(rows, columns=["layer", "turn", "shift"])

    def plot(self) -> Any:
        """How far the maps are from the identity, by layer."""
        layers, values = (self.to_pandas()[name].tolist() for name in ("layer", "turn"))
        return lines([Line(self.name, layers, values, values, values)], "layer entered", "turn")

    @property
    def headline(self) -> str:
        """What it reads, in a sentence."""
        what = f"the token {self.ahead} beyond the next" if self.ahead else "the next token"
        stopped = not self.origin.get("complete", True)
        part = f" (stopped after {self.origin.get('steps_done')} steps)" if stopped else ""
        low, high = min(self.layers), max(self.layers)
        layers = f"layers {low} to {high}" if low < high else f"layer {low}"
        return (
            f"The {self.name} lens is fitted to read {what} from {layers} of {self.provenance.network}{part}; how well it "
            "does is not measured here"
        )

    def page(self) -> Page:
        """How far its maps are from the identity."""
        caption = "Distance of each map from the identity, as a share of the identity's size."
        about = f"How far the maps of the {self.name} lens are from leaving the stream as it is."
        return page_of(self, "Cutaway · lens", about, [Figure(self.plot(), caption)])

    def to_dict(self) -> dict[str, Any]:
        """How it was made and what its maps do; the maps themselves are in what `save` writes."""
        maps = self.to_pandas()
        return described(self, "layers", "ahead", "origin", lens=self.name, maps=maps)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the maps (safetensors) and how they were made as a folder, whole or not at all."""
        tensors = {f"{layer}/matrix": t.matrix for layer, t in self.translators.items()}
        tensors |= {f"{layer}/shift": t.shift for layer, t in self.translators.items()}
        content = {"name": self.name, "ahead": self.ahead, "depth": self.last, "origin": self.origin}
        return save_folder(path, head(self.kind, self.provenance, **content), tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AffineLens:
        """Read a saved lens, or a training as far as it went; it is on no network yet.

        Raises `BadFormat` where the folder holds no lens, `CorruptFile` where it was damaged.
        """
        saved, version = read(path, cls.kind)
        content, tensors = dict(saved.manifest), saved.tensors
        if "training" in content and "done" in content:  # a training that was not yet finished
            origin = {key: content[key] for key in ("training", "layers", "network", "rows")}
            origin |= {"steps_done": content["done"], "last_losses": content["losses"]}
            origin["complete"] = content["done"] == content["training"]["steps"]
            ahead = int(content["training"].get("ahead", 0))
            content |= {"name": f"future+{ahead}" if ahead else "tuned", "ahead": ahead, "origin": origin}
            tensors = {}
            for n, layer in enumerate(content["layers"]):
                matrix = saved.tensors[f"map/matrix.{n}"]
                tensors[f"{layer}/matrix"] = torch.eye(len(matrix)).to(matrix) + matrix
                tensors[f"{layer}/shift"] = saved.tensors[f"map/shift.{n}"]
        layers = sorted({int(name.split("/")[0]) for name in tensors})
        maps = {i: Translator(tensors[f"{i}/matrix"], tensors[f"{i}/shift"]) for i in layers}
        if version:
            source = Provenance.from_dict(content["provenance"])
        else:
            network_hash = content.get("network_hash", content["origin"]["network"])
            seed = content["origin"].get("seed", content["origin"].get("training", {}).get("seed", 0))
            source = Provenance(content.get("network", ""), network_hash, versions={}, seed=seed, created="")
        return cls(
            content["name"],
            None,
            maps,
            int(content["ahead"]),
            content["origin"],
            content.get("depth"),
            source,
        )

    def _repr_html_(self) -> str:
        return display_result(self, table=self.to_pandas())


def on_network(net: Network, lens: Lens) -> Lens:
    """A lens ready to read this network: one that was read from a folder is put on it."""
    return lens.on(net) if isinstance(lens, AffineLens) else lens


def load_lens(net: Network, path: str | os.PathLike[str]) -> AffineLens:
    """Read a saved lens back and put it on the network that it was made for.

    Raises `BadFormat` where the folder holds no lens, `CorruptFile` where it was damaged, `BadInput` where it was made for
    another network.
    """
    return AffineLens.load(path).on(net)
