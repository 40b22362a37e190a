"""What causal tests are run on: prompts, where they are edited, where the output is read, and what is measured there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network.inputs import Tokens
from cutaway.network.memory import MOST_TOKENS, rows_at_once
from cutaway.network.run import Run
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import families
from cutaway.probes.reading.places import Cell, Places, columns
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: (logits [k v], numbers of the bed's rows [k]) -> [k]
Score = Callable[[Tensor, Tensor], Tensor]
Answers = Mapping[Any, str | int | Sequence[str] | Sequence[int]]


@dataclass(frozen=True, eq=False)
class Bed:
    """n prompts of two classes, on which it is tested what moving an activation does.

    Attributes:
        tokens: one row per prompt.
        edit, read: the row-relative positions that are edited and whose logits are read, LongTensor [n].
        classes: 0 or 1 [n].
        score: the metric; higher means more like class 1.
        clusters: which prompts belong together [n], for intervals.
        what: the metric in words.
    """

    tokens: Tokens
    edit: Tensor
    read: Tensor
    classes: Tensor
    score: Score
    clusters: tuple[Any, ...]
    what: str

    @property
    def n(self) -> int:
        """How many prompts."""
        return self.tokens.n

    @property
    def sign(self) -> Tensor:
        """+1 for class 1, -1 for class 0: [n]."""
        return 2.0 * self.classes.double() - 1

    def measured_by(self, score: Score, what: str) -> Bed:
        """The same prompts with another metric."""
        return replace(self, score=score, what=what)

    def take(self, rows: Tensor) -> Bed:
        """Some prompts only."""
        score = self.score

        def inner(logits: Tensor, numbers: Tensor) -> Tensor:
            return score(logits, rows[numbers])

        chosen = tuple(self.clusters[i] for i in rows.tolist())
        return replace(
            self, tokens=self.tokens[rows], edit=self.edit[rows], read=self.read[rows], classes=self.classes[rows],
            score=inner, clusters=chosen,
        )  # fmt: skip


def answer_score(net: Network, answers: Answers, classes: Sequence[str]) -> tuple[Score, str]:
    """Mean logit of class 1's answers minus that of class 0's. Answers are words (as they follow the prompt, with their
    space) or token ids, by class name or number. Raises `BadInput` where a class has none."""
    sets = []
    for number, name in enumerate(classes[:2]):
        given = answers.get(name, answers.get(number))
        if given is None:
            remedy = f"Give one for each of {', '.join(classes[:2])}."
            raise BadInput(f"There is no answer for the class {name!r}.", remedy)
        listed = [given] if isinstance(given, str | int) else list(given)
        sets.append(torch.tensor([a if isinstance(a, int) else net.to_single_token(a) for a in listed]))
    if set(sets[0].tolist()) == set(sets[1].tolist()):
        raise BadInput(
            f"The classes {classes[0]!r} and {classes[1]!r} have the same answers.",
            "Give words that tell them apart, or none: then the output's own contrast is measured.",
        )

    def score(logits: Tensor, _rows: Tensor) -> Tensor:
        low, high = (logits[:, s.to(logits.device)].float().mean(1) for s in sets)
        return high - low

    return score, "logit difference of the classes' answers"


def contrast_score(net: Network, bed: Bed) -> tuple[Score, str]:
    """The output's own contrast between the classes, found on these prompts: log probabilities projected on the
    difference of their class means, which has length one. For labels without answers."""
    logits = run(net, bed).float().log_softmax(-1)
    classes = bed.classes.to(logits.device)
    gap = logits[classes == 1].mean(0) - logits[classes == 0].mean(0)
    gap = gap / gap.norm().clamp(min=1e-12)

    def score(out: Tensor, _rows: Tensor) -> Tensor:
        return out.float().log_softmax(-1) @ gap.to(out.device)

    return score, "log probabilities along the difference of the classes' mean outputs"


def bed_of_data(net: Network, data: ProbeData, places: Places, cell: Cell, read: int | None = None) -> Bed:
    """The prompts of labelled examples; of several classes the first two, of values the lower and the upper half.

    read: row-relative position whose logits are read; default the last token (of a span, its last one). The score is not
    set: see `answer_score` and `contrast_score`.
    """
    if not data.of_tokens:
        raise BadInput("Causal tests need prompts of tokens.", "Probe texts or token ids.")
    chosen, two = data.two_classes()
    tokens = net.encode(data.inputs)  # type: ignore[arg-type]
    rows = np.asarray(data.rows)[chosen]
    prompts = tokens[torch.as_tensor(rows)]
    edit = columns(places.near(cell), data, prompts, np.arange(len(chosen)), chosen)[:, 0] - prompts.first
    last = edit if data.spans is not None else prompts.lengths - 1
    if read is not None:
        last = prompts.lengths + read if read < 0 else torch.full_like(prompts.lengths, read)
    if bool((last < edit).any()) and net.is_causal:
        what = f"The logits are read at position {read}, before the place that is edited."
        raise BadInput(what, "Read a later position.")
    clusters = tuple(families(data).of[chosen].tolist())
    return Bed(prompts, edit, last, torch.as_tensor(two), _unset, clusters, "")


def _unset(_logits: Tensor, _rows: Tensor) -> Tensor:
    raise BadInput("This bed has no score.", "Give answers, or use contrast_score.")


def bed_of_behaviour(
    net: Network, behaviour: Behaviour, pos: int | str, outputs: Callable[[Tokens, Tensor], Tensor]
) -> Bed:
    """A behaviour's clean and corrupted prompts, edited at a position or a named span's last token.

    outputs: the probe's output [2n] for prompts at positions, which says of which class each prompt is. The score is the
    behaviour's metric with the clean prompt's answers, turned so that class 1 is up.
    """
    behaviour.require_aligned("A causal test of a probe")
    n = behaviour.n
    tokens = net.encode([list(r) for r in (*behaviour.clean_ids, *behaviour.corrupted_ids)])
    if isinstance(pos, str):
        if pos not in behaviour.spans:
            there = ", ".join(behaviour.spans)
            raise BadInput(f"{behaviour.name!r} has no span {pos!r}.", f"It has {there}.")
        edit = torch.tensor([end - 1 for _, end in behaviour.spans[pos]]).repeat(2)
    else:
        edit = tokens.lengths + pos if pos < 0 else torch.full_like(tokens.lengths, pos)
    given = torch.tensor(behaviour.answer_pos).repeat(2)
    read = torch.where(given < 0, tokens.lengths + given, given)
    classes = (outputs(tokens, edit) > 0).long()
    answers, metric = behaviour.answers, behaviour.metric
    clusters: tuple[Any, ...] = behaviour.clusters or tuple(range(n))
    up = torch.where(classes[:n] == 1, 1.0, -1.0).repeat(2)
    if classes[:n].eq(classes[n:]).double().mean() > 0.5:
        raise BadInput(
            "The probe says of most pairs that both prompts are of one class, so there is nothing to exchange.",
            "Use a behaviour whose corruption changes what the probe is about, or another position.",
        )

    def score(logits: Tensor, rows: Tensor) -> Tensor:
        value = metric(logits, answers[rows % n])
        return value * up[rows].to(value) * (1.0 if metric.higher else -1.0)

    return Bed(tokens, edit, read, classes, score, clusters * 2, f"{metric.name} of {behaviour.name!r}")


def run(
    net: Network, bed: Bed, edits: Any = None, rows: Tensor | None = None, work: Work | None = None
) -> Tensor:
    """Logits [k v] at the read position of prompts `rows` [k], under edits made for them.

    edits: a function of the rows and of where they lie among `rows`, or None.
    """
    rows = torch.arange(bed.n) if rows is None else rows
    step, parts = rows_at_once(net, bed.tokens.width, work, most=MOST_TOKENS), []
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        chosen = [] if edits is None else edits(part, slice(start, start + len(part)))
        parts.append(logits_of(net, net.run(bed.tokens[part], edits=chosen, logits=bed.read[part][:, None])))
    return torch.cat(parts)


def logits_of(net: Network, run: Run) -> Tensor:
    """The logits [k v] that a run gave at one position. Raises `BadInput` for a network without any."""
    if run.logits is None:
        raise BadInput(f"{net.name} gives no logits.", "Causal tests need an output over tokens.")
    return run.logits[:, 0]
