"""Cases together: halves, pairs that differ in one variable alone, and pairs that differ in several at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours.cases.case import LAST, Case, Frames, Value, make_cases
from cutaway.behaviours.data import Behaviour, Ids, Span
from cutaway.behaviours.examples import Answer, Example, assemble
from cutaway.behaviours.metrics import METRICS
from cutaway.errors import BadBehaviour, BadInput, did_you_mean

if TYPE_CHECKING:
    from cutaway.network import Network

#: How often all cases are gone through, looking for values to change.
_ROUNDS = 40
#: With so many templates, or values, they are divided as a whole.
_MANY = 4
#: Ways to divide prompts that are tried, for halves of about the same size.
_TRIED = 32


@dataclass(frozen=True, eq=False)
class Cases:
    """Prompts whose variables are known.

    Attributes:
        name: what they are called.
        cases: each of them.
        frames: what more can be made from; None where they came as they are.
        seed: of the drawing.
        notes: what the reader should know.
        derived: variables that are computed from others, where there are no frames that say so.
        half: of a half that was divided by prompts: by which hash, and whether it is the first; else None.
        from_text: were the tokens made from the text?
    """

    name: str
    cases: tuple[Case, ...]
    frames: Frames | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    half: tuple[int, bool] | None = None
    from_text: bool = True

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
        lines = [f"Cases({self.name!r}, {len(self)} prompts, variables {', '.join(self.variables)})"]
        for case in self.cases[:2]:
            told = ", ".join(f"{name}={case.values[name]!r}" for name in self.variables)
            answers = " or ".join(repr(text) for text, _ in case.answers[:3])
            lines.append(f"  {case.text!r} -> {answers}: {told}"[:200])
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    @property
    def variables(self) -> tuple[str, ...]:
        """Their names, free ones first."""
        names = tuple(self.cases[0].values) if self.frames is None else self.frames.variables
        return (*(v for v in names if v not in self.derived), *self.derived)

    @property
    def free(self) -> tuple[str, ...]:
        """Variables that can be changed alone; all of them, where nothing is known of how they depend on each other."""
        if self.frames is not None:
            return tuple(self.frames.free)
        return tuple(v for v in self.variables if v not in self.derived)

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

    def require_free(self, variable: str) -> None:
        """Raises `BadInput` where there is no such variable, or it is computed from others."""
        self.require(variable)
        if variable not in self.free:
            raise BadInput(
                f"The variable {variable!r} of {self.name!r} is derived from others.",
                f"Change one of these: {', '.join(self.free)}.",
            )

    @cached_property
    def hash(self) -> str:
        """Identity of prompts, values, answers and spans: 16 hexadecimal digits."""
        data = [
            [c.ids, sorted(c.values.items()), [ids for _, ids in c.answers], sorted(c.spans.items()), c.answer_pos]
            for c in self.cases
        ]  # fmt: skip
        return hashlib.sha256(json.dumps([self.name, self.free, data]).encode()).hexdigest()[:16]

    @cached_property
    def choices(self) -> tuple[Answer, ...]:
        """Every answer that is right in some case, once: among these the network's answer is read."""
        return tuple(dict.fromkeys(answer for case in self.cases for answer in case.answers))

    @cached_property
    def spans(self) -> tuple[str, ...]:
        """Names of the spans that every prompt has, `last` at the end."""
        shared = set.intersection(*(set(case.spans) for case in self.cases))
        return (*(name for name in self.cases[0].spans if name in shared and name != LAST), LAST)

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
        """Those to find things out on, and those to test on; no prompt is in both, nor in a pair of both.

        By templates where there are four or more of them. Else by prompts: those made from frames by a hash, which the
        prompts that are made for their pairs share; those that came as they are so that prompts which differ in one variable
        alone stay together.
        """
        half: int | None = None
        templates = [case.template for case in self.cases]
        if len(set(templates)) >= _MANY:
            first = self._drawn(templates)
        elif self.frames is not None:
            half, first = self._hashed()
        else:
            first = self._kept_together()
        rows = [[i for i, f in enumerate(first) if f is want] for want in (True, False)]
        if not all(rows):
            raise BadBehaviour(
                f"The {len(self)} cases of {self.name!r} cannot be halved.", "Give more different prompts."
            )
        one, other = (self.take(some) for some in rows)
        if half is None:
            return one, other
        return replace(one, half=(half, True)), replace(other, half=(half, False))

    def _drawn(self, labels: list[Any]) -> list[bool]:
        """Whether each case is in the first half, those of a label together."""
        kinds = list(dict.fromkeys(labels))
        drawn = np.random.default_rng([self.seed, 11]).permutation(len(kinds))
        first = {kinds[i] for i in drawn[: (len(kinds) + 1) // 2]}
        return [label in first for label in labels]

    def _hashed(self) -> tuple[int, list[bool]]:
        """The hash that divides the prompts most evenly, and whether each is in the first half."""
        best: tuple[int, list[bool]] = (0, [])
        most = -1
        for number in range(_TRIED):
            first = [_first(case.ids, self.seed + number) for case in self.cases]
            even = min(sum(first), len(first) - sum(first))
            if even > most:
                best, most = (self.seed + number, first), even
        return best

    def _kept_together(self) -> list[bool]:
        """Whether each case is in the first half, of prompts that came as they are.

        Where values recur, every second prompt of those with the same values; else by the values of the variable that has
        most of them; else every second prompt.
        """
        alike: dict[Any, dict[Ids, int]] = {}
        order = []
        for case in self.cases:
            seen = alike.setdefault(tuple(sorted(case.values.items())), {})
            order.append(seen.setdefault(case.ids, len(seen)))
        if sum(len(seen) > 1 for seen in alike.values()) >= 0.8 * len(alike):
            return [number % 2 == 0 for number in order]
        counts = {v: len(set(self.values(v))) for v in self.free}
        widest = max(counts, key=lambda v: counts[v])
        if counts[widest] >= _MANY:
            return self._drawn(list(self.values(widest)))
        numbers: dict[Ids, int] = {}
        return [numbers.setdefault(case.ids, len(numbers)) % 2 == 0 for case in self.cases]

    def changed(
        self, net: Network, variable: str, *, n: int | None = None, seed: int = 0
    ) -> list[tuple[Case, Case]]:
        """Pairs of cases of the same frame that differ in one free variable alone, and in what is derived from it.

        n: at most so many; default one for each case. Of cases made from frames the second of a pair is made for it; of
        others it is looked for among the cases. Raises `BadInput` for a derived variable, and `BadBehaviour` where there is
        no such pair, with what would help.
        """
        self.require_free(variable)
        if n is not None and (isinstance(n, bool) or n < 1):
            raise BadInput(f"n={n!r} pairs are asked for.", "Ask for at least one.")
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
        pairs: dict[tuple[Ids, Ids], tuple[Case, Case]] = {}
        tried: set[Any] = set()
        for turn in range(_ROUNDS):
            asked: list[tuple[Case, dict[str, Value]]] = []
            for number in rng.permutation(len(self)):
                case = self.cases[int(number)]
                chosen = {name: case.values[name] for name in frames.free}
                others = [v for v in options if v != chosen[variable]]
                if not others:
                    continue
                new = chosen | {variable: others[int(rng.integers(len(others)))]}
                key = (int(number), new[variable])
                if key not in tried and frames.allowed(new):
                    tried.add(key)
                    asked.append((case, new))
            made = make_cases(net, frames, [(case.template, new) for case, new in asked])
            for (case, _), other in zip(asked, made, strict=True):
                if case.aligned(other) and self.same_half(other):
                    pairs.setdefault((case.ids, other.ids), (case, other))
            if len(pairs) >= n or turn * len(self) > 8 * n:
                break
        return list(pairs.values())[:n]

    def same_half(self, case: Case) -> bool:
        """Is a prompt that was made from the frames on the same side of the division?"""
        return self.half is None or _first(case.ids, self.half[0]) is self.half[1]

    def _among(self, variable: str, n: int, rng: np.random.Generator) -> list[tuple[Case, Case]]:
        groups: dict[Any, list[int]] = {}
        for number, case in enumerate(self.cases):
            rest = tuple((v, case.values[v]) for v in self.free if v != variable)
            groups.setdefault((case.template, rest), []).append(number)
        found: list[tuple[Case, Case]] = []
        whole = [(group, i) for group in groups.values() for i in group]
        drawn = [whole[int(i)] for i in rng.permutation(len(whole))]
        others = {id(group): rng.permutation(group) for group in groups.values()}
        used: set[tuple[int, int]] = set()
        for _ in range(_ROUNDS):
            before = len(found)
            for group, i in drawn:
                case = self.cases[i]
                fit = (
                    int(j) for j in others[id(group)]
                    if (i, int(j)) not in used and self.cases[int(j)].values[variable] != case.values[variable]
                    and case.aligned(self.cases[int(j)])
                )  # fmt: skip
                other = next(fit, None)
                if other is not None and len(found) < n:
                    used.add((i, other))
                    found.append((case, self.cases[other]))
            if len(found) in (before, n):
                break
        return found

    def telling(
        self, net: Network, variable: str, *, n: int | None = None, seed: int = 0
    ) -> list[tuple[Case, Case]]:
        """Pairs that differ in one free variable and in the answer: some answer is right in the second, not in the first.

        Of answers of which the one set holds the other, the prompts change places. Raises what `changed` raises, and
        `BadBehaviour` where changing the variable never changes the answer.
        """
        wanted = len(self) if n is None else n
        pairs = self.changed(net, variable, n=3 * wanted, seed=seed)
        found = [(a, b) if _news(a, b) else (b, a) for a, b in pairs if _news(a, b) or _news(b, a)]
        if not found:
            raise BadBehaviour(
                f"Changing {variable!r} of {self.name!r} never changes the answer's first token.",
                "Such a variable has no effect to be looked for; leave it out.",
            )
        return list({(a.ids, b.ids): (a, b) for a, b in found}.values())[:wanted]

    def behaviour(self, net: Network, variable: str, *, n: int | None = None, seed: int = 0) -> Behaviour:
        """Contrast pairs that differ in one free variable, with the answers of both: what sweeps and patching take.

        Right are the answers of the first prompt, wrong those that are right in the second and not in the first. Raises what
        `telling` raises.
        """
        examples = [
            Example(a.text, b.text, a.ids, b.ids, a.answers, _news(a, b), _spans(a), a.template, a.answer_pos)
            for a, b in self.telling(net, variable, n=n, seed=seed)
        ]
        return assemble(
            f"{self.name}: {variable}",
            examples,
            metric=METRICS["logit_diff"],
            seed=seed,
            from_text=self.from_text,
        )

    def crossed(self, n: int, *, seed: int = 0) -> list[tuple[Case, Case]]:
        """Pairs (base, source) of different cases of frames whose named spans stand at the same tokens, drawn at random.

        These differ in several variables at once, so that exchanging one of them is told from exchanging another.
        """
        rng = np.random.default_rng([seed, 13])
        groups: dict[Any, list[int]] = {}
        for number, case in enumerate(self.cases):
            key = (len(case.ids), case.answer_pos, tuple(sorted(case.spans.items())))
            groups.setdefault(key, []).append(number)
        members = [np.array(group) for group in groups.values()]
        pairs = np.array([len(group) * (len(group) - 1) for group in members])
        if not pairs.sum():
            raise BadBehaviour(
                f"No two prompts of {self.name!r} have their words at the same tokens.",
                "Give values of as many tokens as each other, or more prompts of each frame.",
            )
        drawn, ends = dict[tuple[int, int], None](), pairs.cumsum()
        for number in _numbers(int(pairs.sum()), n, rng):
            group = int(np.searchsorted(ends, number, side="right"))
            base, rest = divmod(int(number - ends[group] + pairs[group]), len(members[group]) - 1)
            a, b = int(members[group][base]), int(members[group][rest + (rest >= base)])
            if self.cases[a].ids != self.cases[b].ids:
                drawn[a, b] = None
            if len(drawn) >= n:
                break
        return [(self.cases[a], self.cases[b]) for a, b in drawn]


def _numbers(total: int, n: int, rng: np.random.Generator) -> Iterable[int]:
    """Numbers below `total` in random order: all of them, or of many times as many as are wanted 20 for each."""
    if total <= 20 * n:
        return rng.permutation(total).tolist()
    return rng.integers(total, size=20 * n).tolist()


def _first(ids: Ids, salt: int) -> bool:
    """Is a prompt in the first half, by a hash of its tokens?"""
    return hashlib.blake2b(repr((salt, ids)).encode(), digest_size=1).digest()[0] % 2 == 0


def _news(a: Case, b: Case) -> tuple[Answer, ...]:
    """The answers of the second that are not right in the first."""
    right = {ids[0] for _, ids in a.answers}
    return tuple(answer for answer in b.answers if answer[1][0] not in right)


def _spans(case: Case) -> dict[str, Span]:
    return {name: span for name, span in case.spans.items() if name != LAST}
