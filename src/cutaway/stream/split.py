"""What one sublayer wrote, told apart: by heads, by neurons, by heads and source positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import SiteUnavailable
from cutaway.network.coefficients import like
from cutaway.network.execution.heads import projection
from cutaway.network.head_maps import told_apart
from cutaway.network.norms import affine_norm
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import SHORT, Site
from cutaway.results import brief
from cutaway.stream.writers import Slack, Term, difference, splits_mlp

if TYPE_CHECKING:
    from cutaway.network import Network, Run
    from cutaway.network.coefficients import Coefficient
    from cutaway.network.norms import Fold


@dataclass(frozen=True, eq=False)
class Split:
    """A written value as a sum of parts: factor * fold(acts @ weight) for each part, a bias, and what is left.

    Attributes:
        kind: of the parts: "head", "cross_head" or "neuron".
        layer: of the sublayer.
        acts: [b k g e] what the parts give on.
        weight: [g e d] by which they write.
        factor: of the write.
        fold: the norm behind the sublayer, frozen at the run, or None.
        bias: [d], the sublayer's own and that of the norm behind it.
        rest: [b k d] or None.
    """

    kind: str
    layer: int
    acts: Tensor
    weight: Tensor
    factor: Coefficient
    fold: Fold | None
    bias: Tensor
    rest: Tensor | None = None

    __repr__ = brief

    @property
    def writers(self) -> list[Part]:
        """The parts, then the bias, then what is left, if anything is."""
        parts = [Part(self.kind, self.layer, i) for i in range(self.weight.shape[0])]
        parts.append(Part(_BIAS[self.kind], self.layer))
        return parts if self.rest is None else [*parts, Part("rest", self.layer)]

    def before(self, g: Tensor) -> Tensor:
        """A direction [b k d] at the stream as a direction at the sublayer's raw output."""
        g = g * like(self.factor, g)
        return g if self.fold is None else self.fold.back(g)

    def contributions(self, g: Tensor) -> Tensor:
        """What each writer adds along the directions g [b k d]: [c b k]."""
        behind = self.before(g)
        through = (behind.to(self.weight.dtype) @ self.weight.flatten(0, 1).mT).reshape(self.acts.shape)
        parts = (self.acts * through).sum(-1).double()
        adds = [parts.movedim(-1, 0), (self.bias * g).sum(-1, dtype=torch.float64)[None]]
        if self.rest is not None:
            adds.append((self.rest * g).sum(-1, dtype=torch.float64)[None])
        return torch.cat(adds)

    def values(self) -> Tensor:
        """What each writer adds: [c b k d]."""
        raw = torch.einsum("bkge,ged->gbkd", self.acts, self.weight)
        through = raw if self.fold is None else self.fold(raw)
        through = through * like(self.factor, through)
        bias = self.bias.expand_as(through[0])[None]
        return torch.cat([through, bias, *([] if self.rest is None else [self.rest[None]])])


_BIAS = {"head": "attention_bias", "cross_head": "cross_attention_bias", "neuron": "mlp_bias"}
_PARTS = {"attention": "head", "cross_attention": "cross_head", "mlp": "neuron"}


def split(net: Network, run: Run, term: Term, by: str, slack: Slack) -> Split | None:
    """The parts of what a sublayer wrote, where it can be told apart by `by` ("head" or "neuron"), else None.

    Raises `NotFoldable` where the norm behind the sublayer is not affine.
    """
    sublayer, layer = term.sublayer, term.writer.layer
    if sublayer is None or layer is None:
        return None
    stack = net.anatomy.stack()
    assert stack is not None
    whole = stack.layers[layer]
    if by == "head" and told_apart(net, whole, sublayer):
        attention = sublayer.attention
        assert attention is not None
        assert attention.output is not None
        path, groups = attention.output, attention.heads
        acts = run[Site("cross_z" if attention.cross else "z", layer)]
    elif by == "neuron" and splits_mlp(net, whole, sublayer):
        assert sublayer.mlp is not None
        assert sublayer.mlp.down is not None
        path, groups = sublayer.mlp.down, 0
        acts = run[Site("mlp_act", layer)]
        acts = acts.reshape(*term.value.shape[:2], -1)[..., None]
    else:
        return None
    weight, shift = projection(net.modules[path])
    weight = weight.reshape(groups or weight.shape[0], -1, weight.shape[-1])
    acts = precise(acts).to(term.value.device).reshape(*term.value.shape[:2], weight.shape[0], -1)
    weight, shift = weight.to(term.value), shift.to(term.value)
    fold = written_through(net, run, term)
    bias = shift if fold is None else fold(shift.expand_as(term.value)) + fold.bias
    bias = bias * like(sublayer.factor, bias)
    exact = Split(_PARTS[sublayer.kind], layer, acts, weight, sublayer.factor, fold, bias)
    if not slack.checked:
        return exact
    flat = torch.einsum("bkge,ged->bkd", acts, weight)
    through = flat if fold is None else fold(flat)
    total = through * like(sublayer.factor, through) + bias
    return replace(exact, rest=difference(term.value, total, slack.tolerance))


def written_through(net: Network, run: Run, term: Term) -> Fold | None:
    """The norm between a sublayer's raw output and what it writes, frozen at this run; None where there is none.

    Raises `NotFoldable` where it is not an affine norm.
    """
    sublayer = term.sublayer
    if sublayer is None or sublayer.norm_after is None:
        return None
    raw = run[Site(f"{SHORT[sublayer.kind]}_out", term.writer.layer)]
    with torch.no_grad():
        after = precise(net.modules[sublayer.norm_after](raw))
    raw, after = (precise(v).to(term.value.device).reshape(term.value.shape) for v in (raw, after))
    return affine_norm(net, sublayer.norm_after).at(raw, after)


@dataclass(frozen=True, eq=False)
class Sources:
    """What each head of one layer moved from each source position.

    Attributes:
        pattern: [b h k s].
        values: [b s h e], for each query head.
    """

    pattern: Tensor
    values: Tensor

    __repr__ = brief

    def contributions(self, part: Split, g: Tensor) -> Tensor:
        """What each head adds along g [b k d] by source position: [h b k s].

        Raises `SiteUnavailable` where the averaged values are not what the head gave on, up to one gate per head.
        """
        through = torch.einsum("bkd,ged->bkge", part.before(g).to(part.weight.dtype), part.weight)
        read = torch.einsum("bshe,bkhe->bhks", self.values, through)
        return (self.pattern * read * self._gate(part)).double().movedim(1, 0)

    def _gate(self, part: Split) -> Tensor:
        """The factor per head and position between the averaged values and z: [b h k 1]."""
        mean = torch.einsum("bhks,bshe->bkhe", self.pattern, self.values)
        factor = (mean * part.acts).sum(-1) / mean.square().sum(-1).clamp(min=1e-30)
        if bool(((factor - 1).abs() < 1e-3).all()):
            factor = torch.ones_like(factor)
        if difference(part.acts, mean * factor[..., None], 1e-3) is not None:
            raise SiteUnavailable(
                f"In layer {part.layer} z is not the average of the values by the pattern, so it has no sources.",
                'Use by="head".',
            )
        return factor.movedim(1, 2)[..., None]


def sources(run: Run, wide: Run, layer: int) -> Sources:
    """The patterns at the positions of `run`, and the values at all positions of `wide`, per query head."""
    pattern = precise(run[Site("pattern", layer)])
    values = precise(wide[Site("v", layer)])
    groups = pattern.shape[1] // values.shape[2]
    return Sources(pattern, values.repeat_interleave(groups, 2) if groups > 1 else values)
