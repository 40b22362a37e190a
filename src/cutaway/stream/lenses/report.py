"""How well lenses read, layer by layer, on held-out text: cross-entropy, KL to the output, bias, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.claims import Claim, Evidence
from cutaway.errors import BadInput
from cutaway.statistics import bootstrap, bootstrap_many
from cutaway.stream.lenses.protocol import Lens, streams
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.trials import claim_of

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.stream.lenses.tuned import Progress


@dataclass(frozen=True, eq=False)
class LensReport:
    """Figures of several lenses on the same held-out rows, in nats.

    kl, cross_entropy: (lens, layer) -> [n], the mean of each row; agreement: the share of positions whose likeliest token
    is the output's. bias: (lens, layer) -> KL divergence of the lens's mean distribution from the output's mean
    distribution (Belrose et al. 2023). own: [n], the network's cross-entropy.
    """

    network: str
    rows: int
    length: int
    kl: dict[tuple[str, int], np.ndarray]
    cross_entropy: dict[tuple[str, int], np.ndarray]
    agreement: dict[tuple[str, int], np.ndarray]
    bias: dict[tuple[str, int], float]
    own: np.ndarray

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
            kl, ce = bootstrap_many(self.kl[key])[()], bootstrap_many(self.cross_entropy[key])[()]
            row: dict[str, Any] = {"lens": key[0], "layer": key[1]}
            for name, found in (("kl", kl), ("cross_entropy", ce)):
                row[name] = found.value
                row[f"{name}_low"] = np.nan if found.interval is None else found.interval.low
                row[f"{name}_high"] = np.nan if found.interval is None else found.interval.high
            row["bias"] = self.bias[key]
            row["agreement"] = float(self.agreement[key].mean())
            table.append(row)
        return pd.DataFrame(table)

    def wide(self, what: str = "kl") -> pd.DataFrame:
        """One figure as a table: layers by lenses."""
        return self.to_pandas().pivot(index="layer", columns="lens", values=what).reindex(columns=self.lenses)

    def claim(self, better: str, worse: str) -> Claim:
        """Whether one lens reads better than another, by KL in nats, at every layer but the last stream.

        At each layer the difference is taken row by row; its interval must lie above zero.
        """
        both = [i for i in self.layers(better) if i in self.layers(worse)]
        last = max(both, default=0)
        shared = [
            i for i in both if i != last or (better, i) not in self.kl or _differs(self, better, worse, i)
        ]
        if not shared:
            raise BadInput(f"The lenses {better} and {worse} share no layer.", f"Lenses here: {self.lenses}.")
        evidence = []
        for layer in shared:
            gain = bootstrap(self.kl[worse, layer] - self.kl[better, layer])
            evidence.append(
                Evidence(
                    f"layer {layer}", estimate=gain, passed=gain.above(0.0),
                    sentence=f"nats by which the {better} lens is nearer to the output",
                )
            )  # fmt: skip
        text = f"The {better} lens reads {self.network} better than the {worse} lens at every layer but the last."
        notes = (f"On {self.rows} held-out rows of {self.length} tokens.",)
        return claim_of(text, evidence, notes=notes)

    def plot(self, what: str = "kl") -> Any:
        """The figures by layer, a line per lens with its interval."""
        from cutaway.figures.lens import Line, lines

        unit = {"kl": "KL from the output (nats)", "cross_entropy": "cross-entropy (nats)", "bias": "bias (nats)",
                "agreement": "share of positions"}  # fmt: skip
        if what not in unit:
            raise BadInput(f"what={what!r} is not known.", f"Use {', '.join(unit)}.")
        frame = self.to_pandas()
        drawn = []
        for name in self.lenses:
            mine = frame[frame["lens"] == name]
            ends = [f"{what}_{end}" if f"{what}_{end}" in mine else what for end in ("low", "high")]
            low, high = (mine[end].tolist() for end in ends)
            drawn.append(Line(name, mine["layer"].tolist(), mine[what].tolist(), low, high))
        return lines(drawn, x_title="layer entered", y_title=unit[what])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "network": self.network, "rows": self.rows, "length": self.length, "own_cross_entropy": float(self.own.mean()),
            "lenses": self.to_pandas().to_dict("records"),
        }  # fmt: skip

    def __str__(self) -> str:
        head = (
            f"{self.network}: KL from the output in nats, {self.rows} held-out rows of {self.length} tokens"
        )
        return f"{head}\n{self.wide().to_string(float_format=lambda v: f'{v:.3f}')}"


def _differs(report: LensReport, a: str, b: str, layer: int) -> bool:
    """Whether two lenses differ at a layer; at the last stream both are the network itself."""
    return bool(np.abs(report.kl[a, layer] - report.kl[b, layer]).max() > 1e-6)


@dataclass(eq=False)
class _Sums:
    """What is added up over batches for one lens at one layer."""

    kl: list[np.ndarray]
    ce: list[np.ndarray]
    same: list[np.ndarray]
    mean: Tensor | None = None
    own: Tensor | None = None


def compare_lenses(
    net: Network,
    lenses: Sequence[Lens],
    texts: Texts | Rows,
    *,
    length: int = 64,
    batch: int = 8,
    progress: Progress | None = None,
) -> LensReport:
    """Read held-out text with several lenses, at every layer that each reads.

    A lens that looks `ahead` is compared with the output, and the tokens, that many places later.

    Raises `BadInput` where two lenses have one name or the text is too short.
    """
    if len({lens.name for lens in lenses}) != len(lenses) or not lenses:
        raise BadInput(
            f"The lenses are called {[lens.name for lens in lenses]}.", "Give lenses of different names."
        )
    sites = streams(net)
    rows = texts if isinstance(texts, Rows) else rows_of(net, texts, length)
    sums = {(lens.name, layer): _Sums([], [], []) for lens in lenses for layer in lens.layers}
    own_ce = []
    for start in range(0, rows.n, batch):
        ids = rows.ids[start : start + batch]
        run = net.run(ids, keep=sites)
        assert run.logits is not None
        own = run.logits[:, rows.special :].double().log_softmax(-1)
        text = ids[:, rows.special :].to(own.device)
        own_ce.append(_picked(own[:, :-1], text[:, 1:]).mean(1).cpu().numpy())
        for lens in lenses:
            for layer in lens.layers:
                stream = run[sites[layer]][:, rows.special :]
                _add(sums[lens.name, layer], lens, layer, stream, own, text)
        if progress is not None:
            progress(min(start + batch, rows.n), rows.n)
    joined = {
        key: (np.concatenate(s.kl), np.concatenate(s.ce), np.concatenate(s.same)) for key, s in sums.items()
    }
    return LensReport(
        net.name, rows.n, int(rows.ids.shape[1]), {k: v[0] for k, v in joined.items()}, {k: v[1] for k, v in joined.items()},
        {k: v[2] for k, v in joined.items()}, {k: _bias(s) for k, s in sums.items()}, np.concatenate(own_ce),
    )  # fmt: skip


def _picked(log_probs: Tensor, ids: Tensor) -> Tensor:
    return -log_probs.gather(-1, ids[..., None])[..., 0]


def _add(sums: _Sums, lens: Lens, layer: int, stream: Tensor, own: Tensor, text: Tensor) -> None:
    n = stream.shape[1] - lens.ahead
    read = lens.logits(stream[:, :n], layer).double().log_softmax(-1)
    wanted = own[:, lens.ahead :]
    sums.kl.append((wanted.exp() * (wanted - read)).sum(-1).clamp(min=0).mean(1).cpu().numpy())
    sums.ce.append(_picked(read[:, :-1], text[:, lens.ahead + 1 :]).mean(1).cpu().numpy())
    sums.same.append((read.argmax(-1) == wanted.argmax(-1)).double().mean(1).cpu().numpy())
    mean, own_mean = read.exp().sum((0, 1)), wanted.exp().sum((0, 1))
    sums.mean = mean if sums.mean is None else sums.mean + mean
    sums.own = own_mean if sums.own is None else sums.own + own_mean


def _bias(sums: _Sums) -> float:
    """KL divergence of the lens's mean distribution from the output's mean distribution."""
    assert sums.mean is not None
    assert sums.own is not None
    own, read = sums.own / sums.own.sum(), (sums.mean / sums.mean.sum()).clamp(min=1e-30)
    return float(
        torch.where(own > 0, own * (own.clamp(min=1e-30).log() - read.log()), torch.zeros_like(own)).sum()
    )
