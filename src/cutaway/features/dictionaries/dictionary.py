"""The one form that every dictionary is brought to: sparse autoencoders, transcoders (per layer, skip, cross-layer),
crosscoders over layers or models.

A dictionary has *sources*, each an encoder with latents of its own, and *targets*, each a place that is reconstructed. A
sparse autoencoder has one of each at one site, a transcoder at two; a cross-layer transcoder has one source a layer, which
writes to its own target and to later ones; a crosscoder has one source that reads several sites side by side and writes to
each of them. Raw values go in, raw values come out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite
from cutaway.features.dictionaries.encoder import Encoder, wide
from cutaway.features.dictionaries.nonlinearities import tensors_of

Kind = Literal["autoencoder", "transcoder", "cross-layer transcoder", "crosscoder"]


@dataclass(frozen=True)
class Place:
    """Where a dictionary's file says that it reads or writes.

    Attributes:
        said: the words of the file (`blocks.7.hook_resid_post`, `model.layers.7`); "" where it says nothing.
        site: the site that these words mean (`resid_post.7`); "" where they have no such meaning, or several.
        width: numbers that a token has there.
        model: which model, where a dictionary spans several: 0, 1, ...
    """

    said: str
    site: str
    width: int
    model: int = 0

    def __str__(self) -> str:
        return self.site or self.said or "a site that the file does not name"


@dataclass(frozen=True, eq=False)
class Decoder:
    """What the latents of one source add to one target.

    Attributes:
        source: number of the source.
        target: number of the target.
        weight: [F d].
    """

    source: int
    target: int
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Directions in a network's representations, and how strongly each is present.

    Attributes:
        kind: what it is.
        encoders: one for each source.
        decoders: what each source adds to which target; a source adds nothing to targets that are not named.
        biases: [d] of each target; None for none.
        skips: [d_out d_in] of each target, the linear map of its own source's input that is added (of the normed one, where
            outputs are restored); None for none.
        reads: for each source the places whose values it reads, side by side.
        writes: the place of each target.
        format: which format it was read from, e.g. "saelens"; "" where it was made here.
        said: what its file says beside the numbers: the model, the text, the sparsity that was reached.
        notes: what a reader should know: that something was decided, folded or left out.

    Raises `BadInput` where shapes do not go together.
    """

    kind: Kind
    encoders: tuple[Encoder, ...]
    decoders: tuple[Decoder, ...]
    biases: tuple[Tensor | None, ...]
    reads: tuple[tuple[Place, ...], ...]
    writes: tuple[Place, ...]
    skips: tuple[Tensor | None, ...] = ()
    format: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.skips:
            object.__setattr__(self, "skips", (None,) * len(self.biases))
        for problem in self._problems():
            raise BadInput(problem, "The file may be of another format, or damaged.")

    def _problems(self) -> Iterator[str]:
        if not self.encoders or not self.biases:
            yield "A dictionary without an encoder or without a target is none."
        if not len(self.biases) == len(self.writes) == len(self.skips) or len(self.reads) != len(
            self.encoders
        ):
            yield "A dictionary names other places than it reads and writes."
        for i, (encoder, places) in enumerate(zip(self.encoders, self.reads, strict=False)):
            if sum(p.width for p in places) != encoder.width:
                yield f"Source {i} reads {encoder.width} numbers, but its places have {[p.width for p in places]}."
        for decoder in self.decoders:
            if decoder.source >= len(self.encoders) or decoder.target >= len(self.writes):
                yield f"A decoder leads from source {decoder.source} to target {decoder.target}, which is not there."
                continue
            shape = (self.encoders[decoder.source].size, self.writes[decoder.target].width)
            if tuple(decoder.weight.shape) != shape:
                yield f"A decoder of shape {tuple(decoder.weight.shape)} should be {shape}."
        for place, bias, skip in zip(self.writes, self.biases, self.skips, strict=False):
            if bias is not None and tuple(bias.shape) != (place.width,):
                yield f"A bias of shape {tuple(bias.shape)} should be {(place.width,)}."
            if skip is not None and skip.shape[0] != place.width:
                yield f"A skip connection of shape {tuple(skip.shape)} should give {place.width} numbers."

    # what it is ------------------------------------------------------------------------------------------------------

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many latents each source has."""
        return tuple(encoder.size for encoder in self.encoders)

    @property
    def single(self) -> bool:
        """Has it one source and one target?"""
        return len(self.encoders) == len(self.writes) == 1

    @property
    def normed(self) -> bool:
        """Are its rows normed, so that what a latent writes depends on the row?"""
        return any(encoder.norm != "none" and encoder.restores for encoder in self.encoders)

    def decoders_of(self, source: int) -> tuple[Decoder, ...]:
        """What one source writes, in the order of the targets."""
        return tuple(sorted((d for d in self.decoders if d.source == source), key=lambda d: d.target))

    def layer(self, number: int) -> Dictionary:
        """One source and its target as a dictionary of their own.

        Raises `BadInput` where the target is reconstructed from other sources, too, as in a cross-layer transcoder.
        """
        if not 0 <= number < len(self.encoders):
            raise BadInput(f"There is no source {number}.", f"Sources are 0 to {len(self.encoders) - 1}.")
        mine = self.decoders_of(number)
        shared = {d.target for d in self.decoders if d.source != number}
        if len(mine) != 1 or mine[0].target in shared:
            raise BadInput(
                f"Source {number} does not reconstruct a target alone.",
                "Attach the whole dictionary: features.with_dictionary.",
            )
        target = mine[0].target
        return replace(
            self, encoders=(self.encoders[number],), decoders=(replace(mine[0], source=0, target=0),),
            biases=(self.biases[target],), skips=(self.skips[target],),
            reads=(self.reads[number],), writes=(self.writes[target],),
        )  # fmt: skip

    def directions(self, source: int = 0, target: int | None = None) -> Tensor:
        """The direction [F d] in which each latent of a source writes to a target; default the first one it writes to."""
        mine = self.decoders_of(source)
        chosen = next((d for d in mine if target is None or d.target == target), None)
        if chosen is None:
            raise BadInput(
                f"Source {source} writes nothing to target {target}.",
                f"It writes to {[d.target for d in mine]}.",
            )
        return chosen.weight

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that it holds, by a name."""
        found: dict[str, Tensor | None] = {}
        for i, encoder in enumerate(self.encoders):
            names = ("weight", "bias", "centre", "gain", "gate", "gate_bias")
            found |= {f"encoders.{i}.{name}": getattr(encoder, name) for name in names}
            found |= {f"encoders.{i}.activation.{n}": t for n, t in tensors_of(encoder.activation).items()}
        found |= {f"decoders.{d.source}.{d.target}": d.weight for d in self.decoders}
        found |= {f"biases.{i}": bias for i, bias in enumerate(self.biases)}
        found |= {f"skips.{i}": skip for i, skip in enumerate(self.skips)}
        return {name: value for name, value in found.items() if value is not None}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its numbers and of how they are used."""
        digest = hashlib.sha256(repr((self.kind, [_form(e) for e in self.encoders])).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes())
        return digest.hexdigest()

    def checked(self) -> Dictionary:
        """Itself; `NotFinite` where a number is NaN or infinite."""
        for name, tensor in self.tensors().items():
            if not bool(torch.isfinite(tensor).all()):
                raise NotFinite(f"The dictionary's {name} holds NaN or infinity.", "Fetch the file again.")
        return self

    # what it does ------------------------------------------------------------------------------------------------------

    def encode(self, values: Tensor | Sequence[Tensor], source: int = 0) -> Tensor:
        """Activations [... F] of one source, of the values [... d] of the places that it reads.

        values: one tensor for one place, or several, which are put side by side.
        """
        return self.encoders[source](self._row(values))

    def decode(
        self,
        latents: Tensor | Sequence[Tensor | None],
        values: Tensor | Sequence[Tensor] | None = None,
        target: int = 0,
    ) -> Tensor:
        """The reconstruction [... d] of one target from the activations of all sources.

        latents: one tensor, or one for each source (None for a source that does not write there is allowed). values: what
            the target's own source read, where rows are normed or there is a skip connection.

        Raises `BadInput` where these are needed and missing.
        """
        several: list[Tensor | None] = [latents] if torch.is_tensor(latents) else list(latents)
        row = None if values is None else wide(self._row(values))
        total: Tensor | None = None
        for decoder in (d for d in self.decoders if d.target == target):
            of = several[decoder.source]
            if of is None:
                raise BadInput(
                    f"The latents of source {decoder.source} are missing.",
                    "Give those of all that write there.",
                )
            part = of @ decoder.weight.to(of)
            total = part if total is None else total + part
        assert total is not None
        bias, skip = self.biases[target], self.skips[target]
        total = total if bias is None else total + bias.to(total)
        own = self.encoders[min(target, len(self.encoders) - 1)]
        if row is None:
            if skip is not None or (own.norm != "none" and own.restores):
                raise BadInput(
                    "This dictionary's reconstruction depends on the row that it read.",
                    "Give it: decode(latents, values).",
                )
            return total
        row, spread, mean = own.back(row)
        total = total if skip is None else total + row.to(total) @ skip.to(total).T
        total = total if spread is None else total * spread.to(total)
        return total if mean is None else total + mean.to(total)

    def reconstruct(self, values: Tensor | Sequence[Tensor]) -> Tensor:
        """What a dictionary of one source makes of the values that it reads: [... d] of its first target."""
        return self.decode(self.encode(values), values)

    def written(self, change: Tensor, values: Tensor | Sequence[Tensor], source: int, target: int) -> Tensor:
        """What a change [... F] of one source's latents adds to a target [... d], the rest as it was."""
        added = change @ self.directions(source, target).to(change)
        spread = self.encoders[source].back(wide(self._row(values)))[1]
        return added if spread is None else added * spread.to(added)

    def _row(self, values: Tensor | Sequence[Tensor]) -> Tensor:
        return wide(values) if torch.is_tensor(values) else torch.cat([wide(v) for v in values], -1)

    def to(self, dtype: torch.dtype) -> Dictionary:
        """The same with all numbers in another type."""

        def cast(value: Any) -> Any:
            return value.to(dtype) if torch.is_tensor(value) else value

        encoders = tuple(
            replace(
                e, activation=replace(e.activation, **{n: cast(t) for n, t in tensors_of(e.activation).items()}),  # type: ignore[type-var]
                **{n: cast(getattr(e, n)) for n in ("weight", "bias", "centre", "gain", "gate", "gate_bias")},
            )
            for e in self.encoders
        )  # fmt: skip
        decoders = tuple(replace(d, weight=cast(d.weight)) for d in self.decoders)
        return replace(
            self, encoders=encoders, decoders=decoders, biases=tuple(map(cast, self.biases)),
            skips=tuple(map(cast, self.skips)),
        )  # fmt: skip

    def __repr__(self) -> str:
        sizes = sorted(set(self.sizes))
        several = f"{len(self.encoders)} sources of " if len(self.encoders) > 1 else ""
        kinds = ", ".join(dict.fromkeys(encoder.activation.kind for encoder in self.encoders))
        reads = ", ".join(dict.fromkeys(str(place) for places in self.reads for place in places))
        return (
            f"Dictionary({self.kind}: {several}{' to '.join(map(str, sizes))} latents, {kinds}, of {reads})"
        )


def _form(encoder: Encoder) -> tuple[str, str, int | None, bool]:
    return encoder.activation.kind, encoder.norm, encoder.k, encoder.restores
