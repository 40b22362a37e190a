"""The causal test on held-out data: keep only the set, remove the set, and the same for random sets of its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.explanations.bench import Bench
from cutaway.explanations.identify import fit
from cutaway.explanations.thresholds import Thresholds
from cutaway.network.parts import Part
from cutaway.statistics import Estimate

_TRIES_PER_SET = 50


@dataclass(frozen=True)
class Trial:
    """What happened on held-out data. Shares of the gap: 0 = corrupted prompts, 1 = clean prompts.

    Attributes:
        kept: with only the set (the rest replaced by the corrupted run's values).
        left: without the set.
        restored: the set's clean values put into the corrupted run.
        kept_random, left_random: the same for each random set.
        kept_gain: `kept` less the random sets' mean; `left_gain`: the random sets' mean less `left`.
        kept_p, left_p: share of sets (random ones and the found one) that do at least as well.
        sham: largest change, in shares, when the set's own values are written over themselves.
        from_others: `kept` when the rest is taken from other prompts instead (and 0 is everything replaced so); or None.
        n: held-out examples.
    """

    kept: Estimate
    left: Estimate
    restored: Estimate
    kept_random: tuple[float, ...]
    left_random: tuple[float, ...]
    kept_gain: Estimate | None
    left_gain: Estimate | None
    kept_p: float | None
    left_p: float | None
    sham: float
    from_others: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))


def put_to_test(bench: Bench, members: Sequence[Part], thresholds: Thresholds, seed: int) -> Trial:
    """Test a set of components on this bench's (held-out) data against random sets of the same size and kinds."""
    sets = random_sets(bench.components, members, thresholds.random_sets, seed)
    kept = bench.keep_only([members, *sets], "keeping only the set, and random sets")
    left = bench.remove([members, *sets], "removing the set, and random sets")
    restored = bench.restore([members])
    kept_shares, left_shares = bench.shares(kept), bench.shares(left)
    kept_p = left_p = None
    if sets:
        kept_p = (1 + int((fit(kept_shares[1:]) >= fit(kept_shares[:1])).sum())) / (len(sets) + 1)
        left_p = (1 + int((left_shares[1:] <= left_shares[0]).sum())) / (len(sets) + 1)
    sham = np.abs(bench.sham(members)[0] - bench.ends.clean.metric).max() / abs(bench.ends.gap)
    return Trial(
        kept=bench.share(kept[0]),
        left=bench.share(left[0]),
        restored=bench.share(restored[0]),
        kept_random=tuple(kept_shares[1:].tolist()),
        left_random=tuple(left_shares[1:].tolist()),
        kept_gain=bench.difference(kept[0], kept[1:].mean(0)) if sets else None,
        left_gain=bench.difference(left[1:].mean(0), left[0]) if sets else None,
        kept_p=kept_p,
        left_p=left_p,
        sham=float(sham),
        from_others=_from_others(bench, members),
        n=bench.behaviour.n,
    )


def random_sets(
    everything: Sequence[Part], members: Sequence[Part], wanted: int, seed: int
) -> list[tuple[Part, ...]]:
    """Different random sets with as many components of each kind as `members`, none of them `members` itself.

    They are drawn from all components, so they may share some with `members`. Fewer than `wanted` are returned when
    there are not so many.
    """
    rng = np.random.default_rng(seed)
    by_kind = {kind: [c for c in everything if c.kind == kind] for kind in {m.kind for m in members}}
    seen, found = {frozenset(members)}, []
    for _ in range(wanted * _TRIES_PER_SET):
        if len(found) == wanted:
            break
        drawn: list[Part] = []
        for kind, size in sorted(Counter(m.kind for m in members).items()):
            drawn += [by_kind[kind][i] for i in rng.choice(len(by_kind[kind]), size, replace=False)]
        if frozenset(drawn) not in seen:
            seen.add(frozenset(drawn))
            found.append(tuple(sorted(drawn, key=lambda c: c.order)))
    return found


def _from_others(bench: Bench, members: Sequence[Part]) -> float | None:
    metrics = bench.keep_only_from_others([members, []])
    if metrics is None:
        return None
    kept, nothing = metrics.mean(-1)
    clean = bench.ends.clean.metric.mean()
    return None if abs(clean - nothing) < 1e-9 else float((kept - nothing) / (clean - nothing))
