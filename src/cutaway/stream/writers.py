"""The writers of a stream, and one run read as a chain of steps that add what they wrote.

A step multiplies the stream by a factor, adds terms, and where the layer is post-norm takes a norm of the sum. Every
value is that of the run, as the rest of the network saw it, so that edits are part of what is decomposed: what an edit put
into the stream is a writer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import SiteUnavailable
from cutaway.network.coefficients import Coefficient, is_one, like
from cutaway.network.head_maps import told_apart
from cutaway.network.norms import Fold, affine_norm
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import SHORT, Site
from cutaway.results import brief

if TYPE_CHECKING:
    from cutaway.network import Network, Run
    from cutaway.network.anatomy import Layer, Stretch, Sublayer


@dataclass(frozen=True, eq=False)
class Term:
    """What one writer added.

    Attributes:
        writer: the part that wrote.
        value: [b k d].
        sublayer: where it writes alone, so that it may be told apart.
    """

    writer: Part
    value: Tensor
    sublayer: Sublayer | None = None


@dataclass(eq=False)
class WriteStep:
    """One stretch of the stream: carry * state + terms, then a norm if there is one.

    Attributes:
        layer: -1 for the embedding, the number of layers for what lies behind the last.
        carry: the factor by which the stream goes on.
        terms: what was added.
        fold: the norm of the sum, frozen at the run, or None.
        norm_bias: the part that the norm's bias counts as.
    """

    layer: int
    carry: Coefficient
    terms: list[Term] = field(default_factory=list)
    fold: Fold | None = None
    norm_bias: Part | None = None

    __repr__ = brief


def require_one_text(net: Network) -> None:
    """Refuse what has no stream, and an encoder-decoder, whose main stream belongs to another text than the one given."""
    if net.n_layers == 0:
        raise _no_stream()
    if net.interface.encoder_decoder:
        raise SiteUnavailable(
            "This is an encoder-decoder: its last stream belongs to the decoder, and the text that is given to the encoder.",
            "Use read_stream or logit_attribution, which read the decoder's first position.",
        )


def _no_stream() -> SiteUnavailable:
    says = "This network has no residual stream that was found."
    return SiteUnavailable(says, "Name modules by their dotted path.")


def layers_of(net: Network) -> tuple[Layer, ...]:
    """The layers of the main stream. Raises `SiteUnavailable` with the reason where the stream cannot be decomposed."""
    stack = net.anatomy.stack()
    if stack is None or not stack.layers:
        raise _no_stream()
    for layer in stack.layers:
        if not layer.stretches:
            reasons = (net.refusal(Site(name, layer.index)) for name in ("mlp_write", "resid_post"))
            raise SiteUnavailable(
                f"What layer {layer.index} writes is not known, so its stream cannot be decomposed.",
                next(filter(None, reasons), "Use a lens, which reads the stream as a whole."),
            )
    return stack.layers


def sites_of(net: Network, heads: bool = False, neurons: bool = False) -> list[Site]:
    """The sites that a decomposition needs.

    Raises `SiteUnavailable` with the certificate's reason where one of them is refused.
    """
    sites = [s for s in (Site("embed"), Site("pos_embed")) if net.has(s)]
    for layer in layers_of(net):
        sites += [Site("resid_pre", layer.index), Site("resid_post", layer.index)]
        for stretch in layer.stretches:
            sites += [Site(name, layer.index) for name in stretch.writes]
        for sublayer in layer.sublayers:
            short = SHORT[sublayer.kind]
            if sublayer.norm_after is not None:
                sites.append(Site(f"{short}_out", layer.index))
            if heads and told_apart(net, layer, sublayer):
                sites.append(Site("cross_z" if short == "cross" else "z", layer.index))
            if neurons and splits_mlp(net, layer, sublayer):
                sites.append(Site("mlp_act", layer.index))
    head = net.anatomy.head
    if head is not None and head.norm is not None:
        sites.append(Site("final_norm"))
    for site in sites:
        net.resolve(site)
    return list(dict.fromkeys(sites))


def splits_mlp(net: Network, layer: Layer, sublayer: Sublayer) -> bool:
    """Whether an MLP's write can be told apart by neurons."""
    alone = sum(s.kind == "mlp" for s in layer.sublayers) == 1
    known = sublayer.mlp is not None and sublayer.mlp.down is not None
    return sublayer.kind == "mlp" and alone and known and net.has(Site("mlp_act", layer.index))


@dataclass(frozen=True)
class Slack:
    """How far kept streams may be from the sum of what was written.

    Attributes:
        tolerance: as a share of their largest value.
        kind: of the part that anything beyond it counts as: an edit of the stream, or the rounding of half precision.
        checked: whether it is looked for. Where it is not, the certificate's identities are relied on, which hold for runs
            without edits in at least single precision.
    """

    tolerance: float = 3e-5
    kind: str = "rest"
    checked: bool = True

    def rest(self, got: Tensor, wanted: Tensor, at: int, final: bool = False) -> Iterator[WriteStep]:
        """A step of layer `at` with the difference, where there is one; final: behind the final norm."""
        if not self.checked:
            return
        gap = difference(got, wanted, self.tolerance)
        if gap is not None:
            yield WriteStep(at, 1.0, [Term(Part(self.kind, None if final else at), gap)])


def steps_of(net: Network, run: Run, slack: Slack) -> Iterator[WriteStep]:
    """The steps of one run, in the order of computation; the first brings in the embedding, the last is the final norm."""
    layers = layers_of(net)
    state = precise(run[Site("resid_pre", layers[0].index)])
    yield WriteStep(-1, 1.0, _embedding(run, state, slack.tolerance))
    for layer in layers:
        before = precise(run[Site("resid_pre", layer.index)])
        yield from slack.rest(before, state, layer.index)
        state = before
        normed = sum(stretch.norm is not None for stretch in layer.stretches)
        for n, stretch in enumerate(layer.stretches):
            step, state = _step(net, run, layer, stretch, state, slack.checked or normed > 0)
            step.norm_bias = Part("norm_bias", layer.index, n if normed > 1 else None)
            yield step
        after = precise(run[Site("resid_post", layer.index)])
        yield from slack.rest(after, state, layer.index)
        state = after
    head = net.anatomy.head
    if head is None or head.norm is None:
        return
    kept = run[Site("final_norm")]
    with torch.no_grad():
        after = precise(net.modules[head.norm](state.to(kept.dtype)))
    fold = affine_norm(net, head.norm).at(state, after)
    yield WriteStep(layers[-1].index + 1, 1.0, [], fold, Part("norm_bias"))
    if slack.checked:
        yield from slack.rest(precise(kept), fold(state) + fold.bias, layers[-1].index + 1, final=True)


def difference(got: Tensor, wanted: Tensor, tolerance: float) -> Tensor | None:
    """got - wanted where it is more than a tolerance of the largest value, else None."""
    wanted = wanted.to(got.device)
    rest = got - wanted
    scale = max(float(got.abs().max()), float(wanted.abs().max()), 1e-30) if got.numel() else 1.0
    return None if not rest.numel() or float(rest.abs().max()) <= tolerance * scale else rest


def _embedding(run: Run, start: Tensor, tolerance: float) -> list[Term]:
    """The embeddings where they add up to the first stream; else the first stream as one writer."""
    terms = []
    for name in ("embed", "pos_embed"):
        site = Site(name)
        if site in run.kept:
            value = precise(run[site]).to(start.device)
            terms.append(Term(Part(name), value.expand_as(start) if value.shape != start.shape else value))
    if terms:
        total = terms[0].value if len(terms) == 1 else terms[0].value + terms[1].value
        if difference(start, total, tolerance) is None:
            return terms
    return [Term(Part("embed"), start)]


def _step(
    net: Network, run: Run, layer: Layer, stretch: Stretch, state: Tensor, summed: bool
) -> tuple[WriteStep, Tensor]:
    """One stretch, and the stream behind it (as it was before where nobody asks for the sum)."""
    step = WriteStep(layer.index, stretch.carry)
    total = state if is_one(stretch.carry) else state * like(stretch.carry, state)
    if stretch.constant is not None:
        value = stretch.constant.to(state).expand_as(state)
        step.terms.append(Term(Part("constant", layer.index), value))
        total = total + value
    for name in stretch.writes:
        kind = next(kind for kind, short in SHORT.items() if name == f"{short}_write")
        value = precise(run[Site(name, layer.index)]).to(state.device).reshape(state.shape)
        alike = [s for s in layer.sublayers if s.kind == kind]
        sublayer = alike[0] if len(alike) == 1 else None
        step.terms.append(Term(Part(kind, layer.index), value, sublayer))
        total = total + value if summed else total
    if stretch.norm is not None:
        module = net.modules[stretch.norm]
        with torch.no_grad():
            after = precise(module(total.to(run[Site("resid_pre", layer.index)].dtype)))
        step.fold = affine_norm(net, stretch.norm).at(total, after)
        total = step.fold(total) + step.fold.bias
    return step, total
