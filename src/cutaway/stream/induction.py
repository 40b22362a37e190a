"""Induction heads: found by where heads look in repeated random tokens, and tested by taking them away.

Olsson et al. (2022): in [start] A A, with A random, an induction head at the second A looks at the token behind the last
time that its own token stood there, and copies it. Where a network predicts the second A better than the first, such heads
should be why: without the best of them the loss on the second A must rise more than without as many others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.figures import Bar, bars
from cutaway.interventions import Ablate
from cutaway.network.memory import rows_at_once
from cutaway.network.parts import Part
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import Provenance, Work, described, load_fields, save_fields, strict, working
from cutaway.statistics import Estimate, mean_of
from cutaway.stream.attention_scores import HeadScores, head_scores, repeated_tokens
from cutaway.stream.shared import first_few, origin, require_count, table_in_words

if TYPE_CHECKING:
    from cutaway.network import Network


#: Rows below which no head could be told from chance, whatever it does: a sign-flip test over so few has no small p.
_FEWEST = 12


@dataclass(frozen=True, eq=False)
class InductionHeads:
    """Which heads do induction, and what the network loses without them.

    Losses are in nats a token, the mean over the second A of each row; an ablated head gives its mean over all rows.

    Attributes:
        scores: every head's scores on repeated random tokens: induction, previous and duplicate token, first token.
        heads: the heads that were taken away: those with the largest induction scores above chance.
        first: [n] loss on the first A, which nothing foretells.
        intact: [n] loss on the second A.
        ablated: [n] the same without these heads.
        random: [r n] the same without as many other heads, from the same layers where there are enough.
        random_heads: [r][k], which these were.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "induction-heads"

    scores: HeadScores
    heads: tuple[Part, ...]
    first: np.ndarray
    intact: np.ndarray
    ablated: np.ndarray
    random: np.ndarray
    random_heads: tuple[tuple[Part, ...], ...]
    provenance: Provenance

    def losses(self) -> dict[str, Estimate]:
        """The mean losses, each with its interval over rows."""
        said = {"first half": self.first, "second half": self.intact}
        if self.heads:
            said |= {"second half, without these heads": self.ablated}
            said |= {"second half, without random heads": self.random.mean(0)}
        return {name: mean_of(values) for name, values in said.items()}

    @property
    def gain(self) -> Estimate:
        """What repetition is worth: loss on the first half less loss on the second."""
        return mean_of(self.first - self.intact)

    @property
    def cost(self) -> Estimate:
        """What the heads are worth: the rise of the loss without them beyond that without random heads."""
        return mean_of(self.ablated - self.random.mean(0))

    def to_pandas(self) -> pd.DataFrame:
        """One row per head: its scores, whether its induction score is above chance, and whether it was taken away."""
        table = self.scores.to_pandas()
        names = [str(head) for head in self.scores.heads]
        values = {name: scores.mean(0) for name, scores in self.scores.values.items()}
        above = table.loc[table["score"] == "induction", "above"].to_numpy()
        order = ["induction", *(name for name in values if name != "induction")]
        columns = {"head": names, **{name: values[name] for name in order}}
        return pd.DataFrame(
            columns | {"above": above, "ablated": [head in self.heads for head in self.scores.heads]}
        )

    def top(self, n: int = 12) -> pd.DataFrame:
        """The heads with the largest induction scores, in three decimals."""
        return self.to_pandas().sort_values("induction", ascending=False).head(n).round(3)

    def plot(self) -> Any:
        """Induction scores, layer by head."""
        from cutaway.stream.shared import head_map

        values = self.scores.values["induction"].mean(0)
        return head_map(dict(zip(self.scores.heads, values.tolist(), strict=True)), "attention", (0.0, 1.0))

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        gain = self.gain
        told = f"the second half is {gain.value:.2f} nats a token easier than the first"
        if not gain.above(0):
            told = "the second half is not told to be easier than the first, so nothing is seen to be copied"
        if not self.heads:
            return f"No head is an induction head by its score; {told}"
        rise, chance = (float((x - self.intact).mean()) for x in (self.ablated, self.random.mean(0)))
        many = len(self.heads) > 1
        beside = "" if chance == rise else f", without as many others by {chance:.2f}"
        return (
            f"{first_few(self.heads, 'no head')} {'are induction heads' if many else 'is an induction head'} by "
            f"{'their scores' if many else 'its score'}: {told}; without {'them' if many else 'it'} the loss rises by "
            f"{rise:.2f}{beside}"
        )

    def page(self) -> Page:
        """Scores, losses, and the heads that stand out."""
        shown = self.top()
        for name in ("above", "ablated"):
            shown[name] = ["yes" if true else "no" for true in shown[name]]
        loss = bars(
            [Bar.of(name, value) for name, value in self.losses().items()], unit="loss (nats a token)"
        )
        blocks = [
            Figure(self.plot(), "Attention from the second half to the token behind the present one's last place."),
            Figure(loss, f"Loss on {len(self.first)} rows of repeated random tokens, with 95 % intervals over "
                         f"rows{f'; random heads are the mean of {len(self.random)} sets' if self.heads else ''}."),
            table_of(table_in_words(shown, "head"),
                     "The largest induction scores; above: told from chance; ablated: taken away.", numeric=(1, 2, 3, 4)),
        ]  # fmt: skip
        about = f"Induction heads of {self.provenance.network}, on {len(self.first)} rows of repeated random tokens."
        return page_of(self, "Cutaway · heads", about, blocks)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        losses = {n: e.to_dict() for n, e in self.losses().items()}
        return described(self, heads=list(map(str, self.heads)), losses=losses, scores=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        return f"InductionHeads({self.headline})"

    def _repr_html_(self) -> str:
        return display_result(self, table=table_in_words(self.top(), "head"))


@strict
def induction_heads(
    net: Network,
    *,
    top: int = 5,
    at_least: float = 0.3,
    n: int = 16,
    length: int = 24,
    random_sets: int = 5,
    seed: int = 0,
    work: Work | None = None,
) -> InductionHeads:
    """Find the induction heads of a network on repeated random tokens, and test them by mean ablation.

    Args:
        net: the network.
        top: how many heads to take away at most: those with the largest induction scores above chance.
        at_least: the least induction score of a head that counts as one.
        n: rows of repeated random tokens, at least 12.
        length: tokens that are repeated.
        random_sets: how many sets of as many other heads are taken away for comparison.
        seed: of the tokens and of the random heads.
        work: may stop it.

    Raises:
        SiteUnavailable: where patterns or heads are refused, or the network predicts no next token.
        BadInput: for rows that do not fit the context.
    """
    began, work = time.monotonic(), working(work)
    for name, count, least in (("top", top, 1), ("random_sets", random_sets, 1), ("n", n, _FEWEST)):
        require_count(name, count, least)
    if not net.is_causal or net.d_vocab is None:
        raise SiteUnavailable(
            "Induction is read from a network that predicts the next token, and this one does not.",
            "Use head_scores, which reads attention alone.",
        )
    # scores, means, and losses of the network as it is, without these heads, and without each set of others
    announce(net, [[0] * (2 * length)] * min(n, 16), work, "induction", n * (4.0 + random_sets), rows=n)
    scores = head_scores(net, n=n, length=length, seed=seed, work=work)
    able = set(net.layers_with("z"))
    value = dict(zip(scores.heads, scores.values["induction"].mean(0).tolist(), strict=True))
    good = sorted(scores.above_chance("induction", at_least), key=lambda head: -value[head])
    heads = tuple([head for head in good if head.layer in able][:top])
    ids, start = repeated_tokens(net, n=n, length=length, seed=seed)
    length = (ids.shape[1] - start) // 2
    others = _others(heads, [head for head in scores.heads if head.layer in able], random_sets, seed)
    means = _means(net, ids, {head.layer or 0 for chosen in (heads, *others) for head in chosen}, work)
    base = _losses(net, ids, (), means, work)
    second = slice(start + length - 1, None)
    first = base[:, max(0, start - 1) : start + length - 1].mean(1)
    intact, without, random = base[:, second].mean(1), base[:, second].mean(1), []
    if heads:
        without = _losses(net, ids, heads, means, work)[:, second].mean(1)
    for done, chosen in enumerate(others):
        work.step("ablating random heads", done, len(others))
        random.append(_losses(net, ids, chosen, means, work)[:, second].mean(1))
    table_ = np.stack(random) if random else np.zeros((0, len(ids)))
    return InductionHeads(
        scores, heads, first, intact, without, table_, others, origin(net, ids, began, seed)
    )


def _others(
    heads: Sequence[Part], known: Sequence[Part], sets: int, seed: int
) -> tuple[tuple[Part, ...], ...]:
    """Sets of as many other heads, from the same layers where these have enough.

    Raises `BadInput` where there are not so many others.
    """
    if not heads:
        return ()
    generator = np.random.default_rng(seed)
    rest = [head for head in known if head not in heads]
    near = [head for head in rest if head.layer in {h.layer for h in heads}]
    pool = near if len(near) >= 2 * len(heads) else rest
    if len(pool) < len(heads):
        raise BadInput(
            f"There are {len(pool)} other heads to compare {len(heads)} with.",
            f"Ask for top={max(1, len(known) // 2)}.",
        )
    drawn = (generator.choice(len(pool), len(heads), replace=False) for _ in range(sets))
    return tuple(tuple(pool[i] for i in sorted(chosen)) for chosen in drawn)


def _means(net: Network, ids: Tensor, layers: set[int], work: Work) -> dict[int, Tensor]:
    """The mean of every head's z over rows and positions, by layer: [h e]."""
    sums: dict[int, Tensor] = {}
    batch = rows_at_once(net, ids.shape[1], work)
    for at in range(0, len(ids), batch) if layers else ():
        run = net.run(ids[at : at + batch], keep=["z"], layers=sorted(layers), logits=False)
        for layer in layers:
            sums[layer] = sums.get(layer, 0) + run["z", layer].double().sum((0, 1))
    return {layer: total / ids.numel() for layer, total in sums.items()}


def _losses(
    net: Network, ids: Tensor, heads: Sequence[Part], means: dict[int, Tensor], work: Work
) -> np.ndarray:
    """Loss of every next token, in nats, with some heads at their mean: [n p-1]."""
    edits = [
        Ablate(Site("z", layer), how="mean", head=[h.index or 0 for h in heads if h.layer == layer], source=means[layer])
        for layer in sorted({h.layer or 0 for h in heads})
    ]  # fmt: skip

    def run() -> np.ndarray:
        return _run(net, ids, edits, work)

    def of() -> list[object]:
        return [
            net.hash,
            ids,
            list(map(str, heads)),
            [means[layer] for layer in sorted(means)] if heads else [],
        ]

    return work.once("losses", run, lambda x: {"x": x}, lambda kept: kept["x"], of)


def _run(net: Network, ids: Tensor, edits: Sequence[Ablate], work: Work) -> np.ndarray:
    """Loss of every next token, in nats, under edits: [n p-1]."""
    parts, batch = [], rows_at_once(net, ids.shape[1], work, read=ids.shape[1])
    for at in range(0, len(ids), batch):
        rows = ids[at : at + batch]
        logits = net.run(rows, edits=edits).logits
        assert logits is not None
        logs = logits[:, :-1].float().log_softmax(-1)
        parts.append(-logs.gather(2, rows[:, 1:, None].to(logs.device))[..., 0].double().cpu())
    return torch.cat(parts).numpy()
