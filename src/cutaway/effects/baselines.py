"""The two ends of the scale: the metric on clean and on corrupted prompts, and what is kept of both runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.effects.finite import require_finite
from cutaway.errors import BadBehaviour
from cutaway.network.sites import Site
from cutaway.sweeps import Experiment

if TYPE_CHECKING:
    from cutaway.behaviours import Answers, Behaviour, Metric
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens

_ROWS_AT_ONCE = 256
#: With fewer templates they are not drawn as a whole.
MIN_CLUSTERS = 4
#: With fewer templates no sign-flip test of whole templates can survive a correction over a hundred cells.
MIN_SIGNS = 14


@dataclass(frozen=True)
class Side:
    """One side of the pairs as it runs without any edit: tokens, metric [n] (the clean answers'), kept sites [n p ...]."""

    tokens: Tokens
    metric: np.ndarray
    kept: dict[Site, Tensor]


@dataclass(frozen=True)
class Baselines:
    """Both sides and the distance between them.

    `gap` is the mean difference of clean and corrupted metric, the unit of every effect. `positions` [n] are where the
    metric reads logits, row-relative.
    """

    clean: Side
    corrupted: Side
    metric: Metric
    answers: Answers
    positions: Tensor
    gap: float

    def normalise(self, metric: np.ndarray) -> np.ndarray:
        """Metric [... n] -> share of the gap, each example against its own corrupted baseline: 0 corrupted, 1 clean."""
        return (metric - self.corrupted.metric) / self.gap

    def score(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Metric [k] of logits [k v] at the answer position of the examples `rows` [k]."""
        return self.metric(logits, self.answers[rows])

    def experiment(self, net: Network, base: Side, sources: Mapping[Site, Tensor], **more: Any) -> Experiment:
        """A sweep on one side's prompts: the metric, where it reads, and the tokens that it reads if they are few."""
        few = self.metric.few and self.answers.right.numel() > 0
        vocabulary = self.answers.vocabulary() if few else None
        placed = None if vocabulary is None else self.answers.within(vocabulary)
        score_few = None if placed is None else lambda logits, rows: self.metric(logits, placed[rows])
        return Experiment(
            net,
            base.tokens,
            self.positions,
            self.score,
            sources,
            vocabulary=vocabulary,
            score_few=score_few,
            **more,
        )


def behaviour_of(net: Network, behaviour: Behaviour | str, seed: int) -> Behaviour:
    """The behaviour that is given, or the one of that name, made with this seed."""
    return make_behaviour(behaviour, net, seed=seed) if isinstance(behaviour, str) else behaviour


def measure(net: Network, behaviour: Behaviour, keep: Sequence[Site] = ()) -> Baselines:
    """Run both sides of a behaviour and keep the named sites.

    Raises:
        NotFinite: the logits hold NaN or infinity; the message says where they first appear.
        BadBehaviour: the metric does not differ between clean and corrupted prompts, so nothing can be normalised.
    """
    positions = torch.as_tensor(list(behaviour.answer_pos), dtype=torch.long)
    clean, clean_kept, clean_logits = _run(net, behaviour.clean_tokens(net), positions, keep, "clean prompts")
    corrupted, corrupted_kept, logits = _run(
        net, behaviour.corrupted_tokens(net), positions, keep, "corrupted prompts"
    )
    answers = behaviour.answers
    if behaviour.metric.needs == "reference":
        answers = answers.with_reference(clean_logits)
    sides = [
        Side(tokens, behaviour.metric(values, answers).detach().double().cpu().numpy(), kept)
        for tokens, kept, values in ((clean, clean_kept, clean_logits), (corrupted, corrupted_kept, logits))
    ]
    means = [float(side.metric.mean()) for side in sides]
    gap = means[0] - means[1]
    scale = max(1e-3, *(float(np.abs(side.metric).max()) for side in sides))
    if not abs(gap) > 1e-6 * scale:
        raise BadBehaviour(
            f"The metric {behaviour.metric.name} of {behaviour.name!r} is {means[0]:.6g} on the clean prompts and "
            f"{means[1]:.6g} on the corrupted ones: there is no difference to explain.",
            "Use pairs whose answers differ, or another metric.",
        )
    return Baselines(sides[0], sides[1], behaviour.metric, answers, positions, gap)


@dataclass(frozen=True)
class Resampling:
    """What the intervals and the significance of a behaviour's effects are taken over.

    Intervals draw whole templates again where the behaviour has enough of them. Significance flips the signs of whole
    templates only where there are so many that a small p-value is possible at all; else of single examples, and then it
    speaks of these templates.
    """

    intervals: tuple[str, ...] | None
    signs: tuple[str, ...] | None
    sentence: str

    @classmethod
    def of(cls, templates: Sequence[str]) -> Resampling:
        """The resampling that suits these templates [n]."""
        kinds, n = len(set(templates)), len(templates)
        intervals = tuple(templates) if kinds >= MIN_CLUSTERS else None
        signs = intervals if kinds >= MIN_SIGNS else None
        drawn = f"{kinds} templates ({n} examples)" if intervals else f"{n} examples"
        flipped = "whole templates" if signs else "examples"
        about = (
            ""
            if signs or kinds == n
            else f", so they speak of {'these templates' if kinds > 1 else 'this template'}"
        )
        return cls(
            intervals,
            signs,
            f"intervals: bootstrap over {drawn}; significance: sign flips of {flipped}{about}",
        )


def _run(
    net: Network, tokens: Tokens, positions: Tensor, keep: Sequence[Site], what: str
) -> tuple[Tokens, dict[Site, Tensor], Tensor]:
    """Tokens, kept sites [n p ...] and logits [n v] at the answer position, some rows at a time."""
    logits: list[Tensor] = []
    kept: dict[Site, list[Tensor]] = {site: [] for site in keep}
    for start in range(0, tokens.n, _ROWS_AT_ONCE):
        rows = torch.arange(start, min(start + _ROWS_AT_ONCE, tokens.n))
        part = tokens[rows.to(tokens.ids.device)]
        run = net.run(part, keep=list(keep), logits=positions[rows][:, None])
        require_finite(net, part, run, what)
        assert run.logits is not None
        logits.append(run.logits[:, 0])
        for site in keep:
            kept[site].append(run[site])
    return tokens, {site: torch.cat(parts) for site, parts in kept.items()}, torch.cat(logits)
