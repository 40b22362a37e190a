"""Which of many parts are worth asking: one gradient says, to first order, what exchanging each of them would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import measure
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.sweeps import write_of
from cutaway.trials.bench import sites_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


def sizes_by_gradient(net: Network, behaviour: Behaviour, parts: Sequence[Part], work: Work) -> np.ndarray:
    """[parts] how large a share of the effect goes where a part takes its value of the second prompt, to first order.

    It is the gradient of what the first answer is ahead by, times the change of the part's value (attribution patching,
    Nanda 2023), in absolute value.
    """
    sites = sites_of(parts)
    ends = measure(net, behaviour, sites, work)
    tokens = ends.clean.tokens
    rows = torch.arange(behaviour.n)
    at = tokens.columns(ends.positions[:, None])[:, 0].cpu()
    right, wrong = (torch.tensor([row[0] for row in ids]) for ids in (behaviour.right, behaviour.wrong))

    def ahead(logits: Tensor) -> Tensor:
        said = logits[rows, at]
        return said[rows, right] - said[rows, wrong]

    slopes = net.gradients(tokens, of=ahead, to=[str(site) for site in sites])
    products = {
        site: torch.as_tensor(slopes.gradients[str(site)])
        * (ends.corrupted.kept[site] - ends.clean.kept[site]).cpu()
        for site in sites
    }
    found = []
    for part in parts:
        product = products[write_of(part).where]
        value = product[:, :, part.index or 0] if part.kind == "head" else product
        found.append(abs(float(value.flatten(1).sum(1).mean())) / max(abs(ends.gap), 1e-12))
    return np.array(found)
