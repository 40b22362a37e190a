"""The constant lens: always the mean prediction, whatever the stream. The chance level of every other lens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from cutaway.figures import Bar, bars
from cutaway.network.memory import rows_at_once
from cutaway.reports import Figure, Page, display_result, page_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, working
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.stream.shared import origin

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

    __repr__ = brief

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

    def logits(self, stream: Tensor, _layer: int, /) -> Tensor:
        """The same log probabilities [... v] for every stream [... d]."""
        kind = torch.promote_types(stream.dtype, torch.float32)
        return self.log_probs.to(stream.device, kind).expand(*stream.shape[:-1], -1)

    def to_pandas(self) -> pd.DataFrame:
        """Its likeliest tokens with their probabilities."""
        best = self.log_probs.topk(len(self.words)).values.exp()
        return pd.DataFrame({"token": list(self.words), "probability": best.tolist()})

    def plot(self) -> Any:
        """Its likeliest tokens as bars."""
        rows = self.to_pandas().itertuples(index=False)
        return bars([Bar.of(token, probability) for token, probability in rows], unit="probability")

    @property
    def headline(self) -> str:
        """What it says, in a sentence."""
        first, share = self.words[0], float(self.log_probs.exp().max())
        return f"Whatever it reads, {self.provenance.network} says {first!r} most often: {100 * share:.1f} % on average"

    def page(self) -> Page:
        """Its likeliest tokens."""
        figure = Figure(self.plot(), "The likeliest tokens.")
        about = f"The constant lens of {self.provenance.network}: its mean prediction."
        return page_of(self, "Cutaway · lens", about, [figure])

    def to_dict(self) -> dict[str, Any]:
        """Its likeliest tokens; the whole distribution is in what `save` writes."""
        return described(self, "layers", lens=self.name, tokens=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        headline = f"The constant lens of {self.provenance.network}"
        return display_result(self, table=self.to_pandas().head(8), headline=headline)
