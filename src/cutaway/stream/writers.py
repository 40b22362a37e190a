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
from cutaway.network.sites import Site
from cutaway.stream.fold import Fold, Norms

if TYPE_CHECKING:
    from cutaway.network import Network, Run
    from cutaway.network.anatomy import Layer, Stretch, Sublayer

#: How each kind of writer is called, in the order of computation.
KINDS: dict[str, str] = {
    "embed": "embed",
    "pos_embed": "pos_embed",
    "edit": "edit",
    "attention": "attn",
    "head": "head",
    "source": "head",
    "attention_bias": "attn bias",
    "cross_attention": "cross",
    "cross_head": "cross head",
    "cross_attention_bias": "cross bias",
    "mixer": "mixer",
    "mlp": "mlp",
    "neuron": "neuron",
    "mlp_bias": "mlp bias",
    "constant": "constant",
    "norm_bias": "norm bias",
    "feature": "feature",
    "layer": "layer",
    "rest": "rest",
    "unembed_bias": "unembed bias",
}

#: kind of sublayer -> how its sites begin.
SHORT = {"attention": "attn", "cross_attention": "cross", "mixer": "mixer", "mlp": "mlp"}


@dataclass(frozen=True)
class Writer:
    """Something that adds to the stream: its kind, layer, number (head, neuron, feature) and source position.

    >>> str(Writer("head", 3, 1)), str(Writer("embed")), str(Writer("mlp", 0)), str(Writer("source", 3, 1, 5))
    ('head 3.1', 'embed', 'mlp 0', 'head 3.1 from 5')
    """

    kind: str
    layer: int | None = None
    index: int | None = None
    source: int | None = None

    def __str__(self) -> str:
        number = "" if self.layer is None else f" {self.layer}"
        number += "" if self.index is None else f".{self.index}"
        return f"{KINDS[self.kind]}{number}" + ("" if self.source is None else f" from {self.source}")


@dataclass(frozen=True, eq=False)
class Term:
    """What one writer added: its value [b k d], and for a sublayer that writes alone, its parts."""

    writer: Writer
    value: Tensor
    sublayer: Sublayer | None = None


@dataclass(eq=False)
class Step:
    """One stretch of the stream: carry * state + terms, then a norm if there is one."""

    layer: int
    carry: Coefficient
    terms: list[Term] = field(default_factory=list)
    fold: Fold | None = None
    norm_bias: Writer | None = None


def norms_of(net: Network) -> Norms:
    """The norms of a network, probed when first needed and then remembered with it."""
    found = net.__dict__.get("_stream_norms")
    if found is None:
        modules = dict(net.model.named_modules())
        found = net.__dict__["_stream_norms"] = Norms(modules, net.d_model or 0)
    return found


def require_one_text(net: Network) -> None:
    """Refuse what has no stream, and an encoder-decoder, whose main stream belongs to another text than the one given."""
    if net.n_layers == 0:
        raise SiteUnavailable(
            "This network has no residual stream that was found.", "Name modules by their dotted path."
        )
    if net.interface.encoder_decoder:
        raise SiteUnavailable(
            "This is an encoder-decoder: its last stream belongs to the decoder, and the text that is given to the encoder.",
            "Use read_stream or logit_attribution, which read the decoder's first position.",
        )


def layers_of(net: Network) -> tuple[Layer, ...]:
    """The layers of the main stream. Raises `SiteUnavailable` with the reason where the stream cannot be decomposed."""
    stack = net.anatomy.stack()
    if stack is None or not stack.layers:
        raise SiteUnavailable(
            "This network has no residual stream that was found.", "Name modules by their dotted path."
        )
    for layer in stack.layers:
        if not layer.stretches:
            reason = net.refusal(Site("mlp_write", layer.index)) or net.refusal(
                Site("resid_post", layer.index)
            )
            raise SiteUnavailable(
                f"What layer {layer.index} writes is not known, so its stream cannot be decomposed.",
                reason or "Use a lens, which reads the stream as a whole.",
            )
    return stack.layers


def sites_of(net: Network, heads: bool = False, neurons: bool = False) -> list[Site]:
    """The sites that a decomposition needs.

    Raises `SiteUnavailable` with the certificate's reason where one of them is refused.
    """
    found = [s for s in (Site("embed"), Site("pos_embed")) if net.has(s)]
    for layer in layers_of(net):
        found += [Site("resid_pre", layer.index), Site("resid_post", layer.index)]
        for stretch in layer.stretches:
            found += [Site(name, layer.index) for name in stretch.writes]
        for sublayer in layer.sublayers:
            short = SHORT[sublayer.kind]
            if sublayer.norm_after is not None:
                found.append(Site(f"{short}_out", layer.index))
            if heads and splits(net, layer, sublayer):
                found.append(Site("cross_z" if short == "cross" else "z", layer.index))
            if neurons and splits_mlp(net, layer, sublayer):
                found.append(Site("mlp_act", layer.index))
    head = net.anatomy.head
    if head is not None and head.norm is not None:
        found.append(Site("final_norm"))
    for site in found:
        net.resolve(site)
    return list(dict.fromkeys(found))


def splits(net: Network, layer: Layer, sublayer: Sublayer) -> bool:
    """Whether an attention's write can be told apart by heads."""
    prefix = {"attention": "", "cross_attention": "cross_"}.get(sublayer.kind)
    alone = sum(s.kind == sublayer.kind for s in layer.sublayers) == 1
    return prefix is not None and alone and net.has(Site(f"{prefix}head_out", layer.index))


def splits_mlp(net: Network, layer: Layer, sublayer: Sublayer) -> bool:
    """Whether an MLP's write can be told apart by neurons."""
    alone = sum(s.kind == "mlp" for s in layer.sublayers) == 1
    known = sublayer.mlp is not None and sublayer.mlp.down is not None
    return sublayer.kind == "mlp" and alone and known and net.has(Site("mlp_act", layer.index))


@dataclass(frozen=True)
class Slack:
    """How far kept streams may be from the sum of what was written, as share of their largest value; what more is, is a
    writer of kind `kind`: an edit of the stream, or the rounding of half precision.

    Where it is not looked for (`checked` is false) the certificate's identities are relied on, which hold for runs without
    edits in at least single precision.
    """

    tolerance: float = 3e-5
    kind: str = "rest"
    checked: bool = True

    def rest(self, got: Tensor, wanted: Tensor, layer: int | None) -> Iterator[Step]:
        """A step with the difference, where there is one."""
        if not self.checked:
            return
        found = difference(got, wanted, self.tolerance)
        if found is not None:
            yield Step(len(KINDS) if layer is None else layer, 1.0, [Term(Writer(self.kind, layer), found)])


def steps_of(net: Network, run: Run, slack: Slack) -> Iterator[Step]:
    """The steps of one run, in the order of computation; the first brings in the embedding, the last is the final norm."""
    layers = layers_of(net)
    state = working(run[Site("resid_pre", layers[0].index)])
    yield Step(-1, 1.0, _embedding(run, state, slack.tolerance))
    for layer in layers:
        before = working(run[Site("resid_pre", layer.index)])
        yield from slack.rest(before, state, layer.index)
        state = before
        normed = sum(stretch.norm is not None for stretch in layer.stretches)
        for n, stretch in enumerate(layer.stretches):
            step, state = _step(net, run, layer, stretch, state, slack.checked or normed > 0)
            step.norm_bias = Writer("norm_bias", layer.index, n if normed > 1 else None)
            yield step
        after = working(run[Site("resid_post", layer.index)])
        yield from slack.rest(after, state, layer.index)
        state = after
    head = net.anatomy.head
    if head is None or head.norm is None:
        return
    kept = run[Site("final_norm")]
    with torch.no_grad():
        after = working(net.model.get_submodule(head.norm)(state.to(kept.dtype)))
    fold = norms_of(net).get(head.norm).at(state, after)
    yield Step(layers[-1].index + 1, 1.0, [], fold, Writer("norm_bias"))
    if slack.checked:
        yield from slack.rest(working(kept), fold(state) + fold.bias, None)


def working(value: Tensor) -> Tensor:
    """A value in at least single precision."""
    return value if value.dtype == torch.float64 else value.float()


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
            value = working(run[site]).to(start.device)
            terms.append(Term(Writer(name), value.expand_as(start) if value.shape != start.shape else value))
    if terms:
        total = terms[0].value if len(terms) == 1 else terms[0].value + terms[1].value
        if difference(start, total, tolerance) is None:
            return terms
    return [Term(Writer("embed"), start)]


def _step(
    net: Network, run: Run, layer: Layer, stretch: Stretch, state: Tensor, summed: bool
) -> tuple[Step, Tensor]:
    """One stretch, and the stream behind it (as it was before where nobody asks for the sum)."""
    step = Step(layer.index, stretch.carry)
    total = state if is_one(stretch.carry) else state * like(stretch.carry, state)
    if stretch.constant is not None:
        value = stretch.constant.to(state).expand_as(state)
        step.terms.append(Term(Writer("constant", layer.index), value))
        total = total + value
    for name in stretch.writes:
        kind = next(kind for kind, short in SHORT.items() if name == f"{short}_write")
        value = working(run[Site(name, layer.index)]).to(state.device).reshape(state.shape)
        mine = [s for s in layer.sublayers if s.kind == kind]
        sublayer = mine[0] if len(mine) == 1 else None
        step.terms.append(Term(Writer(kind, layer.index), value, sublayer))
        total = total + value if summed else total
    if stretch.norm is not None:
        module = net.model.get_submodule(stretch.norm)
        with torch.no_grad():
            after = working(module(total.to(run[Site("resid_pre", layer.index)].dtype)))
        step.fold = norms_of(net).get(stretch.norm).at(total, after)
        total = step.fold(total) + step.fold.bias
    return step, total
