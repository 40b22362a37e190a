"""How the stream grows and turns: norms and ranks by layer, which writes are read where, from how far attention reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import NotFoldable, SiteUnavailable
from cutaway.network.sites import Site
from cutaway.statistics import bootstrap
from cutaway.stream.head_weights import head_weights, reading_norm
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.stream.split import projection
from cutaway.stream.writers import SHORT, layers_of, norms_of, require_one_text, working

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Flow:
    """The stream on text, layer by layer.

    growth: one row per stream and write: mean norm with interval over rows, its cosine with the stream it is added to, and
    for streams the effective rank (participation ratio of the covariance's eigenvalues, (sum l)^2 / sum l^2).
    distance: one row per layer: share of attention, weighted by what is moved, that goes to the token itself, the one
    before, 2 to 4 back, 5 to 15 back, farther, and the first token.
    """

    growth: pd.DataFrame
    distance: pd.DataFrame
    network: str

    def plot(self) -> Any:
        """Norms of streams and writes by layer."""
        from cutaway.figures.lens import Line, lines

        drawn = []
        for what in dict.fromkeys(self.growth["what"]):
            mine = self.growth[self.growth["what"] == what]
            low, high = (mine[end].tolist() for end in ("norm_low", "norm_high"))
            drawn.append(Line(str(what), mine["layer"].tolist(), mine["norm"].tolist(), low, high))
        return lines(drawn, "layer", "mean norm")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "network": self.network,
            "growth": self.growth.to_dict("records"),
            "distance": self.distance.to_dict("records"),
        }


def flow(net: Network, texts: Texts | Rows, *, length: int = 64, most: int = 32) -> Flow:
    """Measure the stream on at most `most` rows of text.

    Raises `SiteUnavailable` with the certificate's reason where streams or writes are refused, `BadInput` where the text is
    too short.
    """
    require_one_text(net)
    rows = texts if isinstance(texts, Rows) else rows_of(net, texts, length, most)
    ids = rows.ids[:most]
    layers = layers_of(net)
    names = [Site(n, la.index) for la in layers for s in la.stretches for n in s.writes]
    sites = [Site("resid_pre", la.index) for la in layers] + [Site("resid_post", layers[-1].index)]
    run = net.run(ids, keep=[*sites, *names], logits=False)
    table = []
    for site in sites:
        value = working(run[site])[:, rows.special :]
        index = (site.layer or 0) + (site.name == "resid_post")
        table.append(_row("stream", index, value) | {"rank": effective_rank(value), "cosine": np.nan})
    for site in names:
        value = working(run[site])[:, rows.special :]
        stream = working(run[Site("resid_pre", site.layer)])[:, rows.special :]
        cosine = float(torch.cosine_similarity(value, stream, -1).mean())
        table.append(
            _row(site.name, site.layer or 0, value) | {"rank": effective_rank(value), "cosine": cosine}
        )
    return Flow(pd.DataFrame(table), _distances(net, ids), net.name)


def _row(what: str, layer: int, value: Tensor) -> dict[str, Any]:
    found = bootstrap(value.norm(dim=-1).mean(1).double().cpu().numpy())
    low, high = (found.value,) * 2 if found.interval is None else (found.interval.low, found.interval.high)
    return {"what": what, "layer": layer, "norm": found.value, "norm_low": low, "norm_high": high}


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


_NEAR = (
    ("itself", 0, 0),
    ("one back", 1, 1),
    ("2 to 4 back", 2, 4),
    ("5 to 15 back", 5, 15),
    ("farther", 16, 10**9),
)


def _distances(net: Network, ids: Tensor) -> pd.DataFrame:
    """Share of attention by distance, weighted by the length of what each source's value writes."""
    table = []
    layers = [i for i in net.layers_with("pattern") if net.has(Site("head_out", i))]
    for layer in layers:
        run = net.run(
            ids, keep=[Site("pattern", layer), Site("v", layer)], logits=False, stop_at=Site("z", layer)
        )
        pattern, v = working(run[Site("pattern", layer)]), working(run[Site("v", layer)])
        stack = net.anatomy.stack()
        assert stack is not None
        attention = stack.layers[layer].attention()
        assert attention is not None
        matrix, _ = projection(net.model.get_submodule(attention.output or ""))
        weight = matrix.unflatten(0, (attention.heads, -1))
        v = v.repeat_interleave(attention.heads // v.shape[2], 2)
        size = torch.einsum("bshe,hef,bshf->bsh", v, weight @ weight.mT, v).clamp(min=0).sqrt()
        moved = pattern * size.movedim(1, 2)[:, :, None]
        moved = moved / moved.sum(-1, keepdim=True).clamp(min=1e-30)
        p = moved.shape[-1]
        gap = torch.arange(p)[:, None] - torch.arange(p)[None]
        later = moved[:, :, 1:]  # the first token can only read itself
        first = float(later[..., 0].mean())
        row: dict[str, Any] = {"layer": layer, "first token": first}
        for name, low, high in _NEAR:
            mask = ((gap >= low) & (gap <= high)).to(later)
            mask[:, 0] = 0.0
            row[name] = float((later * mask[1:]).sum(-1).mean())
        table.append(row)
    return pd.DataFrame(table)


def reads_of_writes(net: Network) -> pd.DataFrame:
    """How far what each sublayer can write lies in what each later one can read.

    score: ||R W|| / (||R|| ||W||) times the root of the width, for the matrices by which one writes and the other reads
    (behind its norm's weight); 1 is what random directions give. One row per writer, reader and what is read ("q", "k", "v",
    "mlp").
    """
    writers: list[tuple[str, int, int, Tensor]] = []
    readers: list[tuple[str, str, int, int, Tensor]] = []
    for order, layer in enumerate(layers_of(net)):
        for n, sublayer in enumerate(layer.sublayers):
            short = SHORT[sublayer.kind]
            place = 10 * order + (n if layer.form == "sequential" else 0)
            if sublayer.kind == "attention" and net.has(Site("head_out", layer.index)):
                try:
                    w = head_weights(net, [layer.index])[0]
                except SiteUnavailable:
                    continue
                writers.append((f"{short} {layer.index}", place, order, w.o.flatten(0, 1)))
                for name, m in (("q", w.q), ("k", w.k), ("v", w.v)):
                    readers.append((f"{short} {layer.index}", name, place, order, m.movedim(0, 1).flatten(1)))
            mlp = sublayer.mlp
            if sublayer.kind == "mlp" and mlp is not None and mlp.down and mlp.up and mlp.experts is None:
                down, _ = projection(net.model.get_submodule(mlp.down))
                if sublayer.norm_after is not None:
                    down = norms_of(net).get(sublayer.norm_after).linear(down)
                writers.append((f"{short} {layer.index}", place, order, down))
                up = torch.cat([projection(net.model.get_submodule(path))[0] for path in mlp.up], 1)
                try:
                    norm = reading_norm(net, layer.index, "mlp_in")
                except (NotFoldable, SiteUnavailable):
                    continue
                if up.shape[0] == norm.weight.shape[0]:
                    up = norm.linear(torch.eye(up.shape[0]).to(up)) @ up
                    readers.append((f"{short} {layer.index}", "mlp", place, order, up))
    table = []
    for writer, wrote, w_layer, matrix in writers:
        for reader, what, reads, r_layer, other in readers:
            if reads > wrote and (r_layer > w_layer or reads != wrote):
                score = float(
                    (matrix.double() @ other.double()).norm()
                    / (matrix.double().norm() * other.double().norm())
                )
                table.append(
                    {
                        "writer": writer,
                        "reader": reader,
                        "reads": what,
                        "score": score * matrix.shape[1] ** 0.5,
                    }
                )
    return pd.DataFrame(table)
