"""Prompts of which it is known what varies in them: each with the value of every variable, and where it is spoken.

A contrast pair says that two prompts differ; cases say in what. From them come pairs that differ in one variable alone, and
interchanges, in which one prompt gets a variable's value from another: what a claim about the computation behind a behaviour
is tested on.

Variables are *free*, drawn from a list of values, or *derived*, computed from others by a plain function. The answer is
derived, too. A change of a free variable changes what is derived from it and nothing else.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours.data import Behaviour, Ids, Span
from cutaway.behaviours.examples import Answer, Example, assemble
from cutaway.behaviours.generators.engine import fill
from cutaway.behaviours.metrics import METRICS
from cutaway.behaviours.tokenizing import continuation, encode, token_spans
from cutaway.errors import BadBehaviour, BadInput, did_you_mean
from cutaway.results import strict

if TYPE_CHECKING:
    from cutaway.network import Network

Value = str | int | float | bool
Values = Mapping[str, Value]
#: Gives the value of a derived variable, or the answers, from variables that its parameters name.
Function = Callable[..., Any]
#: The span of the token whose logits are read.
LAST = "last"
#: How often as many cases are drawn as are wanted, before it is given up.
_ROUNDS = 40


@dataclass(frozen=True)
class Case:
    """One prompt with what is known of it.

    Attributes:
        text: the prompt.
        ids: its tokens, without padding.
        values: of every variable.
        answers: (text, tokens) of each right answer.
        spans: half-open ranges of tokens by name, `last` among them.
        template: of the frame that it was made from.
        answer_pos: whose logits are read, row-relative.
    """

    text: str
    ids: Ids
    values: Values
    answers: tuple[Answer, ...]
    spans: Mapping[str, Span] = field(default_factory=dict)
    template: str = ""
    answer_pos: int = -1


@dataclass(frozen=True)
class Frames:
    """What cases are made from: frames with slots, and what fills them.

    Attributes:
        frames: texts with slots, `{name}`; a slot takes a variable of its name.
        free: values of each free variable.
        derived: by name a function whose parameters are variables; free ones or derived before it.
        answer: a function of variables that gives a text that follows the prompt, or several that are all right.
        differ: free variables that have different values in a prompt.
    """

    frames: tuple[str, ...]
    free: Mapping[str, tuple[Value, ...]]
    derived: Mapping[str, Function]
    answer: Function
    differ: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names, free ones first."""
        return (*self.free, *self.derived)

    def filled(self, chosen: Values) -> dict[str, Value]:
        """Values of all variables, of those of the free ones."""
        values = dict(chosen)
        for name, function in self.derived.items():
            values[name] = called(function, values, f"the variable {name!r}")
        return values

    def answers(self, values: Values) -> tuple[str, ...]:
        """The right answers."""
        found = called(self.answer, values, "the answer")
        many = (found,) if isinstance(found, str) else tuple(found)
        if not many or not all(isinstance(a, str) and a for a in many):
            raise BadBehaviour(
                f"The answer to {dict(values)} is {found!r:.60}.",
                "Return a text, or several, that follow the prompt.",
            )
        return many

    def allowed(self, chosen: Values) -> bool:
        """Do those that are to differ differ?"""
        values = [chosen[name] for name in self.differ]
        return len(set(values)) == len(values)


def parameters(function: Function, what: str) -> tuple[str, ...]:
    """The variables that a function reads. Raises `BadInput` where its parameters are no names."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"The parameters of {what} are not known.", "Give a function written in Python."
        ) from error
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in found):
        raise BadInput(
            f"{what} takes any number of arguments.".capitalize(), "Name the variables that it reads."
        )
    return tuple(p.name for p in found if p.default is p.empty)


def called(function: Function, values: Values, what: str) -> Any:
    """A function of the variables that its parameters name. Raises `BadBehaviour` with the values where it fails."""
    reads = {name: values[name] for name in parameters(function, what)}
    try:
        return function(**reads)
    except Exception as error:
        raise BadBehaviour(
            f"Computing {what} of {reads} failed: {type(error).__name__}: {error}.", "Look at that function."
        ) from error


@dataclass(frozen=True, eq=False)
class Cases:
    """Prompts whose variables are known.

    Attributes:
        name: what they are called.
        cases: each of them.
        frames: what more can be made from; None where they came as they are.
        seed: of the drawing.
        notes: what the reader should know.
    """

    name: str
    cases: tuple[Case, ...]
    frames: Frames | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.cases:
            raise BadBehaviour(f"There are no cases of {self.name!r}.", "Give at least one.")
        names = set(self.cases[0].values)
        for number, case in enumerate(self.cases):
            if set(case.values) != names:
                raise BadBehaviour(
                    f"Case {number} has values of {', '.join(sorted(case.values)) or 'nothing'}, the first of "
                    f"{', '.join(sorted(names)) or 'nothing'}.",
                    "Give every case a value of every variable.",
                )

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __repr__(self) -> str:
        return f"Cases({self.name!r}, {len(self)} prompts, variables {', '.join(self.variables)})"

    @property
    def variables(self) -> tuple[str, ...]:
        """Their names, free ones first."""
        return self.frames.variables if self.frames is not None else tuple(self.cases[0].values)

    @property
    def free(self) -> tuple[str, ...]:
        """Variables that can be changed alone; all of them, where nothing is known of how they depend on each other."""
        return tuple(self.frames.free) if self.frames is not None else self.variables

    def values(self, variable: str) -> tuple[Value, ...]:
        """The value of a variable in each case. Raises `BadInput` for one that is not known."""
        self.require(variable)
        return tuple(case.values[variable] for case in self.cases)

    def require(self, variable: str) -> None:
        """Raises `BadInput` where there is no such variable."""
        if variable not in self.cases[0].values:
            raise BadInput(
                f"{self.name!r} has no variable {variable!r:.60}.",
                did_you_mean(variable, self.cases[0].values),
            )

    @cached_property
    def choices(self) -> tuple[Answer, ...]:
        """Every answer that is right in some case, once: among these the network's answer is read."""
        return tuple(dict.fromkeys(answer for case in self.cases for answer in case.answers))

    @cached_property
    def steady(self) -> tuple[str, ...]:
        """Variables that have the same value in every case, of which nothing can be found out."""
        return tuple(v for v in self.variables if len(set(self.values(v))) < 2)

    @cached_property
    def together(self) -> tuple[tuple[str, str], ...]:
        """Pairs of variables of which each tells the other in every case: they cannot be told apart on these prompts."""
        varying = [v for v in self.variables if v not in self.steady]
        found = []
        for i, a in enumerate(varying):
            for b in varying[i + 1 :]:
                both = set(zip(self.values(a), self.values(b), strict=True))
                if len(both) == len({x for x, _ in both}) == len({y for _, y in both}):
                    found.append((a, b))
        return tuple(found)

    def take(self, rows: Iterable[int]) -> Cases:
        """These cases only."""
        return replace(self, cases=tuple(self.cases[i] for i in rows))

    def halves(self) -> tuple[Cases, Cases]:
        """Those to find things out on, and those to test on; no prompt is in both.

        By templates where there are four or more of them, else every second prompt.
        """
        templates = list(dict.fromkeys(case.template for case in self.cases))
        if len(templates) >= 4:
            drawn = np.random.default_rng([self.seed, 11]).permutation(len(templates))
            first = {templates[i] for i in drawn[: (len(templates) + 1) // 2]}
            is_first = [case.template in first for case in self.cases]
        else:
            order: dict[Ids, int] = {}
            for case in self.cases:
                order.setdefault(case.ids, len(order))
            is_first = [order[case.ids] % 2 == 0 for case in self.cases]
        rows = [[i for i, f in enumerate(is_first) if f is want] for want in (True, False)]
        if not all(rows):
            raise BadBehaviour(
                f"The {len(self)} cases of {self.name!r} cannot be halved.", "Give more different prompts."
            )
        return self.take(rows[0]), self.take(rows[1])

    def changed(
        self, net: Network, variable: str, *, n: int | None = None, seed: int = 0
    ) -> list[tuple[Case, Case]]:
        """Pairs of cases of the same frame that differ in one free variable alone, and in what is derived from it.

        n: at most so many; default one for each case. Of cases made from frames the second of a pair is made for it; of
        others it is looked for among the cases. Raises `BadInput` for a derived variable, and `BadBehaviour` where there is
        no such pair, with what would help.
        """
        self.require(variable)
        if self.frames is not None and variable not in self.frames.free:
            raise BadInput(
                f"The variable {variable!r} of {self.name!r} is derived from others.",
                f"Change one of these: {', '.join(self.frames.free)}.",
            )
        rng = np.random.default_rng([seed, 12])
        wanted = len(self) if n is None else n
        found = (
            self._made(net, variable, wanted, rng)
            if self.frames is not None
            else self._among(variable, wanted, rng)
        )
        if not found:
            raise BadBehaviour(
                f"No two prompts of {self.name!r} differ in {variable!r} alone.",
                "Give values of as many tokens as each other, or prompts in which it varies while all else stays.",
            )
        return found

    def _made(self, net: Network, variable: str, n: int, rng: np.random.Generator) -> list[tuple[Case, Case]]:
        frames = self.frames
        assert frames is not None
        options = frames.free[variable]
        asked: list[tuple[Case, str, dict[str, Value]]] = []
        for turn in range(_ROUNDS):
            for number in rng.permutation(len(self)):
                case = self.cases[int(number)]
                chosen = {name: case.values[name] for name in frames.free}
                others = [v for v in options if v != chosen[variable]]
                if others:
                    new = chosen | {variable: others[int(rng.integers(len(others)))]}
                    if frames.allowed(new):
                        asked.append((case, case.template, new))
            if len(asked) >= 2 * n or turn * len(self) > 8 * n:
                break
        made = make_cases(net, frames, [(frame, new) for _, frame, new in asked])
        pairs: dict[tuple[Ids, Ids], tuple[Case, Case]] = {}
        for (case, _, _), other in zip(asked, made, strict=True):
            if other is not None and _aligned(case, other):
                pairs.setdefault((case.ids, other.ids), (case, other))
        return list(pairs.values())[:n]

    def _among(self, variable: str, n: int, rng: np.random.Generator) -> list[tuple[Case, Case]]:
        groups: dict[Any, list[Case]] = {}
        for case in self.cases:
            rest = tuple(sorted((k, v) for k, v in case.values.items() if k != variable))
            groups.setdefault((case.template, rest), []).append(case)
        pairs = [
            (a, b) for group in groups.values() for a in group for b in group
            if a.values[variable] != b.values[variable] and _aligned(a, b)
        ]  # fmt: skip
        return [pairs[int(i)] for i in rng.permutation(len(pairs))[:n]]

    def behaviour(self, net: Network, variable: str, *, n: int | None = None, seed: int = 0) -> Behaviour:
        """Contrast pairs that differ in one free variable, with the answers of both: what sweeps and patching take.

        Raises what `changed` raises, and `BadBehaviour` where changing the variable never changes the answer.
        """
        pairs = self.changed(net, variable, n=n, seed=seed)
        telling = [
            (a, b) for a, b in pairs if not {i[0] for _, i in a.answers} & {i[0] for _, i in b.answers}
        ]
        if not telling:
            raise BadBehaviour(
                f"Changing {variable!r} of {self.name!r} never changes the answer's first token.",
                "Such a variable has no effect to be looked for; leave it out.",
            )
        examples = [
            Example(a.text, b.text, a.ids, b.ids, a.answers, b.answers, _spans(a), a.template, a.answer_pos)
            for a, b in telling
        ]
        notes = () if len(telling) == len(pairs) else (
            f"{len(pairs) - len(telling)} of {len(pairs)} pairs that differ in {variable!r} have the same answer: left out.",
        )  # fmt: skip
        return assemble(
            f"{self.name}: {variable}", examples, metric=METRICS["logit_diff"], seed=seed, notes=notes
        )

    def crossed(self, n: int, *, seed: int = 0) -> list[tuple[Case, Case]]:
        """Pairs (base, source) of different cases of frames whose named spans stand at the same tokens, drawn at random.

        These differ in several variables at once, so that exchanging one of them is told from exchanging another.
        """
        rng = np.random.default_rng([seed, 13])
        groups: dict[Any, list[int]] = {}
        for number, case in enumerate(self.cases):
            groups.setdefault((len(case.ids), tuple(sorted(case.spans.items()))), []).append(number)
        all_pairs = sum(len(g) * (len(g) - 1) for g in groups.values())
        if not all_pairs:
            raise BadBehaviour(
                f"No two prompts of {self.name!r} have their words at the same tokens.",
                "Give values of as many tokens as each other, or more prompts of each frame.",
            )
        drawn: dict[tuple[int, int], None] = {}
        sizes = np.array([len(g) * (len(g) - 1) for g in groups.values()], float)
        members = list(groups.values())
        for _ in range(20 * n):
            group = members[int(rng.choice(len(members), p=sizes / sizes.sum()))]
            base, source = rng.choice(len(group), size=2, replace=False) if len(group) > 1 else (0, 0)
            a, b = group[int(base)], group[int(source)]
            if self.cases[a].ids != self.cases[b].ids:
                drawn[a, b] = None
            if len(drawn) >= min(n, all_pairs):
                break
        return [(self.cases[a], self.cases[b]) for a, b in drawn]


def _aligned(a: Case, b: Case) -> bool:
    """Do the two have as many tokens, and their named words at the same ones?"""
    return len(a.ids) == len(b.ids) and a.ids != b.ids and dict(a.spans) == dict(b.spans)


def _spans(case: Case) -> dict[str, Span]:
    return {name: span for name, span in case.spans.items() if name != LAST}


def make_cases(net: Network, frames: Frames, asked: Sequence[tuple[str, Values]]) -> list[Case | None]:
    """A case of each frame and values of the free variables; None where one cannot be made for this tokenizer.

    Raises `BadBehaviour` for a frame with a slot that no variable fills, or a function that fails.
    """
    full = [frames.filled(chosen) for _, chosen in asked]
    texts = [
        fill(frame, {k: str(v) for k, v in values.items()})
        for (frame, _), values in zip(asked, full, strict=True)
    ]
    made: list[Case | None] = []
    known: dict[tuple[str, str], Ids] = {}
    for (frame, _), values, (text, slots), ids in zip(
        asked, full, texts, encode(net, [text for text, _ in texts]), strict=True
    ):
        answers = []
        for answer in frames.answers(values):
            key = (text.split(" ")[-1], answer)
            if key not in known:
                known[key] = continuation(net, text, answer)
            answers.append((answer, known[key]))
        spans = token_spans(net, text, ids, {k: v for k, v in slots.items() if v[0] < v[1]})
        made.append(Case(text, ids, values, tuple(answers), spans | {LAST: (len(ids) - 1, len(ids))}, frame))
    return made


@strict
def cases(
    net: Network,
    frames: str | Sequence[str],
    variables: Mapping[str, Any],
    answer: Any,
    *,
    differ: Sequence[str] = (),
    name: str = "cases",
    n: int = 128,
    seed: int = 0,
) -> Cases:
    """Prompts made from frames whose slots are variables, with the answer as a function of these.

    Args:
        net: the network, whose tokenizer cuts the prompts.
        frames: one text or several with slots in braces, e.g. "{A} and {B} went out. {S} gave a ball to".
        variables: by name a list of values, of a variable that is free, or a function of other variables.
        answer: a function of variables that gives the text that follows, or several that are all right.
        differ: free variables that never have the same value in a prompt.
        name: what they are called.
        n: different prompts.
        seed: of the drawing.

    Raises:
        BadInput: for a slot without a variable, a variable that reads one that is not there, values that are no list.
        BadBehaviour: where a function fails, or hardly any prompt can be made.

    >>> import cutaway
    >>> net = cutaway.open("zoo:tales")
    >>> made = cases(
    ...     net, "Then {A} saw {B} and {C}", {"A": ["Tom", "Ben"], "B": ["Lily", "Mia"], "C": lambda A: A},
    ...     lambda A: f" {A}", n=4,
    ... )
    >>> len(made), made.variables, made.free
    (4, ('A', 'B', 'C'), ('A', 'B'))
    """
    if isinstance(n, bool) or n < 1:
        raise BadInput(f"n={n!r} prompts are asked for.", "Ask for at least one.")
    plan = _plan((frames,) if isinstance(frames, str) else tuple(frames), variables, answer, tuple(differ))
    rng = np.random.default_rng([seed, 10])
    most = len(plan.frames) * math.prod(len(v) for v in plan.free.values())
    found: dict[tuple[str, Ids], Case] = {}
    drawn: Counter[Any] = Counter()
    for _ in range(_ROUNDS):
        asked = []
        for _ in range(max(16, 2 * (n - len(found)))):
            frame = plan.frames[int(rng.integers(len(plan.frames)))]
            chosen = {v: options[int(rng.integers(len(options)))] for v, options in plan.free.items()}
            key = (frame, tuple(chosen.values()))
            if plan.allowed(chosen) and not drawn[key]:
                drawn[key] += 1
                asked.append((frame, chosen))
        for case in make_cases(net, plan, asked):
            if case is not None and len(found) < n:
                found.setdefault((case.template, case.ids), case)
        if len(found) >= min(n, most):
            break
    if not found:
        raise BadBehaviour(f"No prompt of {name!r} can be made.", "Give values that may stand together.")
    notes = () if len(found) >= n else (f"There are {len(found)} different prompts; {n} were asked for.",)
    made = Cases(name, tuple(found.values()), plan, seed, notes)
    more = [f"{v!r} never varies." for v in made.steady]
    more += [
        f"{a!r} and {b!r} vary together: these prompts cannot tell them apart." for a, b in made.together
    ]
    return replace(made, notes=(*made.notes, *more))


def _plan(
    frames: tuple[str, ...], variables: Mapping[str, Any], answer: Any, differ: tuple[str, ...]
) -> Frames:
    free: dict[str, tuple[Value, ...]] = {}
    derived: dict[str, Function] = {}
    if not variables:
        raise BadInput("There is no variable.", 'Give e.g. {"A": ["Mary", "John"]}.')
    for name, given in variables.items():
        if callable(given):
            derived[name] = given
        elif isinstance(given, str) or not isinstance(given, Iterable):
            raise BadInput(
                f"The values of {name!r} are {given!r:.60}.", "Give a list of values, or a function."
            )
        else:
            options = tuple(dict.fromkeys(given))
            if not options or not all(isinstance(v, (str, int, float, bool)) for v in options):
                raise BadInput(
                    f"The values of {name!r} are {given!r:.60}.",
                    "Give a list of texts, numbers, True or False.",
                )
            free[name] = options
    if not callable(answer):
        raise BadInput(
            f"The answer is {answer!r:.60}.", "Give a function of variables, e.g. lambda A: ' ' + A."
        )
    known = list(free)
    for name, function in (*derived.items(), ("the answer", answer)):
        what = name if function is answer else f"the variable {name!r}"
        for read in parameters(function, what):
            if read not in known:
                raise BadInput(
                    f"{what.capitalize() if what.startswith('the') else what} reads {read!r:.60}, which is no variable "
                    "before it.",
                    did_you_mean(read, known),
                )
        known.append(name)
    for frame in frames:
        fill(frame, dict.fromkeys((*free, *derived), "x"))
    unknown = [name for name in differ if name not in free]
    if unknown:
        raise BadInput(f"{unknown[0]!r} is no free variable.", did_you_mean(unknown[0], list(free)))
    if not frames:
        raise BadInput("There is no frame.", 'Give e.g. "When {A} and {B} went out, {S} gave a ball to".')
    return Frames(frames, free, derived, answer, differ)
