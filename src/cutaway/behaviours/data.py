"""A behaviour: contrast pairs of prompts, answers that tell them apart, and a split that does not leak."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from cutaway.behaviours.metrics import METRICS, Answers, Metric, metric
from cutaway.errors import BadBehaviour, BadInput, TooLong

if TYPE_CHECKING:
    from cutaway.network import Network, Tokens

Ids = tuple[int, ...]
Span = tuple[int, int]
SplitBy = Literal["template", "example"]
_MIN_TEMPLATES = 4
#: Fields with one entry for each example.
_COLUMNS = (
    "clean", "corrupted", "clean_ids", "corrupted_ids", "right", "wrong", "right_full", "wrong_full", "right_text",
    "wrong_text", "answer_pos", "template", "held",
)  # fmt: skip

_WITHOUT_POSITIONS = (
    "Choose words of as many tokens, or patch the answer position alone: by='layer', or by=('layer', 'head')."
)


@dataclass(frozen=True, eq=False)
class ItemPairs:
    """The two sides of pairs whose prompts are not made of tokens, as the network is given them.

    Attributes:
        clean: [n ...], images [n c y x] for example.
        corrupted: of the same shape.
        what: what one of them is called ("image").
        classes: names of the classes in the order of the logits; empty where they have none.
    """

    clean: Tensor
    corrupted: Tensor
    what: str = "image"
    classes: tuple[str, ...] = ()

    def take(self, rows: Sequence[int]) -> ItemPairs:
        """These pairs only."""
        return replace(self, clean=self.clean[list(rows)], corrupted=self.corrupted[list(rows)])


@dataclass(frozen=True, eq=False)
class Behaviour:
    """n contrast pairs with their answers. Made by `behaviour(...)`, the generators and the readers.

    A prompt is a row of items: tokens, or what a network cuts another input into (`items`; an image's patches).

    Attributes:
        name: what it is called.
        clean: the prompts as text; names of images.
        corrupted: their twins, in which what decides the answer is another.
        clean_ids: the prompts as token ids, with the special tokens that the network is given, without padding; of other
            inputs one number that stands for the content.
        corrupted_ids: likewise of the twins.
        right: for each example the set of tokens (or classes) that count as the right answer: the first tokens of longer
            answers.
        wrong: likewise of wrong answers; may be empty.
        right_full: one whole right answer each.
        wrong_full: one whole wrong answer each.
        right_text: right answers as text.
        wrong_text: wrong answers as text.
        answer_pos: row-relative position whose logits are read (-1: the last token); a classifier has one answer for all.
        spans: for each name a half-open range of token positions in each clean prompt (and in the corrupted one where
            they are aligned).
        template: label of the examples that share a frame, the clusters of intervals.
        held: which examples are held out.
        split_by: were they chosen by template or by example?
        part: "all", "discovery" or "held-out".
        metric: how well an answer is given.
        seed: of the drawing and of the split.
        notes: what the reader should know: pairs left out, answers cut.
        from_text: were the ids made from the text?
        items: the inputs themselves, where prompts are not made of tokens.
        paired: are corrupted prompts twins of the clean ones, so that activations may be exchanged between them? In a plain
            list of prompts they are other prompts of the list.
        templated: do the texts hold all special tokens already, as a chat template writes them?

    Raises BadBehaviour when it is empty, a pair is no contrast, answers are missing or equal, or a span or
    position lies outside its prompt.
    """

    name: str
    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    clean_ids: tuple[Ids, ...]
    corrupted_ids: tuple[Ids, ...]
    right: tuple[Ids, ...]
    wrong: tuple[Ids, ...]
    right_full: tuple[Ids, ...] = ()
    wrong_full: tuple[Ids, ...] = ()
    right_text: tuple[tuple[str, ...], ...] = ()
    wrong_text: tuple[tuple[str, ...], ...] = ()
    answer_pos: tuple[int, ...] = ()
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    template: tuple[str, ...] = ()
    held: tuple[bool, ...] = ()
    split_by: SplitBy = "example"
    part: str = "all"
    metric: Metric = METRICS["logit_diff"]
    seed: int = 0
    notes: tuple[str, ...] = ()
    from_text: bool = True
    items: ItemPairs | None = None
    templated: bool = False
    paired: bool = True

    def __post_init__(self) -> None:
        n = len(self.clean_ids)
        if n == 0:
            raise BadBehaviour(
                f"The behaviour {self.name!r} has no examples.", "Give at least one contrast pair."
            )
        defaults: dict[str, tuple[Any, ...]] = {
            "right_full": tuple(r[:1] for r in self.right),
            "wrong_full": tuple(w[:1] for w in self.wrong),
            "right_text": tuple(tuple(map(str, r)) for r in self.right),
            "wrong_text": tuple(tuple(map(str, w)) for w in self.wrong),
            "answer_pos": (-1,) * n,
            "template": ("",) * n,
        }
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        self._check_lengths(n)
        for row in range(n):
            self._check_row(row)
        if not self.held:
            held, by = assign_split(self, self.seed)
            object.__setattr__(self, "held", held)
            object.__setattr__(self, "split_by", by)

    def _check_lengths(self, n: int) -> None:
        columns = {name: getattr(self, name) for name in _COLUMNS if name != "held" or self.held}
        for name, column in (columns | dict(self.spans)).items():
            if len(column) != n:
                raise BadBehaviour(
                    f"{self.name!r} has {n} clean prompts but {len(column)} entries of {name}.",
                    "Give one for each example.",
                )

    def _check_row(self, row: int) -> None:
        clean, corrupted = self.clean_ids[row], self.corrupted_ids[row]
        where = f"Example {row} of {self.name!r} ({self.clean[row]!r})"
        if not clean or not corrupted:
            raise BadBehaviour(f"{where} has an empty prompt.", "Give a clean and a corrupted prompt.")
        if clean == corrupted:
            raise BadBehaviour(
                f"{where} has equal clean and corrupted prompts.", "Change what decides the answer."
            )
        if not self.right[row]:
            raise BadBehaviour(f"{where} has no right answer.", "Give at least one.")
        if both := set(self.right[row]) & set(self.wrong[row]):
            raise BadBehaviour(
                f"{where}: right answers {listed(self.right_text[row])} and wrong answers "
                f"{listed(self.wrong_text[row])} share token {sorted(both)[0]}.",
                "Choose answers that begin with different tokens.",
            )
        shortest = min(len(clean), len(corrupted))
        if not -shortest <= self.answer_pos[row] < shortest:
            raise BadBehaviour(
                f"{where}: the answer position {self.answer_pos[row]} lies outside its {shortest} tokens.",
                "Use -1 for the last token.",
            )
        for name, column in self.spans.items():
            start, end = column[row]
            if not 0 <= start < end <= len(clean):
                raise BadBehaviour(
                    f"{where}: the span {name!r} {start}:{end} lies outside its {len(clean)} tokens.",
                    "Give half-open token ranges counted from the first token.",
                )

    @property
    def n(self) -> int:
        """How many examples."""
        return len(self.clean_ids)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: int | slice | Sequence[int]) -> Behaviour:
        index = [rows] if isinstance(rows, int) else range(self.n)[rows] if isinstance(rows, slice) else rows
        return self.take(index)

    def take(self, rows: Sequence[int], part: str | None = None) -> Behaviour:
        """These examples only; BadBehaviour when there are none."""
        columns = {name: tuple(getattr(self, name)[i] for i in rows) for name in _COLUMNS}
        spans = {name: tuple(column[i] for i in rows) for name, column in self.spans.items()}
        items = None if self.items is None else self.items.take(rows)
        return replace(self, **columns, spans=spans, part=part or self.part, items=items)

    @property
    def discovery(self) -> Behaviour:
        """The examples that a mechanism may be looked for on."""
        return self._half(False)

    @property
    def held_out(self) -> Behaviour:
        """The examples that a mechanism is tested on; nothing of them is in `discovery`."""
        return self._half(True)

    def _half(self, held: bool) -> Behaviour:
        part = "held-out" if held else "discovery"
        if self.part == part:
            return self
        rows = [i for i, h in enumerate(self.held) if h == held]
        if self.part != "all" or not rows:
            raise BadBehaviour(
                f"{self.name!r} ({self.part}, {self.n} examples) has no {part} examples.",
                "Split the whole behaviour, with at least two examples that share no prompt.",
            )
        return self.take(rows, part)

    def split(self, by: SplitBy, share: float = 0.5, seed: int | None = None) -> Behaviour:
        """The same examples split anew, by template or by example."""
        seed = self.seed if seed is None else seed
        held, by = assign_split(self, seed, by, share)
        return replace(self, held=held, split_by=by)

    @property
    def clusters(self) -> tuple[str, ...] | None:
        """Clusters of intervals: the templates, or None when there are fewer than four of them."""
        return self.template if len(set(self.template)) >= _MIN_TEMPLATES else None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each clean prompt."""
        return tuple(len(ids) for ids in self.clean_ids)

    @property
    def aligned(self) -> bool:
        """Has each corrupted prompt as many tokens as its clean one?"""
        return not self._unequal

    @property
    def _unequal(self) -> list[int]:
        """The pairs of unequal length."""
        pairs = zip(self.clean_ids, self.corrupted_ids, strict=True)
        return [row for row, (clean, corrupted) in enumerate(pairs) if len(clean) != len(corrupted)]

    @property
    def single_token(self) -> bool:
        """Is every answer one token, so that the first token tells it all?"""
        return all(len(a) <= 1 for a in (*self.right_full, *self.wrong_full))

    def require_aligned(self, method: str) -> None:
        """BadBehaviour, naming the first pair of unequal length, when there is one, and for a plain list of prompts."""
        self.require_pairs(method)
        for row in self._unequal[:1]:
            raise BadBehaviour(
                f"{method} needs pairs of equal length, but example {row} of {self.name!r} has "
                f"{len(self.clean_ids[row])} clean and {len(self.corrupted_ids[row])} corrupted tokens "
                f"({self.clean[row]!r} / {self.corrupted[row]!r}).",
                _WITHOUT_POSITIONS
                if self.n == 1 and method.startswith("A sweep")
                else "Choose words of as many tokens."
                if self.n == 1
                else "Choose words of as many tokens, or drop such pairs with behaviour.only_aligned().",
            )

    def require_pairs(self, method: str) -> None:
        """BadBehaviour where this is a plain list of prompts, between which nothing can be exchanged."""
        if not self.paired:
            raise BadBehaviour(
                f"{method} needs contrast pairs, and {self.name!r} is a plain list of prompts.",
                "Give each prompt its twin ('corrupted'), or use what needs none: cutaway.ablate with by=['layer', 'head'].",
            )

    def only_aligned(self) -> Behaviour:
        """The pairs of equal length, with a note how many were dropped; BadBehaviour when none is left."""
        if not (unequal := set(self._unequal)):
            return self
        rows = [row for row in range(self.n) if row not in unequal]
        note = f"{len(unequal)} of {self.n} pairs were dropped: clean and corrupted differ in length."
        return replace(self.take(rows), notes=(*self.notes, note))

    def with_metric(self, which: str | Metric | Callable[[Tensor, Answers], Tensor]) -> Behaviour:
        """The same behaviour measured otherwise."""
        return replace(self, metric=metric(which))

    @property
    def answers(self) -> Answers:
        """The answers as tensors, as metrics take them."""
        return Answers.of(self.right, self.wrong)

    def clean_tokens(self, net: Network) -> Tokens:
        """The clean prompts as a padded batch; TooLong or BadBehaviour when they do not fit."""
        return self._tokens(net, self.clean_ids, None if self.items is None else self.items.clean)

    def corrupted_tokens(self, net: Network) -> Tokens:
        """The corrupted prompts as a padded batch; TooLong or BadBehaviour when they do not fit."""
        return self._tokens(net, self.corrupted_ids, None if self.items is None else self.items.corrupted)

    def _tokens(self, net: Network, rows: tuple[Ids, ...], values: Tensor | None) -> Tokens:
        if values is not None:
            return net.encode(values)
        check_fits(net, self.name, rows)
        return net.encode([list(ids) for ids in rows])

    @property
    def hash(self) -> str:
        """Identity of the examples, answers, spans, split and metric (not of the notes): 16 hexadecimal digits."""
        data = [
            self.name, self.clean_ids, self.corrupted_ids, self.right, self.wrong, self.right_full,
            self.wrong_full, self.answer_pos, sorted(self.spans.items()), self.template, self.held, self.part,
            self.metric.name, *(() if self.paired else ("unpaired",)),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        held = sum(self.held)
        lines = [
            f"{self.name}: {self.n} pairs ({self.part}), {self.n - held} discovery / {held} held out "
            f"by {self.split_by}, {len(set(self.template))} templates, {self.metric.name}, "
            f"{'aligned' if self.aligned else 'not aligned'}"
        ]
        for row in range(min(2, self.n)):
            lines.append(
                f"  {self.clean[row]!r} -> {listed(self.right_text[row])}, not {listed(self.wrong_text[row])}"
            )
            lines.append(f"  {self.corrupted[row]!r} (corrupted)")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "<tr><th>clean</th><th>corrupted</th><th>right</th><th>wrong</th></tr>"
        answers = ([listed(t) for t in column] for column in (self.right_text, self.wrong_text))
        columns = (self.clean, self.corrupted, *answers)
        cells = (
            (f"<td style='text-align:left'>{html.escape(c[i])}</td>" for c in columns)
            for i in range(min(5, self.n))
        )
        rows = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
        return f"<p>{html.escape(str(self).splitlines()[0])}</p><table>{head}{rows}</table>"


def listed(answers: Sequence[str]) -> str:
    """Answers as a reader wants them: each of a few, the ends of many.

    >>> listed([" Mary"])
    "' Mary'"
    """
    if len(answers) <= 3:
        return " | ".join(map(repr, answers)) or "(none)"
    return f"{answers[0]!r} ... {answers[-1]!r} ({len(answers)} of them)"


def check_fits(net: Network, name: str, rows: Sequence[Ids]) -> None:
    """TooLong when a prompt exceeds the network's context, BadBehaviour when a token is not in its vocabulary."""
    longest = max(range(len(rows)), key=lambda i: len(rows[i]))
    if net.n_ctx is not None and len(rows[longest]) > net.n_ctx:
        raise TooLong(
            f"Example {longest} of {name!r} has {len(rows[longest])} tokens; the network reads {net.n_ctx}.",
            "Shorten the prompt.",
        )
    largest = max(max(ids) for ids in rows)
    if net.d_vocab_in is not None and largest >= net.d_vocab_in:
        raise BadBehaviour(
            f"{name!r} uses token {largest}, and the network's vocabulary ends at {net.d_vocab_in - 1}.",
            "Make the behaviour anew for this network.",
        )


def _families(behaviour: Behaviour) -> list[list[int]]:
    """The examples in groups that share no prompt with each other (clean or corrupted)."""
    parent = list(range(behaviour.n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[Ids, int] = {}
    for row in range(behaviour.n):
        for ids in (behaviour.clean_ids[row], behaviour.corrupted_ids[row]):
            parent[root(row)] = root(seen.setdefault(ids, row))
    groups: dict[int, list[int]] = {}
    for row in range(behaviour.n):
        groups.setdefault(root(row), []).append(row)
    return list(groups.values())


def assign_split(
    behaviour: Behaviour, seed: int, by: SplitBy | None = None, share: float = 0.5
) -> tuple[tuple[bool, ...], SplitBy]:
    """Which examples are held out, and by what. Nothing that is held out has a prompt in common with the rest.

    By template (whole frames are held out) when there are at least four of them, which asks the mechanism to carry over to
    sentences of another form; else by example.
    """
    if not 0 < share < 1:
        raise BadInput(
            f"The share {share} to hold out is not between 0 and 1.", "Use 0.5 for half of the examples."
        )
    if by not in (None, "template", "example"):
        raise BadInput(f"A behaviour cannot be split by {by!r}.", "Split it by 'template' or by 'example'.")
    templates = sorted(set(behaviour.template))
    by = by or ("template" if len(templates) >= _MIN_TEMPLATES else "example")
    families = _families(behaviour)
    if by == "template":
        if len(templates) < 2:
            raise BadBehaviour(f"{behaviour.name!r} has one template only.", "Split it by example.")
        families = _merged(families, behaviour.template)
    order = np.random.default_rng(seed).permutation(len(families))
    held = [False] * behaviour.n
    wanted, taken = round(share * behaviour.n), 0
    for index in order:
        rows = families[index]
        if taken + len(rows) / 2 <= wanted and taken + len(rows) < behaviour.n:
            taken += len(rows)
            for row in rows:
                held[row] = True
    return tuple(held), by


def _merged(families: list[list[int]], template: tuple[str, ...]) -> list[list[int]]:
    """Groups that share neither a prompt nor a template."""
    groups: list[tuple[set[str], list[int]]] = []
    for rows in families:
        labels = {template[r] for r in rows}
        touching = [g for g in groups if g[0] & labels]
        groups = [g for g in groups if not g[0] & labels]
        groups.append((labels.union(*(g[0] for g in touching)), sum((g[1] for g in touching), []) + rows))
    return [sorted(rows) for _, rows in groups]
