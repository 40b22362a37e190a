"""The gradient of a metric with respect to the stream as each reader sees it.

One forward and one backward pass give the gradient at the outputs of the query, key and value projections and at what
whole sublayers read. From there it is taken back to the stream by each head's slice of the projection and the derivative
of the norm: no copy of the stream is made for any reader in the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.circuits.graph.reading import ExpertReading, HeadReading, pulled_back
from cutaway.circuits.graph.wiring import PORTS, Projection, Wiring, WiringStage
from cutaway.circuits.passes.outputs import (
    INPUT,
    At,
    Outputs,
    answered,
    kept_places,
    outputs_of,
    places,
    scaled,
)
from cutaway.network.edits import Edit
from cutaway.network.inputs import Tokens
from cutaway.network.norms import along
from cutaway.network.run import Run
from cutaway.network.slopes import independent, require_slope, slopes_of, without_parameter_gradients

#: Logits [b v] at the answer position -> one number for each example [b].
Score = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Backward:
    """One forward and backward pass.

    Attributes:
        outputs: what was written.
        metric: [b].
        slopes: gradients by place.
        entries: the streams before norms, by place.
        by_reader: for stages whose parts read by running a module, gradients at what each reader takes in [r b p d].
    """

    outputs: Outputs
    metric: Tensor
    slopes: dict[str, Tensor]
    entries: dict[str, Tensor] = field(default_factory=dict)
    by_reader: dict[int, Tensor] = field(default_factory=dict)


def widened(projection: Projection) -> Edit:
    """Repeat the shared key or value heads of a projection's output, one for each query head."""
    return At(projection.path, lambda value: value[..., projection.channels.flatten()])


def widening(wiring: Wiring) -> list[Edit]:
    """The edits that give every query head keys and values of its own, where they are shared."""
    edits = [widened(p) for s in wiring.stages for p in s.projections.values() if p.groups > 1]
    for stage in wiring.stages:
        if isinstance(stage.reading, HeadReading):
            edits += [At(f"{port}.{stage.layer}", stage.reading.widened) for port in "kv"]
    return edits


def backward(
    wiring: Wiring,
    tokens: Tokens,
    positions: Tensor,
    score: Score,
    edits: Sequence[Edit] = (),
    writers: bool = False,
) -> Backward:
    """Run forward and backward once.

    score: logits [b v] -> [b]; its sum is differentiated, so that each example has its own gradient. edits: made on the
    way (`widening` is added). writers: also the gradients at what the writers wrote, through all paths.

    Raises `BadBehaviour` where the metric does not depend on the network, `NotFinite` where a gradient is NaN or infinite.
    """
    readers = reading_places(wiring)
    entries = list(dict.fromkeys(s.entry for s in wiring.stages if s.norm is not None))
    net = wiring.net
    wanted = list(dict.fromkeys([*readers, *(places(wiring) if writers else ())]))
    inputs = [s.site for s in wiring.stages if s.reading is not None]
    keep = list(dict.fromkeys([*wanted, *kept_places(wiring), *entries, *inputs]))
    with without_parameter_gradients(net.model), wiring.ungrouped():
        changes = [*edits, *widening(wiring)]
        run = net.run(tokens, keep=keep, edits=changes, logits=positions[:, None], grad=True)
        values = score(answered(run))
        if not values.requires_grad:
            raise independent()
        by_place = slopes_of(values, run, wanted, again=bool(inputs))
        by_reader = {
            s.readers.start: _through(s, run, by_place) for s in wiring.stages if s.reading is not None
        }
    require_slope(by_place)
    streams = {p: run[p].detach() for p in entries}
    return Backward(outputs_of(wiring, run), values.detach(), by_place, streams, by_reader)


def _through(stage: WiringStage, run: Run, slopes: Mapping[str, Tensor]) -> Tensor:
    """Gradients at what each reader of a stage takes in, where its parts read by running a module: [r b p d]."""
    taken = run[stage.site]
    if isinstance(stage.reading, ExpertReading):
        slope = slopes[stage.write].reshape(taken.shape)
        return stage.reading.pull(taken, scaled(stage, slope))
    pulled = []
    for port in PORTS:
        value, slope = run[f"{port}.{stage.layer}"], slopes[f"{port}.{stage.layer}"]
        for head in range(stage.heads):
            alone = torch.zeros_like(slope)
            alone[:, :, head] = slope[:, :, head]
            pulled.append(pulled_back(value, taken, alone))
    return torch.stack(pulled)


def reading_places(wiring: Wiring) -> list[str]:
    """Where the readers' gradients are taken: projections' outputs, and what whole sublayers and the unembedding read."""
    reading: list[str] = []
    for stage in wiring.stages:
        if isinstance(stage.reading, HeadReading):
            reading += [f"{port}.{stage.layer}" for port in PORTS]
        elif stage.kind == "expert":
            reading.append(stage.write)
        else:
            reading += [p.path for p in stage.projections.values()] if stage.kind == "head" else [stage.site]
    return list(dict.fromkeys(reading))


def at_readers(wiring: Wiring, done: Backward, frozen: bool = False) -> Iterator[tuple[WiringStage, Tensor]]:
    """For each stage the gradient with respect to the stream as each of its readers sees it: [r b p d].

    frozen: with the norms' spread held constant (the LN-rule of relevance propagation).
    """
    width = done.outputs.values[INPUT].shape
    for stage in wiring.stages:
        point = None if stage.norm is None else done.entries[stage.entry].reshape(width)
        if stage.kind == "head" and stage.reading is None:
            yield stage, slopes_of_heads(stage, done.slopes, point, width, frozen)
            continue
        read = done.slopes[stage.site] if stage.reading is None else done.by_reader[stage.readers.start]
        slopes = read.reshape(-1, *width)
        yield stage, slopes if stage.norm is None or point is None else stage.norm.pull(point, slopes, frozen)


def slopes_of_heads(
    stage: WiringStage,
    slopes: Mapping[str, Tensor],
    point: Tensor | None,
    width: torch.Size,
    frozen: bool = False,
) -> Tensor:
    """The same for a stage of heads, from gradients at the outputs of its projections: [3h b p d].

    A norm with a closed form is taken into the projection's matrix, so that nothing is done twice for each reader.
    """
    norm = stage.norm
    plain = all(p.weight is not None for p in stage.projections.values())
    if norm is None or point is None or norm.gain is None or not plain:
        pulled = torch.cat([_back(stage.projections[part], slopes, width) for part in PORTS])
        return pulled if norm is None or point is None else norm.pull(point, pulled, frozen)
    hat, sigma = norm.unit(point)
    pulled = point.new_empty(3 * stage.heads, width.numel() // width[-1], width[-1])
    for n, part in enumerate(PORTS):
        projection = stage.projections[part]
        assert projection.weight is not None
        matrix = norm.fold(projection.weight[projection.channels.flatten()]).unflatten(0, (stage.heads, -1))
        slope = _own(projection, slopes, width) / sigma.reshape(-1, 1)
        torch.bmm(slope, matrix.to(slope.dtype), out=pulled[n * stage.heads : (n + 1) * stage.heads])
    pulled = pulled.unflatten(1, width[:2])
    return pulled if frozen else along(hat, pulled)


def _own(projection: Projection, slopes: Mapping[str, Tensor], width: torch.Size) -> Tensor:
    """Each head's channels of the gradient at a projection's output: [h b*p e]."""
    slope = slopes[projection.path].reshape(width.numel() // width[-1], -1)
    heads, size = projection.channels.shape
    per_head = slope if projection.groups > 1 else slope[:, projection.channels.flatten()]
    return per_head.unflatten(-1, (heads, size)).transpose(0, 1)


def _back(projection: Projection, slopes: Mapping[str, Tensor], width: torch.Size) -> Tensor:
    """Gradients at a projection's output as gradients at its input, head by head: [h b p d]."""
    per_head = _own(projection, slopes, width)
    if projection.weight is not None:
        weight = projection.weight[projection.channels].to(per_head.dtype)
        return torch.bmm(per_head, weight).unflatten(1, width[:2])
    with torch.enable_grad():
        point = torch.zeros(*width, device=per_head.device, dtype=per_head.dtype, requires_grad=True)
        out = projection.module.forward(point).reshape(per_head.shape[1], -1)
        parts = [
            pulled_back(out[:, channels], point, slope)
            for channels, slope in zip(projection.channels, per_head, strict=True)
        ]
    return torch.stack(parts)
