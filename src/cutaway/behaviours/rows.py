"""From plain rows (dictionaries) to a behaviour: the one way in for every file format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours.conversations import is_conversation, spaced_answers, through_template
from cutaway.behaviours.data import Behaviour, Ids, Span, SplitBy
from cutaway.behaviours.examples import Example, assemble
from cutaway.behaviours.masked import in_place_of_mask, mask_of, mask_place
from cutaway.behaviours.metrics import METRICS, Metric
from cutaway.behaviours.tokenizing import continuation, encode, token_spans, tokenizer_of
from cutaway.behaviours.unpaired import is_unpaired, twinned
from cutaway.errors import BadBehaviour, BadFormat
from cutaway.network.items import answers_by_row, class_names
from cutaway.results.values import fits, in_words, short

if TYPE_CHECKING:
    from cutaway.network import Network

_ANSWERS = str | int | Sequence[str | int] | None
#: What a row may hold. A pandas frame has NaN where there is nothing.
_FITTING: dict[str, Any] = {
    "clean": str | Sequence[int], "corrupted": str | Sequence[int], "right": _ANSWERS, "wrong": _ANSWERS,
    "template": str | int | float | bool | None, "answer_pos": int, "spans": Mapping[str, Any] | None,
    "token_spans": Mapping[str, Any] | None, "clean_ids": Sequence[int] | None, "held": bool,
}  # fmt: skip
FIELDS = tuple(_FITTING)
#: A span by its tokens, or by its words: `[2, 3]`, `"Mary"`, `["Mary", 2]`.
_TOKENS, _FRAGMENT = tuple[int, int], str | tuple[str, int]


@dataclass(frozen=True)
class Header:
    """What a file says of all its rows.

    Attributes:
        name: of the behaviour.
        metric: how well an answer is given.
        seed: of the split.
        notes: what the reader should know.
        part: "all", "discovery" or "held-out".
        split_by: how the held-out rows were chosen.
        chat: are prompts what a user says, to go through the chat template? Prompts of messages always do.
        system: what the system says before them; None for the template's own.
        templated: did they go through it already?
        paired: is each corrupted prompt a clean one's twin, rather than another prompt of a plain list?
    """

    name: str
    metric: Metric = METRICS["logit_diff"]
    seed: int = 0
    notes: tuple[str, ...] = ()
    part: str = "all"
    split_by: SplitBy = "example"
    chat: bool = False
    system: str | None = None
    templated: bool = False
    paired: bool = True


Row = Mapping[str, Any]


def from_rows(
    net: Network, rows: Iterable[Row], header: Header, n: int | None = None, seed: int = 0, aligned: bool = False
) -> Behaviour:  # fmt: skip
    """A behaviour of rows with `clean`, `corrupted`, `right` and, if wished, the other fields of `FIELDS`.

    Prompts and answers are text, or token ids (`[5, 6]`; several answers are a list: `[" a", " b"]`, `[5, 6]`). With n, at
    most that many rows are drawn at random, kept in their order. Rows whose right and wrong answers begin with the same
    token here are left out, and with `aligned` those of unequal length; a note counts them. Raises BadFormat naming the row
    and field that is wrong, BadBehaviour when no row is left.
    """
    numbered = list(enumerate(rows, 1))
    if not numbered:
        raise BadBehaviour(f"{header.name!r} has no examples.", "Give at least one contrast pair.")
    chat = header.chat or any(is_conversation(row.get("clean")) for _, row in numbered)
    if chat:
        tokenizer_of(net, header.name)
        numbered = through_template(net, header.name, numbered, header.system)
    special, notes = not (chat or header.templated), []
    unpaired = is_unpaired(numbered)
    if unpaired:
        numbered, notes = twinned(net, header.name, numbered, seed, special)
    for number, row in numbered:
        _check(header.name, number, row)
    from_text = isinstance(numbered[0][1]["clean"], str)
    if any(isinstance(row[key], str) != from_text for _, row in numbered for key in ("clean", "corrupted")):
        raise BadFormat(f"{header.name!r} mixes prompts of text and of token ids.", "Use one kind.")
    if from_text:
        tokenizer_of(net, header.name)
    rows_of = dict(numbered)
    kept, more = _choose(net, numbered, header.name, n or len(numbered), seed, aligned, special)
    if chat and spaced_answers(numbered):
        notes.append(
            "All answers begin with a space, and the assistant begins a line: were they meant without it?"
        )
    examples = [example for _, example in kept]
    held = [bool(row["held"]) for row in (rows_of[number] for number, _ in kept) if "held" in row]
    complete = len(held) == len(examples)
    return assemble(
        header.name,
        examples,
        held=tuple(held) if complete else (),
        part=header.part,
        split_by=header.split_by,
        metric=header.metric,
        seed=header.seed if complete else seed,
        notes=(*header.notes, *(note for note in [*notes, *more] if note not in header.notes)),
        from_text=from_text,
        templated=not special,
        paired=header.paired and not unpaired,
    )


def _choose(
    net: Network,
    numbered: Sequence[tuple[int, Row]],
    name: str,
    n: int,
    seed: int,
    aligned: bool,
    special: bool,
) -> tuple[list[tuple[int, Example]], list[str]]:
    """At most n usable examples with their row numbers, in order, and notes on what was left out."""
    order = list(range(len(numbered)))
    if n < len(numbered):
        order = np.random.default_rng(seed).permutation(len(numbered)).tolist()
    kept: list[tuple[int, Example]] = []
    same = unequal = 0
    for start in range(0, len(order), n):
        for number, example in _examples(net, [numbered[i] for i in order[start : start + n]], name, special):
            if not example.tells:
                same += 1
            elif aligned and not example.aligned:
                unequal += 1
            elif len(kept) < n:
                kept.append((number, example))
        if len(kept) == n:
            break
    if not kept:
        raise BadBehaviour(
            f"No row of {name!r} can be used: in {same} answers begin with the same token, {unequal} are of "
            "unequal length.",
            "Use a tokenizer that tells the answers apart, or other pairs.",
        )
    longer = any(len(ids) > 1 for _, e in kept for _, ids in (*e.right, *e.wrong))
    notes = (
        (same, f"{same} rows were left out: their answers begin with the same token of this tokenizer."),
        (unequal, f"{unequal} rows were left out: clean and corrupted differ in length."),
        (longer, "Answers of several tokens are scored on their first token."),
    )
    return sorted(kept, key=lambda pair: pair[0]), [note for applies, note in notes if applies]


def _check(name: str, number: int, row: Mapping[str, Any]) -> None:
    """BadFormat when a row lacks a field, has an unknown one, or one of the wrong kind."""
    for key in ("clean", "corrupted", "right"):
        if key not in row:
            raise BadFormat(
                f"Row {number} of {name!r} has no {key!r} (it has {', '.join(map(repr, row)) or 'nothing'}).",
                f"The fields are {', '.join(FIELDS)}; the first three are needed.",
            )
    for key in ("clean", "corrupted"):
        value = row[key]
        ids = isinstance(value, (list, tuple)) and all(isinstance(i, int) and i >= 0 for i in value)
        if not (isinstance(value, str) or ids) or len(value) == 0:
            raise BadFormat(
                f"Row {number} of {name!r}: {key!r} is {value!r}.", "Give a text or a list of token ids."
            )
    if unknown := [key for key in row if key not in FIELDS]:
        raise BadFormat(
            f"Row {number} of {name!r} has the unknown field {unknown[0]!r}.", f"Use {', '.join(FIELDS)}."
        )
    for key, value in row.items():
        if not fits(value, _FITTING[key]) and value == value:
            raise _unfit(f"Row {number} of {name!r}: {key!r}", value, _FITTING[key])
    for key, hint in (("spans", _FRAGMENT), ("token_spans", _TOKENS)):
        for span, value in (row.get(key) or {}).items():
            if not fits(value, hint):
                raise _unfit(f"Row {number} of {name!r}: the span {span!r}", value, hint)


def _unfit(what: str, value: object, hint: Any) -> BadFormat:
    return BadFormat(f"{what} is {short(value)}.", f"Give {in_words(hint)}.")


def _examples(
    net: Network, chosen: Sequence[tuple[int, Row]], name: str, special: bool
) -> list[tuple[int, Example]]:
    """Rows as examples, with their numbers; `special`: does the tokenizer add special tokens to texts?"""
    from_text = isinstance(chosen[0][1]["clean"], str)
    prompts = {key: [row[key] for _, row in chosen] for key in ("clean", "corrupted")}
    ids = {k: encode(net, v, special) if from_text else [tuple(row) for row in v] for k, v in prompts.items()}
    classes = _classes(net, ids["clean"][0])
    examples = []
    for (number, row), clean, corrupted in zip(chosen, ids["clean"], ids["corrupted"], strict=True):
        where = f"Row {number} of {name!r}"
        masked = classes is None and from_text and mask_of(net, clean) is not None
        right, wrong = (
            _answers(net, where, row, side, from_text, classes, masked) for side in ("right", "wrong")
        )
        if {text for text, _ in right} & {text for text, _ in wrong}:
            raise BadBehaviour(
                f"{where} ({row['clean']!r}) has {right[0][0]!r} as right and as wrong answer.",
                "Give different answers.",
            )
        texts = [row[key] if from_text else " ".join(map(str, row[key])) for key in ("clean", "corrupted")]
        spans = _spans(net, where, row, clean)
        pos = row.get("answer_pos")
        if pos is None and classes is None:
            pos = mask_place(net, where, clean, corrupted)
        template, pos = str(row.get("template", "")), -1 if pos is None else int(pos)
        answers = {"right": tuple(right), "wrong": tuple(wrong)}
        example = Example(
            texts[0], texts[1], clean, corrupted, **answers, spans=spans, template=template, answer_pos=pos
        )
        examples.append((number, example))
    return examples


def _classes(net: Network, prompt: Ids) -> dict[str, str] | None:
    """Number -> name of a classifier's classes (no names where its configuration has none); None for other networks."""
    if not answers_by_row(net, net.encode([list(prompt)])):
        return None
    return {str(number): name for number, name in enumerate(class_names(net.config))}


def _answers(
    net: Network,
    where: str,
    row: Mapping[str, Any],
    key: str,
    from_text: bool,
    classes: Mapping[str, str] | None = None,
    masked: bool = False,
) -> list[tuple[str, Ids]]:
    """(text, tokens) of each right or wrong answer of a row; (name, number) of a classifier's classes.

    masked: does the answer stand in the place of a mask, rather than after the prompt?
    """
    value = row.get(key)
    if value is None or value != value:
        value = []
    answers: list[Any] = [value] if isinstance(value, (str, int)) else [*value]
    if key == "right" and not answers:
        raise BadBehaviour(f"{where} ({row['clean']!r}) has no right answer.", "Give at least one.")
    if all(isinstance(a, (int, np.integer)) for a in answers):
        if low := [a for a in answers if a < 0]:
            raise BadFormat(f"{where}: the {key} answer {low[0]} is no token.", "Count tokens from 0.")
        return [((classes or {}).get(str(a), str(a)), (int(a),)) for a in answers]
    if classes is not None:
        numbers = {name: int(number) for number, name in classes.items()}
        if unknown := [a for a in answers if a not in numbers]:
            raise BadBehaviour(
                f"{where}: {unknown[0]!r} is no class of this classifier.",
                f"Its classes are {', '.join(numbers)}."
                if numbers
                else "Its classes have no names: give numbers.",
            )
        return [(a, (numbers[a],)) for a in answers]
    if not from_text or not all(isinstance(a, str) for a in answers):
        raise BadFormat(f"{where}: {key!r} is {value!r}.", "Give texts (with prompts of text) or token ids.")
    answers = [str(a) for a in answers]
    if not all(answers):
        raise BadFormat(
            f"{where}: a {key} answer is empty.", "Give the text that follows the prompt, space included."
        )
    try:
        return [
            (a, in_place_of_mask(net, a) if masked else continuation(net, row["clean"], a)) for a in answers
        ]
    except BadBehaviour as error:
        raise BadBehaviour(f"{where}: {error.problem}", error.remedy) from error


def _spans(net: Network, where: str, row: Mapping[str, Any], ids: Ids) -> dict[str, Span]:
    """Token ranges: as given by `token_spans`, or of the fragments that `spans` names ("Mary", or ["Mary", 2])."""
    ranges: dict[str, Span] = {}
    if tuple(row.get("clean_ids") or ids) == ids:  # written with this tokenizer, or said to hold for any
        ranges = {name: (int(a), int(b)) for name, (a, b) in (row.get("token_spans") or {}).items()}
    chars: dict[str, Span] = {}
    for name, fragment in (row.get("spans") or {}).items():
        text, count = (fragment, 1) if isinstance(fragment, str) else fragment
        if count < 1:
            raise BadFormat(f"{where}: the span {name!r} is word number {count}.", "Count from 1.")
        start = -1
        for _ in range(count):
            start = row["clean"].find(text, start + 1) if isinstance(row["clean"], str) else -1
            if start < 0:
                raise BadFormat(
                    f"{where}: {text!r} does not stand {count} times in the clean prompt.",
                    "Name words of the prompt.",
                )
        chars[name] = (start, start + len(text))
    return ranges | (token_spans(net, row["clean"], ids, chars) if chars else {})
