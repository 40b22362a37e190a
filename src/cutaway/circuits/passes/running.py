"""Run a circuit: edges inside it carry what their writer writes in this run, edges outside carry an ablated value.

The model's own code runs once. At the entry of each sublayer every reader gets a stream of its own,

    x_r = x + sum over writers w before r of (1 - m[w, r]) * (ablated_w - current_w),

which goes through the sublayer's norm and the reader's slice of the projection; the model does the rest. Readers whose
masks are equal share a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cutaway.circuits.graph.reading import HeadReading
from cutaway.circuits.graph.wiring import PORTS, Projection, Wiring, WiringStage
from cutaway.circuits.passes.outputs import (
    INPUT,
    At,
    Outputs,
    answered,
    expert_parts,
    scaled,
    to_stream,
    with_input,
)
from cutaway.circuits.passes.resuming import ResumedPrefix
from cutaway.network.edits import Edit
from cutaway.network.inputs import Tokens


@dataclass(frozen=True, eq=False)
class Mask:
    """Which edges are in.

    Attributes:
        inside: [w r] for all rows, [b w r] for each row its own, or [g w r] with groups of positions. Bool or float (a float
            between 0 and 1 mixes; gradients flow through it).
        groups: [b p], the group of each position.
    """

    inside: Tensor
    groups: Tensor | None = None

    def out(self, stage: WiringStage, like: Tensor) -> Tensor:
        """1 - m, by reader: [r w] or [b or g, r w]."""
        part = self.inside[..., : stage.before, stage.readers].to(like.device)
        return 1 - part.to(like.dtype).transpose(-1, -2)


@dataclass(eq=False)
class EdgeRun:
    """State of one run.

    Attributes:
        wiring: of the network.
        ablated: what edges outside the circuit carry.
        mask: which edges are in.
        real: bool [b p], where there are tokens.
        prefix: a run from which this one starts at layer `start`.
        start: that layer.
        deltas: differences ablated - current of the writers so far, with gradients.
        nonlinear: of sublayers that a norm follows: stage, output before the norm, each head's difference.
        streams: of the stages that are about to read: distinct streams, and which reader has which.
        values: queries, keys and values of stages whose heads read by running their attention.
        parts: what each node of a mixture adds, and whether the nodes read different streams.
        buffer: [w b p d], the differences without gradients.
    """

    wiring: Wiring
    ablated: Outputs
    mask: Mask
    real: Tensor
    prefix: ResumedPrefix | None = None
    start: int = 0
    deltas: list[Tensor] = field(default_factory=list)
    nonlinear: list[tuple[WiringStage, Tensor, Tensor]] = field(default_factory=list)
    streams: dict[int, tuple[Tensor, list[int] | None]] = field(default_factory=dict)
    values: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    parts: dict[int, tuple[Tensor, bool]] = field(default_factory=dict)
    _pending: Tensor | None = None
    buffer: Tensor | None = None

    def edits(self) -> list[Edit]:
        """Everything that is done on the way."""
        edits: list[Edit] = [At(INPUT, self._at_input)]
        for number, stage in enumerate(self.wiring.stages):
            if stage.layer < self.start:
                continue
            edits += self._entry(number, stage)
            if stage.kind == "logits":
                continue
            if stage.norm_after is not None:
                edits.append(At(stage.raw, partial(self._at_raw, stage=stage)))
            if stage.kind == "expert":
                edits.append(At(stage.write, partial(self._at_mixture, number=number, stage=stage)))
            else:
                edits.append(At(stage.write, partial(self._at_write, stage=stage)))
        return edits

    def _entry(self, number: int, stage: WiringStage) -> list[Edit]:
        edits: list[Edit] = [At(stage.entry, lambda v: self._enter(v, number, stage))]
        if stage.kind != "head":
            if stage.norm is None and stage.site == stage.entry:
                return [At(stage.site, lambda v: self._unit(self._enter(v, number, stage), number, stage))]
            return [*edits, At(stage.site, lambda v: self._unit(v, number, stage))]
        if stage.reading is not None:
            return edits + [
                At(f"{port}.{stage.layer}", lambda v, p=port: self.values[number][p].to(v.dtype))
                for port in PORTS
            ]
        by_path: dict[str, list[str]] = {}
        for part, projection in stage.projections.items():
            by_path.setdefault(projection.path, []).append(part)
        for path, parts in by_path.items():
            edits.append(At(path, partial(self._project, number=number, stage=stage, parts=parts)))
        return edits

    def _store(self, start: int, values: Tensor) -> None:
        """Differences [w b p d] of the next writers."""
        if not bool(self.real.all()):
            values = values * self.real.to(values)[..., None]
        if torch.is_grad_enabled():
            self.deltas.append(values)
        else:
            assert self.buffer is not None
            self.buffer[start : start + len(values)] = values

    def _at_input(self, value: Tensor) -> Tensor:
        if self.buffer is None and not torch.is_grad_enabled():
            self.buffer = value.new_empty(len(self.wiring.graph.writers), *value.shape)
        delta = (self.ablated.values[INPUT] - value).expand_as(value)
        self._store(0, delta[None])
        if self.prefix is not None:
            self._restore(self.prefix)
        return value

    def _restore(self, prefix: ResumedPrefix) -> None:
        """Take what the writers below the first layer that is run wrote from the run that was made before."""
        for stage in self.wiring.stages:
            if stage.layer >= self.start or stage.kind == "logits":
                continue
            written = prefix.outputs.values[stage.write]
            if stage.kind == "expert":
                self._store_mixture(to_stream(stage, written), stage)
                continue
            self._at_write(written, stage)
            if stage.norm_after is not None:
                self._at_raw(prefix.outputs.raw[stage.raw], stage)

    def _at_raw(self, value: Tensor, stage: WiringStage) -> Tensor:
        """Remember a sublayer's output before its own norm, and what each head would change of it."""
        assert self._pending is not None
        self.nonlinear.append((stage, value, self._pending))
        return value

    def _at_write(self, value: Tensor, stage: WiringStage) -> Tensor:
        delta = self.ablated.values[stage.write] - value
        if stage.kind == "unit":
            self._store(stage.writers.start, delta.reshape(value.shape)[None])
            return value
        heads = to_stream(stage, delta.expand_as(value))
        if stage.norm_after is not None:
            self._pending = heads
            self._store(stage.writers.start, torch.zeros_like(heads))
        else:
            self._store(stage.writers.start, scaled(stage, heads))
        return value

    def _at_mixture(self, value: Tensor, number: int, stage: WiringStage) -> Tensor:
        """Note what every expert adds; where experts read different streams, the sum of that is what is written."""
        parts, several = self.parts.pop(number)
        self._store_mixture(parts, stage)
        return scaled(stage, parts.sum(0)).reshape(value.shape).to(value.dtype) if several else value

    def _store_mixture(self, parts: Tensor, stage: WiringStage) -> None:
        ablated = to_stream(stage, self.ablated.values[stage.write])
        self._store(stage.writers.start, scaled(stage, ablated - parts))

    def _enter(self, value: Tensor, number: int, stage: WiringStage) -> Tensor:
        """Make the streams of a stage's readers from the stream itself: distinct ones only."""
        x = value.reshape(self.real.shape[0], self.real.shape[1], -1)
        self.streams[number] = self._normed(x, stage)
        return value

    def _normed(self, x: Tensor, stage: WiringStage) -> tuple[Tensor, list[int] | None]:
        out = self.mask.out(stage, x)
        which: list[int] | None = None
        if out.ndim == 2 and not out.requires_grad and out.shape[0] > 1:
            out, inverse = torch.unique(out, dim=0, return_inverse=True)
            which = inverse.tolist()
        streams = self._corrections(x, out, stage)
        if stage.norm is not None:
            streams = stage.norm(streams)
        return streams, which

    def _corrections(self, x: Tensor, out: Tensor, stage: WiringStage) -> Tensor:
        """x plus, for every reader, the sum over writers of out * difference: [r b p d]."""
        deltas = torch.cat(self.deltas) if self.deltas else self.buffer
        assert deltas is not None
        deltas = deltas[: stage.before]
        if self.mask.groups is not None:
            streams = x + torch.einsum("bprw,wbpd->rbpd", self._by_position(out), deltas)
        elif out.ndim == 3:
            rows = torch.bmm(out, deltas.flatten(2).transpose(0, 1)).transpose(0, 1)
            streams = x + rows.unflatten(-1, x.shape[1:])
        else:
            flat = x.reshape(1, -1).expand(out.shape[0], -1)
            streams = torch.addmm(flat, out, deltas.flatten(1)).unflatten(1, x.shape)
        for source, raw, heads in self.nonlinear:
            if source.writers.start < stage.before:
                streams = streams + self._after_norm(source, raw, heads, out)
        return streams

    def _by_position(self, out: Tensor) -> Tensor:
        """A mask by group [g r w] as one for every position [b p r w]; nothing is changed at padding."""
        assert self.mask.groups is not None
        groups = self.mask.groups.to(out.device)
        return out[groups.clamp(min=0)] * (groups >= 0)[..., None, None]

    def _after_norm(self, source: WiringStage, raw: Tensor, heads: Tensor, out: Tensor) -> Tensor:
        """What a reader's mask changes of a sublayer's write where a norm follows the sum of its heads: [r b p d]."""
        assert source.norm_after is not None
        raw = raw.reshape(heads.shape[1:])
        part = out[..., source.writers]
        if self.mask.groups is not None:
            changed = torch.einsum("bprh,hbpd->rbpd", self._by_position(part), heads)
        else:
            changed = torch.einsum(f"{'b' if part.ndim == 3 else ''}rh,hbpd->rbpd", part, heads)
        new = source.norm_after(raw + changed) - source.norm_after(raw)
        return scaled(source, new) * self.real.to(new)[..., None]

    def _unit(self, value: Tensor, number: int, stage: WiringStage) -> Tensor:
        streams, which = self.streams.pop(number)
        if stage.kind == "expert":
            self._run_experts(streams, which, number, stage)
        return streams[0].reshape(value.shape).to(value.dtype).contiguous()

    def _run_experts(self, streams: Tensor, which: list[int] | None, number: int, stage: WiringStage) -> None:
        """What each node of a mixture adds when it reads its own stream: [n b p d]."""
        readers = _stream_of(streams, which, stage.heads)
        by_stream = {s: expert_parts(stage, streams[s]) for s in sorted(set(readers))}
        parts = torch.stack([by_stream[s][node] for node, s in enumerate(readers)])
        self.parts[number] = parts, len(by_stream) > 1

    def _read_heads(self, number: int, stage: WiringStage, _module: Any, args: Any, kwargs: Any) -> None:
        """Queries, keys and values [b p h e] of heads that read by running their attention, each on its own stream."""
        assert isinstance(stage.reading, HeadReading)
        streams, which = self.streams.pop(number)
        readers = _stream_of(streams, which, 3 * stage.heads)
        by_reader: dict[int, Tensor] = {}
        for stream in sorted(set(readers)):
            values = stage.reading.read(streams[stream], (args, kwargs))
            for reader in (r for r, s in enumerate(readers) if s == stream):
                offset, head = divmod(reader, stage.heads)
                by_reader[reader] = stage.reading.head_of(values[PORTS[offset]], head)
        self.values[number] = {
            port: torch.stack([by_reader[offset * stage.heads + head] for head in range(stage.heads)], 2)
            for offset, port in enumerate(PORTS)
        }

    def watch_arguments(self) -> list[Any]:
        """Hooks by which heads that read by running their attention learn its other arguments; to be removed afterwards."""
        handles = []
        for number, stage in enumerate(self.wiring.stages):
            reads = isinstance(stage.reading, HeadReading) and stage.layer >= self.start
            if reads and stage.module is not None:
                hook = partial(self._read_heads, number, stage)
                handles.append(stage.module.register_forward_pre_hook(hook, with_kwargs=True))
        return handles

    def _project(self, value: Tensor, number: int, stage: WiringStage, parts: Sequence[str]) -> Tensor:
        """The output of a projection when each head reads its own stream."""
        streams, which = self.streams[number]
        pieces: list[tuple[Projection, Tensor]] = []
        for offset, part in enumerate(PORTS):
            if part in parts:
                readers = range(offset * stage.heads, (offset + 1) * stage.heads)
                chosen = [which[r] for r in readers] if which is not None else readers
                projection = stage.projections[part]
                pieces.append((projection, _heads_of(projection, streams, chosen).flatten(2)))
        if parts[-1] == "v":
            self.streams.pop(number)
        if pieces[-1][0].groups > 1:
            return pieces[0][1].reshape(*value.shape[:-1], -1).to(value.dtype)
        new = value.clone().reshape(*self.real.shape, -1)
        for projection, values in pieces:
            new[..., projection.channels.flatten()] = values.to(value.dtype)
        return new.reshape(value.shape)


def _stream_of(streams: Tensor, which: list[int] | None, readers: int) -> list[int]:
    """Which of the streams each of so many readers has; the first where they all share one."""
    chosen = which if which is not None else list(range(streams.shape[0]))
    return chosen if len(chosen) == readers else [0] * readers


def _heads_of(projection: Projection, streams: Tensor, which: Sequence[int]) -> Tensor:
    """Each head's slice of a projection of its own stream [r b p d]: [b p h e]. which: the stream of each head."""
    weight, channels = projection.weight, projection.channels
    by_head: list[Tensor | None] = [None] * len(which)
    for stream in sorted(set(which)):
        heads = [h for h, s in enumerate(which) if s == stream]
        index = channels[heads].flatten()
        if weight is None:
            part = projection.module.forward(streams[stream])[..., index]
        else:
            bias = None if projection.bias is None else projection.bias[index]
            part = torch.nn.functional.linear(streams[stream], weight[index].to(streams.dtype), bias)
        for h, value in zip(heads, part.unflatten(-1, (len(heads), -1)).unbind(-2), strict=True):
            by_head[h] = value
    return torch.stack([f for f in by_head if f is not None], 2)


def run_edges(
    wiring: Wiring,
    tokens: Tokens,
    positions: Tensor,
    ablated: Outputs,
    mask: Mask,
    edits: Sequence[Edit] = (),
    grad: bool = False,
    resume: tuple[ResumedPrefix, int] | None = None,
) -> Tensor:
    """Logits [b v] at the answer positions when the edges outside `mask` carry what `ablated` says.

    resume: a run of the same prompts with every edge in, and the layer to start at; no edge into a layer below it may be
    out. What lies below is then not computed again.
    """
    prefix, start = resume if resume is not None and resume[0].usable(resume[1]) and not grad else (None, 0)
    state = EdgeRun(wiring, ablated, mask, tokens.mask.to(wiring.net.device), prefix, start)
    skipped = nullcontext() if prefix is None else prefix.skipping(start)
    with wiring.ungrouped(), skipped, ExitStack() as hooks:
        for handle in state.watch_arguments():
            hooks.callback(handle.remove)
        run = wiring.net.run(tokens, edits=[*edits, *state.edits()], logits=positions[:, None], grad=grad)
    return answered(run)


def run_nodes(
    wiring: Wiring,
    tokens: Tokens,
    positions: Tensor,
    ablated: Outputs,
    inside: Tensor,
    edits: Sequence[Edit] = (),
) -> Tensor:
    """Logits [b v] when writers outside `inside` (bool [w] or [b w]) write their ablated value everywhere."""
    changes: list[Edit] = [*edits]
    keep = inside if inside.ndim == 2 else inside[None]

    def replaced(place: str, chosen: Tensor, heads: int) -> Edit:
        def fn(value: Tensor) -> Tensor:
            new = ablated.values[place].expand_as(value)
            mine = chosen.to(value.device).expand(value.shape[0], -1)
            if heads:
                mine = mine.repeat_interleave(value.shape[-1] // heads, -1)
            return torch.where(mine[:, None, :], value, new.to(value))

        return At(place, fn)

    def mixed(stage: WiringStage, chosen: Tensor) -> list[Edit]:
        """Of a mixture, what the experts outside add is exchanged for what they add when ablated."""

        def exchanged(taken: Tensor, value: Tensor) -> Tensor:
            out = (~chosen.to(value.device)).T[:, :, None, None]
            change = (to_stream(stage, ablated.values[stage.write]) - expert_parts(stage, taken)) * out
            return value + scaled(stage, change.sum(0)).reshape(value.shape).to(value.dtype)

        return with_input(stage.site, stage.write, exchanged)

    if not bool(keep[:, 0].all()):
        changes.append(replaced(INPUT, keep[:, :1], 0))
    for stage in wiring.stages:
        if stage.kind == "logits" or bool(keep[:, stage.writers].all()):
            continue
        if stage.kind == "expert":
            changes += mixed(stage, keep[:, stage.writers])
        else:
            changes.append(replaced(stage.write, keep[:, stage.writers], stage.heads))
    return answered(wiring.net.run(tokens, edits=changes, logits=positions[:, None]))
