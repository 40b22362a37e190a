"""What attention heads do, by score: previous token, duplicate token, induction, first token, each beside its chance level.

The scores are read from patterns on repeated random tokens (Olsson et al. 2022): [start] A A. At the second A a
duplicate-token head looks back by the length of A, an induction head one place later, whatever the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.behaviours import Behaviour
from cutaway.errors import BadInput
from cutaway.network.sites import Site
from cutaway.statistics import benjamini_hochberg, bootstrap_many, sign_flip_p
from cutaway.stream.attribution import logit_attribution
from cutaway.stream.writers import require_one_text, working

if TYPE_CHECKING:
    from cutaway.network import Network

#: name -> how far behind the present token the place lies that is looked at (n: length of the repeated part).
_BACK = {
    "previous": lambda n: 1,
    "duplicate": lambda n: n,
    "induction": lambda n: n - 1,
}
SCORES = (*_BACK, "first")


@dataclass(frozen=True, eq=False)
class HeadScores:
    """One score per head: value, its chance level, and whether it lies above it.

    values, chance: [n heads], by prompt; the difference's interval is over prompts, q corrected over all heads and scores.
    """

    heads: tuple[tuple[int, int], ...]
    values: dict[str, np.ndarray]
    chance: dict[str, np.ndarray]
    q: dict[str, np.ndarray]
    network: str
    unit: str = "attention"

    def to_pandas(self) -> pd.DataFrame:
        """One row per head and score: value, chance, interval of the difference, q, and whether it is above chance."""
        rows = []
        for name, values in self.values.items():
            gain = bootstrap_many(values - self.chance[name])
            for i, (layer, head) in enumerate(self.heads):
                low, high = float(gain.low[i]), float(gain.high[i])
                rows.append(
                    {
                        "head": f"{layer}.{head}",
                        "score": name,
                        "value": float(values[:, i].mean()),
                        "chance": float(self.chance[name][:, i].mean()),
                        "gain_low": low,
                        "gain_high": high,
                        "q": float(self.q[name][i]),
                        "above": bool(low > 0 and self.q[name][i] <= 0.05),
                    }
                )
        return pd.DataFrame(rows)

    def best(self, name: str) -> tuple[int, int]:
        """The head with the largest score."""
        return self.heads[int(self.values[name].mean(0).argmax())]

    def found(self, name: str, least: float = 0.3) -> list[tuple[int, int]]:
        """The heads above chance whose score is at least `least`: a difference from chance can be real and still small."""
        frame = self.to_pandas()
        mine = frame[frame["score"] == name].reset_index(drop=True)
        return [self.heads[i] for i, row in mine.iterrows() if row["above"] and row["value"] >= least]  # type: ignore[index]

    def plot(self) -> Any:
        """Scores by head as a heat map."""
        from cutaway.figures import Grid, heatmap

        table = np.stack([v.mean(0) for v in self.values.values()])
        names = [f"{la}.{h}" for la, h in self.heads]
        return heatmap(Grid(table, list(self.values), names, "score", "head", unit=self.unit))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"network": self.network, "unit": self.unit, "scores": self.to_pandas().to_dict("records")}


def repeated_tokens(net: Network, n: int = 16, length: int = 12, seed: int = 0) -> tuple[Tensor, int]:
    """Rows [start] A A of random ordinary tokens, without repetition within A where the vocabulary allows: [n p], start.

    Raises `BadInput` where they do not fit the context.
    """
    special = set(getattr(net.tokenizer, "all_special_ids", None) or ())
    size = net.d_vocab_in or net.d_vocab or 0
    free = torch.tensor([i for i in range(size) if i not in special])
    begin = getattr(net.tokenizer, "bos_token_id", None)
    start = [begin] if isinstance(begin, int) and begin in special else []
    if len(free) >= 6:
        length = min(length, len(free))
    if net.n_ctx is not None and len(start) + 2 * length > net.n_ctx:
        raise BadInput(
            f"Two times {length} tokens do not fit the context of {net.n_ctx}.",
            f"Use length={(net.n_ctx - 1) // 2}.",
        )
    if length < 4 or n < 2:
        raise BadInput(f"{n} rows of two times {length} tokens are too few.", "Use n=16 and length=12.")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        part = free[torch.randperm(len(free), generator=generator)[:length]].tolist()
        rows.append([*start, *part, *part])
    return torch.tensor(rows), len(start)


def head_scores(
    net: Network,
    names: Sequence[str] = SCORES,
    *,
    n: int = 16,
    length: int = 12,
    seed: int = 0,
) -> HeadScores:
    """Score every head by where it looks in repeated random tokens.

    Chance is the head's own attention to an earlier place drawn at random, neither the one that is asked about nor the
    first, which many heads rest on, at the same tokens: a head that looks sharply at something else does not pass.

    Raises `BadInput` for an unknown score or too few tokens, `SiteUnavailable` where no pattern can be read.
    """
    unknown = [name for name in names if name not in SCORES]
    if unknown or not names:
        raise BadInput(f"There are no scores {unknown}.", f"Use {', '.join(SCORES)}.")
    require_one_text(net)
    net.resolve("pattern")
    ids, start = repeated_tokens(net, n, length, seed)
    length = (ids.shape[1] - start) // 2
    layers = net.layers_with("pattern")
    run = net.run(ids, keep=["pattern"], logits=False)
    patterns = torch.cat([working(run[Site("pattern", i)]) for i in layers], 1).double().cpu()
    heads = tuple((i, h) for i in layers for h in range(run[Site("pattern", i)].shape[1]))
    generator = np.random.default_rng(seed)
    values, chance = {}, {}
    second = np.arange(start + length, ids.shape[1])
    for name in names:
        target = np.zeros_like(second) if name == "first" else second - _BACK[name](length)
        values[name] = _mean_at(patterns, second, target)
        drawn = []
        for _ in range(8):
            other = np.array(
                [_elsewhere(generator, int(d), {0, int(t)}) for d, t in zip(second, target, strict=True)]
            )
            drawn.append(_mean_at(patterns, second, other))
        chance[name] = np.mean(drawn, 0)
    return HeadScores(heads, values, chance, _corrected(values, chance, seed), net.name)


def _mean_at(patterns: Tensor, dest: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Mean attention from destinations to sources: [n heads]."""
    return patterns[:, :, torch.as_tensor(dest), torch.as_tensor(source)].mean(-1).numpy()


def _elsewhere(generator: np.random.Generator, dest: int, but: set[int]) -> int:
    return int(generator.choice([s for s in range(dest) if s not in but]))


def _corrected(
    values: dict[str, np.ndarray], chance: dict[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """Benjamini-Hochberg's q over all heads and scores, from sign-flip tests over prompts."""
    names = list(values)
    p = [sign_flip_p(values[n] - chance[n], seed=seed, alternative="greater") for n in names]
    q = benjamini_hochberg(np.stack(p).reshape(-1)).reshape(len(names), -1)
    return dict(zip(names, q, strict=True))


def moving_scores(net: Network, behaviour: Behaviour, *, most: int = 64) -> HeadScores:
    """Which heads move the right answer to the end: what each adds to the metric's logit difference by the places that hold
    the right answer ("name moving", Wang et al. 2023), in logits.

    Chance is what it adds by way of another place of the prompt, drawn at random. Only examples whose right answer stands in
    the prompt count.

    Raises `BadInput` where no example's answer does, or the behaviour names no wrong answers.
    """
    rows = [
        i
        for i in range(behaviour.n)
        if set(behaviour.right[i]) & set(behaviour.clean_ids[i]) and behaviour.wrong[i]
    ][:most]
    if len(rows) < 2:
        raise BadInput(
            f"In fewer than two examples of {behaviour.name!r} the right answer stands in the prompt.",
            "Use a behaviour that copies, such as ioi, induction or list-copying.",
        )
    generator = np.random.default_rng(0)
    found, drawn = [], []
    heads: tuple[tuple[int, int], ...] = ()
    for i in rows:
        prompt = list(behaviour.clean_ids[i])
        right = next(t for t in behaviour.right[i] if t in prompt)
        here = [s for s, t in enumerate(prompt) if t == right]
        each, heads = _by_source(net, prompt, right, behaviour.wrong[i][0], behaviour.answer_pos[i])
        found.append(each[:, here].sum(-1))
        others = [s for s in range(each.shape[1]) if s not in here and s > 0]
        drawn.append(
            each[:, generator.choice(others, size=min(8, len(others)), replace=False)].mean(-1) * len(here)
        )
    values, chance = {"moving": np.stack(found)}, {"moving": np.stack(drawn)}
    return HeadScores(heads, values, chance, _corrected(values, chance, 0), net.name, "logits")


def _by_source(
    net: Network, prompt: list[int], right: int, wrong: int, pos: int
) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """What each head adds to logit(right) - logit(wrong) by source: [heads p]."""
    each = logit_attribution(net, [prompt], right, wrong, by="source", pos=pos)
    heads = tuple(dict.fromkeys((w.layer or 0, w.index or 0) for w in each.writers if w.kind == "source"))
    table = np.zeros((len(heads), len(prompt)))
    where = {h: i for i, h in enumerate(heads)}
    for writer, value in zip(each.writers, each.values, strict=True):
        if writer.kind == "source":
            table[where[writer.layer or 0, writer.index or 0], writer.source or 0] = value[0, 0]
    return table, heads
