"""The ways in which a dictionary's file may have been meant: as it says, and as libraries are known to misread one another.

Each is the whole dictionary again with one thing changed. Which of them fits is measured on the network, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cutaway.features.dictionaries import Dictionary, Encoder, JumpReLU, ReLU, TopK
from cutaway.features.dictionaries.encoder import wide

#: Mean length of the rows that each source reads, and of those of each target.
Lengths = tuple[Sequence[float], Sequence[float]]
#: What is changed of a dictionary; None where that makes no sense for it.
Change = Callable[[Dictionary, Lengths, int | None], Dictionary | None]


@dataclass(frozen=True, eq=False)
class Otherwise:
    """A dictionary read in another way.

    Attributes:
        says: the way, in words that go on from "it would fit ...".
        dictionary: read so.
    """

    says: str
    dictionary: Dictionary


def otherwise(dictionary: Dictionary, length: Lengths, k: int | None) -> Iterator[Otherwise]:
    """All other ways to read a dictionary, of several sources all of them alike.

    length: mean length of the rows that each source reads, and of those of each target. k: how many latents a row has,
    where the file or the training says so.
    """
    for says, change in _CHANGES.items():
        changed = change(dictionary, length, k)
        if changed is not None:
            yield Otherwise(says, changed)


def _encoders(dictionary: Dictionary, change: Callable[[Encoder], Encoder | None]) -> Dictionary | None:
    made = [change(encoder) for encoder in dictionary.encoders]
    if any(encoder is None for encoder in made):
        return None
    return replace(dictionary, encoders=tuple(encoder for encoder in made if encoder is not None))


def _centred(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
    bias = dictionary.biases[0] if dictionary.single else None
    if bias is None or dictionary.encoders[0].centre is not None or len(bias) != dictionary.encoders[0].width:
        return None
    return _encoders(dictionary, lambda encoder: replace(encoder, centre=bias))


def _uncentred(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
    return _encoders(dictionary, lambda e: None if e.centre is None else replace(e, centre=None))


def scaled(
    dictionary: Dictionary, by: float | Sequence[float], out: Sequence[float] | None = None
) -> Dictionary:
    """The dictionary of rows that are multiplied by a number before they are read, and divided by it afterwards.

    by: of all rows, or of each source's. out: of each target's; default those of the sources.
    """
    into = [float(by)] * len(dictionary.encoders) if isinstance(by, int | float) else list(by)
    outs = [into[min(t, len(into) - 1)] for t in range(len(dictionary.writes))] if out is None else list(out)

    def encoder(e: Encoder, by: float) -> Encoder:
        return replace(
            e, weight=wide(e.weight) * by, centre=None if e.centre is None else wide(e.centre) / by
        )

    decoders = tuple(replace(d, weight=wide(d.weight) / outs[d.target]) for d in dictionary.decoders)
    biases = tuple(None if b is None else wide(b) / by for b, by in zip(dictionary.biases, outs, strict=True))
    made = tuple(encoder(e, by) for e, by in zip(dictionary.encoders, into, strict=True))
    return replace(dictionary, encoders=made, decoders=decoders, biases=biases)


def _normalised(dictionary: Dictionary, length: Lengths, _k: int | None) -> Dictionary | None:
    if dictionary.normed:
        return None
    read = [e.width**0.5 / max(of, 1e-30) for e, of in zip(dictionary.encoders, length[0], strict=True)]
    if dictionary.single:  # its one number is that of the rows it reads
        return scaled(dictionary, read)
    write = [p.width**0.5 / max(of, 1e-30) for p, of in zip(dictionary.writes, length[1], strict=True)]
    return scaled(dictionary, read, write)


def _unfolded(dictionary: Dictionary, length: Lengths, _k: int | None) -> Dictionary | None:
    if dictionary.normed:
        return None
    read = [max(of, 1e-30) / e.width**0.5 for e, of in zip(dictionary.encoders, length[0], strict=True)]
    if dictionary.single:
        return scaled(dictionary, read)
    return scaled(
        dictionary,
        read,
        [max(of, 1e-30) / p.width**0.5 for p, of in zip(dictionary.writes, length[1], strict=True)],
    )


def _transposed_encoder(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
    return _encoders(dictionary, lambda e: replace(e, weight=e.weight.T) if e.width == e.size else None)


def _transposed_decoder(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
    if any(d.weight.shape[0] != d.weight.shape[1] for d in dictionary.decoders):
        return None
    return replace(dictionary, decoders=tuple(replace(d, weight=d.weight.T) for d in dictionary.decoders))


def _transposed_skip(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
    if all(skip is None for skip in dictionary.skips):
        return None
    return replace(dictionary, skips=tuple(None if skip is None else skip.T for skip in dictionary.skips))


def _without_skip(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
    return (
        None
        if all(s is None for s in dictionary.skips)
        else replace(dictionary, skips=(None,) * len(dictionary.skips))
    )


def _with_threshold(change: Callable[[Tensor], Tensor]) -> Change:
    def changed(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
        def encoder(e: Encoder) -> Encoder | None:
            if not isinstance(e.activation, JumpReLU):
                return None
            return replace(e, activation=JumpReLU(change(wide(e.activation.threshold))))

        return _encoders(dictionary, encoder)

    return changed


def _relu(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
    return _encoders(
        dictionary,
        lambda e: None if e.activation.kind in ("relu", "gated") else replace(e, activation=ReLU()),
    )


def _topk(dictionary: Dictionary, _length: Lengths, k: int | None) -> Dictionary | None:
    if k is None or not 1 <= k < min(dictionary.sizes):
        return None
    few = TopK(k)
    return _encoders(
        dictionary, lambda e: None if e.activation.kind in ("topk", "gated") else replace(e, activation=few)
    )


def _norm(kind: str) -> Change:
    def changed(dictionary: Dictionary, _length: Lengths, _k: int | None) -> Dictionary | None:
        return _encoders(dictionary, lambda e: None if e.norm == kind else replace(e, norm=kind))  # type: ignore[arg-type]

    return changed


_CHANGES: dict[str, Change] = {
    "if the decoder's bias were taken from the rows first": _centred,
    "if the decoder's bias were not taken from the rows first": _uncentred,
    "if rows were scaled to a mean length of the square root of their width": _normalised,
    "if a scale had been folded into it twice": _unfolded,
    "with its encoder transposed": _transposed_encoder,
    "with its decoder transposed": _transposed_decoder,
    "with its skip connection transposed": _transposed_skip,
    "without its skip connection": _without_skip,
    "if its thresholds were logarithms": _with_threshold(torch.exp),
    "if its thresholds had been exponentiated once too often": _with_threshold(
        lambda t: t.clamp(min=1e-12).log()
    ),
    "without thresholds or a bound on the number of latents": _relu,
    "with only so many latents a row as its file records": _topk,
    "if every row were normed": _norm("layer-norm"),
    "if every row were brought to one length": _norm("constant-norm"),
    "if rows were not normed": _norm("none"),
}
