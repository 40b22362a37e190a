"""Steering: a network writes on while a direction is added, at several strengths, beside a random direction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch

from cutaway.control.direction import SteeringVector, require_direction
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
_PHASES: tuple[Phase, ...] = ("all", "prompt", "new")


@dataclass(frozen=True, eq=False)
class Steering:
    """What a network writes while a direction is added, strength by strength; strength 0 is the network itself.

    Two losses (nats a token) say how much is damaged: `own`, of the network's own unsteered continuation while it is steered
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

    @property
    def unsteered(self) -> tuple[str, ...]:
        """What the network says at strength 0."""
        return self.texts[self.strengths.index(0.0)]

    @property
    def headline(self) -> str:
        """How far the strongest push drives the network from its own words, beside a random direction."""
        at = max(range(len(self.strengths)), key=lambda i: (abs(self.strengths[i]), self.strengths[i]))
        changed = sum(a != b for a, b in zip(self.texts[at], self.unsteered, strict=True))
        said = (
            f"{self.site}, {len(self.strengths)} strengths on {len(self.prompts)} prompt{'s' * (len(self.prompts) > 1)}: "
            f"at {self.strengths[at]:g}, {changed} of {len(self.prompts)} continuations change and the network's own costs "
            f"{self._rise(self.own, at):+.2f} nats a token"
        )
        return said + (
            f" (random direction: {self._rise(self.random_own, at):+.2f})" if self.random_texts else ""
        )

    def _rise(self, table: np.ndarray, at: int) -> float:
        return float(np.nanmean(table[at] - table[self.strengths.index(0.0)]))

    def to_pandas(self) -> pd.DataFrame:
        """One row for each direction, strength and prompt: direction, strength, prompt, continuation, own, fluency."""
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
                    found.append(row | {"own": own[s, n], "fluency": fluency[s, n]})
        return pd.DataFrame(found)

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
        """The losses against strength, and what was written."""
        caption = (
            "Means over prompts: how improbable steering makes what the network would have said, and how improbable the "
            "unsteered network finds what was written under steering. Where both rise as steeply as for a random direction "
            "of the same length (dashed), steering only disturbs."
        )
        sections = [Section("losses", "What it costs", [Figure(self.plot(), caption)])]
        for name, texts, own, fluency in self._directions():
            rows = tuple(
                (
                    f"{strength:g}",
                    _short(prompt),
                    _short(texts[s][n]),
                    f"{own[s, n]:.2f}",
                    f"{fluency[s, n]:.2f}",
                )
                for n, prompt in enumerate(self.prompts)
                for s, strength in enumerate(self.strengths)
            )
            head = ("strength", "prompt", "continuation", "own text", "fluency")
            title = "What it writes" if name == "direction" else "Under the random direction"
            sections.append(Section(name, title, [Table(head, rows, "", frozenset({0, 3, 4}))]))
        lead = (
            f"Added at {self.on} tokens of {self.provenance.network}; length {self.norm:.3g} at strength 1."
        )
        return page_of(self, "Cutaway · control", f"Steering at {self.site}", sections, lead=lead)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        names = ("kind", "site", "norm", "on", "strengths", "prompts", "texts", "random_texts")
        return described(self, *names, "own", "fluency", "random_own", "random_fluency")

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
    announce(net, writer.rows[:16], work, "steering", writer.price(len(steps), 2 if control else 1))
    plain = writer.written(None)
    directions = [direction, *([direction.random(seed)] if control else [])]
    tables: list[Any] = []
    for number, each in enumerate(directions):
        said, own, fluency = [], [], []
        for s, strength in enumerate(steps):
            work.step("steering", number * len(steps) + s, len(directions) * len(steps))
            edit = each.add(strength) if strength else None

            def made(edit: Add | None = edit) -> dict[str, Any]:
                new = writer.written(edit) if edit is not None else plain
                losses = np.array([writer.loss(plain, edit), writer.loss(new, None)])
                return {"said": [net.decode(ids) for ids in new], "losses": losses}

            of = [each.vector, strength]
            kept = work.once("strength", made, dict, dict, lambda of=of: of)
            said.append(tuple(kept["said"]))
            own.append(kept["losses"][0])
            fluency.append(kept["losses"][1])
        tables.append((tuple(said), np.array(own), np.array(fluency)))
    if not control:
        tables.append(((), np.zeros((0, 0)), np.zeros((0, 0))))
    (said, own, fluency), (other, other_own, other_fluency) = tables
    origin = Provenance.of(net, digest(texts), seed, time.monotonic() - began)
    named = tuple(t if isinstance(t, str) else net.decode(list(t)) for t in texts)
    head = (direction.site, direction.norm, on, steps, named)
    return Steering(*head, said, other, own, fluency, other_own, other_fluency, origin)


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
