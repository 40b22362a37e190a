"""The constant lens: always the mean prediction, whatever the stream. The chance level of every other lens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from cutaway.network.memory import rows_at_once
from cutaway.reports import Figure, Page, display, result_page
from cutaway.results import Provenance, Work, working
from cutaway.stream import keeping
from cutaway.stream.keeping import origin
from cutaway.stream.lenses.rows import Rows, Texts, rows_of

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class ConstantLens:
    """One distribution for every position.

    Attributes:
        log_probs: [v] log probabilities.
        layers: the streams that it pretends to read.
        words: its likeliest tokens, likeliest first.
        provenance: what is needed to make it again.
        name: how it is called in tables.
        ahead: how many tokens beyond the next it reads.
    """

    kind: ClassVar[str] = "constant-lens"

    log_probs: Tensor
    layers: tuple[int, ...]
    words: tuple[str, ...]
    provenance: Provenance
    name: str = "constant"
    ahead: int = 0

    @classmethod
    def of(
        cls, net: Network, texts: Texts | Rows, *, length: int = 64, work: Work | None = None
    ) -> ConstantLens:
        """The network's mean output distribution over text."""
        began, work = time.monotonic(), working(work)
        rows = rows_of(net, texts, length=length)
        width = int(rows.ids.shape[1])
        batch = rows_at_once(net, width, work, read=4 * width)  # probabilities in double precision, twice
        total = torch.zeros(net.d_vocab or 0, dtype=torch.float64)
        for start in range(0, rows.n, batch):
            logits = net.run(rows.ids[start : start + batch]).logits
            assert logits is not None
            total = total + logits[:, rows.special :].double().softmax(-1).sum((0, 1)).cpu()
            work.step("mean prediction", min(start + batch, rows.n), rows.n)
        log_probs = (total / total.sum()).clamp(min=1e-12).log()
        words = tuple(net.token_strings(log_probs.topk(min(20, len(log_probs))).indices.tolist()))
        return cls(log_probs, tuple(range(net.n_layers + 1)), words, origin(net, rows.ids, began))

    def logits(self, stream: Tensor, layer: int) -> Tensor:
        """The same log probabilities [... v] for every stream [... d]."""
        flat = self.log_probs.to(
            stream.device, torch.float64 if stream.dtype == torch.float64 else torch.float32
        )
        return flat.expand(*stream.shape[:-1], -1)

    def to_pandas(self) -> pd.DataFrame:
        """Its likeliest tokens with their probabilities."""
        best = self.log_probs.topk(len(self.words)).values.exp()
        return pd.DataFrame({"token": list(self.words), "probability": best.tolist()})

    def plot(self) -> Any:
        """Its likeliest tokens as bars."""
        from cutaway.figures import Bar, bars

        rows = self.to_pandas().to_dict("records")
        return bars(
            [Bar(r["token"], r["probability"], r["probability"], r["probability"]) for r in rows],
            unit="probability",
        )

    def page(self) -> Page:
        """Its likeliest tokens."""
        figure = Figure(self.plot(), "The likeliest tokens.")
        headline = f"What {self.provenance.network} predicts on average, whatever it reads."
        return result_page("The constant lens", "Cutaway · lens", headline, [figure], self.provenance)

    def to_dict(self) -> dict[str, Any]:
        """Its likeliest tokens; the whole distribution is in what `save` writes."""
        return {
            "lens": self.name,
            "network": self.provenance.network,
            "layers": list(self.layers),
            "tokens": self.to_pandas().to_dict("records"),
            "provenance": self.provenance.to_dict(),
        }

    save = keeping.save
    load = classmethod(keeping.load)

    def _repr_html_(self) -> str:
        headline = f"The constant lens of {self.provenance.network}"
        return display(headline, table=self.to_pandas().head(8), provenance=self.provenance)
