"""Direct logit attribution: what each writer of the stream adds to a logit, or to the difference of two.

The final norm is folded at the scale of the run, so that the contributions add up to the logit (difference) itself. The
direction is carried backwards through the steps of the stream, and each writer's value is read along it: no vector per
writer is ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network.coefficients import is_one, like
from cutaway.network.sites import Site
from cutaway.statistics import Estimate, bootstrap
from cutaway.stream.record import Stream, read_stream
from cutaway.stream.split import Sources, sources
from cutaway.stream.targets import TokenLike, direction, token_ids
from cutaway.stream.writers import Term, Writer

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.edits import Edit
    from cutaway.network.inputs import Pos
    from cutaway.network.texts import InputLike

_BY = ("layer", "sublayer", "head", "neuron", "source")


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each writer adds to a logit or logit difference.

    values: float64 [c b k], one row per writer, in logits. wanted: [b k], the logit (difference) of the run itself; where
    the network has a soft-cap, before it. columns: [b k]. tokens: the prompts' tokens. softcap: its bound, or None.
    """

    writers: tuple[Writer, ...]
    values: np.ndarray
    wanted: np.ndarray
    target: tuple[str, ...]
    foil: tuple[str, ...] | None
    columns: np.ndarray
    tokens: tuple[tuple[str, ...], ...]
    by: str
    softcap: float | None
    network: str

    @property
    def total(self) -> np.ndarray:
        """The sum of all contributions: [b k]."""
        return self.values.sum(0)

    @property
    def error(self) -> float:
        """Largest difference between that sum and the run's own logit (difference), as a share of the largest of these."""
        scale = max(float(np.abs(self.wanted).max(initial=0.0)), 1e-12)
        return float(np.abs(self.total - self.wanted).max(initial=0.0)) / scale

    @property
    def labels(self) -> list[str]:
        """The writers by name."""
        return [str(w) for w in self.writers]

    def __getitem__(self, label: str) -> np.ndarray:
        if label not in self.labels:
            raise BadInput(f"Nothing here is called {label!r}.", f"There are: {self.labels[:12]}.")
        return self.values[self.labels.index(label)]

    def mean(self) -> np.ndarray:
        """Over rows and positions: [c]."""
        return self.values.reshape(len(self.writers), -1).mean(1)

    def to_pandas(self) -> pd.DataFrame:
        """One row per writer: its name, kind, layer, number, source position, and its mean contribution."""
        return pd.DataFrame(
            {
                "writer": self.labels,
                "kind": [w.kind for w in self.writers],
                "layer": [w.layer for w in self.writers],
                "index": [w.index for w in self.writers],
                "source": [w.source for w in self.writers],
                "contribution": self.mean(),
            }
        )

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n largest contributions by size."""
        frame = self.to_pandas()
        order = np.argsort(-np.abs(self.mean()), kind="stable")[:n]
        return frame.iloc[order].reset_index(drop=True)

    def grouped(self, key: Callable[[Writer], Writer]) -> Attribution:
        """Contributions of writers with the same key added up."""
        found: dict[Writer, np.ndarray] = {}
        for writer, value in zip(self.writers, self.values, strict=True):
            name = key(writer)
            found[name] = found[name] + value if name in found else value
        return Attribution(
            **{**vars(self), "writers": tuple(found), "values": np.stack(list(found.values()))}
        )

    def by_layer(self) -> Attribution:
        """Everything that one layer wrote as one contribution."""
        return self.grouped(lambda w: w if w.layer is None else Writer("layer", w.layer))

    @property
    def what(self) -> str:
        """What was attributed, in words."""
        capped = "" if self.softcap is None else " before the soft-cap"
        if self.foil is None:
            return f"logit of {_named(self.target)}{capped}"
        return f"logit of {_named(self.target)} minus {_named(self.foil)}{capped}"

    def plot(self, top: int = 24) -> Any:
        """The largest contributions as bars, with 95 % intervals over prompts where there are several."""
        from cutaway.figures import Bar, bars

        frame = self.top(top)
        frame = frame[frame["contribution"] != 0]
        items = []
        for name in frame["writer"]:
            found = self.estimate(str(name))
            low, high = (
                (found.value,) * 2 if found.interval is None else (found.interval.low, found.interval.high)
            )
            items.append(Bar(str(name), found.value, low, high))
        return bars(items, unit=f"{self.what} (logits)")

    def estimate(self, label: str) -> Estimate:
        """One writer's mean contribution over positions, with an interval over prompts."""
        return bootstrap(self[label].mean(1))

    def heads(self) -> Any:
        """Contributions of heads as a heat map, layer by head. Raises `BadInput` where heads were not told apart."""
        from cutaway.figures import Grid, heatmap

        cells = {
            (w.layer or 0, w.index or 0): v
            for w, v in zip(self.writers, self.mean(), strict=True)
            if w.kind == "head"
        }
        if not cells:
            raise BadInput(f"This attribution is by {self.by}.", 'Make it with by="head".')
        layers, count = sorted({la for la, _ in cells}), 1 + max(h for _, h in cells)
        table = np.array([[cells.get((la, h), np.nan) for h in range(count)] for la in layers])
        grid = Grid(
            table, [str(la) for la in layers], [str(h) for h in range(count)], "layer", "head", unit="logits"
        )
        return heatmap(grid)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "network": self.network,
            "what": self.what,
            "by": self.by,
            "softcap": self.softcap,
            "error": self.error,
            "wanted": self.wanted.tolist(),
            "total": self.total.tolist(),
            "contributions": [
                {"writer": str(w), "kind": w.kind, "layer": w.layer, "index": w.index, "source": w.source,
                 "mean": float(m), "values": v.tolist()}
                for w, m, v in zip(self.writers, self.mean(), self.values, strict=True)
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [
            f"{self.what}: {float(self.wanted.mean()):+.4f}, by {self.by}; sums to it within {self.error:.1e}"
        ]
        lines += [f"  {row['contribution']:+8.4f}  {row['writer']}" for _, row in self.top(12).iterrows()]
        return "\n".join(lines)


def _named(tokens: Sequence[str]) -> str:
    """One token in quotes, several as the first few of them."""
    distinct = list(dict.fromkeys(tokens))
    more = ", ..." if len(distinct) > 3 else ""
    return ", ".join(repr(t) for t in distinct[:3]) + more


def logit_attribution(
    net: Network,
    inputs: InputLike,
    target: TokenLike,
    foil: TokenLike | None = None,
    *,
    by: str = "head",
    pos: Pos = -1,
    edits: Sequence[Edit] | Edit = (),
    first_token: bool = False,
) -> Attribution:
    """What each writer of the stream adds to the logit of `target`, or to logit(target) - logit(foil), at `pos`.

    by: "layer", "sublayer", "head" (and MLPs whole), "neuron" (and attentions whole), or "source" (heads by the position
    they read from). first_token: of a word of several tokens, take the first.

    The contributions add up to the run's own logit; `error` says how nearly. With a soft-cap they add up to the logit
    before it, and the result says so.

    Raises `BadInput`, `SiteUnavailable` (with the certificate's reason), `NotFoldable` for a norm that is not affine.
    """
    if by not in _BY:
        raise BadInput(f"by={by!r} is not known.", f"Use one of {', '.join(_BY)}.")
    level = {"layer": "sublayer", "source": "head"}.get(by, by)
    tokens = net.encode(inputs)
    targets = token_ids(net, target, tokens.n, "target", first_token)
    foils = None if foil is None else token_ids(net, foil, tokens.n, "foil", first_token)
    direction(net, targets, foils)  # refuse before anything runs
    stream = read_stream(net, tokens, by=level, pos=pos, edits=edits)
    moved = _moved(stream) if by == "source" else None
    found = attribute(stream, targets, foils, moved)
    return found.by_layer() if by == "layer" else found


def attribute(
    stream: Stream, target: Tensor, foil: Tensor | None = None, moved: dict[int, Sources] | None = None
) -> Attribution:
    """The attribution of a stream that was read before: target, foil [b] as token ids."""
    net, run = stream.net, stream.run
    aim = direction(net, target, foil)
    last = stream.run[Site("resid_post", stream.depth - 1)]
    g = aim.vector[:, None].to(last.device).expand(*last.shape[:2], -1)
    g = g.double() if last.dtype == torch.float64 else g.float()
    writers: list[Writer] = [Writer("unembed_bias")]
    values: list[Tensor] = [aim.bias[:, None].expand(last.shape[:2]).cpu()[None]]
    for step in reversed(stream.steps):
        if step.fold is not None and step.norm_bias is not None:
            writers.append(step.norm_bias)
            values.append((step.fold.bias * g).sum(-1, dtype=torch.float64).cpu()[None])
            g = step.fold.back(g)
        for term in reversed(step.terms):
            names, found = _term(stream, term, g.to(term.value.device), moved)
            writers += names
            values.append(found.cpu())
        if not is_one(step.carry):
            g = g * like(step.carry, g)
    order = sorted(range(len(writers)), key=lambda i: _order(writers[i]))
    normed = run[Site("final_norm")] if net.anatomy.head and net.anatomy.head.norm else last
    wanted = _wanted(stream, aim.softcap, target, foil)
    if wanted is None:
        wanted = aim.of(normed.double() if normed.dtype == torch.float64 else normed.float()).cpu()
    table = torch.cat(values)
    if not any(bool(v.any()) for v in values[:1]):
        order = [i for i in order if writers[i].kind != "unembed_bias"]
    return Attribution(
        tuple(writers[i] for i in order), table[order].numpy(), wanted.numpy(),
        tuple(net.token_strings(target.tolist())), None if foil is None else tuple(net.token_strings(foil.tolist())),
        stream.columns.numpy(), tuple(tuple(stream.tokens.strings(i)) for i in range(stream.tokens.n)),
        "source" if moved else stream.by, aim.softcap, net.name,
    )  # fmt: skip


def _order(writer: Writer) -> tuple[int, int, int, int]:
    from cutaway.stream.writers import KINDS

    late = {"norm_bias": 10**6, "unembed_bias": 10**6 + 1, "edit": 10**6, "rest": 10**6}
    layer = late.get(writer.kind, -1) if writer.layer is None else writer.layer
    return layer, list(KINDS).index(writer.kind), writer.index or 0, writer.source or 0


def _wanted(stream: Stream, softcap: float | None, target: Tensor, foil: Tensor | None) -> Tensor | None:
    """The run's own logit (difference), where it is in single precision or better and not soft-capped."""
    logits = stream.run.logits
    if softcap is not None or logits is None or logits.dtype not in (torch.float32, torch.float64):
        return None
    logits = logits.cpu()
    picked = logits.gather(-1, target[:, None, None].expand(*logits.shape[:2], 1))[..., 0].double()
    if foil is not None:
        picked = picked - logits.gather(-1, foil[:, None, None].expand(*logits.shape[:2], 1))[..., 0].double()
    return picked


def _term(
    stream: Stream, term: Term, g: Tensor, moved: dict[int, Sources] | None
) -> tuple[list[Writer], Tensor]:
    """What one term adds along g, told apart as finely as the stream was read: writers, [c b k]."""
    part = None if stream.by == "sublayer" else stream.split(term)
    if part is None:
        return [term.writer], (term.value * g).sum(-1, dtype=torch.float64)[None]
    found = part.contributions(g)
    if moved is None or part.layer not in moved or part.kind != "head":
        return part.writers, found
    heads = part.weight.shape[0]
    each = moved[part.layer].contributions(part, g)
    width = each.shape[-1]
    names = [Writer("source", part.layer, h, s) for h in range(heads) for s in range(width)]
    flat = each.movedim(-1, 1).reshape(heads * width, *each.shape[1:3])
    return [*names, *part.writers[heads:]], torch.cat([flat, found[heads:]])


def _moved(stream: Stream) -> dict[int, Sources]:
    """Patterns and values of every layer whose heads are told apart, from two more runs."""
    net = stream.net
    layers = list(net.layers_with("head_out"))
    patterns = [Site("pattern", i) for i in layers]
    for site in (*patterns, *(Site("v", i) for i in layers)):
        net.resolve(site)
    pos = stream.columns - stream.tokens.first[:, None]
    narrow = net.run(stream.tokens, keep=patterns, edits=stream.edits, pos=pos, logits=False)
    wide = net.run(stream.tokens, keep=[Site("v", i) for i in layers], edits=stream.edits, logits=False)
    return {i: sources(narrow, wide, i) for i in layers}
