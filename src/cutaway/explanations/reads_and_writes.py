"""What each component of the set writes and reads, by direct paths: a description beside the causal tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import CutawayError, Stopped
from cutaway.network.parts import Part
from cutaway.results import brief
from cutaway.statistics import Estimate, mean_of
from cutaway.stream import Attribution, Stream, StreamStack, logit_attribution, read_stream
from cutaway.stream.attribution import attribute
from cutaway.stream.copying import in_vocabulary

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

_MOST = 16
_SHOWN = 3
_WORTH_NAMING = 0.1
_LOGITS = 1 << 25


@dataclass(frozen=True)
class PartDescription:
    """One part, as read on a few prompts.

    Attributes:
        part: which part.
        adds: to the answer's logit difference.
        raises: the tokens that it raises most often, on clean over corrupted prompts.
        moves_from: the places by which a head adds what it adds, with what it adds by each.
        reads_from: who wrote the difference that it reads, with shares of its square.
    """

    part: Part
    adds: Estimate
    raises: tuple[str, ...]
    moves_from: tuple[tuple[str, float], ...]
    reads_from: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"part": str(self.part), "adds": self.adds.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PartDescription:
        """The inverse of `to_dict`; the version before called the part `component`."""
        moves, reads = (tuple(map(tuple, data[key])) for key in ("moves_from", "reads_from"))
        part = Part.parse(data.get("part") or data["component"])
        return cls(part, Estimate.from_dict(data["adds"]), tuple(data["raises"]), moves, reads)


@dataclass(frozen=True)
class ReadsAndWrites:
    """What the members of a set write and read.

    Attributes:
        parts: one description for each member.
        n: how many examples they were read on.
        what: the quantity that they add to.
        whole: its mean.
        reason: why there are no descriptions, where there are none.
    """

    parts: tuple[PartDescription, ...] = ()
    n: int = 0
    what: str = ""
    whole: float = 0.0
    reason: str = ""

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"parts": [p.to_dict() for p in self.parts]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ReadsAndWrites:
        """The inverse of `to_dict`."""
        parts: dict[str, Any] = {"parts": tuple(map(PartDescription.from_dict, data["parts"]))}
        return cls(**(data | parts))


@dataclass(frozen=True, eq=False)
class _Examples:
    """A few examples of a behaviour, as rows of tokens.

    Attributes:
        clean: the clean prompts.
        corrupted: the corrupted ones.
        right: the first right answer of each.
        wrong: the first wrong one; None where an example has none.
        at: the position of the answer [b 1], counted from the start.
        spans: of each example, by name.
        template: of each example.
    """

    clean: list[list[int]]
    corrupted: list[list[int]]
    right: list[int]
    wrong: list[int] | None
    at: Tensor
    spans: Sequence[Mapping[str, tuple[int, int]]]
    template: list[str]


def reads_and_writes(net: Network, behaviour: Behaviour, members: Sequence[Part]) -> ReadsAndWrites:
    """Describe each member on at most 16 held-out examples; where the network refuses it, the reason is kept instead."""
    chosen = _examples(behaviour.held_out)
    try:
        streams = _streams(net, chosen, chosen.at)
        wrong = None if chosen.wrong is None else torch.tensor(chosen.wrong)
        adds = attribute(streams[0], torch.tensor(chosen.right), wrong)
        ends = [stream.decompose() for stream in streams]
        sources = [_sources(net, chosen, rows) for rows in (chosen.clean, chosen.corrupted)]
        moved = {member: _moved(chosen, member, *sources) for member in members}
        read = _read_at(net, chosen, {m: place for m, (_, place) in moved.items() if place is not None})
        change = [_change(member, ends) for member in members]
        n = len(chosen.clean)
        at_once = max(1, _LOGITS // max(1, n * (net.d_vocab or 1)))  # the readout is made anew each time
        several = [torch.cat(change[i : i + at_once]) for i in range(0, len(change), at_once)]
        tokens = [row for some in several for row in in_vocabulary(net, some, k=_SHOWN)]
        parts = tuple(
            _part(chosen, m, adds, tokens[i * n : (i + 1) * n], moved[m][0], read.get(m, ends))
            for i, m in enumerate(members)
        )
    except Stopped:
        raise
    except CutawayError as error:
        return ReadsAndWrites(reason=str(error))
    what = "logit of the right answer" + ("" if chosen.wrong is None else " minus that of the wrong one")
    what += "" if adds.softcap is None else ", before the soft-cap"
    return ReadsAndWrites(parts, len(chosen.clean), what, float(adds.wanted.mean()))


def _examples(half: Behaviour) -> _Examples:
    n = min(_MOST, half.n)
    clean, corrupted = ([list(r) for r in rows[:n]] for rows in (half.clean_ids, half.corrupted_ids))
    wrong = [half.wrong[i][0] for i in range(n)] if all(half.wrong[:n]) else None
    at = torch.tensor([[p % len(row)] for p, row in zip(half.answer_pos[:n], clean, strict=True)])
    spans = [{name: where[i] for name, where in half.spans.items()} for i in range(n)]
    return _Examples(
        clean, corrupted, [half.right[i][0] for i in range(n)], wrong, at, spans, list(half.template[:n])
    )


def _sources(net: Network, chosen: _Examples, rows: list[list[int]]) -> Attribution | None:
    """What heads add by source, where patterns can be read."""
    try:
        return logit_attribution(
            net, rows, target=chosen.right, foil=chosen.wrong, by="source", pos=chosen.at
        )
    except CutawayError:
        return None


def _streams(net: Network, chosen: _Examples, pos: Tensor) -> list[Stream]:
    """The stream of clean and of corrupted prompts by who wrote it, at positions [b k]."""
    return [read_stream(net, rows, by="head", pos=pos) for rows in (chosen.clean, chosen.corrupted)]


def _read_at(net: Network, chosen: _Examples, places: Mapping[Part, Tensor]) -> dict[Part, list[StreamStack]]:
    """For each member with a place [b 1] of its own, both sides' streams there as they enter its layer; run once for all."""
    if not places:
        return {}
    streams = _streams(net, chosen, torch.cat(list(places.values()), 1))
    stacks = {m: [stream.decompose(m.layer) for stream in streams] for m in places}
    return {
        m: [StreamStack(s.writers, s.values[:, :, i : i + 1]) for s in stacks[m]]
        for i, m in enumerate(places)
    }


def _change(member: Part, ends: Sequence[StreamStack]) -> Tensor:
    """[b d] by how much more a member writes at the answer of clean prompts. ends: both sides' streams there."""
    there, other = (stack.values[stack.writers.index(member)] for stack in ends)
    return (there - other)[:, 0].detach()


def _part(
    chosen: _Examples,
    member: Part,
    adds: Attribution,
    raised: Sequence[Sequence[tuple[str, float]]],
    moved: tuple[tuple[str, float], ...],
    read: Sequence[StreamStack],
) -> PartDescription:
    """raised: for each example, tokens that it raises. moved: by what places it adds. read: both streams where it reads."""
    added = adds.values[adds.writers.index(member)][:, 0]
    tokens = Counter(t for row in raised for t, _ in row)
    raises = tuple(token for token, _ in tokens.most_common(_SHOWN))
    adds_up = mean_of(added, chosen.template if len(set(chosen.template)) >= 4 else None)
    return PartDescription(member, adds_up, raises, moved, _read(member, *read))


def _moved(
    chosen: _Examples, writer: Part, clean: Attribution | None, corrupted: Attribution | None
) -> tuple[tuple[tuple[str, float], ...], Tensor | None]:
    """By what places a head adds what it adds, by span or token, largest first; and for each example the place by which that
    differs most from the corrupted prompt."""
    if writer.kind != "head" or clean is None or corrupted is None:
        return (), None
    each, other = (_by_place(sources, writer) for sources in (clean, corrupted))
    total: dict[str, float] = {}
    for b, tokens in enumerate(clean.tokens):
        named = {p: name for name, (first, end) in chosen.spans[b].items() for p in range(first, end)}
        for p, token in enumerate(tokens):
            label = named.get(p, token.strip() or repr(token))
            total[label] = total.get(label, 0.0) + float(each[p, b]) / len(clean.tokens)
    best = sorted(total.items(), key=lambda item: -abs(item[1]))[:_SHOWN]
    change = abs(each - other)
    place = [[int(change[: len(row), b].argmax())] for b, row in enumerate(chosen.clean)]
    return tuple(best), torch.tensor(place)


def _by_place(adds: Attribution, writer: Part) -> np.ndarray:
    """What one head adds by each source: [p b]."""
    each = enumerate(zip(adds.writers, adds.sources, strict=True))
    rows = [i for i, (w, source) in each if w == writer and source is not None]
    return adds.values[rows][:, :, 0]


def _read(member: Part, clean: StreamStack, corrupted: StreamStack) -> tuple[tuple[str, float], ...]:
    """Who wrote the difference between clean and corrupted prompts that the member reads: shares of its square.

    A head's values are read at the place by which what it adds differs most; the others at the answer's place.
    """
    writers = enumerate(clean.writers)
    before = {i: w for i, w in writers if isinstance(w, Part) and w != member and _before(w, member)}
    gap = clean.values[list(before)] - corrupted.values[list(before)]
    whole = gap.sum(0)
    size = float(whole.double().square().sum())
    if size == 0:
        return ()
    shares = (gap.double() * whole.double()).sum((1, 2, 3)) / size
    sources = [(w.words, float(share)) for w, share in zip(before.values(), shares, strict=True)]
    sources.sort(key=lambda item: -abs(item[1]))
    return tuple((name, share) for name, share in sources[:_SHOWN] if abs(share) >= _WORTH_NAMING)


def _before(writer: Part, member: Part) -> bool:
    """Whether a writer comes before a member reads: an earlier layer, or the attention of an MLP's own layer."""
    layer = -1 if writer.layer is None else writer.layer
    if writer.kind in ("norm_bias", "rest") and writer.layer is None:
        return False
    assert member.layer is not None
    attends = writer.kind in ("head", "attention", "attention_bias", "mixer")
    return layer < member.layer or (member.kind == "mlp" and layer == member.layer and attends)
