"""What attention heads do, by score: previous token, duplicate token, induction, first token, each beside its chance level.

The scores are read from patterns on repeated random tokens (Olsson et al. 2022): [start] A A. At the second A a
duplicate-token head looks back by the length of A, an induction head one place later, whatever the tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.behaviours import Behaviour
from cutaway.behaviours import behaviour as make_behaviour
from cutaway.errors import BadInput
from cutaway.figures import Grid, heatmap, small_map
from cutaway.network.memory import rows_at_once
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.statistics import benjamini_hochberg, means_of, sign_flip_p
from cutaway.stream.attribution import logit_attribution
from cutaway.stream.shared import first_few, origin, require_count, require_one, table_in_words
from cutaway.stream.writers import require_one_text

if TYPE_CHECKING:
    from cutaway.network import Network

#: name -> how far behind the present token the place lies that is looked at (n: length of the repeated part).
_BACK = {"previous": lambda _: 1, "duplicate": lambda n: n, "induction": lambda n: n - 1}
SCORES = (*_BACK, "first")
#: The least score of a head that is named for it.
_LEAST = 0.3


@dataclass(frozen=True, eq=False)
class HeadScores:
    """One score per head: value, its chance level, and whether it lies above it.

    A difference from chance can be real and still small: look at the value as well, or use `above_chance`.

    Attributes:
        heads: the heads, in the order of the columns of all arrays.
        values: name of a score -> [n heads], by prompt.
        chance: the same for places drawn at random.
        q: name -> [heads], corrected over all heads and scores.
        unit: of the values: "attention" or "logits".
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "head-scores"

    heads: tuple[Part, ...]
    values: dict[str, np.ndarray]
    chance: dict[str, np.ndarray]
    q: dict[str, np.ndarray]
    unit: str
    provenance: Provenance

    __repr__ = brief

    def to_pandas(self) -> pd.DataFrame:
        """One row per head and score: value, chance, interval of the difference, q, and whether it is above chance."""
        names, tables = list(map(str, self.heads)), []
        for name, values in self.values.items():
            chance, q = self.chance[name], self.q[name]
            gain = means_of(values - chance)
            table = {
                "head": names, "score": name, "value": values.mean(0), "chance": chance.mean(0),
                "gain_low": gain.low, "gain_high": gain.high, "q": q, "above": (gain.low > 0) & (q <= 0.05),
            }  # fmt: skip
            tables.append(pd.DataFrame(table))
        return pd.concat(tables, ignore_index=True)

    def best(self, name: str) -> Part:
        """The head with the largest score."""
        require_one("score", name, self.values)
        return self.heads[int(self.values[name].mean(0).argmax())]

    def above_chance(self, name: str, least: float = _LEAST) -> list[Part]:
        """The heads above chance whose score is at least `least`."""
        require_one("score", name, self.values)
        frame = self.to_pandas()
        chosen = (frame["score"] == name) & frame["above"] & (frame["value"] >= least)
        return [Part.parse(head) for head in frame["head"][chosen]]

    def plot(self) -> Any:
        """Scores by head as a heat map."""
        return heatmap(self._grid(), span=(0.0, 1.0) if self.unit == "attention" else None)

    def _grid(self) -> Grid:
        table = np.stack([v.mean(0) for v in self.values.values()])
        names = [head.words.removeprefix("head ") for head in self.heads]
        return Grid(table, list(self.values), names, "score", "head", unit=self.unit)

    @property
    def headline(self) -> str:
        """Which heads do what, in a sentence."""
        heads = {name: self.above_chance(name) for name in self.values}
        said = [f"{name} by {first_few(those, 'no head')}" for name, those in heads.items() if those]
        none = [name for name, those in heads.items() if not those]
        if not said:
            return f"No head is above chance with a score of at least {_LEAST} ({', '.join(none)})"
        return f"Above chance: {'; '.join(said)}{'; no head by ' + ', '.join(none) if none else ''}"

    def page(self) -> Page:
        """The scores as a heat map, and the heads that stand out."""
        frame = self._strongest()
        frame = frame.assign(above=["yes" if above else "no" for above in frame["above"]])
        blocks = [
            Figure(self.plot(), f"Each head's scores ({self.unit})."),
            table_of(frame, "The largest scores; above: told from chance.", numeric=(2, 3, 4)),
        ]
        return page_of(
            self, "Cutaway · heads", f"What the heads of {self.provenance.network} look at, by score.", blocks
        )

    def _strongest(self, most: int = 10) -> pd.DataFrame:
        """For people: the heads with the largest scores, and whether these are above chance."""
        table = self.to_pandas().sort_values("value", ascending=False).head(most)
        return table_in_words(table, "head").drop(columns=["gain_low", "gain_high"])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "unit", scores=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        return display_result(self, [f"in {self.unit}"], self._strongest(6), small_map(self._grid()))


def repeated_tokens(net: Network, *, n: int = 16, length: int = 12, seed: int = 0) -> tuple[Tensor, int]:
    """Rows [start] A A of random ordinary tokens, without repetition within A where the vocabulary allows: [n p], start.

    Raises `BadInput` where they do not fit the context.
    """
    require_count("n", n, 2)
    require_count("length", length, 4)
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
    require_count("length", length, 4)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        part = free[torch.randperm(len(free), generator=generator)[:length]].tolist()
        rows.append([*start, *part, *part])
    return torch.tensor(rows), len(start)


@strict
def head_scores(
    net: Network,
    *,
    scores: Sequence[str] = SCORES,
    n: int = 16,
    length: int = 12,
    seed: int = 0,
    work: Work | None = None,
) -> HeadScores:
    """Score every head by where it looks in repeated random tokens.

    Chance is the head's own attention to an earlier place drawn at random, neither the one that is asked about nor the
    first, which many heads rest on, at the same tokens: a head that looks sharply at something else does not pass.

    Raises `BadInput` for an unknown score or too few tokens, `SiteUnavailable` where no pattern can be read.
    """
    began, work = time.monotonic(), working(work)
    if isinstance(scores, str) or not scores:
        raise BadInput(f"scores={scores!r} is no list of scores.", f"Use {', '.join(SCORES)}.")
    for name in scores:
        require_one("score", name, SCORES)
    require_one_text(net)
    net.resolve("pattern")
    ids, start = repeated_tokens(net, n=n, length=length, seed=seed)
    length = (ids.shape[1] - start) // 2
    patterns, heads = _patterns(net, ids, work)
    generator = np.random.default_rng(seed)
    values, chance = {}, {}
    second = np.arange(start + length, ids.shape[1])
    for name in scores:
        target = np.zeros_like(second) if name == "first" else second - _BACK[name](length)
        values[name] = _mean_at(patterns, second, target)
        places = list(zip(second.tolist(), target.tolist(), strict=True))
        drawn = [[_elsewhere(generator, d, {0, t}) for d, t in places] for _ in range(8)]
        chance[name] = np.mean([_mean_at(patterns, second, np.array(other)) for other in drawn], 0)
    q = _corrected(values, chance, seed)
    return HeadScores(heads, values, chance, q, "attention", origin(net, ids, began, seed))


def _patterns(net: Network, ids: Tensor, work: Work) -> tuple[Tensor, tuple[Part, ...]]:
    """Patterns of all heads [n heads p p], and the heads."""
    layers = net.layers_with("pattern")
    heads = sum(net.heads(i) or 0 for i in layers)
    batch = rows_at_once(net, ids.shape[1], work, kept=3 * heads * int(ids.shape[1]), square=True)
    parts = []
    for at in range(0, len(ids), batch):
        run = net.run(ids[at : at + batch], keep=["pattern"], logits=False)
        kept = [precise(run[Site("pattern", i)]) for i in layers]
        parts.append(torch.cat(kept, 1).double().cpu())
        work.step("reading patterns", min(at + batch, len(ids)), len(ids))
    heads = tuple(Part("head", i, h) for i, k in zip(layers, kept, strict=True) for h in range(k.shape[1]))
    return torch.cat(parts), heads


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


@strict
def moving_scores(
    net: Network, behaviour: Behaviour | str, *, most: int = 64, seed: int = 0, work: Work | None = None
) -> HeadScores:
    """Which heads move the right answer to the end: what each adds to the metric's logit difference by the places that hold
    the right answer ("name moving", Wang et al. 2023), in logits.

    Chance is what it adds by way of another place of the prompt, drawn at random. Only examples whose right answer stands in
    the prompt count; `most` of them at most.

    Raises `BadInput` where no example's answer does, or the behaviour names no wrong answers.
    """
    began, work = time.monotonic(), working(work)
    require_count("most", most, 2)
    if isinstance(behaviour, str):
        behaviour = make_behaviour(behaviour, net, seed=seed)
    right, wrong, prompts = behaviour.right, behaviour.wrong, behaviour.clean_ids
    rows = [i for i in range(behaviour.n) if wrong[i] and set(right[i]) & set(prompts[i])][:most]
    if len(rows) < 2:
        raise BadInput(
            f"In fewer than two examples of {behaviour.name!r} the right answer stands in the prompt.",
            "Use a behaviour that copies, such as ioi, induction or list-copying.",
        )
    generator = np.random.default_rng(seed)
    moved, drawn = [], []
    heads: tuple[Part, ...] = ()
    with work.interruptible():
        for done, i in enumerate(rows):
            work.step("reading where heads move from", done, len(rows))
            prompt = list(prompts[i])
            answer = next(t for t in right[i] if t in prompt)
            holds = [s for s, t in enumerate(prompt) if t == answer]
            each, heads = _by_source(net, prompt, answer, wrong[i][0], behaviour.answer_pos[i])
            moved.append(each[:, holds].sum(-1))
            others = [s for s in range(each.shape[1]) if s not in holds and s > 0]
            chosen = generator.choice(others, size=min(8, len(others)), replace=False)
            drawn.append(each[:, chosen].mean(-1) * len(holds))
    values, chance = {"moving": np.stack(moved)}, {"moving": np.stack(drawn)}
    q = _corrected(values, chance, seed)
    provenance = replace(origin(net, None, began, seed), behaviour_hash=behaviour.hash)
    return HeadScores(heads, values, chance, q, "logits", provenance)


def _by_source(
    net: Network, prompt: list[int], right: int, wrong: int, pos: int
) -> tuple[np.ndarray, tuple[Part, ...]]:
    """What each head adds to logit(right) - logit(wrong) by source: [heads p]."""
    each = logit_attribution(net, [prompt], target=right, foil=wrong, by="source", pos=pos)
    heads = tuple(dict.fromkeys(w for w, s in zip(each.writers, each.sources, strict=True) if s is not None))
    table = np.zeros((len(heads), len(prompt)))
    for head, source, value in zip(each.writers, each.sources, each.values, strict=True):
        if source is not None:
            table[heads.index(head), source] = value[0, 0]
    return table, heads
