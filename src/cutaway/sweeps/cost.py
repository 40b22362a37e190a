"""What a sweep costs: operations counted from one forward pass, memory and seconds measured on a small part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cutaway.network.allocations import peak_bytes
from cutaway.network.execution.running import evaluating
from cutaway.results.meter import spend
from cutaway.sweeps.record import arguments

__all__ = ["Operations", "Rate", "Speed", "clocked", "count_operations", "peak_bytes", "timed"]

if TYPE_CHECKING:
    from cutaway.sweeps.cells import Experiment
    from cutaway.sweeps.stages import Parts
    from cutaway.sweeps.waves import Wave


@dataclass(frozen=True)
class Rate:
    """Operations of one part of a layer: `linear` for every position, `pair` for every position and key it looks at.

    Attributes:
        linear: for every position.
        pair: for every position and key.
    """

    linear: float
    pair: float

    def at(self, positions: float, keys: float) -> float:
        """Floating-point operations for so many positions, each looking at so many keys."""
        return positions * (self.linear + keys * self.pair)


@dataclass(frozen=True, eq=False)
class Operations:
    """Floating-point operations of a network, from its own forward pass over one prompt.

    Attributes:
        layers: the whole of each layer.
        attention, mlp: of those sublayers that a stage can take from the base run.
        before_cache: what of the last layer is needed at positions whose keys and values alone are wanted.
        unembed: for each position and token.
        vocabulary: how many tokens there are.
    """

    layers: tuple[Rate, ...]
    attention: tuple[float, ...]
    mlp: tuple[float, ...]
    before_cache: float
    unembed: float
    vocabulary: int

    def forward(self, rows: int, width: int, read: int) -> float:
        """One plain forward of so many rows, with logits at `read` positions each."""
        body = sum(rate.at(rows * width, width) for rate in self.layers)
        return body + rows * read * self.unembed * self.vocabulary

    def wave(self, wave: Wave, last: bool, few: int | None) -> float:
        """What a wave needs: every layer for the rows that have joined, over the wave's columns."""
        total, depth = 0.0, len(self.layers)
        for i, rate in enumerate(self.layers):
            early = wave.upto(i - 1)
            columns = wave.columns
            short = last and i == depth - 1 and columns > 1
            rest = 1 if short else columns
            total += rate.at(early * rest, wave.stop)
            if short:
                total += early * (columns - 1) * self.before_cache
            for stage, first, stop in wave.joining(i):
                rows = stop - first
                if stage.whole:
                    total += rate.at(rows * rest, wave.stop)
                    total += rows * (columns - 1) * self.before_cache if short else 0.0
                    continue
                kept = (0.0 if stage.attention else self.attention[i]) + (0.0 if stage.mlp else self.mlp[i])
                total += rows * rest * kept
        tokens = self.vocabulary if few is None else few
        return total + len(wave.pairs) * tokens * self.unembed


def count_operations(experiment: Experiment, parts: Mapping[int, Parts]) -> Operations:
    """Count a network's operations by running it on two lengths of one prompt under torch's counter."""
    net = experiment.net
    stack = net.anatomy.stack()
    assert stack is not None
    width, half = experiment.tokens.width, max(1, experiment.tokens.width // 2)
    long, short = _counted(experiment, width), _counted(experiment, half)

    def fit(path: str) -> Rate:
        a, b = long.get(path, 0.0) / width, short.get(path, 0.0) / half
        pair = max(0.0, (a - b) / (width - half)) if width > half else 0.0
        return Rate(a - pair * width, pair)

    head = net.anatomy.head
    unembed = long.get(head.unembed or "", 0.0) if head is not None else 0.0
    vocabulary = net.d_vocab or 1

    def of(paths: tuple[str, ...]) -> float:
        return sum(long.get(p, 0.0) for p in paths) / width

    numbers = range(len(stack.layers))
    attention = tuple(of(parts[i].attention) if i in parts else 0.0 for i in numbers)
    mlp = tuple(of(parts[i].mlp) if i in parts else 0.0 for i in numbers)
    layers = tuple(fit(layer.path) for layer in stack.layers)
    last = stack.layers[-1].attention()
    before = 0.0 if last is None else of(tuple(dict.fromkeys((*last.queries, *last.keys, *last.values))))
    return Operations(layers, attention, mlp, before, unembed / width / vocabulary, vocabulary)


def _counted(experiment: Experiment, width: int) -> dict[str, float]:
    """Operations by module path for one prompt of so many tokens."""
    from torch.utils.flop_counter import FlopCounterMode

    net = experiment.net
    inputs = arguments(experiment, torch.arange(1))
    kwargs: dict[str, Any] = dict(inputs.kwargs)
    name = "decoder_input_ids" if "decoder_input_ids" in kwargs else net.interface.ids or ""
    if name in kwargs:
        kwargs = {k: v for k, v in kwargs.items() if k not in ("attention_mask", "position_ids")}
    if torch.is_tensor(kwargs.get(name)):
        kwargs[name] = kwargs[name][:, :width]
    kwargs |= net.interface.uncached
    counter = FlopCounterMode(display=False)
    with net.lock, evaluating(net.model), torch.no_grad(), counter:
        net.model(**kwargs)
    spend(width / experiment.tokens.width)
    counts = {path: float(sum(ops.values())) for path, ops in counter.get_flop_counts().items()}
    root = type(net.model).__name__
    return {path.removeprefix(root).removeprefix("."): count for path, count in counts.items()}


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, work on an accelerator included."""
    return clocked(function, device)[0]


def clocked(function: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds that a call takes by the clock, work on an accelerator included, and of this process's processor time."""
    _finish(device)
    started, spent = time.perf_counter(), time.process_time()
    function()
    _finish(device)
    return time.perf_counter() - started, time.process_time() - spent


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Speed:
    """How fast waves go: seconds for each call of a layer, and for each floating-point operation.

    Attributes:
        per_call: seconds.
        per_operation: seconds.
        clock: seconds by the clock for one of these seconds, as busy as the machine is.
        processor: seconds of processor time for one of these seconds.
    """

    per_call: float
    per_operation: float
    clock: float = 1.0
    processor: float = 1.0

    @classmethod
    def fit(cls, calls: Sequence[float], operations: Sequence[float], seconds: Sequence[float]) -> Speed:
        """From measured waves; both rates are at least zero.

        >>> Speed.fit([1, 1], [10.0, 20.0], [2.0, 3.0])
        Speed(per_call=1.0, per_operation=0.1, clock=1.0, processor=1.0)
        """
        a = np.stack([np.asarray(calls, float), np.asarray(operations, float)], 1)
        scale = np.maximum(a.max(0), 1e-30)
        b = np.asarray(seconds, float)
        rates = np.linalg.lstsq(a / scale, b, rcond=None)[0] / scale
        if (rates < 0).any() or len(b) < 2:
            return cls(0.0, float(b.sum() / max(a[:, 1].sum(), 1e-30)))
        return cls(round(float(rates[0]), 12), float(f"{rates[1]:.12g}"))

    def beside(self, clock: float, processor: float) -> Speed:
        """The same with what the clock and the processor show for one of its seconds."""
        return replace(self, clock=clock, processor=processor)

    def seconds(self, calls: float, operations: float) -> float:
        """Expected seconds."""
        return calls * self.per_call + operations * self.per_operation
