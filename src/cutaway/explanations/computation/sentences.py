"""The story: five to ten sentences in plain English, made from claims alone, each with the section of its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.algorithms.carried.telling import NOT_SHOWN
from cutaway.algorithms.passing.routes import ANSWER
from cutaway.algorithms.places import VariablePlace
from cutaway.behaviours.cases import LAST
from cutaway.explanations.computation.claimed import claims_of
from cutaway.reports import Said
from cutaway.trials import percent

if TYPE_CHECKING:
    from cutaway.explanations.computation.claimed import ToldComputation

#: Sentences in all, of each variable, and of what passes.
MOST, _VARIABLES, _EDGES, _ROLES = 10, 3, 2, 4
#: Parts that a sentence names, and letters of a reason.
_NAMED, _REASON = 3, 110


def story(told: ToldComputation) -> tuple[Said, ...]:
    """The sentences in the order in which the computation runs; what was not shown is not said here."""
    sentences = {
        name: list(tell(told.results[name])) for name, tell in _TELLERS.items() if name in told.results
    }
    while 2 + sum(map(len, sentences.values())) > MOST:
        longest = max(sentences, key=lambda name: len(sentences[name]))
        sentences[longest].pop()
    return (_task(told), *(said for some in sentences.values() for said in some), _open(told))


def _task(told: ToldComputation) -> Said:
    example, right = told.example, told.accuracy
    of = f"{right.n:,} held-out prompts" if right.n else "held-out prompts"
    interval = right.interval
    ends = "" if interval is None else f" [{percent(interval.low)}, {percent(interval.high)}]"
    return Said(
        f"After “{example.text}” {_THE[example.several]} answer is “{example.answer.strip()}”; "
        f"{told.provenance.network} answers {percent(right.value)}{ends} of {of} like this right.",
        "cases",
    )


def _carried(result: Any) -> Iterator[Said]:
    frame = result.to_pandas()
    shown = frame.loc[~frame["verdict"].isin(("", NOT_SHOWN))]
    for variable in result.variables[:_VARIABLES]:
        claim, mine = result.claim(variable), shown.loc[shown["variable"] == variable]
        if claim.verdict == "refuted" or mine.empty:
            continue
        early, late = mine.loc[mine["span"] != LAST], mine.loc[mine["span"] == LAST]
        pieces = []
        for some, what in ((early, "is put there by"), (late, "is carried by")):
            some = some.sort_values("held", ascending=False)
            if some.empty:
                continue
            strongest = some.iloc[0]
            span = "the last token" if strongest["span"] == LAST else f"“{strongest['span']}”"
            same = some.loc[some["span"] == strongest["span"]]
            names = _and([_part(name) for name in same["part"][:_NAMED]])
            pieces.append(
                f"at {span} it {what} {names} ({_part(strongest['part'])} alone brings {percent(strongest['held'])} of what "
                "exchanging it does)"
            )
        yield Said(
            f"The answer follows from {_the(variable)}: {', and '.join(pieces)}.", "carried", claim.verdict
        )


def _passing(result: Any) -> Iterator[Said]:
    for variable in result.variables[:_VARIABLES]:
        order = sorted(
            (i for i, said in enumerate(result.sentences) if said and result.variable[i] == variable),
            key=lambda i: -float(result.held[i]),
        )[:_EDGES]
        if order:
            text = " ".join(
                f"{result.sentences[i].rstrip('.')}." for i in sorted(order, key=lambda i: _height(result, i))
            )
            yield Said(text, "passing", result.claim(variable).verdict)


def _height(result: Any, edge: int) -> tuple[bool, tuple[Any, ...]]:
    """How far up an edge begins: what is told first; what reaches the answer is told last."""
    part = VariablePlace.parse(result.sender[edge]).named
    return bool(result.receiver[edge] == ANSWER), () if part is None else part.order


def _roles(result: Any) -> Iterator[Said]:
    """Each kind of work once, with all parts that do it."""
    kept = set(result.sentences())
    groups: dict[str, list[str]] = {}
    for test in result.tests:
        if test.claim.supported and f"{test.sentence}." in kept:
            name = _part(test.part)
            begins = f"{name[:1].upper()}{name[1:]} "
            rest = test.sentence.removeprefix(begins)
            groups.setdefault(rest, []).append(name)
    for rest, names in list(groups.items())[:_ROLES]:
        first, others = names[0], list(dict.fromkeys(names[1:]))
        also = f"; so {'does' if len(others) == 1 else 'do'} {_and(others)}" if others else ""
        yield Said(f"{first[:1].upper()}{first[1:]} {rest}{also}.", "roles", "supported")


def _backups(result: Any) -> Iterator[Said]:
    if any(claim.supported for claim in result.claims):
        yield Said(f"{result.headline.rstrip('.')}.", "backups", "supported")


def _proposed(result: Any) -> Iterator[Said]:
    if result.claim.supported:
        steps = " ".join(f"{sentence.rstrip('.')}." for sentence in result.sentences[:3])
        yield Said(f"{result.headline.rstrip('.')}. {steps}".strip(), "proposed", "supported")
    else:
        yield Said(f"{result.headline.rstrip('.')}.", "proposed", result.claim.verdict)


def _intended(result: Any) -> Iterator[Said]:
    yield Said(f"{result.headline.rstrip('.')}.", "intended", result.claim.verdict)


def _inputs(result: Any) -> Iterator[Said]:
    claim = next((claim for claim in claims_of(result) if claim.supported), None)
    if claim is not None:
        yield Said(
            f"Seen from outside: {claim.statement[0].lower()}{claim.statement[1:].rstrip('.')}.",
            "inputs",
            claim.verdict,
        )
        return
    said = result.headline.split(". ", 1)[0].rstrip(".")
    yield Said(
        f"Seen from outside, by the words alone: {said[0].lower()}{said[1:]}.", "inputs", "inconclusive"
    )


#: Who tells what a stage found, in the order of the story.
_TELLERS: dict[str, Callable[[Any], Iterator[Said]]] = {
    "carried": _carried,
    "passing": _passing,
    "roles": _roles,
    "backups": _backups,
    "proposed": _proposed,
    "intended": _intended,
    "inputs": _inputs,
}


def _open(told: ToldComputation) -> Said:
    """The last sentence: what is not explained."""
    lacking = [f"{_TITLES.get(stage, stage)} ({_first(why)})" for stage, why in told.missing]

    undecided = sum(
        c.verdict == "inconclusive" for result in told.results.values() for c in claims_of(result)
    )
    said = []
    if undecided:
        said.append(f"{undecided} of {len(told.claims)} claims are inconclusive")
    if lacking:
        said.append(f"not told: {'; '.join(lacking)}")
    if told.chosen:
        said.append("parts that were not asked may carry it, too")
    text = f"Open: {'; '.join(said)}." if said else "Open: whatever these prompts do not vary."
    return Said(text, "open")


_THE = {False: "the right", True: "a right"}
#: Stages in a few words.
_TITLES = {
    "carried": "what each part carries", "passing": "how variables move", "roles": "the parts' roles",
    "inputs": "which words matter", "backups": "what takes over", "proposed": "the algorithm",
    "intended": "whether it is intended",
}  # fmt: skip


def _first(why: str) -> str:
    """The first part of a reason; all of it stands under what is not explained."""
    begins = why.split(". ")[0].split(": ")[0]
    return begins if len(begins) <= _REASON else f"{begins[:_REASON].rsplit(' ', 1)[0]} …"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _part(name: str) -> str:
    named = VariablePlace.parse(name).named
    return name if named is None else named.words


def _the(variable: str) -> str:
    return f"“{variable}”"
