"""Labels of the form "say X": tokens that a feature's direction raises on its way to the logits, and whether taking the
feature away on text not seen lowers them more than random directions of the same length do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.features.sets import FeatureSet
from cutaway.network.edits import EditFunction, Here
from cutaway.network.norms import affine_norm
from cutaway.network.sites import SITES, Site
from cutaway.statistics import Estimate, mean_of

if TYPE_CHECKING:
    from cutaway.features.index.token_rows import TokenRows
    from cutaway.network import Network

#: Tokens that a feature may be said to say; random directions beside it; examples on which it is taken away.
RAISED, RANDOM, EXAMPLES = 10, 4, 24
#: Logits that are held at once.
_LOGITS = 1 << 24


def raised(net: Network, features: FeatureSet, which: Sequence[int]) -> NDArray[np.int64] | None:
    """The tokens [G k] whose logits the direction of each feature raises most, through the final norm's linear part.

    None where features write no direction of the stream, where it is not known how the stream becomes logits, or where
    logits are not about the next token.
    """
    places = [i for i, (site, d) in enumerate(features.writes) if _in_stream(net, site, d)]
    head = net.anatomy.head
    if not places or head is None or not net.is_causal:
        return None
    try:
        unembed = net.weights("W_U").value
        norm = affine_norm(net, head.norm) if head.norm else None
    except CutawayError:
        return None
    if not torch.is_tensor(unembed):
        return None
    unembed = unembed.detach().float()
    found = []
    rows = torch.as_tensor(list(which))
    directions = sum((features.writes[i][1][rows].float() for i in places), torch.zeros(()))
    assert isinstance(directions, Tensor)
    directions = directions if norm is None else norm.linear(directions)
    step = max(1, _LOGITS // unembed.shape[1])
    for part in directions.to(unembed.device).split(step):
        found.append((part @ unembed).topk(min(RAISED, unembed.shape[1]), dim=1).indices.cpu())
    return torch.cat(found).numpy()


def _in_stream(net: Network, site: Site, directions: Tensor) -> bool:
    return SITES[site.name].axes == ("batch", "pos", "width") and directions.shape[1] == net.d_model


@dataclass(frozen=True, eq=False)
class AddedVectors:
    """An edit that adds a vector of its own to the last token of each row.

    Attributes:
        site: where.
        vectors: [b d].
    """

    site: Site
    vectors: Tensor

    def bind(self, network: Any) -> Sequence[tuple[Site, EditFunction]]:
        """The site, and the function on its value."""
        del network

        def edit(value: Tensor, here: Here) -> Tensor:
            found = here.index(-1, value.shape[1], value.device)
            assert found is not None
            changed = value.clone()
            changed[found[0], found[1]] += self.vectors.to(value)[found[0]]
            return changed

        return [(self.site, edit)]


@dataclass(frozen=True, eq=False)
class SayTrial:
    """What is to be tried of one label.

    Attributes:
        feature: its number.
        says: the tokens that it is said to say.
        rows: at which it is active, in texts not seen.
        strength: [n] its activation at each.
    """

    feature: int
    says: tuple[int, ...]
    rows: NDArray[np.int64]
    strength: NDArray[np.float32]

    @property
    def runs(self) -> int:
        """Rows of tokens that this takes."""
        return len(self.rows) * (1 + RANDOM)


def effect(
    net: Network, features: FeatureSet, trial: SayTrial, rows: TokenRows, seed: int
) -> Estimate | None:
    """How much more the log-odds of what is said fall without the feature than with a random direction of the same length
    taken away instead; the interval is over texts. None with fewer than two texts.
    """
    texts = rows.texts[trial.rows]
    if len(np.unique(texts)) < 2:
        return None
    prompts = [
        rows.ids[int(rows.starts[rows.window[r]]) : int(rows.counted[r]) + 1].tolist()
        for r in trial.rows.tolist()
    ]
    generator = torch.Generator().manual_seed(seed * 7919 + trial.feature)
    strength = torch.as_tensor(trial.strength)[:, None]
    own = [(site, -strength * d[trial.feature].float()) for site, d in features.writes]
    without = _said(net, prompts, [AddedVectors(site, v) for site, v in own], trial.says)
    others = []
    for _ in range(RANDOM):
        edits = []
        for site, vectors in own:
            drawn = torch.randn(vectors.shape, generator=generator)
            edits.append(
                AddedVectors(
                    site, drawn / drawn.norm(dim=1, keepdim=True) * vectors.norm(dim=1, keepdim=True)
                )
            )
        others.append(_said(net, prompts, edits, trial.says))
    return mean_of(np.mean(others, axis=0) - without, texts.tolist())


def _said(
    net: Network, prompts: list[list[int]], edits: list[AddedVectors], says: tuple[int, ...]
) -> NDArray[np.float64]:
    """[b] the log-odds that one of the tokens comes next, which do not level off where that is nearly certain."""
    together = net.certificate.pads_right is not False and bool(
        net.certificate.pads_right or net.interface.masks
    )
    groups = [list(range(len(prompts)))] if together else [[i] for i in range(len(prompts))]
    found = np.zeros(len(prompts))
    for group in groups:
        some = [AddedVectors(e.site, e.vectors[group]) for e in edits]
        run = net.run([prompts[i] for i in group], edits=some)
        assert run.tokens is not None
        assert run.logits is not None
        last = run.tokens.columns(torch.tensor([-1]))[:, 0]
        logits = run.logits[torch.arange(len(group)), last.to(run.logits.device)].double().cpu()
        rest = torch.ones(logits.shape[1], dtype=torch.bool)
        rest[list(says)] = False
        odds = torch.logsumexp(logits[:, ~rest], -1) - torch.logsumexp(logits[:, rest], -1)
        found[group] = odds.numpy()
    return found
