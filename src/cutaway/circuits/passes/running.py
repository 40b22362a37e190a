"""Run a circuit: edges inside it carry what their writer writes in this run, edges outside carry an ablated value.

The model's own code runs once. At the entry of each sublayer every reader gets a stream of its own,

    x_r = x + sum over writers w before r of (1 - m[w, r]) * (ablated_w - current_w),

which goes through the sublayer's norm and the reader's slice of the projection; the model does the rest. Readers whose
masks are equal share a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.circuits.graph.wiring import PARTS, Projection, Wiring, WiringStage
from cutaway.circuits.passes.outputs import INPUT, At, Outputs, scaled, to_stream
from cutaway.circuits.passes.resuming import ResumedPrefix
from cutaway.network.edits import Edit
from cutaway.network.inputs import Tokens


@dataclass(frozen=True, eq=False)
class Mask:
    """Which edges are in: [w r] for all rows, [b w r] for each row its own, or [g w r] with groups [b p] of positions.

    Bool or float (a float between 0 and 1 mixes; gradients flow through it). `groups`: the group of each position.
    """

    inside: Tensor
    groups: Tensor | None = None

    def out(self, stage: WiringStage, like: Tensor) -> Tensor:
        """1 - m, by reader: [r w] or [b or g, r w]."""
        part = self.inside[..., : stage.before, stage.readers].to(like.device)
        return 1 - part.to(like.dtype).transpose(-1, -2)


@dataclass(eq=False)
class EdgeRun:
    """State of one run: the differences of all writers so far, and the streams of the stage that is about to read."""

    wiring: Wiring
    ablated: Outputs
    mask: Mask
    real: Tensor
    prefix: ResumedPrefix | None = None
    start: int = 0
    deltas: list[Tensor] = field(default_factory=list)
    nonlinear: list[tuple[WiringStage, Tensor, Tensor]] = field(default_factory=list)
    streams: dict[int, tuple[Tensor, list[int] | None]] = field(default_factory=dict)
    _pending: Tensor | None = None
    buffer: Tensor | None = None

    # the edits ---------------------------------------------------------------------------------------------------

    def edits(self) -> list[Edit]:
        """Everything that is done on the way."""
        found: list[Edit] = [At(INPUT, self._at_input)]
        for number, stage in enumerate(self.wiring.stages):
            if stage.layer < self.start:
                continue
            found += self._entry(number, stage)
            if stage.kind == "logits":
                continue
            if stage.norm_after is not None:
                found.append(At(stage.raw, lambda v, h=None, s=stage: self._at_raw(v, s)))
            found.append(At(stage.write, lambda v, h=None, s=stage: self._at_write(v, s)))
        return found

    def _entry(self, number: int, stage: WiringStage) -> list[Edit]:
        if stage.kind != "head":
            if stage.norm is None and stage.site == stage.entry:
                return [At(stage.site, lambda v, h=None: self._unit(v, number, stage, v))]
            return [
                At(stage.entry, lambda v, h=None: self._enter(v, number, stage)),
                At(stage.site, lambda v, h=None: self._unit(v, number, stage, None)),
            ]
        found: list[Edit] = [At(stage.entry, lambda v, h=None: self._enter(v, number, stage))]
        by_path: dict[str, list[str]] = {}
        for part, projection in stage.projections.items():
            by_path.setdefault(projection.path, []).append(part)
        for path, parts in by_path.items():
            found.append(At(path, lambda v, h=None, ps=parts: self._project(v, number, stage, ps)))
        return found

    # writers -----------------------------------------------------------------------------------------------------

    def _store(self, start: int, values: Tensor) -> None:
        """Differences [w b p d] of the next writers."""
        if not bool(self.real.all()):
            values = values * self.real.to(values)[..., None]
        if torch.is_grad_enabled():
            self.deltas.append(values)
        else:
            assert self.buffer is not None
            self.buffer[start : start + len(values)] = values

    def _at_input(self, value: Tensor, here: object = None) -> Tensor:
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
            self._at_write(prefix.outputs.values[stage.write], stage)
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

    # readers -----------------------------------------------------------------------------------------------------

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
        mine = deltas[: stage.before]
        if self.mask.groups is not None:
            found = x + torch.einsum("bprw,wbpd->rbpd", self._by_position(out), mine)
        elif out.ndim == 3:
            rows = torch.bmm(out, mine.flatten(2).transpose(0, 1)).transpose(0, 1)
            found = x + rows.unflatten(-1, x.shape[1:])
        else:
            flat = x.reshape(1, -1).expand(out.shape[0], -1)
            found = torch.addmm(flat, out, mine.flatten(1)).unflatten(1, x.shape)
        for source, raw, heads in self.nonlinear:
            if source.writers.start < stage.before:
                found = found + self._after_norm(source, raw, heads, out)
        return found

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
        elif part.ndim == 3:
            changed = torch.einsum("brh,hbpd->rbpd", part, heads)
        else:
            changed = torch.einsum("rh,hbpd->rbpd", part, heads)
        new = source.norm_after(raw + changed) - source.norm_after(raw)
        return scaled(source, new) * self.real.to(new)[..., None]

    def _unit(self, value: Tensor, number: int, stage: WiringStage, entry: Tensor | None) -> Tensor:
        if entry is not None:
            self._enter(entry, number, stage)
        streams, _ = self.streams.pop(number)
        return streams[0].reshape(value.shape).to(value.dtype)

    def _project(self, value: Tensor, number: int, stage: WiringStage, parts: Sequence[str]) -> Tensor:
        """The output of a projection when each head reads its own stream."""
        streams, which = self.streams[number]
        pieces: list[tuple[Tensor, Tensor]] = []
        wide = False
        for offset, part in enumerate(PARTS):
            if part not in parts:
                continue
            projection = stage.projections[part]
            wide = projection.groups > 1
            mine = [offset * stage.heads + h for h in range(stage.heads)]
            own = _heads_of(projection, streams, [which[r] for r in mine] if which is not None else mine)
            pieces.append((projection.channels, own))
        if parts[-1] == "v":
            self.streams.pop(number)
        flat = [(c.flatten(), own.flatten(2)) for c, own in pieces]
        shape = value.shape[:-1]
        if wide:
            return flat[0][1].reshape(*shape, -1).to(value.dtype)
        new = value.clone().reshape(*self.real.shape, -1)
        for channels, own in flat:
            new[..., channels] = own.to(value.dtype)
        return new.reshape(value.shape)


def _heads_of(projection: Projection, streams: Tensor, which: Sequence[int]) -> Tensor:
    """Each head's slice of a projection of its own stream [r b p d]: [b p h e]. which: the stream of each head."""
    weight, channels = projection.weight, projection.channels
    found: list[Tensor | None] = [None] * len(which)
    for stream in sorted(set(which)):
        heads = [h for h, s in enumerate(which) if s == stream]
        index = channels[heads].flatten()
        if weight is None:
            part = projection.module.forward(streams[stream])[..., index]
        else:
            bias = None if projection.bias is None else projection.bias[index]
            part = torch.nn.functional.linear(streams[stream], weight[index].to(streams.dtype), bias)
        for h, own in zip(heads, part.unflatten(-1, (len(heads), -1)).unbind(-2), strict=True):
            found[h] = own
    return torch.stack([f for f in found if f is not None], 2)


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
    with wiring.ungrouped(), skipped:
        run = wiring.net.run(tokens, edits=[*edits, *state.edits()], logits=positions[:, None], grad=grad)
    assert run.logits is not None
    return run.logits[:, 0]


def run_nodes(
    wiring: Wiring,
    tokens: Tokens,
    positions: Tensor,
    ablated: Outputs,
    inside: Tensor,
    edits: Sequence[Edit] = (),
) -> Tensor:
    """Logits [b v] when writers outside `inside` (bool [w] or [b w]) write their ablated value everywhere."""
    found: list[Edit] = [*edits]
    keep = inside if inside.ndim == 2 else inside[None]

    def replaced(place: str, chosen: Tensor, heads: int) -> Edit:
        def fn(value: Tensor, here: object = None) -> Tensor:
            new = ablated.values[place].expand_as(value)
            mine = chosen.to(value.device).expand(value.shape[0], -1)
            if heads:
                width = value.shape[-1] // heads
                mine = mine.repeat_interleave(width, -1)
            return torch.where(mine[:, None, :], value, new.to(value))

        return At(place, fn)

    if not bool(keep[:, 0].all()):
        found.append(replaced(INPUT, keep[:, :1], 0))
    for stage in wiring.stages:
        if stage.kind != "logits" and not bool(keep[:, stage.writers].all()):
            found.append(replaced(stage.write, keep[:, stage.writers], stage.heads))
    run = wiring.net.run(tokens, edits=found, logits=positions[:, None])
    assert run.logits is not None
    return run.logits[:, 0]
