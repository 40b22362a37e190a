"""The constant lens: always the mean prediction, whatever the stream. The chance level of every other lens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.stream.lenses.rows import Rows, Texts, rows_of

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class ConstantLens:
    """One distribution for every position: [v] log probabilities."""

    log_probs: Tensor
    layers: tuple[int, ...]
    name: str = "constant"
    ahead: int = 0

    @classmethod
    def of(cls, net: Network, texts: Texts | Rows, length: int = 64, batch: int = 16) -> ConstantLens:
        """The network's mean output distribution over text."""
        rows = texts if isinstance(texts, Rows) else rows_of(net, texts, length)
        total: Tensor | None = None
        for start in range(0, rows.n, batch):
            logits = net.run(rows.ids[start : start + batch]).logits
            assert logits is not None
            part = logits[:, rows.special :].double().softmax(-1).sum((0, 1)).cpu()
            total = part if total is None else total + part
        assert total is not None
        return cls((total / total.sum()).clamp(min=1e-12).log(), tuple(range(net.n_layers + 1)))

    def logits(self, stream: Tensor, layer: int) -> Tensor:
        """The same log probabilities [... v] for every stream [... d]."""
        flat = self.log_probs.to(
            stream.device, torch.float64 if stream.dtype == torch.float64 else torch.float32
        )
        return flat.expand(*stream.shape[:-1], -1)
