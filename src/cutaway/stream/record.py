"""One run of a network kept so that its stream can be taken apart: `read_stream`, and what TransformerLens calls a cache's
`accumulated_resid`, `decompose_resid`, `stack_head_results` and `logit_attrs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadFormat, BadInput, SiteUnavailable, did_you_mean
from cutaway.network.coefficients import is_one, like
from cutaway.network.indices import indices, integer
from cutaway.network.norms import affine_norm
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import Site
from cutaway.results import Work, brief, strict, working
from cutaway.stream.shared import require_one
from cutaway.stream.split import Split, split
from cutaway.stream.writers import Slack, Term, WriteStep, layers_of, sites_of, steps_of

if TYPE_CHECKING:
    from cutaway.network import Network, Run, Tokens
    from cutaway.network.edits import Edit
    from cutaway.network.inputs import Pos
    from cutaway.network.norms import Fold
    from cutaway.network.texts import InputLike

#: How finely the writers are told apart.
BY = ("sublayer", "head", "neuron")

#: Largest share of a stream's largest value by which its writers may miss it and still count as adding up to it.
ROUNDING: dict[torch.dtype, float] = {torch.float64: 1e-9}


@dataclass(frozen=True, eq=False)
class StreamStack:
    """Vectors of the stream, one for each label. A working object like `Stream`, not a result: it is as large as the run.

    Attributes:
        writers: the part that wrote each; for accumulated streams, the sites.
        values: [c b k d]; k are the positions that were read.
    """

    writers: tuple[Part | Site, ...]
    values: Tensor

    __repr__ = brief

    @property
    def labels(self) -> list[str]:
        """The writers by name."""
        return [str(w) for w in self.writers]

    def __len__(self) -> int:
        return len(self.writers)

    def __getitem__(self, name: str | Part) -> Tensor:
        """The vectors [b k d] of one part (`a3.h1`, `head 3.1`) or site."""
        labels = self.labels
        try:
            label = str(name) if str(name) in labels else str(Part.of(name))
            return self.values[labels.index(label)]
        except (ValueError, BadFormat) as error:
            raise BadAddress(
                f"No vectors of the stream are called {str(name)!r}.",
                did_you_mean(name, labels, 3),
            ) from error

    def sum(self) -> Tensor:
        """All together: [b k d]."""
        return self.values.sum(0, dtype=torch.float64).to(self.values)


@dataclass(frozen=True, eq=False)
class Stream:
    """A run whose stream can be taken apart. Made by `read_stream`.

    It holds the network and every vector of the run, so it is no result to be saved: save what you make of it.

    Attributes:
        net: the network.
        run: the run itself, with the sites that a decomposition needs.
        tokens: what was read (of an encoder-decoder the decoder's).
        columns: LongTensor [b k], the columns that were read.
        steps: how the stream came about, the final norm last.
        by: how finely its writers are told apart.
        edits: interventions that the run carried.
        slack: what counts as rounding.
    """

    net: Network
    run: Run
    tokens: Tokens
    columns: Tensor
    steps: tuple[WriteStep, ...]
    by: str
    edits: tuple[Edit, ...] = ()
    slack: Slack = field(default_factory=Slack)
    _splits: dict[int, Split | None] = field(default_factory=dict, repr=False)

    __repr__ = brief

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(layers_of(self.net))

    @property
    def folds(self) -> list[tuple[str, float]]:
        """Every norm that was folded on the main path, with the relative error of its affine form in this run."""
        return [(s.fold.norm.name, s.fold.error) for s in self.steps if s.fold is not None]

    def split(self, term: Term) -> Split | None:
        """The parts of a sublayer's write, as finely as this stream was read; None where it stays whole."""
        key = id(term)
        if key not in self._splits:
            self._splits[key] = split(self.net, self.run, term, self.by, self.slack)
        return self._splits[key]

    def before(self, layer: int | None) -> list[WriteStep]:
        """The steps that lie before a layer; all of the layers without one; with -1 counted from the end.

        Raises `BadAddress` for a layer out of range.
        """
        layer = self._layer(layer)
        return [s for s in self.steps if s.layer < layer]

    def _layer(self, layer: int | None) -> int:
        depth = self.depth
        number = depth if layer is None else integer(layer, "layer")
        return depth if number == depth else indices(number, depth, "layer")[0]

    def accumulated(self, layer: int | None = None, fold: bool = False) -> StreamStack:
        """The stream as it enters each layer up to `layer` (default: and as it leaves the last).

        fold: take each through the final norm at the scale of the last stream, so that all can be compared by what they
        add to the logits (TransformerLens: `accumulated_resid(apply_ln=True)`).
        """
        until = self._layer(layer)
        sites = [Site("resid_pre", i) for i in range(min(until, self.depth - 1) + 1)]
        if until == self.depth:
            sites.append(Site("resid_post", self.depth - 1))
        return StreamStack(
            tuple(sites), self._folded(torch.stack([precise(self.run[s]) for s in sites]), fold)
        )

    def decompose(self, layer: int | None = None, fold: bool = False) -> StreamStack:
        """The stream before `layer` (default: after the last) as the sum of its writers, as finely as it was read.

        Their sum is the stream to rounding (TransformerLens: `decompose_resid`, and `get_full_resid_decomposition` where
        read by head or neuron).
        """
        return self._stacked(self._pieces(layer), fold)

    def _pieces(self, layer: int | None) -> list[tuple[list[Part], Tensor]]:
        """The writers before a layer with what they added, as it stands there: values [c b k d] for each term."""
        pieces: list[tuple[list[Part], Tensor]] = []
        for step in self.before(layer):
            if not is_one(step.carry):
                pieces = [(names, values * like(step.carry, values)) for names, values in pieces]
            pieces += [self._parts(term) for term in step.terms]
            if step.fold is not None and step.norm_bias is not None:
                bias = step.fold.bias.expand_as(pieces[0][1][0])[None]
                pieces = [(names, step.fold(values)) for names, values in pieces]
                pieces.append(([step.norm_bias], bias))
        return pieces

    def _stacked(self, pieces: list[tuple[list[Part], Tensor]], fold: bool) -> StreamStack:
        values = torch.cat([values.to(pieces[0][1].device) for _, values in pieces])
        return StreamStack(tuple(w for names, _ in pieces for w in names), self._folded(values, fold))

    def stack_heads(
        self, layer: int | None = None, remainder: bool = False, fold: bool = False
    ) -> StreamStack:
        """What each attention head before `layer` wrote (TransformerLens: `stack_head_results`).

        remainder: add everything else as one vector, so that the sum is the stream.

        Raises `BadInput` where the stream was not read by head.
        """
        if self.by != "head":
            raise BadInput(f"This stream was read by {self.by}.", 'Read it with by="head".')
        pieces = self._pieces(layer)
        heads = [
            (names[:count], values[:count])
            for names, values in pieces
            if (count := sum(w.kind == "head" for w in names))
        ]
        if not heads:
            raise SiteUnavailable(
                f"No head can be told apart before layer {self._layer(layer)}.",
                self.net.refusal("head_out") or 'Use by="sublayer".',
            )
        stack = self._stacked(heads, fold)
        if not remainder:
            return stack
        whole = self._stacked(pieces, fold).sum()
        rest = (whole - stack.sum())[None]
        return StreamStack((*stack.writers, Part("rest")), torch.cat([stack.values, rest]))

    def _parts(self, term: Term) -> tuple[list[Part], Tensor]:
        split = None if self.by == "sublayer" else self.split(term)
        return ([term.writer], term.value[None]) if split is None else (split.writers, split.values())

    def final(self) -> Fold | None:
        """The final norm, frozen at this run; None where there is none."""
        head = self.net.anatomy.head
        if head is None or head.norm is None:
            return None
        name = affine_norm(self.net, head.norm).name
        return next(s.fold for s in reversed(self.steps) if s.fold is not None and s.fold.norm.name == name)

    def _folded(self, values: Tensor, fold: bool) -> Tensor:
        final = self.final() if fold else None
        return values if final is None else final(values)


@strict
def read_stream(
    net: Network,
    text: InputLike,
    *,
    by: str = "sublayer",
    pos: Pos = None,
    edits: Sequence[Edit] | Edit = (),
    work: Work | None = None,
) -> Stream:
    """Run a network once and keep what is needed to take its stream apart.

    Args:
        net: the network.
        text: a text, several, or token rows.
        by: how finely the writers are told apart: "sublayer" (embeddings, attentions, MLPs, mixers), "head" (attentions
            by head), "neuron" (MLPs by neuron; attentions stay whole).
        pos: row-relative positions to read; default all.
        edits: interventions that the run carries; what they put into the stream is a writer of its own.
        work: may stop it.

    Raises:
        SiteUnavailable: where a needed site is refused, with the certificate's reason.
        NotFoldable: where a norm on the way is not affine.
        BadAddress: for a position that is not there.
    """
    require_one("by", by, BY)
    working(work).check()
    sites = sites_of(net, heads=by == "head", neurons=by == "neuron")
    if isinstance(text, dict):
        raise BadInput("A stream is read on token rows.", "Give text or token ids.")
    tokens = net.encode(text)
    carried = tuple(edits) if isinstance(edits, Sequence) else (edits,)
    run = net.run(tokens, keep=sites, edits=carried, pos=pos, logits=True if pos is None else pos)
    tokens = run.tokens or tokens  # of an encoder-decoder: the decoder's
    columns = torch.arange(tokens.width).expand(tokens.n, -1) if pos is None else tokens.columns(pos)
    kept, edited = run[Site("resid_pre", 0)].dtype, bool(carried or net.standing)
    doubtful = edited or kept not in (torch.float32, torch.float64) or not net.certificate.made
    slack = Slack(ROUNDING.get(kept, 3e-5), "edit" if edited else "rest", doubtful)
    steps = tuple(steps_of(net, run, slack))
    return Stream(net, run, tokens, columns, steps, by, carried, slack)
