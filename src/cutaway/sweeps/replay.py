"""Waves over one record of the base prompts, run through the model.

Columns before the first changed one are not run: their keys and values come from the base run. At the last layer only the
column that the metric reads is run; the others give their keys and values and stop there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from cutaway.network.anatomy import Layer
from cutaway.network.execution.attention import replaced
from cutaway.sweeps.cells import Cell, Experiment
from cutaway.sweeps.masks import Overwrite, overwrites
from cutaway.sweeps.passes import Pass
from cutaway.sweeps.record import Record
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.stages import Parts, Stage
from cutaway.sweeps.waves import Wave


@dataclass(eq=False)
class Replayer:
    """Runs waves over one record of the base prompts.

    Attributes:
        experiment, cells, record, parts, rules: what is run, the base run, and which savings are used.
        every: give the logits of all columns [k w v], not those of the answer's.
        factors: how many entries of an argument's first axis belong to a row, by window; see `batch_factors`.
    """

    experiment: Experiment
    cells: Sequence[Cell]
    record: Record
    parts: Mapping[int, Parts]
    rules: Rules
    every: bool = False
    factors: dict[tuple[int, int, bool], dict[tuple[int, str], int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stack = self.experiment.net.anatomy.stack()
        assert stack is not None
        self.layers: tuple[Layer, ...] = stack.layers
        self.modules: dict[str, nn.Module] = dict(self.experiment.net.model.named_modules())
        self.head = _few_logits(self) if self.rules.tokens else None

    def run(self, wave: Wave) -> Tensor:
        """Logits at the answer position of every row of a wave: [k v], or [k few] under the rule of needed tokens."""
        pending = overwrites(self.experiment, self.cells, wave.pairs)
        last = len(self.layers) - 1
        if not self.rules.last or wave.columns == 1 or last not in self.record.caches:
            return Pass(self, wave, pending).run()
        return self._in_two(wave, pending, last)

    def _in_two(self, wave: Wave, pending: list[Overwrite], last: int) -> Tensor:
        """At the last layer only the answer's column is run: the others give their keys and values and stop there."""
        body = Pass(self, wave, pending, until=last)
        body.run()
        end = Wave(wave.pairs, np.full(len(wave.pairs), last), wave.stages, wave.stop - 1, wave.stop)
        early = wave.layers < last
        stages = tuple(Stage() if e else s for e, s in zip(early, wave.stages, strict=True))
        end = Wave(wave.pairs, end.layers, stages, end.start, end.stop)
        return Pass(self, end, pending, body=body).run()

    def few(self) -> bool:
        """Whether logits of the needed tokens alone are computed."""
        return self.head is not None

    def batch_factors(self, wave: Wave, exact: bool = False) -> dict[tuple[int, str], int]:
        """For each tensor argument of each layer, how many entries of its first axis belong to a row (0: shared).

        Found by giving the model two batches of different size and looking at the shapes that its layers are handed; once
        for each kind of window, or with `exact` for these very columns.
        """
        # a row with padding in it, if there is one, because the model is then handed masks that it is not handed without
        padded = ~self.experiment.tokens.mask[:, : wave.stop].cpu().all(1).numpy()[wave.pairs[:, 1]]
        shown = wave.pairs[int(padded.argmax()), 1]
        window = (wave.columns, wave.start) if exact else (min(wave.columns, 2), min(wave.start, 1) - 2)
        key = (*window, bool(padded.any()))
        if key not in self.factors:
            sizes: list[dict[tuple[int, str], int]] = []
            for count in (2, 3):
                rows = np.full((count, 2), shown, np.int64)
                seen: dict[tuple[int, str], int] = {}
                dry = Wave(rows, np.full(count, len(self.layers)), (Stage(),) * count, wave.start, wave.stop)
                Pass(self, dry, [], shapes=seen).run()
                sizes.append(seen)
            self.factors[key] = {
                k: (size // 2 if size % 2 == 0 and 3 * size == 2 * sizes[1].get(k, -1) else 0)
                for k, size in sizes[0].items()
            }
        return self.factors[key]


def _few_logits(replayer: Replayer) -> Callable[[], Any] | None:
    """A way to have the unembedding compute the needed tokens' logits alone; None where that is not possible."""
    experiment, head = replayer.experiment, replayer.experiment.net.anatomy.head
    if experiment.vocabulary is None or experiment.score_few is None or head is None or head.unembed is None:
        return None
    module = replayer.modules[head.unembed]
    if type(module) is not nn.Linear or module.weight.device.type == "meta":
        return None
    tokens = experiment.vocabulary.to(module.weight.device)
    weight = module.weight.detach()[tokens]
    bias = None if module.bias is None else module.bias.detach()[tokens]

    def forward(hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, weight, bias)

    return lambda: replaced(module, forward)
