"""Steering: a network writes on while a direction is added, at several strengths, beside a random direction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch

from cutaway.control.direction import SteeringVector, require_direction
from cutaway.control.nearer import FEWEST, Nearer, nearer, place_of
from cutaway.errors import BadInput
from cutaway.figures import lines
from cutaway.interventions import Add
from cutaway.network.edits import Phase
from cutaway.network.pricing import announce
from cutaway.network.textsets import digest, rows_in, texts_in
from cutaway.reports import Figure, Page, Section, Table, display_result, page_of
from cutaway.results import Provenance, Work, described, load_fields, save_fields, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network

_SHOWN = 120
#: What the columns of its table are.
COLUMNS = {
    "nearer": "how far the text moves from the negative texts (-) towards the positive ones (+): 1 is the whole way, read "
    "without steering",
    "own": "loss, under steering, of what the network says without it (nats a token): how far it is driven off",
    "fluency": "loss, without steering, of what it writes under it: how odd the text is to the network itself",
}
_PHASES: tuple[Phase, ...] = ("all", "prompt", "new")


def _none() -> np.ndarray:
    return np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class Steering:
    """What a network writes while a direction is added, strength by strength; strength 0 is the network itself.

    `place` says whether what was wanted came: whether the unsteered network finds the text nearer to the positive texts. Two
    losses (nats a token) say what it costs: `own`, of the network's own unsteered continuation while it is steered
    (how far it is driven from what it would have said), and `fluency`, of the steered continuation by the network without
    steering (how odd what it says is to itself). A random direction of the same length shows what any push of that size
    does.

    Attributes:
        site: where the direction is added.
        norm: its length at strength 1.
        on: which tokens it is added at: "all", "prompt" or "new".
        strengths: multiples of the direction, ascending; 0 is among them.
        prompts: the texts that were continued.
        texts: [s][n] the continuations.
        random_texts: [s][n] those under the random direction; empty where it was left out.
        own, fluency: [s n] the two losses.
        random_own, random_fluency: the same of the random direction.
        provenance: what is needed to repeat it.
        place: [s n] where what was written lies along the direction as the unsteered network reads it, from where the text
            without steering lies, as a share of the way from the negative texts to the positive ones; empty in results
            that were saved before it was measured.
        random_place: the same of what was written under the random direction.
    """

    kind: ClassVar[str] = "steering"

    site: str
    norm: float
    on: str
    strengths: tuple[float, ...]
    prompts: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    random_texts: tuple[tuple[str, ...], ...]
    own: np.ndarray
    fluency: np.ndarray
    random_own: np.ndarray
    random_fluency: np.ndarray
    provenance: Provenance
    place: np.ndarray = field(default_factory=_none)
    random_place: np.ndarray = field(default_factory=_none)

    @property
    def unsteered(self) -> tuple[str, ...]:
        """What the network says at strength 0."""
        return self.texts[self.strengths.index(0.0)]

    @property
    def headline(self) -> str:
        """Whether the text comes nearer to what was asked, at which strength, at what cost; in a sentence."""
        if not self.place.size:
            at = max(range(len(self.strengths)), key=lambda i: (abs(self.strengths[i]), self.strengths[i]))
            return f"Whether what was asked came was not measured; at strength {self.strengths[at]:g} {self._cost(at)}"
        every = nearer(self.strengths, self.place, self.random_place)
        if not every:
            return "Nothing was written under steering"
        told = [one for one in every if one.told]
        best = max(told or every, key=lambda one: one.moved - (one.beside or 0.0))
        at = self.strengths.index(best.strength)
        n = len(self.prompts)
        beside = f" (a random direction: {best.beside:+.2f})" if best.beside is not None else ""
        move = f"{_share(best)} {_way(best.strength)}{beside}"
        if told:
            return f"At strength {best.strength:g} the text comes {move}, and {self._cost(at)}"
        if n < FEWEST:
            few = f"{n} prompt{'s are' if n > 1 else ' is'} too few to tell whether what was asked comes"
            few += f" (at least {FEWEST} are needed)"
            return f"{few}; at strength {best.strength:g} the text comes {move}, and {self._cost(at)}"
        than = " more than with a random direction" if best.beside is not None else ""
        return (
            f"At no strength is the text told to come nearer to what was asked{than}; most at {best.strength:g}, {move}, "
            f"and {self._cost(at)}"
        )

    def _cost(self, at: int) -> str:
        """What a strength costs: how much less likely than its own text the network finds what it wrote."""
        beside = f" (random: {self._rise(self.random_fluency, at):+.2f})" if self.random_texts else ""
        return f"what it writes costs {self._rise(self.fluency, at):+.2f} nats a token{beside}"

    @property
    def about(self) -> str:
        """Where, how strongly, on how many prompts."""
        n = len(self.prompts)
        ends = f"{self.strengths[0]:g} to {self.strengths[-1]:g}"
        return (
            f"{self.site}, {len(self.strengths)} strengths from {ends} on {n} prompt{'s' * (n != 1)}, added at {self.on} "
            f"tokens of {self.provenance.network}; length {self.norm:.3g} at strength 1"
        )

    def _rise(self, table: np.ndarray, at: int) -> float:
        return float(np.nanmean(table[at] - table[self.strengths.index(0.0)]))

    def to_pandas(self) -> pd.DataFrame:
        """One row for each direction, strength and prompt: direction, strength, prompt, continuation, nearer, own, fluency.

        nearer: how far the text moves towards the positive texts, as a share of the way from the negative ones.
        """
        found = []
        for name, texts, own, fluency in self._directions():
            for s, strength in enumerate(self.strengths):
                for n, prompt in enumerate(self.prompts):
                    row = {
                        "direction": name,
                        "strength": strength,
                        "prompt": prompt,
                        "continuation": texts[s][n],
                    }
                    found.append(
                        row | self._nearer(name, s, n) | {"own": own[s, n], "fluency": fluency[s, n]}
                    )
        return pd.DataFrame(found)

    def _nearer(self, name: str, s: int, n: int) -> dict[str, float]:
        table = self.place if name == "direction" else self.random_place
        return {"nearer": float(table[s, n] - table[self.strengths.index(0.0), n])} if table.size else {}

    def _directions(self) -> list[tuple[str, tuple[tuple[str, ...], ...], np.ndarray, np.ndarray]]:
        both = [("direction", self.texts, self.own, self.fluency)]
        return both + (
            [("random", self.random_texts, self.random_own, self.random_fluency)] if self.random_texts else []
        )

    def plot(self) -> Any:
        """Both losses against strength, of the direction and of the random one."""
        drawn = {}
        for name, _, own, fluency in self._directions():
            label = "" if name == "direction" else ", random direction"
            drawn[f"its own text under steering{label}"] = _means(own)
            drawn[f"steered text, unsteered network{label}"] = _means(fluency)
        return lines(self.strengths, drawn, "strength (multiples of the direction)", "loss (nats a token)")

    def page(self) -> Page:
        """Whether the text comes nearer to what was asked, what it costs, and what was written."""
        caption = (
            "Means over prompts: how improbable steering makes what the network would have said, and how improbable the "
            "unsteered network finds what was written under steering. Where both rise as steeply as for a random direction "
            "of the same length, steering only disturbs."
        )
        sections = [Section("losses", "What it costs", [Figure(self.plot(), caption)])]
        if self.place.size:
            caption = (
                "Means over prompts: how far the text moves along the direction as the network reads it without steering. "
                "1 is the way from the negative texts to the positive ones."
            )
            sections.insert(
                0, Section("nearer", "Whether what was asked comes", [Figure(self.moves(), caption)])
            )
        shown = self.to_pandas()
        for name, title in (("direction", "What it writes"), ("random", "Under the random direction")):
            rows: Any = shown[shown["direction"] == name].drop(columns="direction")
            if not len(rows):
                continue
            columns = [c for c in rows if c in COLUMNS]
            cells = tuple(
                (
                    f"{row['strength']:g}", _short(row["prompt"]), _short(row["continuation"]),
                    *(f"{row[c]:.2f}" for c in columns),
                )
                for row in rows.sort_values(["prompt", "strength"], kind="stable").to_dict("records")
            )  # fmt: skip
            told = "; ".join(f"{c}: {COLUMNS[c]}" for c in columns) if name == "direction" else ""
            numeric = frozenset({0, *range(3, 3 + len(columns))})
            head = ("strength", "prompt", "continuation", *columns)
            sections.append(Section(name, title, [Table(head, cells, f"{told}." if told else "", numeric)]))
        return page_of(self, "Cutaway · steering", f"{self.about}.", sections)

    def moves(self) -> Any:
        """How far the text moves towards the positive texts, against strength, under both directions."""
        base = self.strengths.index(0.0)
        drawn = {
            name: _means(table - table[base])
            for name, table in (("the direction", self.place), ("random direction", self.random_place))
            if table.size
        }
        return lines(self.strengths, drawn, "strength (multiples of the direction)", "share of the way")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        names = ("kind", "site", "norm", "on", "strengths", "prompts", "texts", "random_texts")
        return described(
            self, *names, "own", "fluency", "random_own", "random_fluency", "place", "random_place"
        )

    save = save_fields
    load = classmethod(load_fields)

    def __str__(self) -> str:
        said = [
            f"{strength:+g}: {_short(prompt, 40)} → {_short(self.texts[s][n], 80)}"
            for n, prompt in enumerate(self.prompts[:3])
            for s, strength in enumerate(self.strengths)
        ]
        return "\n".join([self.headline, *said])

    def __repr__(self) -> str:
        return f"Steering({self.headline})"

    def _repr_html_(self) -> str:
        frame = self.to_pandas()
        frame = frame[frame["direction"] == "direction"].drop(columns="direction")
        shown = pd.DataFrame(frame).assign(continuation=[_short(text) for text in frame["continuation"]])
        return display_result(self, table=shown)


def _share(one: Nearer) -> str:
    return f"{one.moved:+.2f} of the way"


def _way(strength: float) -> str:
    """What a strength asks for."""
    return "to the positive texts" if strength > 0 else "to the negative texts"


def _means(table: np.ndarray) -> list[float]:
    return [float(np.nanmean(row)) if np.isfinite(row).any() else float("nan") for row in table]


def _short(text: str, most: int = _SHOWN) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


@strict
def steer(
    net: Network,
    prompts: Any,
    direction: SteeringVector,
    *,
    strengths: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0),
    max_new_tokens: int = 30,
    on: Phase = "all",
    control: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> Steering:
    """Let a network continue prompts while a direction is added, at several strengths, beside a random direction.

    Decoding is greedy. Strength 0, the network as it is, is always among the strengths.

    Args:
        net: the network.
        prompts: a text, or several.
        direction: what is added, e.g. from `difference_of_means`.
        strengths: multiples of the direction: 1 moves a text by as much as the two means are apart.
        max_new_tokens: how long the continuations are at most.
        on: which tokens it is added at: "all", "prompt" or "new".
        control: also steer by a random direction of the same length, drawn with `seed`.
        seed: of the random direction.
        work: hears of progress, and may end it.

    Raises BadInput for a direction of zero, strengths that are no numbers, and a network that cannot generate.
    """
    began, work = time.monotonic(), working(work)
    require_direction(direction.vector, 1e-6, direction.site)
    if not strengths:
        raise BadInput("There are no strengths.", "Give some, e.g. strengths=(-1, 0, 1).")
    if on not in _PHASES:
        raise BadInput(f"on={on!r} is not known.", 'Use "all", "prompt" or "new".')
    net.resolve(direction.site)
    steps = tuple(sorted({0.0, *(float(s) for s in strengths)}))
    texts = [prompts] if isinstance(prompts, str) else texts_in(prompts)
    writer = _Writer(net, rows_in(net.core, texts), max_new_tokens, on)
    price = writer.price(len(steps), 2 if control else 1)
    announce(
        net, writer.rows[:16], work, "steering", price, passes=writer.passes(len(steps), 2 if control else 1)
    )
    plain = writer.written(None)
    directions = [direction, *([direction.random(seed)] if control else [])]
    tables: list[Any] = []
    for number, each in enumerate(directions):
        said, own, fluency, place = [], [], [], []
        for s, strength in enumerate(steps):
            work.step("steering", number * len(steps) + s, len(directions) * len(steps))
            edit = each.add(strength) if strength else None

            def made(edit: Add | None = edit) -> dict[str, Any]:
                new = writer.written(edit) if edit is not None else plain
                losses = np.array([writer.loss(plain, edit), writer.loss(new, None)])
                places = np.array(place_of(net, writer.rows, new, direction))
                return {"said": [net.decode(ids) for ids in new], "losses": losses, "place": places}

            of = [each.vector, strength]
            kept = work.once("strength", made, dict, dict, lambda of=of: of)
            said.append(tuple(kept["said"]))
            own.append(kept["losses"][0])
            fluency.append(kept["losses"][1])
            place.append(kept["place"])
        tables.append((tuple(said), np.array(own), np.array(fluency), np.array(place)))
    if not control:
        tables.append(((), _none(), _none(), _none()))
    (said, own, fluency, place), (other, other_own, other_fluency, other_place) = tables
    origin = Provenance.of(net, digest(texts), seed, time.monotonic() - began)
    named = tuple(t if isinstance(t, str) else net.decode(list(t)) for t in texts)
    head = (direction.site, direction.norm, on, steps, named)
    return Steering(*head, said, other, own, fluency, other_own, other_fluency, origin, place, other_place)


@dataclass(frozen=True, eq=False)
class _Writer:
    """A network that continues prompts under an edit, and says how improbable continuations are."""

    net: Network
    rows: list[list[int]]
    length: int
    on: Phase

    def price(self, strengths: int, directions: int) -> list[tuple[str, float]]:
        """What it takes in forward-equivalents: continuations, and how improbable each is with the direction and without."""
        longest = [1 + (self.length - 1) / len(row) for row in self.rows]
        scored = 2 * directions * strengths * len(self.rows)
        return [("continuing", (1 + directions * (strengths - 1)) * sum(longest)), ("scoring", scored)]

    def passes(self, strengths: int, directions: int) -> float:
        """In how many passes that is: one for each token of a group of prompts of one length, and one for each scoring."""
        groups = len(_alike([len(row) for row in self.rows]))
        continued = (1 + directions * (strengths - 1)) * groups * self.length
        return continued + 2 * directions * strengths * groups

    def written(self, edit: Add | None) -> list[list[int]]:
        """The continuation of each prompt, up to its end; prompts of one length together, so that nothing is padded."""
        found: list[list[int]] = [[] for _ in self.rows]
        ends = getattr(getattr(self.net.model, "generation_config", None), "eos_token_id", None)
        stops = set(ends if isinstance(ends, list) else [ends])
        for group in _alike([len(row) for row in self.rows]):
            ids = [self.rows[i] for i in group]
            edits = [] if edit is None else [edit]
            made = self.net.generate(ids, self.length, edits=edits, on=self.on)
            for i, new in zip(group, made.new.tolist(), strict=True):
                end = next((k for k, token in enumerate(new) if token in stops), len(new))
                found[i] = new[:end]
        return found

    def loss(self, texts: list[list[int]], edit: Add | None) -> list[float]:
        """Mean -log p of each continuation after its prompt, under an edit; NaN for an empty one."""
        found = [float("nan")] * len(texts)
        for group in _alike([(len(row), len(new)) for row, new in zip(self.rows, texts, strict=True)]):
            start, count = len(self.rows[group[0]]), len(texts[group[0]])
            if not count:
                continue
            ids = torch.tensor([[*self.rows[i], *texts[i]] for i in group])
            places = {"all": None, "prompt": range(start), "new": range(start, start + count)}[self.on]
            edits = [] if edit is None else [replace(edit, pos=None if places is None else list(places))]
            logits = self.net.run(ids, edits=edits).logits
            assert logits is not None
            told = logits[:, start - 1 : -1].float().log_softmax(-1)
            picked = told.gather(2, ids[:, start:, None].to(told.device))[..., 0]
            for i, value in zip(group, (-picked.double().mean(1)).tolist(), strict=True):
                found[i] = value
        return found


def _alike(keys: Sequence[Any]) -> list[list[int]]:
    """The numbers of those with the same key, together."""
    groups: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())
