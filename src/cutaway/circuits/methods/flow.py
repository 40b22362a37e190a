"""Information flow routes: how near each writer's output is to what the reader reads, without any corrupted prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.methods.options import PositionOptions
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.outputs import INPUT, Outputs, kept_places, outputs_of, scaled, to_stream
from cutaway.circuits.scores import Scores

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

FLOW = (
    "Ferrando and Voita 2024 (arXiv 2403.00824), eq. 1-2: max(|y|_1 - |y - z_j|_1, 0), normalised over the writers j whose "
    "sum y the reader reads"
)


def written(wiring: Wiring, outputs: Outputs) -> Tensor:
    """What every writer adds to the stream, [w b p d]; a norm that follows a sublayer is taken at its own spread."""
    first = outputs.values[INPUT]
    added = first.new_empty(len(wiring.graph.writers), *first.shape)
    added[0] = first
    for stage in wiring.stages:
        if stage.kind == "logits":
            continue
        value = outputs.values[stage.write]
        if stage.kind == "unit":
            added[stage.writers.start] = value.reshape(first.shape)
            continue
        heads = to_stream(stage, value)
        norm = stage.norm_after
        if norm is not None and norm.gain is not None:
            heads = heads / norm.unit(outputs.raw[stage.raw].reshape(first.shape))[1] * norm.gain
        added[stage.writers] = scaled(stage, heads)
    return added


def information_flow(
    net: Network, behaviour: Behaviour, options: PositionOptions, work: Work | None = None
) -> Scores:
    """Information flow routes (Ferrando and Voita 2024): importance of z_j for y = sum z_j is its proximity
    max(|y|_1 - |y - z_j|_1, 0), divided by the sum over all writers; the mean over the positions of the clean prompt.

    All readers of a sublayer (queries, keys and values of every head) read the same stream and so have the same scores, as
    in MIB. The metric plays no part.
    """
    study = Study.of(net, behaviour, options, work, aligned=False)
    for batch in study.batches("flow"):
        real = batch.real.to(net.device)
        wiring = study.wiring
        keep = dict.fromkeys([*kept_places(wiring), *(s.entry for s in wiring.stages)])
        run = net.run(batch.clean, keep=list(keep), logits=False)
        z = written(wiring, outputs_of(wiring, run))
        tally = study.tally(batch, z)
        for stage in wiring.stages:
            y = run[stage.entry].reshape(z.shape[1:])
            near = _proximity(z[: stage.before], y) * real
            share = near / near.sum(0, keepdim=True).clamp(min=torch.finfo(near.dtype).tiny)
            mean = (share.sum(-1) / real.sum(-1)).T.to(tally.examples)
            tally.examples[:, : stage.before, stage.readers] = mean[:, :, None]
            if tally.positions is not None and tally.groups is not None:
                flat = tally.groups.to(share.device)
                for group in range(tally.positions.shape[0]):
                    got = ((share * (flat == group)).sum(-1) / real.sum(-1)).sum(-1)
                    tally.positions[group, : stage.before, stage.readers] += got.to(tally.positions)[:, None]
        study.keep(batch, tally, batch.sign)  # importance has no sign; undo the orientation
    return study.scores("flow", FLOW)


def _proximity(z: Tensor, y: Tensor) -> Tensor:
    """max(|y| - |y - z_j|, 0) in the 1-norm for every writer and position: [w b p]; one writer at a time."""
    size = y.abs().sum(-1)
    return torch.stack([(size - (y - one).abs().sum(-1)).clamp(min=0) for one in z])
