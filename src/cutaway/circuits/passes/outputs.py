"""What every writer wrote in a run, kept lean: the weighted values of the heads and the writes of whole sublayers.

A head's output is its weighted values through its slice of the output projection, so keeping the former is as good and
(heads) times smaller. Differences of two runs are made into vectors of the stream where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.circuits.graph.reading import ExpertReading
from cutaway.circuits.graph.wiring import Wiring, WiringStage
from cutaway.network.coefficients import is_one, like
from cutaway.network.edits import Edit, EditFunction
from cutaway.network.execution.heads import head_outputs
from cutaway.network.inputs import Tokens
from cutaway.network.network import Network
from cutaway.network.run import Run
from cutaway.network.sites import Site

INPUT = "resid_pre.0"


@dataclass(frozen=True, eq=False)
class At:
    """An edit at one place whose function may change the shape of what it is given.

    Attributes:
        site: a site or module path.
        fn: the value there -> the value to use instead.
    """

    site: str
    fn: Callable[[Tensor], Tensor]

    def bind(self, network: Network) -> Sequence[tuple[Site, EditFunction]]:
        """The site and the function."""
        return [(network.resolve(self.site)[-1], lambda value, _here: self.fn(value))]


def with_input(entry: str, place: str, change: Callable[[Tensor, Tensor], Tensor]) -> list[Edit]:
    """The edits that remember the value at one place and change that at a later one by change(remembered, value)."""
    seen: list[Tensor] = []

    def enter(value: Tensor) -> Tensor:
        seen[:] = [value]
        return value

    return [At(entry, enter), At(place, lambda value: change(seen[0], value))]


@dataclass(eq=False)
class Outputs:
    """What writers wrote in a run.

    Attributes:
        values: place (site or module input) -> value [b p ...]; of experts, what each adds side by side [b p n*d].
        raw: outputs before a norm that follows.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    raw: dict[str, Tensor] = field(default_factory=dict)

    def map(self, function: Callable[[Tensor], Tensor]) -> Outputs:
        """The same with a function applied to every value."""
        return Outputs(*({k: function(v) for k, v in part.items()} for part in (self.values, self.raw)))

    def repeat(self, times: int) -> Outputs:
        """The same for the rows `times` over."""
        return self.map(lambda v: v.repeat(times, *[1] * (v.ndim - 1)))


def places(wiring: Wiring) -> list[str]:
    """Where writers are seen: the input, then one place for each sublayer."""
    return [INPUT, *(s.write for s in wiring.stages if s.kind != "logits")]


def kept_places(wiring: Wiring) -> list[str]:
    """What a run must keep so that `outputs_of` can say what was written."""
    raw = [s.raw for s in wiring.stages if s.norm_after is not None]
    inputs = [s.site for s in wiring.stages if s.kind == "expert"]
    return list(dict.fromkeys([*places(wiring), *raw, *inputs]))


def outputs_of(wiring: Wiring, run: Run) -> Outputs:
    """What every writer wrote in a run that kept `kept_places`."""
    values = {p: run[p].detach() for p in places(wiring)}
    for stage in wiring.stages:
        if isinstance(stage.reading, ExpertReading):
            parts = expert_parts(stage, run[stage.site].detach())
            values[stage.write] = parts.permute(1, 2, 0, 3).flatten(2)
    return Outputs(values, {s.raw: run[s.raw].detach() for s in wiring.stages if s.norm_after is not None})


def expert_parts(stage: WiringStage, taken: Tensor) -> Tensor:
    """What each node of a mixture adds, before the sublayer's factor, for what the MLP takes in [b p d]: [n b p d]."""
    assert isinstance(stage.reading, ExpertReading)
    with torch.set_grad_enabled(torch.is_grad_enabled() and taken.requires_grad):
        return stage.reading.contributions(taken)


def whole_write(stage: WiringStage, value: Tensor) -> Tensor:
    """What a stage as a whole holds at its place of writing, from what its outputs hold: the sum over experts."""
    if stage.kind != "expert":
        return value
    return scaled(stage, value.unflatten(-1, (stage.heads, -1)).sum(-2))


def record(
    wiring: Wiring, tokens: Tokens, positions: Tensor | None = None, edits: Sequence[Edit] = ()
) -> tuple[Outputs, Tensor | None]:
    """One forward pass: what every writer wrote, and the logits [b v] at the answer positions where they are asked for."""
    logits = False if positions is None else positions[:, None]
    run = wiring.net.run(tokens, keep=kept_places(wiring), edits=list(edits), logits=logits)
    return outputs_of(wiring, run), None if run.logits is None or positions is None else run.logits[:, 0]


def answered(run: Run) -> Tensor:
    """The logits [b v] of a run that was asked for those at the answer positions."""
    assert run.logits is not None
    return run.logits[:, 0]


def to_stream(stage: WiringStage, z: Tensor) -> Tensor:
    """Differences of weighted values [b p h*e] as what each head adds before norm and factor: [h b p d].

    Of experts [b p n*d], which are vectors of the stream already, as [n b p d].
    """
    if stage.kind == "expert":
        return z.unflatten(-1, (stage.heads, -1)).movedim(-2, 0)
    rows = z.reshape(-1, stage.heads, z.shape[-1] // stage.heads)
    if stage.output_matrix is not None:
        added = torch.bmm(rows.transpose(0, 1), stage.output_matrix.to(rows.dtype))
    else:
        assert stage.output is not None
        added = head_outputs(stage.output, rows.flatten(1), stage.heads).transpose(0, 1)
    return added.unflatten(1, z.shape[:2])


def scaled(stage: WiringStage, value: Tensor) -> Tensor:
    """A head's output with the factor by which the sublayer is written."""
    return value if is_one(stage.factor) else value * like(stage.factor, value)


@torch.no_grad()
def differences(wiring: Wiring, frm: Outputs, to: Outputs, real: Tensor) -> Tensor:
    """`to` less `frm` for every writer, as vectors of the stream: [w b p d], zero at padding.

    Where a norm follows a sublayer, a head's difference goes through its derivative at `frm`.
    """
    first = frm.values[INPUT]
    deltas = first.new_empty(len(wiring.graph.writers), *first.shape)
    deltas[0] = to.values[INPUT] - first
    for stage in wiring.stages:
        if stage.kind == "logits":
            continue
        delta = to.values[stage.write] - frm.values[stage.write]
        if stage.kind == "unit":
            deltas[stage.writers.start] = delta.reshape(first.shape)
            continue
        heads = to_stream(stage, delta)
        if stage.norm_after is not None:
            heads = stage.norm_after.push(frm.raw[stage.raw].reshape(first.shape), heads)
        deltas[stage.writers] = scaled(stage, heads)
    if not bool(real.all()):
        deltas *= real.to(deltas)[..., None]
    return deltas
