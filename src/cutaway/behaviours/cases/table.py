"""Cases as they are: a table with a row for each prompt, and a column for each variable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.cases.case import (
    LAST,
    Case,
    Function,
    Value,
    is_value,
    parameters,
    plain,
    with_derived,
)
from cutaway.behaviours.cases.collection import Cases
from cutaway.behaviours.cases.making import noted, require_names
from cutaway.behaviours.data import Ids, Span
from cutaway.behaviours.examples import Answer
from cutaway.behaviours.tokenizing import continuation, encode, token_spans
from cutaway.errors import BadBehaviour, BadInput, did_you_mean
from cutaway.results import listed, strict

if TYPE_CHECKING:
    from cutaway.network import Network

#: Columns that are no variables.
COLUMNS = ("text", "answer", "spans", "template", "answer_pos")
_GIVE = "Give rows with a text, an answer, and the value of each variable."


@strict
def cases_from(
    net: Network,
    table: Any,
    *,
    derived: Mapping[str, Any] | Sequence[str] = (),
    name: str = "cases",
    seed: int = 0,
) -> Cases:
    """Cases of a table: one row for each prompt.

    Args:
        net: the network.
        table: a pandas frame, or a list of rows by column. `text` is the prompt, or a list of its token ids; `answer` the
            text that follows, or several that are all right (token ids behind token ids). Every further column is a
            variable, but these: `spans`, by name the words of the prompt ("Mary", or ["Mary", 2] for the second of them), or
            of token ids a half-open range [start, stop]; `template`, a label of prompts of one form; `answer_pos`, whose
            logits are read. A value that is a text and stands as words, once in every prompt, is a span of the
            variable's name.
        derived: variables that are computed from others: by name a function of variables, or the names of such columns.
        name: what they are called.
        seed: of the division into halves.

    Raises:
        BadInput: for what is no table of such rows; a value that is no text or number; words that are not in the prompt.
        BadBehaviour: for an answer that has no token of its own behind its prompt, or a function that fails.

    >>> import cutaway
    >>> net = cutaway.open("zoo:tales")
    >>> rows = [{"text": f"{a} was sad because", "answer": f" {b}", "name": a} for a, b in (("Lily", "she"), ("Tom", "he"))]
    >>> made = cases_from(net, rows)
    >>> made.variables, made.cases[0].spans["name"], made.cases[0].answers[0][0]
    (('name',), (1, 2), ' she')
    """
    rows = _rows(table)
    functions: dict[str, Function] = {}
    named: tuple[str, ...] = ()
    if isinstance(derived, Mapping):
        functions = dict(derived)
    else:
        named = (derived,) if isinstance(derived, str) else tuple(derived)
    columns = [c for c in rows[0] if c not in COLUMNS]
    require_names((*columns, *functions))
    if not columns:
        raise BadInput("The table has no variable.", _GIVE)
    _require_derived(functions, named, columns)
    spoken = {name for name in columns if all(_stands(row["text"], row[name]) for row in rows)}
    made = [_Row(net, i, row, columns, functions, spoken).case() for i, row in enumerate(rows)]
    prompts: dict[tuple[Ids, Any], Case] = {}
    for case in made:
        prompts.setdefault((case.ids, tuple(sorted(case.values.items()))), case)
    more = len(made) - len(prompts)
    notes = (f"{more} rows say what another row says: left out.",) if more else ()
    from_text = isinstance(rows[0]["text"], str)
    found = tuple(prompts.values())
    return noted(Cases(name, found, None, seed, notes, (*named, *functions), from_text=from_text))


def _rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a table. Raises `BadInput` where there are none, or they differ in their columns."""
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        table = table.to_dict("records")
    if isinstance(table, str | bytes | Mapping) or not isinstance(table, Iterable):
        raise BadInput(f"{table!r:.60} is no table.", _GIVE)
    rows = listed(table, "The rows of a table")
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise BadInput("The table has no rows." if not rows else f"{rows[0]!r:.60} is no row.", _GIVE)
    for number, row in enumerate(rows):
        for column in ("text", "answer"):
            if column not in row:
                raise BadInput(f"Row {number} has no {column!r}.", _GIVE)
        if set(row) != set(rows[0]):
            other = sorted(map(str, set(row) ^ set(rows[0])))[0]
            raise BadInput(
                f"Row {number} and row 0 do not both have {other!r:.40}.", "Give every row the same columns."
            )
        if isinstance(row["text"], str) != isinstance(rows[0]["text"], str):
            raise BadInput("Some prompts are texts and others are not.", "Give texts, or token ids of each.")
    return [dict(row) for row in rows]


def _require_derived(functions: Mapping[str, Function], named: Sequence[str], columns: Sequence[str]) -> None:
    for name in named:
        if name not in columns:
            raise BadInput(f"The table has no column {name!r:.60}.", did_you_mean(name, columns))
    known = [*columns]
    for name, function in functions.items():
        if name in columns:
            raise BadInput(f"{name!r} is a column, and a function beside it.", "Leave one of them out.")
        if not callable(function):
            raise BadInput(f"{name!r} is {function!r:.60}.", "Give a function of variables.")
        for read in parameters(function, f"the variable {name!r}"):
            if read not in known:
                raise BadInput(
                    f"The variable {name!r} reads {read!r:.60}, which is no variable before it.",
                    did_you_mean(read, known),
                )
        known.append(name)


def _stands(text: Any, value: Any) -> tuple[int, int] | None:
    """The characters of a value that is a text and stands in the prompt as words, once; None where it does not."""
    if not isinstance(text, str) or not isinstance(value, str) or not value.strip():
        return None
    hits = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text)]
    return hits[0] if len(hits) == 1 else None


class _Row:
    """One row on its way into a case."""

    def __init__(
        self, net: Network, number: int, row: Mapping[str, Any], columns: Sequence[str], functions: Mapping[str, Function],
        spoken: set[str],
    ) -> None:  # fmt: skip
        self.net, self.row, self.where = net, row, f"Row {number}"
        self.columns, self.functions, self.spoken = columns, functions, spoken

    def case(self) -> Case:
        """The case of this row."""
        values = with_derived({name: self._value(name) for name in self.columns}, self.functions)
        text = self.row["text"]
        if isinstance(text, str):
            ids = encode(self.net, [text])[0]
            answers = self._answers(str, lambda a: (a, continuation(self.net, text, a)))
            spans = self._word_spans(text, ids, values)
        else:
            ids = self._ids(text)
            answers = self._answers(int, lambda a: (str(a), (int(a),)))
            spans, text = self._token_spans(ids), " ".join(map(str, ids))
        at = plain(self.row.get("answer_pos", -1))
        if not isinstance(at, int) or isinstance(at, bool) or not -len(ids) <= at < len(ids):
            raise BadInput(
                f"{self.where} has answer_pos {at!r:.40}, of {len(ids)} tokens.", "Use -1 for the last one."
            )
        last = at % len(ids)
        template = str(self.row.get("template", ""))
        return Case(text, ids, values, answers, spans | {LAST: (last, last + 1)}, template, at)

    def _value(self, name: str) -> Value:
        value = plain(self.row[name])
        if not is_value(value) or value != value:
            raise BadInput(
                f"{self.where} has {name} = {value!r:.60}.",
                "Give a text, a number, True or False in each row.",
            )
        return value

    def _answers(self, kind: type, made: Any) -> tuple[Answer, ...]:
        given = plain(self.row["answer"])
        many = [given] if isinstance(given, str | int) else list(given) if isinstance(given, Iterable) else []
        many = [plain(answer) for answer in many]
        if not many or not all(isinstance(a, kind) and not isinstance(a, bool) and a != "" for a in many):
            what = "a text" if kind is str else "a token id"
            raise BadInput(
                f"{self.where} has the answer {given!r:.60}.", f"Give {what} that follows, or several."
            )
        return tuple(made(answer) for answer in dict.fromkeys(many))

    def _ids(self, given: Any) -> Ids:
        ids = [plain(i) for i in given] if isinstance(given, Iterable) else []
        if not ids or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            raise BadInput(
                f"{self.where} has the prompt {given!r:.60}.", "Give a text, or a list of token ids."
            )
        return tuple(ids)

    def _named(self) -> Mapping[str, Any]:
        given = self.row.get("spans")
        given = {} if given is None or given != given else given
        if not isinstance(given, Mapping):
            raise BadInput(f"{self.where} has spans {given!r:.60}.", 'Give e.g. {"name": "Mary"}.')
        return given

    def _word_spans(self, text: str, ids: Ids, values: Mapping[str, Value]) -> dict[str, Span]:
        chars: dict[str, Span] = {}
        for name in values:
            if name in self.spoken and (span := _stands(text, self.row[name])):
                chars[name] = span
        for name, given in self._named().items():
            words, count = (given, 1) if isinstance(given, str) else _counted(given)
            found = [m.span() for m in re.finditer(re.escape(words), text)] if words else []
            if not 1 <= count <= len(found):
                raise BadInput(
                    f"{self.where}: {given!r:.60} is not found in {text!r:.80}.", "Name words of the prompt."
                )
            chars[str(name)] = found[count - 1]
        try:
            return token_spans(self.net, text, ids, chars)
        except BadBehaviour as error:
            raise BadBehaviour(f"{self.where}: {error.problem}", error.remedy) from error

    def _token_spans(self, ids: Ids) -> dict[str, Span]:
        spans: dict[str, Span] = {}
        for name, given in self._named().items():
            ends = (
                [plain(i) for i in given]
                if isinstance(given, Sequence) and not isinstance(given, str)
                else []
            )
            if (
                len(ends) != 2
                or not all(isinstance(i, int) for i in ends)
                or not 0 <= ends[0] < ends[1] <= len(ids)
            ):
                raise BadInput(
                    f"{self.where} has the span {name!r:.40} {given!r:.40}, of {len(ids)} tokens.",
                    "Give a half-open range of tokens, [start, stop].",
                )
            spans[str(name)] = (ends[0], ends[1])
        return spans


def _counted(given: Any) -> tuple[str, int]:
    """Words and which of them is meant; nothing where it is neither."""
    if (
        isinstance(given, Sequence)
        and len(given) == 2
        and isinstance(given[0], str)
        and isinstance(given[1], int)
    ):
        return given[0], given[1]
    return "", 0
