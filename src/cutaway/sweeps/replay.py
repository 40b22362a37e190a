"""Waves over one record of the base prompts, run through the model.

Columns before the first changed one are not run: their keys and values come from the base run. At the last layer only the
column that the metric reads is run; the others give their keys and values and stop there.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cutaway.sweeps.masks import Overwrite, overwrites
from cutaway.sweeps.passes import Ground, Pass
from cutaway.sweeps.stages import Stage
from cutaway.sweeps.waves import Wave


class Replayer(Ground):
    """Runs waves over one record of the base prompts."""

    def run(self, wave: Wave) -> Tensor:
        """Logits at the answer position of every row of a wave: [k v], or [k few] under the rule of needed tokens."""
        pending = overwrites(self.experiment, self.cells, wave.pairs)
        last = len(self.layers) - 1
        if not self.rules.last or wave.columns == 1 or last not in self.record.caches:
            alone = Pass(self, wave, pending)
            try:
                return alone.run()
            finally:
                alone.let_go()
        return self._in_two(wave, pending, last)

    def _in_two(self, wave: Wave, pending: list[Overwrite], last: int) -> Tensor:
        """At the last layer only the answer's column is run: the others give their keys and values and stop there."""
        body = Pass(self, wave, pending, until=last)
        early = wave.layers < last
        stages = tuple(Stage() if e else s for e, s in zip(early, wave.stages, strict=True))
        end = Pass(
            self,
            Wave(wave.pairs, np.full(len(wave.pairs), last), stages, wave.stop - 1, wave.stop),
            pending,
            body=body,
        )
        try:
            body.run()
            return end.run()
        finally:
            end.let_go()
            body.let_go()

    def few(self) -> bool:
        """Whether logits of the needed tokens alone are computed."""
        return self.head is not None
