"""Direct logit attribution: what each writer of the stream adds to a logit, or to the difference of two.

The final norm is folded at the scale of the run, so that the contributions add up to the logit (difference) itself. The
direction is carried backwards through the steps of the stream, and each writer's value is read along it: no vector per
writer is ever formed.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadFormat, BadInput, did_you_mean
from cutaway.figures import Bar, bars, first_and_rest, small_bars
from cutaway.network.coefficients import is_one, like
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.statistics import Estimate, mean_of
from cutaway.stream.record import Stream, read_stream
from cutaway.stream.shared import head_map, origin, require_one
from cutaway.stream.split import Sources, sources
from cutaway.stream.targets import TokenLike, direction, token_ids
from cutaway.stream.writers import Term

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.edits import Edit
    from cutaway.network.inputs import Pos
    from cutaway.network.texts import InputLike

#: How finely contributions are told apart.
BY = ("layer", "sublayer", "head", "neuron", "source")


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each writer adds to a logit or logit difference.

    It speaks of direct paths alone: what a part adds by itself, not what the output would lose without it. Where `error` is
    not small the norms on the way were no affine maps at this run.

    Attributes:
        writers: the parts that wrote; by source, a head once for each position that it read from.
        sources: [c] for each writer the position that it read from, None where that is not told apart.
        values: float64 [c b k], one row per writer, in logits.
        wanted: [b k], the run's own logit (difference); where the network has a soft-cap, before it.
        target: the tokens whose logit it is, one per row.
        foil: the tokens that they are set against, or None.
        columns: [b k], the columns that were read.
        tokens: the prompts' tokens.
        by: how finely writers were told apart.
        softcap: its bound, or None.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "attribution"

    writers: tuple[Part, ...]
    sources: tuple[int | None, ...]
    values: np.ndarray
    wanted: np.ndarray
    target: tuple[str, ...]
    foil: tuple[str, ...] | None
    columns: np.ndarray
    tokens: tuple[tuple[str, ...], ...]
    by: str
    softcap: float | None
    provenance: Provenance

    __repr__ = brief

    @property
    def network(self) -> str:
        """The network's name."""
        return self.provenance.network

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
        """The writers by name: `a3.h1`, or `a3.h1 from 5` by source."""
        return [_from(str(w), s) for w, s in zip(self.writers, self.sources, strict=True)]

    @property
    def words(self) -> list[str]:
        """The writers for people: `head 3.1`, `head 3.1 from 5`."""
        return [_from(w.words, s) for w, s in zip(self.writers, self.sources, strict=True)]

    def __getitem__(self, name: str | Part) -> np.ndarray:
        """One writer's contribution [b k], by name or words: `a3.h1`, `head 3.1`, `a3.h1 from 5`."""
        return self.values[self._at(name)]

    def _at(self, name: str | Part) -> int:
        text, word, place = str(name).partition(" from ")
        source = int(place) if place.isdigit() else None
        try:
            return list(zip(self.writers, self.sources, strict=True)).index((Part.of(text), source))
        except (ValueError, BadFormat) as error:
            raise BadInput(
                f"Nothing is called {str(name)!r} in this attribution by {self.by}.",
                did_you_mean(name, [*self.labels, *self.words], 3),
            ) from error

    def mean(self) -> np.ndarray:
        """Over rows and positions: [c]."""
        return self.values.reshape(len(self.writers), -1).mean(1)

    def to_pandas(self) -> pd.DataFrame:
        """One row per writer: its name, kind, layer, number, source position, and its mean contribution."""
        of_parts = {name: [getattr(w, name) for w in self.writers] for name in ("kind", "layer", "index")}
        sources = list(self.sources)
        return pd.DataFrame(
            {"writer": self.labels, **of_parts, "source": sources, "contribution": self.mean()}
        )

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n largest contributions by size."""
        return self.to_pandas().iloc[self._largest(n)].reset_index(drop=True)

    def _largest(self, n: int) -> np.ndarray:
        return np.argsort(-np.abs(self.mean()), kind="stable")[:n]

    def grouped(self, key: Callable[[Part], Part]) -> Attribution:
        """Contributions of writers with the same key added up, whatever position they read from."""
        sums: dict[Part, np.ndarray] = {}
        for writer, value in zip(self.writers, self.values, strict=True):
            name = key(writer)
            sums[name] = sums[name] + value if name in sums else value
        values = np.stack(list(sums.values()))
        return replace(self, writers=tuple(sums), sources=(None,) * len(sums), values=values)

    def by_layer(self) -> Attribution:
        """Everything that one layer wrote as one contribution."""
        return self.grouped(lambda w: w if w.layer is None else Part("layer", w.layer))

    @property
    def what(self) -> str:
        """What was attributed, in words."""
        capped = "" if self.softcap is None else " before the soft-cap"
        foil = "" if self.foil is None else f" minus {_named(self.foil)}"
        return f"logit of {_named(self.target)}{foil}{capped}"

    @property
    def headline(self) -> str:
        """Who adds most to the logit (difference), in a sentence; of several prompts, whether that is told from zero."""
        whole, largest = float(self.wanted.mean()), self._largest(1)
        if not len(largest):
            return f"Nothing adds to the {self.what}"
        words, share = self.words[largest[0]], mean_of(self.values[largest[0]].mean(1))
        n = len(self.tokens)
        over = f" on average over {n} prompts" if n > 1 else ""
        ends = "" if share.interval is None else f" [{share.interval.low:+.3g}, {share.interval.high:+.3g}]"
        adds = f"{words} {'adds' if share.value >= 0 else 'takes'} most"
        if n > 1 and share.above(0.0) is None:
            figure = f"{words}, {share.value:+.3g}{ends}"
            return (
                f"Over {n} prompts no part's share of the {self.what} is told from zero; largest is {figure}"
            )
        said = f"{adds}{over}: {share.value:+.3g}{ends} to the {self.what}, which is {whole:+.3g}"
        return f"{said[0].upper()}{said[1:]}"

    def plot(self, top: int = 24) -> Any:
        """The largest contributions as bars, with 95 % intervals over prompts where there are several; the rest added up."""
        words, mean, order = self.words, self.mean(), self._largest(len(self.writers))
        largest = [Bar.of(words[at], mean_of(self.values[at].mean(1))) for at in order[:top] if mean[at]]
        others = [Bar.of(words[at], float(mean[at])) for at in order[top:] if mean[at]]
        return bars(first_and_rest([*largest, *others], len(largest)), unit=f"{self.what} (logits)")

    def estimate(self, name: str | Part) -> Estimate:
        """One writer's mean contribution over positions, with an interval over prompts."""
        return mean_of(self[name].mean(1))

    def heads(self) -> Any:
        """Contributions of heads as a heat map, layer by head. Raises `BadInput` where heads were not told apart."""
        heads = self._heads()
        if not heads:
            raise BadInput(f"This attribution is by {self.by}.", 'Make it with by="head".')
        return head_map(heads, "logits")

    def _heads(self) -> dict[Part, float]:
        """What each head adds, where heads were told apart and not their sources."""
        each = zip(self.writers, self.sources, self.mean(), strict=True)
        return {writer: value for writer, source, value in each if writer.kind == "head" and source is None}

    def page(self) -> Page:
        """Who wrote the answer: the largest contributions, and the heads layer by layer."""
        figures = [
            Figure(
                self.plot(),
                f"The largest contributions; all bars together are {float(self.total.mean()):+.3f}, the run's own value "
                f"within {self.error:.1e}.",
            )
        ]
        if self._heads():
            figures.append(Figure(self.heads(), "What each attention head adds, layer by head."))
        prompts = f"“{''.join(self.tokens[0])}”" + (f" and {n} more" if (n := len(self.tokens) - 1) else "")
        places = self.columns[0].tolist()
        where = f"at position {places[0]}" if len(places) == 1 else f"at {len(places)} positions"
        about = f"Who wrote the {self.what}: {self.network} on {prompts}, {where}, by {self.by}."
        return page_of(self, "Cutaway · attribution", about, figures)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        columns = zip(self.labels, self.writers, self.sources, self.mean(), self.values, strict=True)
        rows = [
            {
                "writer": label,
                "kind": w.kind,
                "layer": w.layer,
                "index": w.index,
                "source": s,
                "mean": float(m),
                "values": v,
            }
            for label, w, s, m, v in columns
        ]
        return described(self, "what", "by", "softcap", "error", "wanted", "total", contributions=rows)

    save = save_fields
    load = classmethod(load_fields)

    def __str__(self) -> str:
        first = (
            f"{self.what}: {float(self.wanted.mean()):+.4f}, by {self.by}; sums to it within {self.error:.1e}"
        )
        words, mean = self.words, self.mean()
        return "\n".join([first, *(f"  {mean[i]:+8.4f}  {words[i]}" for i in self._largest(12))])

    def _repr_html_(self) -> str:
        words, best, values = self.words, self._largest(12), self.mean()
        items = [Bar.of(html.escape(words[i]), float(values[i])) for i in best]
        return display_result(self, [f"by {self.by}"], picture=small_bars(items, self.what))


def _from(name: str, source: int | None) -> str:
    return name if source is None else f"{name} from {source}"


def _named(tokens: Sequence[str]) -> str:
    """One token in quotes, several as the first few of them."""
    distinct = list(dict.fromkeys(tokens))
    more = ", ..." if len(distinct) > 3 else ""
    return ", ".join(repr(t) for t in distinct[:3]) + more


@strict
def logit_attribution(
    net: Network,
    text: InputLike,
    *,
    target: TokenLike,
    foil: TokenLike | None = None,
    by: str = "head",
    pos: Pos = -1,
    edits: Sequence[Edit] | Edit = (),
    first_token: bool = False,
    work: Work | None = None,
) -> Attribution:
    """What each writer of the stream adds to the logit of `target`, or to logit(target) - logit(foil), at `pos`.

    The contributions add up to the run's own logit; `error` says how nearly. With a soft-cap they add up to the logit
    before it, and the result says so.

    Args:
        net: the network.
        text: a text, several, or token rows.
        target: a word as it follows the text, with its space, or a token id; one for all rows or one for each.
        foil: the token that it is set against; without one, the logit itself is taken apart.
        by: "layer", "sublayer", "head" (and MLPs whole), "neuron" (and attentions whole), or "source" (heads by the
            position that they read from).
        pos: at which position of each row (-1: the last).
        edits: interventions that the run carries; what they put into the stream is a writer of its own.
        first_token: of a word of several tokens, take the first.
        work: hears of progress, and may stop it.

    Raises:
        BadInput: for an unknown token, a word of several tokens, or an unknown `by`.
        SiteUnavailable: where the network refuses what is needed, with the certificate's reason.
        NotFoldable: for a norm that is not affine.
    """
    require_one("by", by, BY)
    began, work = time.monotonic(), working(work)
    level = {"layer": "sublayer", "source": "head"}.get(by, by)
    tokens = net.encode(text)
    targets = token_ids(net, target, tokens.n, "target", first_token)
    foils = None if foil is None else token_ids(net, foil, tokens.n, "foil", first_token)
    direction(net, targets, foils)  # refuse before anything runs
    announce(net, tokens, work, "reading the stream", float(tokens.n))
    stream = read_stream(net, tokens, by=level, pos=pos, edits=edits, work=work)
    moved = _moved(stream) if by == "source" else None
    work.check()
    whole = attribute(stream, targets, foils, moved=moved, began=began)
    return whole.by_layer() if by == "layer" else whole


def attribute(
    stream: Stream,
    target: Tensor,
    foil: Tensor | None = None,
    *,
    moved: dict[int, Sources] | None = None,
    began: float | None = None,
) -> Attribution:
    """The attribution of a stream that was read before: target, foil [b] as token ids.

    moved: by layer what heads moved, to tell them apart by source. began: `time.monotonic()` when the work did.
    """
    began = time.monotonic() if began is None else began
    net, run = stream.net, stream.run
    aim = direction(net, target, foil)
    last = stream.run[Site("resid_post", stream.depth - 1)]
    g = aim.vector[:, None].to(precise(last)).expand(*last.shape[:2], -1)
    writers: list[_Source] = [(Part("unembed_bias"), None)]
    values = [aim.bias[:, None].expand(last.shape[:2]).cpu()[None]]
    for step in reversed(stream.steps):
        if step.fold is not None and step.norm_bias is not None:
            writers.append((step.norm_bias, None))
            values.append((step.fold.bias * g).sum(-1, dtype=torch.float64).cpu()[None])
            g = step.fold.back(g)
        for term in reversed(step.terms):
            names, contributions = _term(stream, term, g.to(term.value.device), moved)
            writers += names
            values.append(contributions.cpu())
        if not is_one(step.carry):
            g = g * like(step.carry, g)
    order = sorted(range(len(writers)), key=lambda i: (writers[i][0].order, writers[i][1] or 0))
    normed = run[Site("final_norm")] if net.anatomy.head and net.anatomy.head.norm else last
    wanted = _wanted(stream, aim.softcap, target, foil)
    if wanted is None:
        wanted = aim.of(precise(normed)).cpu()
    if not any(bool(v.any()) for v in values[:1]):
        order = [i for i in order if writers[i][0].kind != "unembed_bias"]
    return Attribution(
        tuple(writers[i][0] for i in order), tuple(writers[i][1] for i in order), torch.cat(values)[order].numpy(),
        wanted.numpy(), tuple(net.token_strings(target.tolist())),
        None if foil is None else tuple(net.token_strings(foil.tolist())),
        stream.columns.numpy(), tuple(tuple(stream.tokens.strings(i)) for i in range(stream.tokens.n)),
        "source" if moved else stream.by, aim.softcap, origin(net, stream.tokens, began),
    )  # fmt: skip


#: A part, and the position that it read from where that is told apart.
_Source = tuple[Part, int | None]


def _wanted(stream: Stream, softcap: float | None, target: Tensor, foil: Tensor | None) -> Tensor | None:
    """The run's own logit (difference), where it is in single precision or better and not soft-capped."""
    logits = stream.run.logits
    if softcap is not None or logits is None or logits.dtype not in (torch.float32, torch.float64):
        return None
    held, places = logits.cpu(), logits.shape[:2]

    def of(ids: Tensor) -> Tensor:
        return held.gather(-1, ids[:, None, None].expand(*places, 1))[..., 0].double()

    return of(target) if foil is None else of(target) - of(foil)


def _term(
    stream: Stream, term: Term, g: Tensor, moved: dict[int, Sources] | None
) -> tuple[list[_Source], Tensor]:
    """What one term adds along g, told apart as finely as the stream was read: writers, [c b k]."""
    part = None if stream.by == "sublayer" else stream.split(term)
    if part is None:
        return [(term.writer, None)], (term.value * g).sum(-1, dtype=torch.float64)[None]
    contributions, whole = part.contributions(g), [(writer, None) for writer in part.writers]
    if moved is None or part.layer not in moved or part.kind != "head":
        return [*whole], contributions
    heads = part.weight.shape[0]
    each = moved[part.layer].contributions(part, g)
    width = each.shape[-1]
    names = [(Part("head", part.layer, h), s) for h in range(heads) for s in range(width)]
    flat = each.movedim(-1, 1).reshape(heads * width, *each.shape[1:3])
    return [*names, *whole[heads:]], torch.cat([flat, contributions[heads:]])


def _moved(stream: Stream) -> dict[int, Sources]:
    """Patterns and values of every layer whose heads are told apart, from two more runs."""
    net = stream.net
    layers = list(net.layers_with("head_out"))
    patterns, values = ([Site(name, i) for i in layers] for name in ("pattern", "v"))
    for site in (*patterns, *values):
        net.resolve(site)
    pos = stream.columns - stream.tokens.first[:, None]
    narrow = net.run(stream.tokens, keep=patterns, edits=stream.edits, pos=pos, logits=False)
    wide = net.run(stream.tokens, keep=values, edits=stream.edits, logits=False)
    return {i: sources(narrow, wide, i) for i in layers}
