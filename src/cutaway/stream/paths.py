"""Path expansion: a logit as the sum over every path from what enters the stream, through chains of heads, to the end.

With patterns and norms frozen at a run, a head is linear in the stream it reads (Elhage et al. 2021). So what a head writes
is again a sum over what wrote to its sources, and so on down to the embedding. In an attention-only network the paths are
the whole of it; MLPs, where there are any, begin paths of their own. Paths of more heads than asked for are kept together as
what is left of their last head, so that the sum is the logit at every depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.network.coefficients import is_one, like
from cutaway.network.sites import Site
from cutaway.stream.fold import Fold
from cutaway.stream.head_weights import HeadWeights, head_weights
from cutaway.stream.record import Stream, read_stream
from cutaway.stream.split import Split
from cutaway.stream.targets import TokenLike, direction, token_ids
from cutaway.stream.writers import Writer, working

if TYPE_CHECKING:
    from cutaway.network import Network

_MOST = 100_000


@dataclass(frozen=True)
class Path:
    """Where it begins, the heads it goes through in order, and what it adds; longer: all that goes on beyond the depth."""

    origin: Writer | None
    heads: tuple[tuple[int, int], ...]
    value: float

    @property
    def longer(self) -> bool:
        """Whether this stands for all paths that end in these heads and begin with more."""
        return self.origin is None

    def __str__(self) -> str:
        start = "…" if self.origin is None else str(self.origin)
        return " → ".join([start, *(f"{la}.{h}" for la, h in self.heads), "logits"])


@dataclass(frozen=True, eq=False)
class Paths:
    """Every path to a logit (difference); their sum is `wanted` within `error` (a share of it)."""

    paths: tuple[Path, ...]
    wanted: float
    depth: int
    network: str

    @property
    def total(self) -> float:
        """The sum over paths."""
        return float(sum(p.value for p in self.paths))

    @property
    def error(self) -> float:
        """How far the sum is from the run's own logit (difference), as a share of it."""
        return abs(self.total - self.wanted) / max(abs(self.wanted), 1e-12)

    def by_length(self) -> dict[int, float]:
        """What paths of each number of heads add together; those beyond the depth count as one longer."""
        found: dict[int, float] = {}
        for p in self.paths:
            key = len(p.heads) + (1 if p.longer else 0)
            found[key] = found.get(key, 0.0) + p.value
        return dict(sorted(found.items()))

    def to_pandas(self) -> pd.DataFrame:
        """One row per path, largest first."""
        ordered = sorted(self.paths, key=lambda p: -abs(p.value))
        return pd.DataFrame(
            {
                "path": [str(p) for p in ordered],
                "heads": [len(p.heads) for p in ordered],
                "value": [p.value for p in ordered],
            }
        )


@dataclass(eq=False)
class _Walk:
    """One expansion under way."""

    stream: Stream
    weights: dict[int, HeadWeights]
    folds: dict[int, Fold | None]
    patterns: dict[int, Tensor]
    constants: dict[int, Tensor]
    depth: int
    found: list[Path] = field(default_factory=list)

    def down(self, index: int, g: Tensor, heads: tuple[tuple[int, int], ...]) -> None:
        """Follow the direction g [p d] at the stream behind step `index` back to everything that wrote to it."""
        for n in range(index, -1, -1):
            step = self.stream.steps[n]
            if step.fold is not None and step.norm_bias is not None:
                self._note(step.norm_bias, heads, (step.fold.bias * g[None]).sum())
                g = step.fold.back(g[None])[0]
            for term in step.terms:
                part = self.stream.split(term)
                if part is None or part.kind != "head" or part.layer not in self.weights:
                    self._note(term.writer, heads, (term.value[0] * g).sum())
                    continue
                self._heads(n, part, g, heads)
            if not is_one(step.carry):
                g = g * like(step.carry, g)

    def _heads(self, n: int, part: Split, g: Tensor, heads: tuple[tuple[int, int], ...]) -> None:
        each = part.contributions(g[None])[:, 0]
        count = part.weight.shape[0]
        for writer, value in zip(part.writers[count:], each[count:], strict=True):
            self._note(writer, heads, value.sum())
        read = torch.einsum("pd,ged->pge", part.before(g[None])[0], part.weight)
        weight, fold = self.weights[part.layer], self.folds[part.layer]
        for head in range(count):
            chain = ((part.layer, head), *heads)
            if len(chain) > self.depth:
                self._note(None, heads, each[head].sum(), chain)
                continue
            at_source = self.patterns[part.layer][head].mT @ read[:, head]
            self._note(
                Writer("constant", part.layer, head),
                chain,
                (at_source * self.constants[part.layer][:, head]).sum(),
            )
            back = at_source @ weight.v[head].mT.to(at_source)
            back = back if fold is None else back * fold.scale[0]
            self.down(self._before(part.layer, n), back, chain)

    def _before(self, layer: int, n: int) -> int:
        """The last step before a layer's own."""
        while n >= 0 and self.stream.steps[n].layer >= layer:
            n -= 1
        return n

    def _note(
        self,
        origin: Writer | None,
        heads: tuple[tuple[int, int], ...],
        value: Tensor,
        chain: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.found.append(Path(origin, chain or heads, float(value)))
        if len(self.found) > _MOST:
            raise BadInput(
                f"There are more than {_MOST} paths of up to {self.depth} heads.", "Use a smaller depth."
            )


def expand_paths(
    net: Network,
    text: str | Sequence[int],
    target: TokenLike,
    foil: TokenLike | None = None,
    *,
    depth: int = 2,
    pos: int = -1,
) -> Paths:
    """Every path of at most `depth` heads to the logit of `target` (or its difference from `foil`) at `pos`.

    Raises `SiteUnavailable` where values are no linear function of the stream, `NotFoldable` where a norm is not affine,
    `BadInput` where there are too many paths.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise BadInput(f"depth={depth!r} is no number of heads.", "Use 0, 1, 2.")
    tokens = net.encode([text] if isinstance(text, str) else [list(text)])
    stream = read_stream(net, tokens, by="head")
    weights = {w.layer: w for w in head_weights(net)}
    sites = [Site(n, i) for i in weights for n in ("resid_pre", "attn_in", "v", "pattern")]
    run = net.run(tokens, keep=sites, logits=False)
    walk = _Walk(stream, weights, {}, {}, {}, depth)
    for layer, w in weights.items():
        _freeze(
            walk,
            layer,
            w,
            {n: working(run[Site(n, layer)]) for n in ("resid_pre", "attn_in", "v", "pattern")},
        )
    goal, other = token_ids(net, target, 1), None if foil is None else token_ids(net, foil, 1, "foil")
    aim = direction(net, goal, other)
    column = int(tokens.columns(pos)[0, 0])
    last = working(stream.run[Site("resid_post", stream.depth - 1)])
    g = torch.zeros_like(last[0])
    g[column] = aim.vector[0].to(g)
    if float(aim.bias.abs().max()) > 0:
        walk.found.append(Path(Writer("unembed_bias"), (), float(aim.bias[0])))
    # a norm's bias counts at the one position that is read
    walk.down(len(stream.steps) - 1, g, ())
    head = net.anatomy.head
    normed = stream.run[Site("final_norm")] if head is not None and head.norm is not None else last
    wanted = float(aim.of(working(normed))[0, column])
    return Paths(tuple(walk.found), wanted, depth, net.name)


def _freeze(walk: _Walk, layer: int, w: HeadWeights, seen: dict[str, Tensor]) -> None:
    """Note what is frozen of one layer: pattern [h d s], the scale of its norm, and what values hold beside the stream."""
    fold = None if w.reader is None else w.reader.at(seen["resid_pre"], seen["attn_in"])
    groups = w.q.shape[0] // seen["v"].shape[2]
    v = seen["v"].repeat_interleave(groups, 2) if groups > 1 else seen["v"]
    if w.reader is None:
        raise SiteUnavailable(
            f"Layer {layer} reads the stream through a norm that is not affine.", "Use logit_attribution."
        )
    scale = torch.ones_like(seen["resid_pre"][..., :1]) if fold is None else fold.scale
    linear = torch.einsum("bpd,hde->bphe", seen["resid_pre"] * scale, w.v.to(v))
    walk.folds[layer], walk.patterns[layer] = fold, seen["pattern"][0]
    walk.constants[layer] = (v - linear)[0]
