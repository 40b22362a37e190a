"""How the stream grows and turns: norms and ranks by layer, which writes are read where, from how far attention reads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import NotFoldable, SiteUnavailable
from cutaway.figures import Grid, heatmap, small_map
from cutaway.figures.lens import Line, lines
from cutaway.network.execution.heads import projection
from cutaway.network.norms import affine_norm
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import Site
from cutaway.reports import Block, Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.statistics import mean_of
from cutaway.stream.head_weights import head_weights, reading_norm
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.stream.shared import origin, require_count, table_in_words
from cutaway.stream.writers import layers_of, require_one_text

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.anatomy import Sublayer


@dataclass(frozen=True, eq=False)
class Flow:
    """The stream on text, layer by layer.

    Attributes:
        growth: one row per stream and write: mean norm with interval over rows, its cosine with the stream it is added to,
            and for streams the effective rank (participation ratio of the covariance's eigenvalues, (sum l)^2 / sum l^2).
        distance: one row per layer: share of attention, weighted by what is moved, that goes to the token itself, the one
            before, 2 to 4 back, 5 to 15 back, farther, and the first token.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "flow"

    growth: pd.DataFrame
    distance: pd.DataFrame
    provenance: Provenance

    __repr__ = brief

    def to_pandas(self) -> pd.DataFrame:
        """One row per stream and write; `distance` is a table of its own."""
        return self.growth

    def plot(self) -> Any:
        """Norms of streams and writes by layer."""
        drawn = []
        for what in dict.fromkeys(self.growth["what"]):
            rows = self.growth[self.growth["what"] == what]
            low, high = (rows[end].tolist() for end in ("norm_low", "norm_high"))
            drawn.append(Line(str(what), rows["layer"].tolist(), rows["norm"].tolist(), low, high))
        return lines(drawn, "layer", "mean norm")

    @property
    def headline(self) -> str:
        """How far the stream grows, in a sentence."""
        norms = self.growth["norm"][self.growth["what"] == "stream"].tolist()
        times = f", {norms[-1] / norms[0]:.3g} times" if norms[0] else ""
        return f"From the first layer to the last the stream's length goes from {norms[0]:.2f} to {norms[-1]:.2f}{times}"

    def page(self) -> Page:
        """Norms by layer, and from how far attention reads."""
        caption = "Mean length by layer, with 95 % intervals over rows of text."
        blocks: list[Block] = [Figure(self.plot(), caption)]
        if len(self.distance):
            caption = "Share of what attention moves, by how far back it comes from."
            blocks.append(table_of(self.distance, caption, ".2f"))
        about = f"The length of the residual stream of {self.provenance.network}, layer by layer."
        return page_of(self, "Cutaway · stream", about, blocks)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "growth", "distance")

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        return display_result(self, table=self.growth[["what", "layer", "norm", "rank", "cosine"]])


@strict
def flow(
    net: Network,
    texts: Texts | Rows,
    *,
    length: int = 64,
    most: int = 32,
    work: Work | None = None,
) -> Flow:
    """Measure the stream on at most `most` rows of text.

    Raises `SiteUnavailable` with the certificate's reason where streams or writes are refused, `BadInput` where the text is
    too short.
    """
    began, work = time.monotonic(), working(work)
    require_count("most", most)
    require_one_text(net)
    rows = rows_of(net, texts, length=length, most=most)
    ids = rows.ids[:most]
    layers = layers_of(net)
    names = [Site(n, la.index) for la in layers for s in la.stretches for n in s.writes]
    sites = [Site("resid_pre", la.index) for la in layers] + [Site("resid_post", layers[-1].index)]
    work.step("reading the stream", 0, 1 + len(layers))
    run = net.run(ids, keep=[*sites, *names], logits=False)
    values = {site: precise(run[site])[:, rows.special :] for site in (*sites, *names)}
    table = [_row("stream", layer, values[site], np.nan) for layer, site in enumerate(sites)]
    for site in names:
        stream = values[Site("resid_pre", site.layer)]
        cosine = float(torch.cosine_similarity(values[site], stream, -1).mean())
        table.append(_row(site.name, site.layer or 0, values[site], cosine))
    return Flow(pd.DataFrame(table), _distances(net, ids, work), origin(net, ids, began))


def _row(what: str, layer: int, value: Tensor, cosine: float) -> dict[str, Any]:
    norm = mean_of(value.norm(dim=-1).mean(1).double().cpu().numpy())
    low, high = norm.ends(norm.value)
    row = {"what": what, "layer": layer, "norm": norm.value, "norm_low": low, "norm_high": high}
    return row | {"rank": effective_rank(value), "cosine": cosine}


def effective_rank(values: Tensor) -> float:
    """Participation ratio of the covariance of vectors [... d]: how many directions share the variance.

    >>> effective_rank(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
    2.0
    """
    flat = values.reshape(-1, values.shape[-1]).double()
    flat = flat - flat.mean(0)
    gram = flat.mT @ flat
    trace = float(gram.diagonal().sum())
    return 0.0 if trace == 0 else trace**2 / float(gram.square().sum())


_NEAR = {
    "itself": (0, 0), "one back": (1, 1), "2 to 4 back": (2, 4), "5 to 15 back": (5, 15), "farther": (16, 10**9),
}  # fmt: skip


def _distances(net: Network, ids: Tensor, work: Work) -> pd.DataFrame:
    """Share of attention by distance, weighted by the length of what each source's value writes."""
    table = []
    layers = [i for i in net.layers_with("pattern") if net.has(Site("head_out", i))]
    for done, layer in enumerate(layers):
        work.step("reading patterns", done, len(layers))
        sites = [Site("pattern", layer), Site("v", layer)]
        run = net.run(ids, keep=sites, logits=False, stop_at=Site("z", layer))
        pattern, v = (precise(run[site]) for site in sites)
        stack = net.anatomy.stack()
        assert stack is not None
        attention = stack.layers[layer].attention()
        assert attention is not None
        matrix, _ = projection(net.modules[attention.output or ""])
        weight = matrix.unflatten(0, (attention.heads, -1))
        v = v.repeat_interleave(attention.heads // v.shape[2], 2)
        size = torch.einsum("bshe,hef,bshf->bsh", v, weight @ weight.mT, v).clamp(min=0).sqrt()
        moved = pattern * size.movedim(1, 2)[:, :, None]
        moved = moved / moved.sum(-1, keepdim=True).clamp(min=1e-30)
        p = moved.shape[-1]
        gap = torch.arange(p)[:, None] - torch.arange(p)[None]
        later = moved[:, :, 1:]  # the first token can only read itself
        row: dict[str, Any] = {"layer": layer, "first token": float(later[..., 0].mean())}
        for name, (low, high) in _NEAR.items():
            mask = ((gap >= low) & (gap <= high)).to(later)
            mask[:, 0] = 0.0
            row[name] = float((later * mask[1:]).sum(-1).mean())
        table.append(row)
    return pd.DataFrame(table)


@dataclass(frozen=True, eq=False)
class ReadsOfWrites:
    """How far what each sublayer can write lies in what each later one can read, from the weights alone.

    Attributes:
        writers: the sublayers that write, one for each row.
        readers: the inputs that read them.
        scores: ||R W|| / (||R|| ||W||) times the root of the width; 1 is what random directions give.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "reads-of-writes"

    writers: tuple[Part, ...]
    readers: tuple[tuple[Part, str], ...]
    scores: np.ndarray
    provenance: Provenance

    __repr__ = brief

    def to_pandas(self) -> pd.DataFrame:
        """One row per writer, reader and what is read ("q", "k", "v", "mlp"): the score."""
        readers, reads = [str(part) for part, _ in self.readers], [what for _, what in self.readers]
        writers = list(map(str, self.writers))
        return pd.DataFrame({"writer": writers, "reader": readers, "reads": reads, "score": self.scores})

    def plot(self) -> Any:
        """A heat map: writer by reader, as score minus one, which is chance."""
        return heatmap(self._grid())

    def _grid(self) -> Grid:
        table = self.to_pandas()
        table["into"] = [f"{r.words} {what}" for r, what in self.readers]
        table["from"] = [w.words for w in self.writers]
        rows, columns = list(dict.fromkeys(table["from"])), list(dict.fromkeys(table["into"]))
        wide = table.pivot(index="from", columns="into", values="score").reindex(index=rows, columns=columns)
        return Grid(wide.to_numpy() - 1.0, rows, columns, "writer", "reader", unit="score minus 1")

    @property
    def headline(self) -> str:
        """The closest pair, in a sentence."""
        if not len(self.scores):
            return "No sublayer reads what an earlier one writes"
        best = int(self.scores.argmax())
        reader, what = self.readers[best]
        writer, into = self.writers[best].words, f"{reader.words} ({what})"
        if self.scores[best] <= 1:
            return f"Nothing that is written is read more than a random direction; nearest are {writer} and {into}"
        return (
            f"What {writer} writes is read most by {into}: {self.scores[best]:.2f} times a random direction"
        )

    def page(self) -> Page:
        """The scores as a heat map."""
        figure = Figure(self.plot(), "How far what is written lies in what is read; zero is chance.")
        title = (
            f"How far what each sublayer writes lies in what later ones read, in {self.provenance.network}."
        )
        return page_of(self, "Cutaway · stream", title, [figure])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, pairs=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        table = table_in_words(self.to_pandas().nlargest(6, "score"), "writer", "reader")
        return display_result(self, table=table, picture=small_map(self._grid()) if len(self.scores) else "")


@dataclass(frozen=True, eq=False)
class _Matrix:
    """What one sublayer writes or reads with.

    Attributes:
        part: the sublayer.
        what: which input; empty for what writes.
        place: in the order of computation.
        value: the matrix, [n d] or [d n].
    """

    part: Part
    what: str
    place: tuple[int, int]
    value: Tensor

    @property
    def size(self) -> Tensor:
        """Frobenius norm."""
        return self.value.double().norm()


@strict
def reads_of_writes(net: Network, *, work: Work | None = None) -> ReadsOfWrites:
    """How far what each sublayer can write lies in what each later one can read.

    Matrices are those by which one writes and the other reads, behind its norm's weight. Sublayers whose matrices cannot be
    told (experts, norms that are not affine) are left out.
    """
    began, work = time.monotonic(), working(work)
    writers, readers = list[_Matrix](), list[_Matrix]()
    layers = layers_of(net)
    for order, layer in enumerate(layers):
        work.step("reading weights", order, len(layers))
        for n, sublayer in enumerate(layer.sublayers):
            part = Part(sublayer.kind, layer.index)
            place = order, n if layer.form == "sequential" else 0
            if sublayer.kind == "attention" and net.has(Site("head_out", layer.index)):
                try:
                    w = head_weights(net, layers=[layer.index], work=work)[0]
                except SiteUnavailable:
                    continue
                writers.append(_Matrix(part, "", place, w.o.flatten(0, 1)))
                each = {"q": w.q, "k": w.k, "v": w.v}.items()
                readers += [_Matrix(part, name, place, m.movedim(0, 1).flatten(1)) for name, m in each]
            if sublayer.kind == "mlp":
                _mlp_matrices(net, sublayer, part, place, writers, readers)
    pairs = [(w, r) for w in writers for r in readers if r.place > w.place]
    scores = [
        float((w.value.double() @ r.value.double()).norm() / (w.size * r.size)) * w.value.shape[1] ** 0.5
        for w, r in pairs
    ]
    parts, read = tuple(w.part for w, _ in pairs), tuple((r.part, r.what) for _, r in pairs)
    return ReadsOfWrites(parts, read, np.array(scores), origin(net, None, began))


def _mlp_matrices(
    net: Network,
    sublayer: Sublayer,
    part: Part,
    place: tuple[int, int],
    writers: list[_Matrix],
    readers: list[_Matrix],
) -> None:
    """Add what an MLP writes and reads with, where it is one pair of matrices."""
    mlp = sublayer.mlp
    if mlp is None or not mlp.down or not mlp.up or mlp.experts is not None:
        return
    down, _ = projection(net.modules[mlp.down])
    if sublayer.norm_after is not None:
        down = affine_norm(net, sublayer.norm_after).linear(down)
    writers.append(_Matrix(part, "", place, down))
    up = torch.cat([projection(net.modules[path])[0] for path in mlp.up], 1)
    try:
        norm = reading_norm(net, part.layer or 0, "mlp_in")
    except (NotFoldable, SiteUnavailable):
        return
    if up.shape[0] == norm.weight.shape[0]:
        readers.append(_Matrix(part, "mlp", place, norm.linear(torch.eye(up.shape[0]).to(up)) @ up))
