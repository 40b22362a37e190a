"""Two prompts side by side: where the heads look, how the stream parts, what each layer would say, and what comes next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.errors import BadInput, NotFoldable, SiteUnavailable
from cutaway.figures import Bar, Grid, groups_of_bars, heatmap, show_token, small_heads, small_map
from cutaway.figures.lens import LensGrid, lens_table
from cutaway.network.inputs import Tokens
from cutaway.network.parts import Part, in_words
from cutaway.network.precision import precise
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.reports import Figure, Page, Pair, Pairs, Section, Token, display_result, page_of, table_of
from cutaway.results import Provenance, Work, described, load_fields, save_fields, strict, working
from cutaway.stream.attribution import logit_attribution
from cutaway.stream.lenses.protocol import LogitLens
from cutaway.stream.lenses.reading import Reading, read_lens
from cutaway.stream.patterns import Patterns, patterns
from cutaway.stream.shared import one_text, origin, require_count
from cutaway.stream.targets import TokenLike, token_ids
from cutaway.stream.writers import layers_of

if TYPE_CHECKING:
    from cutaway.network import Network, Run

#: What the two prompts are called.
_SIDES = ("first", "other")


@dataclass(frozen=True, eq=False)
class NextTokens:
    """What two prompts say next, at their last tokens.

    Attributes:
        tokens: [t] the likeliest tokens of either.
        text, other: [t] their probabilities behind each prompt.
        kl: KL(text || other) in nats.
        kl_back: KL(other || text).
    """

    tokens: tuple[str, ...]
    text: np.ndarray
    other: np.ndarray
    kl: float
    kl_back: float


@dataclass(frozen=True, eq=False)
class Written:
    """What each part adds to one logit (difference) at the last token of two prompts.

    Attributes:
        of: the logit, in words.
        writers: [w] the parts.
        text, other: [w] what each adds in either prompt, in logits.
    """

    of: str
    writers: tuple[Part, ...]
    text: np.ndarray
    other: np.ndarray


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Two prompts side by side.

    Positions are compared in pairs. Prompts of equal length are paired position by position; otherwise the tokens that they
    share at the beginning and at the end are, and what lies between has no partner.

    Attributes:
        tokens, other: the two texts.
        pairs: [k 2] the positions that are compared.
        length: [l+1 k] the length of the stream in the first prompt, as it enters each layer, the last as it leaves.
        other_length: the same in the other prompt.
        cosine: [l+1 k] the cosine between the two.
        distance: [l+1 k] the length of their difference, as a share of the mean of their lengths.
        heads: the heads whose patterns can be read.
        moved: [h k] the share of each head's attention that lies elsewhere in the other prompt (half the summed difference).
        patterns: both prompts' patterns; None where they are refused.
        lenses: what each layer says in both prompts, by the logit lens; None where that is refused.
        said: what comes next; None where the network predicts no next token.
        written: who writes it; None where the stream cannot be taken apart.
        notes: what was left out, and why.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "side-by-side"

    tokens: tuple[str, ...]
    other: tuple[str, ...]
    pairs: np.ndarray
    length: np.ndarray
    other_length: np.ndarray
    cosine: np.ndarray
    distance: np.ndarray
    heads: tuple[Part, ...]
    moved: np.ndarray
    patterns: tuple[Patterns, ...] | None
    lenses: tuple[Reading, ...] | None
    said: NextTokens | None
    written: Written | None
    notes: tuple[str, ...]
    provenance: Provenance

    @property
    def differ(self) -> tuple[int, ...]:
        """Which of the compared pairs hold two different tokens."""
        return tuple(k for k, (i, j) in enumerate(self.pairs) if self.tokens[i] != self.other[j])

    @property
    def labels(self) -> list[str]:
        """Each pair's token, or both where they differ."""
        return [
            self.tokens[i] if self.tokens[i] == self.other[j] else f"{self.tokens[i]} |{self.other[j]}"
            for i, j in self.pairs
        ]

    def to_pandas(self) -> pd.DataFrame:
        """One row per layer and pair of positions: lengths, cosine and distance of the two streams."""
        n, k = self.cosine.shape
        layers = [*map(str, range(n - 1)), "end"]
        return pd.DataFrame(
            {"layer": np.repeat(layers, k), "position": np.tile(self.pairs[:, 0], n),
             "other_position": np.tile(self.pairs[:, 1], n), "token": self.labels * n, "length": self.length.reshape(-1),
             "other_length": self.other_length.reshape(-1), "cosine": self.cosine.reshape(-1),
             "distance": self.distance.reshape(-1)}
        )  # fmt: skip

    def top(self, n: int = 12) -> pd.DataFrame:
        """What comes next in both; without that, the heads whose attention moves most."""
        if self.said is not None:
            said = self.said
            return pd.DataFrame({"next": list(said.tokens), "text": said.text, "other": said.other}).head(n)
        return self.moving(n)

    def moving(self, n: int = 10) -> pd.DataFrame:
        """The heads whose attention moves most at one token, and at which."""
        if not len(self.heads):
            return pd.DataFrame(columns=["head", "moved", "at"])
        most = self.moved.max(1)
        order = np.argsort(-most, kind="stable")[:n]
        at = [f"{self.pairs[k, 0]} {self.labels[k]}" for k in self.moved[order].argmax(1)]
        return pd.DataFrame({"head": [self.heads[i].words for i in order], "moved": most[order], "at": at})

    def writing(self, n: int = 12) -> pd.DataFrame:
        """The parts that add most differently to what comes next."""
        if self.written is None:
            return pd.DataFrame(columns=["writer", "text", "other", "difference"])
        w = self.written
        table = pd.DataFrame({"writer": list(map(str, w.writers)), "text": w.text, "other": w.other})
        table["difference"] = w.text - w.other
        return table.iloc[np.argsort(-np.abs(w.text - w.other), kind="stable")].head(n)

    def plot(self) -> Any:
        """How far the two streams are apart, layer by token, as a share of their length."""
        return heatmap(self._apart(), span=(0.0, self._most))

    def _apart(self) -> Grid:
        names = [*map(str, range(len(self.cosine) - 1)), "end"]
        columns = [show_token(label) for label in self.labels]
        return Grid(self.distance, names, columns, "layer entered", "token", unit="distance of the streams")

    @property
    def _most(self) -> float:
        return max(float(np.nanmax(self.distance, initial=0.0)), 1e-9)

    @property
    def headline(self) -> str:
        """How far the two part, in a sentence."""
        ends = f"at the last token their streams end with cosine {self.cosine[-1, -1]:.2f}"
        if self.said is None:
            return (
                f"The two prompts differ at {len(self.differ)} of {len(self.pairs)} compared tokens; {ends}"
            )
        first, second = (self.said.tokens[int(p.argmax())] for p in (self.said.text, self.said.other))
        told = (
            f"both go on with {first!r}"
            if first == second
            else f"one goes on with {first!r}, the other with {second!r}"
        )
        return f"{told[0].upper()}{told[1:]} (KL {self.said.kl:.2f} nats); {ends}"

    def page(self) -> Page:
        """Both prompts, then what comes next, the stream, the heads and the lens of both."""
        ends = [self.tokens, self.other]
        partners = [
            {int(self.pairs[k, side]) for k in range(len(self.pairs)) if k not in self.differ}
            for side in (0, 1)
        ]
        marked = [
            tuple(Token(t, i not in same) for i, t in enumerate(tokens))
            for tokens, same in zip(ends, partners, strict=True)
        ]  # fmt: skip
        answers = ["", ""] if self.said is None else [
            self.said.tokens[int(p.argmax())] for p in (self.said.text, self.said.other)
        ]  # fmt: skip
        prompts = Pairs((Pair(*marked, *answers, sides=_SIDES),), " ".join(self.notes))  # pyright: ignore[reportArgumentType]
        sections = [Section("prompts", "The two prompts", [prompts])]
        if self.said is not None:
            said = self.said
            both = {
                name: [Bar.of(show_token(t), p) for t, p in zip(said.tokens, values.tolist(), strict=True)]
                for name, values in (("first prompt", said.text), ("other prompt", said.other))
            }
            caption = f"The likeliest next tokens. KL {said.kl:.3f} nats from first to other, {said.kl_back:.3f} back."
            sections.append(
                Section(
                    "next", "What comes next", [Figure(groups_of_bars(both, unit="probability"), caption)]
                )
            )
        if self.written is not None:
            caption = f"Who adds to {self.written.of} differently, in logits, by direct paths."
            table = self.writing().assign(writer=[in_words(w) for w in self.writing()["writer"]])
            sections.append(
                Section("written", "Who writes it", [table_of(table, caption, "+.3f", (1, 2, 3))])
            )
        says = "Distance of the two streams, as a share of the mean of their lengths. Where tokens differ, both are named."
        sections.append(Section("stream", "Where the streams part", [Figure(self.plot(), says)]))
        if self.patterns is not None:
            sections.append(Section("heads", "Where heads look", self._looks()))
        if self.lenses is not None:
            sections.append(Section("lens", "What each layer says", self._reads()))
        return page_of(
            self,
            "Cutaway · two prompts",
            f"Two prompts side by side, in {self.provenance.network}.",
            sections,
        )

    def _looks(self) -> list[Any]:
        assert self.patterns is not None
        table = table_of(self.moving(), "The heads whose attention moves most at one token.", numeric=(1,))
        figures = [
            Figure(both.plot(head), f"{head} in the {name} prompt.", wide=False)
            for head in self.moving(2)["head"]
            for name, both in zip(_SIDES, self.patterns, strict=True)
        ]
        return [table, *figures]

    def _reads(self) -> list[Any]:
        assert self.lenses is not None
        figures = []
        for name, reading in zip(_SIDES, self.lenses, strict=True):
            last = slice(max(0, len(reading.tokens) - 12), None)
            top, p = reading.top[:, last, 0], reading.probability[:, last, 0]
            notes = [
                [f"{t!r} {q:.3f}" for t, q in zip(*row, strict=True)] for row in zip(top, p, strict=True)
            ]
            names = [str(layer) for layer in reading.layers]
            grid = LensGrid(p, top, names, list(reading.tokens[last]), notes, "probability")
            figures.append(
                Figure(lens_table(grid), f"The {name} prompt: the likeliest token of each layer, logit lens.")
            )
        return figures

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "tokens", "other", "pairs", "notes", next=self.top(), writers=self.writing(40),
                         moving=self.moving(40), stream=self.to_pandas())  # fmt: skip

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        return f"SideBySide({self.headline})"

    def _repr_html_(self) -> str:
        picture = small_map(self._apart(), self._most)
        if self.patterns is not None and len(self.heads):
            most = np.argsort(-self.moved.max(1), kind="stable")[:2]
            both = [(i, name, side) for i in most for name, side in zip(_SIDES, self.patterns, strict=True)]
            tables = [np.where(side.seen, side.pattern[i], np.nan) for i, _, side in both]
            picture += small_heads(tables, [f"{self.heads[i].words}, {name}" for i, name, _ in both])
        if self.lenses is not None:
            picture += self._says().to_html(index=False, border=0, escape=True)
        return display_result(self, list(self.notes), self.top(), picture)

    def _says(self, most: int = 8) -> pd.DataFrame:
        """What so many of the layers would say at the end of each prompt."""
        assert self.lenses is not None
        layers = self.lenses[0].layers
        rows = sorted({*range(0, len(layers), -(-len(layers) // most)), len(layers) - 1})
        said = {
            name: [reading.top[i, -1, 0] for i in rows]
            for name, reading in zip(_SIDES, self.lenses, strict=True)
        }
        return pd.DataFrame({"logit lens, layer": [layers[i] for i in rows]} | said)


def aligned(first: Sequence[int], second: Sequence[int]) -> tuple[np.ndarray, str]:
    """Which positions of two prompts are compared [k 2], and a note where they are of unequal length.

    >>> aligned([1, 2, 3, 9], [1, 5, 9])[0].tolist()
    [[0, 0], [3, 2]]
    """
    n, m = len(first), len(second)
    if n == m:
        return np.stack([np.arange(n)] * 2, 1), ""
    shortest = min(n, m)
    begin = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    end = next(
        (i for i in range(shortest - begin) if first[n - 1 - i] != second[m - 1 - i]), shortest - begin
    )
    pairs = [(i, i) for i in range(begin)] + [(n - i, m - i) for i in range(end, 0, -1)]
    if not pairs or pairs[-1] != (n - 1, m - 1):
        pairs.append(
            (n - 1, m - 1)
        )  # the last tokens are compared whatever they are: there it is said what comes next
    said = f"The prompts have {n} and {m} tokens: compared are the {begin} that they share at the beginning, the {end} at "
    return np.array(pairs), f"{said}the end{'' if end else ', and their last tokens'}."


#: Runs of each prompt: itself, its stream by heads for the two answers, patterns, lenses.
_RUNS = 7


@strict
def side_by_side(
    net: Network,
    text: str | Sequence[int] | Tokens,
    other: str | Sequence[int] | Tokens,
    *,
    target: TokenLike | None = None,
    foil: TokenLike | None = None,
    top: int = 8,
    work: Work | None = None,
) -> SideBySide:
    """Compare two prompts: patterns, stream, lens, and what comes next.

    Args:
        net: the network.
        text: one prompt, its token ids, or what `net.chat` made.
        other: the other prompt.
        target: the token whose logit is attributed; by default the one that the first prompt goes on with.
        foil: the token that it is set against; by default the one that the other prompt goes on with, where it is another.
        top: how many next tokens of either prompt to keep.
        work: may stop it.

    Raises:
        BadInput: for two equal prompts, an empty one, or a target that is no token.
        SiteUnavailable: where the stream of this network is refused.
    """
    began, work = time.monotonic(), working(work)
    require_count("top", top)
    both = [one_text(net, text), one_text(net, other)]
    ids = [tokens.row_ids(0) for tokens in both]
    if ids[0] == ids[1]:
        raise BadInput("The two prompts are equal.", "Give two that differ.")
    depth = len(layers_of(net))
    sites = [*(Site("resid_pre", i) for i in range(depth)), Site("resid_post", depth - 1)]
    for site in sites:
        net.resolve(site)
    pairs, note = aligned(*ids)
    notes = [note] if note else []
    # each prompt for itself, its stream, its patterns, and once more for each lens that reads it
    announce(net, both[0], work, "comparing", _RUNS * 2.0)
    runs = []
    for done, tokens in enumerate(both):
        work.step("running the prompts", done, 2)
        runs.append(net.run(tokens, keep=sites, logits="last" if net.d_vocab else False))
    a, b = (
        np.stack([precise(run[site])[0].double().cpu().numpy()[pairs[:, side]] for site in sites])
        for side, run in enumerate(runs)
    )
    lengths = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    cosine = (a * b).sum(-1) / np.maximum(lengths[0] * lengths[1], 1e-30)
    distance = np.linalg.norm(a - b, axis=-1) / np.maximum((lengths[0] + lengths[1]) / 2, 1e-30)
    looks = _or_note(lambda: tuple(patterns(net, tokens, work=work) for tokens in both), "Patterns", notes)
    lenses = _or_note(
        lambda: tuple(read_lens(net, LogitLens.of(net), row, top=3, work=work) for row in ids),
        "The lens",
        notes,
    )
    said = _next(net, runs, top)
    written = None
    if said is not None:
        written = _or_note(lambda: _written(net, ids, target, foil, work), "Attribution", notes)
    return SideBySide(
        tuple(both[0].strings(0)), tuple(both[1].strings(0)), pairs, *lengths, cosine, distance,
        () if looks is None else looks[0].heads,
        np.zeros((0, len(pairs))) if looks is None else _moved(looks[0].pattern, looks[1].pattern, pairs),
        looks, lenses, said, written, tuple(notes), origin(net, ids, began),
    )  # fmt: skip


def _or_note(make: Any, what: str, notes: list[str]) -> Any:
    """What is made, or None with a note where the network does not have it."""
    try:
        return make()
    except (SiteUnavailable, NotFoldable) as refused:
        notes.append(f"{what} left out: {refused.problem}")
        return None


def _lenses(net: Network, ids: Sequence[list[int]], work: Work) -> tuple[Reading, ...]:
    lens = LogitLens.of(net)
    return tuple(read_lens(net, lens, row, top=3, work=work) for row in ids)


def _next(net: Network, runs: Sequence[Run], top: int) -> NextTokens | None:
    if any(not run.next_tokens(1) for run in runs):
        return None
    rows = [
        run.logits[0, -1].double().log_softmax(-1).cpu().numpy() for run in runs if run.logits is not None
    ]
    best = list(dict.fromkeys(int(i) for row in rows for i in np.argsort(-row, kind="stable")[:top]))
    p = [np.exp(row) for row in rows]
    order = sorted(best, key=lambda i: -max(p[0][i], p[1][i]))
    live = [
        np.where(x > 0, x * (row - back), 0).sum() for x, row, back in zip(p, rows, rows[::-1], strict=True)
    ]
    return NextTokens(
        tuple(net.token_strings(order)),
        p[0][order],
        p[1][order],
        max(0.0, float(live[0])),
        max(0.0, float(live[1])),
    )


def _written(
    net: Network, ids: Sequence[list[int]], target: TokenLike | None, foil: TokenLike | None, work: Work
) -> Written:  # fmt: skip
    """What each part adds to the logit of what the first prompt goes on with, over that of the other."""
    ends = [int(net.run([row], logits="last").logits[0, -1].argmax()) for row in ids]  # pyright: ignore[reportOptionalSubscript]
    right = ends[0] if target is None else int(token_ids(net, target, 1)[0])
    wrong = None if foil is None else int(token_ids(net, foil, 1)[0])
    if target is None and foil is None and ends[0] != ends[1]:
        wrong = ends[1]
    found = [logit_attribution(net, [row], target=right, foil=wrong, pos=-1, work=work) for row in ids]
    values = [dict(zip(map(str, one.writers), one.values[:, 0, 0].tolist(), strict=True)) for one in found]
    names = list(dict.fromkeys(name for table in values for name in table))
    words = [repr(name) for name in net.token_strings([right] + ([] if wrong is None else [wrong]))]
    return Written(
        f"the logit of {' over '.join(words)}", tuple(map(Part.parse, names)),
        np.array([values[0].get(n, 0.0) for n in names]), np.array([values[1].get(n, 0.0) for n in names]),
    )  # fmt: skip


def _moved(first: np.ndarray, second: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Share of each head's attention at each pair that lies elsewhere in the other prompt: [h k].

    What lies on tokens without a partner counts as one place.
    """
    a, b = (table[:, pairs[:, side]] for side, table in enumerate((first, second)))
    shared = a[:, :, pairs[:, 0]], b[:, :, pairs[:, 1]]
    rest = a.sum(-1) - shared[0].sum(-1), b.sum(-1) - shared[1].sum(-1)
    return (np.abs(shared[0] - shared[1]).sum(-1) + np.abs(rest[0] - rest[1])) / 2
