"""The neurons behind what an MLP writes of the answer: ranked by their part of it, and exchanged alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.algorithms.roles.half import RoleHalf, written_site
from cutaway.algorithms.roles.weights import RoleWeights
from cutaway.network.named_weights import named_weight
from cutaway.network.parts import Part
from cutaway.network.sites import Site

#: Of what the neurons bring together, so much is brought by those that are named; draws of shuffled directions.
_COVERED, _DRAWS = 0.98, 50


def out_directions(half: RoleHalf, weights: RoleWeights, part: Part) -> Tensor:
    """[k d] how each neuron of an MLP, or dimension of a head's z, writes."""
    if part.kind == "head":
        return weights.written(part)
    value = named_weight(half.net, "W_out", layer=part.layer).value
    assert isinstance(value, Tensor)
    return value.detach().float().cpu()


def activity(half: RoleHalf, part: Part, second: bool) -> Tensor:
    """[n k] the neurons of an MLP, or the dimensions of a head's z, at the token whose logits are read."""
    name = "z" if part.kind == "head" else "mlp_act"
    value = half.at_answer(half.kept(Site(name, part.layer), second))
    return (value[:, part.index or 0] if part.kind == "head" else value).float()


def bring(half: RoleHalf, weights: RoleWeights, part: Part) -> tuple[Tensor, Tensor]:
    """How much more each unit is active in the first prompt [n k], how far its direction tells the answers apart [n k]."""
    change = activity(half, part, False) - activity(half, part, True)
    apart = half.readout[half.number(half.right)] - half.readout[half.number(half.wrong)]
    return change, apart @ out_directions(half, weights, part).mT


def above_shuffled(half: RoleHalf, weights: RoleWeights, part: Part, seed: int) -> np.ndarray:
    """[n] of draws with the units' directions shuffled, the share in which the part writes less of the answer."""
    change, along = bring(half, weights, part)
    own = (change * along).sum(1)
    rng = np.random.default_rng([seed, 3])
    drawn = [torch.as_tensor(rng.permutation(along.shape[1])) for _ in range(_DRAWS)]
    null = torch.stack([(change * along[:, order]).sum(1) for order in drawn], 1)
    return (own[:, None] > null).double().mean(1).numpy()


@dataclass(frozen=True)
class NamedNeurons:
    """The neurons that an MLP's part of the answer comes from.

    Attributes:
        layer: of the MLP.
        neurons: by number, the one that brings most first.
        covered: of what all neurons bring, for the answer and against it, the share that these do.
    """

    layer: int
    neurons: tuple[int, ...]
    covered: float

    @property
    def names(self) -> tuple[str, ...]:
        """As parts: `n0.12`."""
        return tuple(str(Part("neuron", self.layer, i)) for i in self.neurons)


def named_neurons(half: RoleHalf, weights: RoleWeights, part: Part, most: int) -> NamedNeurons:
    """The fewest neurons that make up 98 % of what neurons bring, for the answer or against it; at most so many."""
    change, along = bring(half, weights, part)
    mean = (change * along).mean(0).double().numpy()
    order = np.argsort(-np.abs(mean), kind="stable")
    gains = np.abs(mean[order])
    total = gains.sum()
    if total <= 0:
        return NamedNeurons(part.layer or 0, (), 0.0)
    count = min(most, int(np.searchsorted(gains.cumsum(), _COVERED * total)) + 1)
    return NamedNeurons(
        part.layer or 0, tuple(int(i) for i in order[:count]), float(gains[:count].sum() / total)
    )


def exchanged_neurons(half: RoleHalf, part: Part, neurons: tuple[int, ...]) -> Tensor:
    """`mlp_act` [n p k] of the first prompts with these neurons as they are in the second ones."""
    site = Site("mlp_act", part.layer)
    value = half.kept(site).clone()
    at = list(neurons)
    value[..., at] = half.kept(site, True)[..., at]
    return value


def written_change(half: RoleHalf, weights: RoleWeights, part: Part) -> Tensor:
    """[n d] what a part writes more, at the token whose logits are read, in the second prompt than in the first."""
    if part.kind == "head":
        z = [
            half.at_answer(half.kept(Site("z", part.layer), s))[:, part.index or 0].float()
            for s in (False, True)
        ]
        return (z[1] - z[0]) @ weights.written(part)
    site = written_site(half.net, part)
    return half.at_answer(half.kept(site, True) - half.kept(site)).float()
