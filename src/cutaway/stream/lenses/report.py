"""How well lenses read, layer by layer, on held-out text: cross-entropy, KL to the output, bias, beside each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.claims import Claim, Evidence
from cutaway.errors import BadInput
from cutaway.figures.lens import Line, lines
from cutaway.network.memory import rows_at_once
from cutaway.reports import Figure, Page, display_result, page_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.statistics import mean_of, means_of
from cutaway.stream.lenses.affine import on_network
from cutaway.stream.lenses.protocol import Lens, streams
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.stream.shared import origin, require_one
from cutaway.trials import claim_of

if TYPE_CHECKING:
    from cutaway.network import Network


#: What a report measures, and its unit.
_UNITS = {
    "kl": "KL from the output (nats)",
    "cross_entropy": "cross-entropy (nats)",
    "bias": "bias (nats)",
    "agreement": "share of positions with the output's likeliest token",
}


@dataclass(frozen=True, eq=False)
class LensReport:
    """Figures of several lenses on the same held-out rows, in nats.

    Attributes:
        rows: how many rows were read.
        length: tokens of each.
        kl: (lens, layer) -> [n], the mean of each row.
        cross_entropy: the same for the text's own tokens.
        agreement: (lens, layer) -> [n], the share of positions whose likeliest token is the output's.
        bias: (lens, layer) -> KL divergence of the lens's mean distribution from the output's mean distribution (Belrose et
            al. 2023).
        own_cross_entropy: [n], the network's, of each row.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "lens-report"

    rows: int
    length: int
    kl: dict[tuple[str, int], np.ndarray]
    cross_entropy: dict[tuple[str, int], np.ndarray]
    agreement: dict[tuple[str, int], np.ndarray]
    bias: dict[tuple[str, int], float]
    own_cross_entropy: np.ndarray
    provenance: Provenance

    __repr__ = brief

    @property
    def lenses(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(name for name, _ in self.kl))

    def layers(self, lens: str) -> list[int]:
        """The layers that a lens was read at."""
        return [layer for name, layer in self.kl if name == lens]

    def to_pandas(self) -> pd.DataFrame:
        """One row per lens and layer, with 95 % intervals over rows of text."""
        table = []
        for key in self.kl:
            kl, ce = means_of(self.kl[key])[()], means_of(self.cross_entropy[key])[()]
            row: dict[str, Any] = {"lens": key[0], "layer": key[1]}
            for name, mean in (("kl", kl), ("cross_entropy", ce)):
                row[name] = mean.value
                row[f"{name}_low"], row[f"{name}_high"] = mean.ends()
            row["bias"] = self.bias[key]
            row["agreement"] = float(self.agreement[key].mean())
            table.append(row)
        return pd.DataFrame(table)

    def wide(self, what: str = "kl") -> pd.DataFrame:
        """One figure as a table: layers by lenses."""
        require_one("what", what, _UNITS)
        return self.to_pandas().pivot(index="layer", columns="lens", values=what).reindex(columns=self.lenses)

    def claim(self, better: str, worse: str) -> Claim:
        """Whether one lens reads better than another, by KL in nats, at every layer but the last stream.

        At each layer the difference is taken row by row; its interval must lie above zero. Raises `BadInput` for a lens that
        is not in the report.
        """
        for name in (better, worse):
            require_one("lens", name, self.lenses)
        shared = self._shared(better, worse)
        if not shared:
            raise BadInput(f"The lenses {better} and {worse} share no layer.", f"Lenses here: {self.lenses}.")
        evidence = []
        for layer in shared:
            gain = mean_of(self.kl[worse, layer] - self.kl[better, layer])
            sentence = f"nats by which the {better} lens is nearer to the output"
            evidence.append(
                Evidence(f"layer {layer}", gain, passed=gain.above(0.0), sentence=sentence, of="nats")
            )
        text = f"The {better} lens reads {self.provenance.network} better than the {worse} lens at every layer but the last."
        notes = (f"On {self.rows} held-out rows of {self.length} tokens.",)
        return claim_of(text, evidence, notes=notes)

    def _shared(self, a: str, b: str) -> list[int]:
        """The layers that both lenses read; without the last one where both are the network itself."""
        both = [i for i in self.layers(a) if i in self.layers(b)]
        return [i for i in both if i != max(both) or np.abs(self.kl[a, i] - self.kl[b, i]).max() > 1e-6]

    def plot(self, what: str = "kl") -> Any:
        """The figures by layer, a line per lens with its interval."""
        require_one("what", what, _UNITS)
        frame = self.to_pandas()
        drawn = []
        for name in self.lenses:
            rows = frame[frame["lens"] == name]
            ends = [f"{what}_{end}" if f"{what}_{end}" in rows else what for end in ("low", "high")]
            low, high = (rows[end].tolist() for end in ends)
            drawn.append(Line(name, rows["layer"].tolist(), rows[what].tolist(), low, high))
        return lines(drawn, x_title="layer entered", y_title=_UNITS[what])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        mean, lenses = float(self.own_cross_entropy.mean()), self.to_pandas()
        return described(self, "rows", "length", own_cross_entropy=mean, lenses=lenses)

    @property
    def headline(self) -> str:
        """How near the lenses come to the output, and whether the first is told to read better, in a sentence."""
        first, *others = self.lenses
        layers = self.layers(first)
        ends = [float(self.kl[first, layer].mean()) for layer in (layers[0], layers[-1])]
        said = (
            f"The {first} lens is {ends[0]:.3g} nats from the output at layer {layers[0]} and {ends[1]:.3g} at layer "
            f"{layers[-1]}"
        )
        told = [
            f"{'' if self.claim(first, other).supported else 'not '}better than the {other} lens at every layer"
            for other in others
            if self._shared(first, other)
        ]
        return f"{said}; it is {' and '.join(told)}" if told else said

    def page(self) -> Page:
        """All four figures by layer, and whether the first lens reads better than each other one."""
        units = _UNITS.items()
        figures = [
            Figure(self.plot(what), f"{unit[:1].upper()}{unit[1:]}, by layer.") for what, unit in units
        ]
        first, *others = self.lenses
        claims = [self.claim(first, other) for other in others if self._shared(first, other)]
        title = f"KL from the output of {self.provenance.network}, {self.rows} held-out rows of {self.length} tokens."
        return page_of(self, "Cutaway · lens", title, figures, claims=claims)

    save = save_fields
    load = classmethod(load_fields)

    def __str__(self) -> str:
        table = self.wide().to_string(float_format=lambda v: f"{v:.3f}")
        return f"{self.provenance.network}: {self.headline}\n{table}"

    def _repr_html_(self) -> str:
        return display_result(self, table=self.wide().reset_index())


@dataclass(eq=False)
class _Sums:
    """What is added up over batches for one lens at one layer.

    Attributes:
        kl, ce, same: the means of each row, batch by batch.
        lens, output: [v] the sums of the lens's and of the output's probabilities.
    """

    kl: list[np.ndarray] = field(default_factory=list)
    ce: list[np.ndarray] = field(default_factory=list)
    same: list[np.ndarray] = field(default_factory=list)
    lens: Tensor | float = 0.0
    output: Tensor | float = 0.0


@strict
def compare_lenses(
    net: Network,
    lenses: Sequence[Lens],
    texts: Texts | Rows,
    *,
    length: int = 64,
    work: Work | None = None,
) -> LensReport:
    """Read held-out text with several lenses, at every layer that each reads.

    A lens that looks `ahead` is compared with the output, and the tokens, that many places later.

    Raises `BadInput` where two lenses have one name or the text is too short.
    """
    began, work = time.monotonic(), working(work)
    lenses = [on_network(net, lens) for lens in lenses]
    if len({lens.name for lens in lenses}) != len(lenses) or not lenses:
        raise BadInput(
            f"The lenses are called {[lens.name for lens in lenses]}.", "Give lenses of different names."
        )
    sites = streams(net)
    rows = rows_of(net, texts, length=length)
    sums = {(lens.name, layer): _Sums() for lens in lenses for layer in lens.layers}
    own_ce = []
    width, vectors = int(rows.ids.shape[1]), len(sites) * (net.d_model or 0)
    # of every token the output, a lens and their products, in double precision
    batch = rows_at_once(net, width, work, kept=vectors, read=12 * width)
    with work.interruptible():
        for start in range(0, rows.n, batch):
            ids = rows.ids[start : start + batch]
            run = net.run(ids, keep=sites)
            assert run.logits is not None
            output = run.logits[:, rows.special :].double().log_softmax(-1)
            text = ids[:, rows.special :].to(output.device)
            own_ce.append(_picked(output[:, :-1], text[:, 1:]).mean(1).cpu().numpy())
            for lens in lenses:
                for layer in lens.layers:
                    stream = run[sites[layer]][:, rows.special :]
                    _add(sums[lens.name, layer], lens, layer, stream, output, text)
            work.step("reading held-out text", min(start + batch, rows.n), rows.n)
    kl, ce, same = (
        {key: np.concatenate(getattr(s, name)) for key, s in sums.items()} for name in ("kl", "ce", "same")
    )
    bias = {key: _bias(s) for key, s in sums.items()}
    source = origin(net, rows.ids, began)
    return LensReport(rows.n, width, kl, ce, same, bias, np.concatenate(own_ce), source)


def _picked(log_probs: Tensor, ids: Tensor) -> Tensor:
    return -log_probs.gather(-1, ids[..., None])[..., 0]


def _add(sums: _Sums, lens: Lens, layer: int, stream: Tensor, output: Tensor, text: Tensor) -> None:
    n = stream.shape[1] - lens.ahead
    read = lens.logits(stream[:, :n], layer).double().log_softmax(-1)
    wanted = output[:, lens.ahead :]
    sums.kl.append((wanted.exp() * (wanted - read)).sum(-1).clamp(min=0).mean(1).cpu().numpy())
    sums.ce.append(_picked(read[:, :-1], text[:, lens.ahead + 1 :]).mean(1).cpu().numpy())
    sums.same.append((read.argmax(-1) == wanted.argmax(-1)).double().mean(1).cpu().numpy())
    sums.lens = sums.lens + read.exp().sum((0, 1))
    sums.output = sums.output + wanted.exp().sum((0, 1))


def _bias(sums: _Sums) -> float:
    """KL divergence of the lens's mean distribution from the output's mean distribution."""
    read, wanted = (total / total.sum() for total in map(torch.as_tensor, (sums.lens, sums.output)))
    gap = wanted.clamp(min=1e-30).log() - read.clamp(min=1e-30).log()
    return float(torch.where(wanted > 0, wanted * gap, torch.zeros_like(wanted)).sum())
