"""From what is asked about (a behaviour, cases, a text) to prompts with a metric, spans, and exchanges of variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours import GENERATORS, METRICS, Answers, Behaviour, Metric
from cutaway.behaviours import behaviour as make_behaviour
from cutaway.behaviours.cases import Case, Cases
from cutaway.behaviours.data import Ids, Span
from cutaway.errors import BadBehaviour, BadInput

if TYPE_CHECKING:
    from cutaway.network import Network

#: What a text's prompt is measured by: the logit of one token.
_LOGIT = Metric(
    "logit", lambda logits, answers: logits.gather(1, answers.right)[:, 0], "right", True, "logits", few=True
)
#: With fewer templates intervals are over single prompts.
_TEMPLATES = 4


@dataclass(frozen=True, eq=False)
class InputRows:
    """Prompts whose tokens are weighed, and what is measured on them.

    Attributes:
        name: what they are called.
        ids: tokens of each prompt.
        answer_pos: whose logits are read.
        answers: right and wrong tokens of each.
        metric: of the logits there and the answers.
        spans: named ranges of tokens, which every prompt has.
        templates: of each prompt.
        others: the corrupted prompts; None where there are none.
        of: identity of the prompts and answers.
    """

    name: str
    ids: tuple[Ids, ...]
    answer_pos: tuple[int, ...]
    answers: Answers
    metric: Metric
    spans: Mapping[str, tuple[Span, ...]]
    templates: tuple[str, ...]
    others: tuple[Ids, ...] | None = None
    of: str = ""

    def score(self, logits: Tensor, index: Tensor) -> Tensor:
        """The metric [k] of logits [k v] of the prompts `index` [k]."""
        return self.metric(logits, self.answers[index])

    @property
    def clusters(self) -> tuple[str, ...] | None:
        """What intervals draw together; None for single prompts."""
        return self.templates if len(set(self.templates)) >= _TEMPLATES else None

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt."""
        return [len(ids) for ids in self.ids]


@dataclass(frozen=True, eq=False)
class InputExchanges:
    """Prompts in which one variable is another, and all else stays.

    Attributes:
        variables: names.
        others: for each variable and prompt the tokens of the other prompt, which has as many; None where there is none.
    """

    variables: tuple[str, ...] = ()
    others: tuple[tuple[Ids | None, ...], ...] = ()

    @property
    def count(self) -> int:
        """How many prompts these are."""
        return sum(other is not None for one in self.others for other in one)

    def changed(self, ids: Sequence[Ids]) -> np.ndarray:
        """Which tokens each exchange changes: bool [v n t]."""
        found = np.zeros((len(self.variables), len(ids), max(map(len, ids))), bool)
        for v, one in enumerate(self.others):
            for row, other in enumerate(one):
                if other is not None:
                    found[v, row, : len(other)] = np.not_equal(ids[row], other)
        return found


@dataclass(frozen=True, eq=False)
class InputQuestion:
    """All that is asked.

    Attributes:
        rows: the prompts.
        exchanges: of variables; none where these are not known.
        notes: what was left out.
    """

    rows: InputRows
    exchanges: InputExchanges = field(default_factory=InputExchanges)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, net: Network, given: Any, target: Any, foil: Any, n: int, seed: int) -> InputQuestion:
        """From a behaviour or its name, cases, or a text or several.

        Raises `BadInput` for what is none of these and for targets beside answers, `BadBehaviour` where no prompt is left.
        """
        if isinstance(given, str) and (given in GENERATORS or given.startswith("zoo:")):
            given = make_behaviour(given, net, n=n, seed=seed)
        if isinstance(given, Cases | Behaviour) and not (target is None and foil is None):
            raise BadInput(
                f"{given.name!r} has answers of its own, and a target or a foil was given beside them.",
                "Give these with a text only.",
            )
        if isinstance(given, Cases):
            return _of_cases(net, given, n, seed)
        if isinstance(given, Behaviour):
            return _of_behaviour(net, given, n)
        if isinstance(given, str) and not given.strip():
            raise BadInput("The text is empty.", "Give a prompt, a behaviour or cases.")
        rows = _texts(net, given)
        return cls(_with_targets(net, rows, target, foil))


def _texts(net: Network, given: Any) -> tuple[Ids, ...]:
    """Tokens of one text or several, or of rows of tokens."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, str | Sequence) or isinstance(given, bytes) or not given:
        raise BadInput(
            f"{given!r:.60} is no question.", "Give cases, a behaviour, a text, or a list of texts."
        )
    if not isinstance(given, str) and isinstance(given[0], int):
        given = [given]
    return tuple(tuple(ids) for ids in net.tokens_of(given))


def _with_targets(net: Network, ids: tuple[Ids, ...], target: Any, foil: Any) -> InputRows:
    """Prompts with the token whose logit is explained: the network's own likeliest where none is named."""
    if foil is not None and target is None:
        raise BadInput("A foil was given without a target.", 'Write target=" Mary", foil=" John".')
    wrong = [] if foil is None else [_token(net, foil)]
    if target is None:
        run = net.run([list(row) for row in ids], logits=torch.full((len(ids), 1), -1))
        assert run.logits is not None
        right = [[int(token)] for token in run.logits[:, 0].argmax(-1)]
        told = "the likeliest next token"
    else:
        right = [[_token(net, target)]] * len(ids)
        if wrong == right[0]:
            raise BadInput(f"Target and foil are the same: {target!r:.40}.", "Give two different tokens.")
        told = repr(net.token_strings(right[0])[0])
    metric = METRICS["logit_diff"] if wrong else _LOGIT
    name = f"the logit of {told}" + (f" over {net.token_strings(wrong)[0]!r}" if wrong else "")
    answers = Answers.of(right, [wrong] * len(ids))
    return InputRows(
        name, ids, (-1,) * len(ids), answers, metric, {}, ("",) * len(ids), None, repr((ids, right, wrong))
    )


def _token(net: Network, token: Any) -> int:
    if isinstance(token, str):
        return net.to_single_token(token)
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < (net.d_vocab or 0):
        raise BadInput(f"{token!r:.40} is no token.", "Give a word with its space, or a token id.")
    return token


def _of_behaviour(net: Network, given: Behaviour, n: int) -> InputQuestion:
    if given.items is not None:
        raise BadInput(f"{given.name!r} is made of {given.items.what}s.", "Give prompts of tokens.")
    if given.metric.needs == "reference":
        raise BadBehaviour(
            f"{given.metric.name} compares with the prompts' own logits, so that nothing adds to it.",
            "Use a metric of the answers: behaviour.with_metric('logit_diff').",
        )
    some = given if given.n <= n else given.take(np.linspace(0, given.n - 1, n).round().astype(int).tolist())
    others = some.corrupted_ids if some.paired else None
    some.clean_tokens(net)  # says what does not fit
    rows = InputRows(
        some.name, some.clean_ids, some.answer_pos, some.answers, some.metric, dict(some.spans), some.template, others,
        some.hash,
    )  # fmt: skip
    return InputQuestion(rows, notes=tuple(some.notes))


def _of_cases(net: Network, given: Cases, n: int, seed: int) -> InputQuestion:
    """At most n cases, the exchange of each free variable in each; wrong answers are those that an exchange makes right."""
    drawn = np.sort(np.random.default_rng([seed, 51]).permutation(len(given))[:n])
    chosen = given.take([int(i) for i in drawn])
    pool = chosen if given.frames is not None else given
    notes, found = list(given.notes), dict[str, dict[int, Case]]()
    for number, variable in enumerate(given.free):
        if variable in given.steady and given.frames is None:
            continue
        try:
            pairs = pool.changed(net, variable, n=3 * len(pool), seed=seed + number)
        except BadBehaviour as error:
            notes.append(f"{error.problem} It is not exchanged.")
            continue
        others: dict[int, Case] = {}
        for case, other in pairs:
            others.setdefault(id(case), other)
        found[variable] = others
    kept, right, wrong = [], [], []
    for case in chosen:
        mine = _first(case)
        against = sorted(
            {t for others in found.values() if id(case) in others for t in _first(others[id(case)])}
            - set(mine)
        )
        if against:
            kept.append(case)
            right.append(mine)
            wrong.append(against)
    if not kept:
        raise BadBehaviour(
            f"No exchange of a variable of {given.name!r} changes the answer's first token.",
            "Give prompts in which one does.",
        )
    if len(kept) < len(chosen):
        notes.append(f"{len(chosen) - len(kept)} prompts are left out: no exchange changes their answer.")
    named = {tuple(case.spans[span] for case in kept): span for span in given.spans}  # of equal ones the last
    spans = {span: ranges for ranges, span in named.items()}
    rows = InputRows(
        given.name, tuple(case.ids for case in kept), tuple(case.answer_pos for case in kept), Answers.of(right, wrong),
        METRICS["logit_diff"], spans, tuple(case.template for case in kept), None, given.take(drawn.tolist()).hash,
    )  # fmt: skip
    exchanged = tuple(
        tuple(None if id(case) not in one else one[id(case)].ids for case in kept) for one in found.values()
    )
    return InputQuestion(rows, InputExchanges(tuple(found), exchanged), tuple(dict.fromkeys(notes)))


def _first(case: Case) -> list[int]:
    """First tokens of a case's right answers."""
    return list(dict.fromkeys(ids[0] for _, ids in case.answers))
