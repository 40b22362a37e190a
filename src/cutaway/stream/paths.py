"""Path expansion: a logit as the sum over every path from what enters the stream, through chains of heads, to the end.

With patterns and norms frozen at a run, a head is linear in the stream it reads (Elhage et al. 2021). So what a head writes
is again a sum over what wrote to its sources, and so on down to the embedding. In an attention-only network the paths are
the whole of it; MLPs, where there are any, begin paths of their own. Paths of more heads than asked for are kept together as
what is left of their last head, so that the sum is the logit at every depth.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.figures import Bar, bars, first_and_rest, small_bars
from cutaway.network.coefficients import is_one, like
from cutaway.network.inputs import Tokens
from cutaway.network.norms import Fold
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.stream.head_weights import HeadWeights, head_weights, weights_price
from cutaway.stream.record import Stream, read_stream
from cutaway.stream.shared import one_text, origin, require_count
from cutaway.stream.split import Split
from cutaway.stream.targets import TokenLike, direction, token_ids

if TYPE_CHECKING:
    from cutaway.network import Network

_MOST = 100_000
#: So many paths are listed on a page.
_TABLE = 24


@dataclass(frozen=True)
class HeadPath:
    """One path to the logits.

    Attributes:
        origin: the part that it begins with; None where it stands for all paths that go on beyond the depth.
        heads: the heads that it goes through, in order.
        value: what it adds.
    """

    origin: Part | None
    heads: tuple[Part, ...]
    value: float

    @property
    def longer(self) -> bool:
        """Whether this stands for all paths that end in these heads and begin with more."""
        return self.origin is None

    def __str__(self) -> str:
        return self._joined(str)

    @property
    def words(self) -> str:
        """For people: `embedding → head 1.2 → logits`."""
        return self._joined(lambda part: part.words)

    def _joined(self, called: Callable[[Part], str]) -> str:
        return " → ".join(
            ["…" if self.origin is None else called(self.origin), *map(called, self.heads), "logits"]
        )


@dataclass(frozen=True, eq=False)
class PathExpansion:
    """Every path to a logit (difference).

    Attributes:
        paths: all of them; those beyond the depth together.
        wanted: the run's own logit (difference), which is their sum.
        what: what that is, in words.
        depth: through how many heads paths were followed.
        provenance: what is needed to repeat it.
        tokens: of the text.
    """

    kind: ClassVar[str] = "path-expansion"

    paths: tuple[HeadPath, ...]
    wanted: float
    what: str
    depth: int
    provenance: Provenance
    tokens: tuple[str, ...] = ()

    __repr__ = brief

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
        sums: dict[int, float] = {}
        for p in self.paths:
            key = len(p.heads) + (1 if p.longer else 0)
            sums[key] = sums.get(key, 0.0) + p.value
        return dict(sorted(sums.items()))

    def largest(self, n: int | None = None) -> list[HeadPath]:
        """The n largest paths by size, or all."""
        return sorted(self.paths, key=lambda p: -abs(p.value))[:n]

    def to_pandas(self) -> pd.DataFrame:
        """One row per path, largest first."""
        ordered = self.largest()
        rows = [(str(path), len(path.heads), path.value) for path in ordered]
        return pd.DataFrame(rows, columns=["path", "heads", "value"])

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n largest paths."""
        return self.to_pandas().head(n)

    def plot(self, top: int = 24) -> Any:
        """The largest paths as bars, and all others added up."""
        items = [Bar.of(path.words, path.value) for path in self.largest()]
        return bars(first_and_rest(items, top), unit="logits")

    @property
    def headline(self) -> str:
        """The largest path, in a sentence."""
        if not self.paths:
            return f"No path leads to the {self.what}"
        top = self.largest(1)[0]
        verb = "adds" if top.value >= 0 else "takes"
        most = f"{top.words} {verb} most: {top.value:+.3g}"
        return f"Of {len(self.paths)} paths to the {self.what}, {self.wanted:+.3g}, {most}"

    def page(self) -> Page:
        """The largest paths, and what paths of each length add."""
        sums = {
            str(heads) if heads <= self.depth else f"more than {self.depth}": v
            for heads, v in self.by_length().items()
        }
        table = pd.DataFrame([*sums.items(), ("all", self.total)], columns=["heads", "adds"])
        caption = f"What the paths through so many heads add together: in all, the {self.what}."
        shown = self.largest(_TABLE)
        rest = self.total - sum(p.value for p in shown)
        rows = [(p.words, p.value) for p in shown]
        if more := len(self.paths) - len(shown):
            rows.append((f"and {more} more, together", rest))
        every = table_of(
            pd.DataFrame(rows, columns=["path", "adds"]), "The largest paths.", "+.4f", numeric=(1,)
        )
        lengths = table_of(table, caption, "+.4f", numeric=(1,))
        figure = Figure(
            self.plot(),
            f"The largest paths, by what they add; all bars together are {self.total:+.3f}, within {self.error:.1e}.",
        )
        lead = f"{self.provenance.network} on “{''.join(self.tokens)}”, " if self.tokens else ""
        lead += f"{'followed' if lead else 'Followed'} through at most {self.depth} heads."
        return page_of(
            self, "Cutaway · stream", f"Which way the {self.what} came: {lead}", [figure, every, lengths]
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "what", "wanted", "depth", "error", paths=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        items = [Bar.of(html.escape(path.words), path.value) for path in self.largest(10)]
        return display_result(self, picture=small_bars(items, self.what))


@dataclass(eq=False)
class _Walk:
    """One expansion under way.

    Attributes:
        stream: what is expanded.
        weights, folds, patterns, constants: by layer, the heads, and what is frozen of them at the run: the norm that they
            read through, where they look, what their values hold beside the stream.
        depth: through how many heads paths are followed.
        paths: those that were followed to their beginning.
    """

    stream: Stream
    weights: dict[int, HeadWeights]
    folds: dict[int, Fold]
    patterns: dict[int, Tensor]
    constants: dict[int, Tensor]
    depth: int
    paths: list[HeadPath] = field(default_factory=list)

    def down(self, index: int, g: Tensor, heads: tuple[Part, ...]) -> None:
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

    def _heads(self, n: int, part: Split, g: Tensor, heads: tuple[Part, ...]) -> None:
        each = part.contributions(g[None])[:, 0]
        count = part.weight.shape[0]
        for writer, value in zip(part.writers[count:], each[count:], strict=True):
            self._note(writer, heads, value.sum())
        read = torch.einsum("pd,ged->pge", part.before(g[None])[0], part.weight)
        weight, fold = self.weights[part.layer], self.folds[part.layer]
        for head in range(count):
            chain = (Part("head", part.layer, head), *heads)
            if len(chain) > self.depth:
                self._note(None, chain, each[head].sum())
                continue
            at_source = self.patterns[part.layer][head].mT @ read[:, head]
            constant = (at_source * self.constants[part.layer][:, head]).sum()
            self._note(Part("constant", part.layer, head), chain, constant)
            back = at_source @ weight.v[head].mT.to(at_source) * fold.scale[0]
            self.down(self._before(part.layer, n), back, chain)

    def _before(self, layer: int, n: int) -> int:
        """The last step before a layer's own."""
        while n >= 0 and self.stream.steps[n].layer >= layer:
            n -= 1
        return n

    def _note(self, origin: Part | None, heads: tuple[Part, ...], value: Tensor) -> None:
        self.paths.append(HeadPath(origin, heads, float(value)))
        if len(self.paths) > _MOST:
            raise BadInput(
                f"There are more than {_MOST} paths of up to {self.depth} heads.", "Use a smaller depth."
            )


@strict
def expand_paths(
    net: Network,
    text: str | Sequence[int] | Tokens,
    *,
    target: TokenLike,
    foil: TokenLike | None = None,
    depth: int = 2,
    pos: int = -1,
    first_token: bool = False,
    work: Work | None = None,
) -> PathExpansion:
    """Every path of at most `depth` heads to the logit of `target` (or its difference from `foil`) at `pos`.

    Args:
        net: the network.
        text: one text, or its token ids.
        target: a word as it follows the text, with its space, or a token id.
        foil: the token that it is set against, or None.
        depth: through how many heads paths are followed; longer ones are kept together.
        pos: at which position (-1: the last).
        first_token: of a word of several tokens, take the first.
        work: hears of progress, and may stop it.

    Raises:
        SiteUnavailable: where values are no linear function of the stream.
        NotFoldable: where a norm is not affine.
        BadInput: where there are too many paths.
    """
    began, work = time.monotonic(), working(work)
    require_count("depth", depth, 0)
    tokens = one_text(net, text)
    goal = token_ids(net, target, 1, "target", first_token)
    other = None if foil is None else token_ids(net, foil, 1, "foil", first_token)
    aim = direction(net, goal, other)
    announce(
        net,
        [[0]] * 16,
        work,
        "expanding paths",
        [("the text", 2.0), ("weights of heads", weights_price(net))],
    )
    stream = read_stream(net, tokens, by="head", work=work)
    walk = _Walk(stream, {w.layer: w for w in head_weights(net, work=work)}, {}, {}, {}, depth)
    names = ("resid_pre", "attn_in", "v", "pattern")
    run = net.run(tokens, keep=[Site(n, i) for i in walk.weights for n in names], logits=False)
    for layer, w in walk.weights.items():
        _freeze(walk, layer, w, {n: precise(run[Site(n, layer)]) for n in names})
    column = int(tokens.columns(pos)[0, 0])
    last = precise(stream.run[Site("resid_post", stream.depth - 1)])
    g = torch.zeros_like(last[0])
    g[column] = aim.vector[0].to(g)
    if float(aim.bias.abs().max()) > 0:
        walk.paths.append(HeadPath(Part("unembed_bias"), (), float(aim.bias[0])))
    # a norm's bias counts at the one position that is read
    work.step("following paths", 0, 1)
    walk.down(len(stream.steps) - 1, g, ())
    head = net.anatomy.head
    normed = stream.run[Site("final_norm")] if head is not None and head.norm is not None else last
    wanted = float(aim.of(precise(normed))[0, column])
    words = [repr(net.token_strings(ids.tolist())[0]) for ids in (goal, other) if ids is not None]
    what = f"logit of {' minus '.join(words)}" + ("" if aim.softcap is None else " before the soft-cap")
    strings = tuple(tokens.strings(0))
    return PathExpansion(tuple(walk.paths), wanted, what, depth, origin(net, tokens, began), strings)


def _freeze(walk: _Walk, layer: int, w: HeadWeights, seen: dict[str, Tensor]) -> None:
    """Note what is frozen of one layer: pattern [h d s], the scale of its norm, and what values hold beside the stream."""
    if w.reader is None:
        raise SiteUnavailable(
            f"Layer {layer} reads the stream through a norm that is not affine.", "Use logit_attribution."
        )
    fold = w.reader.at(seen["resid_pre"], seen["attn_in"])
    v = seen["v"].repeat_interleave(w.q.shape[0] // seen["v"].shape[2], 2)
    linear = torch.einsum("bpd,hde->bphe", seen["resid_pre"] * fold.scale, w.v.to(v))
    walk.folds[layer], walk.patterns[layer] = fold, seen["pattern"][0]
    walk.constants[layer] = (v - linear)[0]
