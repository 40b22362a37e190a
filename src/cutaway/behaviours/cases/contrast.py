"""Cases of contrast pairs as they are: what is known to vary is what the two prompts of a pair differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.behaviours.cases.case import LAST, Case
from cutaway.behaviours.cases.collection import Cases
from cutaway.behaviours.data import Behaviour, Span
from cutaway.behaviours.examples import Answer
from cutaway.errors import BadBehaviour
from cutaway.results import strict

if TYPE_CHECKING:
    from cutaway.network import Network

#: The variable, where no span of the behaviour holds all that differs; and which pair a prompt belongs to.
DIFFERENCE, PAIR = "difference", "pair"


@strict
def cases_of_pairs(net: Network, behaviour: Behaviour) -> Cases:
    """The prompts of contrast pairs as cases, with two variables: what differs, and which pair it is.

    The variable that differs has the name of the shortest span that holds all that differs in every pair, else
    `difference`, which is then a span, too; its value is the text there. Spans are those of the behaviour. Pairs that
    differ in length are left out, which a note says.

    Raises `BadBehaviour` where prompts are no tokens, a side has no answer of its own, or no pair is aligned.

    >>> import cutaway
    >>> net = cutaway.open("zoo:tales")
    >>> made = cases_of_pairs(net, cutaway.behaviour("pronoun", net, n=16))
    >>> made.variables, len(made.changed(net, "name", n=4))
    (('name', 'pair'), 4)
    """
    if behaviour.items is not None:
        raise BadBehaviour(
            f"The prompts of {behaviour.name!r} are {behaviour.items.what}s, which have no words.",
            "What parts carry is found for prompts of tokens.",
        )
    aligned = [i for i, n in enumerate(behaviour.clean_ids) if len(n) == len(behaviour.corrupted_ids[i])]
    if not aligned:
        raise BadBehaviour(
            f"No pair of {behaviour.name!r} has two prompts of as many tokens.",
            "Choose words of as many tokens as each other.",
        )
    if not all(behaviour.wrong[i] for i in aligned):
        raise BadBehaviour(
            f"{behaviour.name!r} does not say what is right behind its corrupted prompts.",
            "Give pairs with a wrong answer, which is the right one of the corrupted prompt.",
        )
    apart = {i: _apart(behaviour, i) for i in aligned}
    holding = [
        name
        for name, spans in behaviour.spans.items()
        if all(spans[i][0] <= low and high <= spans[i][1] for i, (low, high) in apart.items())
    ]
    lengths = {name: sum(stop - start for start, stop in behaviour.spans[name]) for name in holding}
    name = min(holding, key=lambda held: lengths[held]) if holding else DIFFERENCE
    found: list[Case] = []
    for i in aligned:
        spans = {span: of[i] for span, of in behaviour.spans.items()}
        spans |= {} if holding else {DIFFERENCE: apart[i]}
        for clean in (True, False):
            found.append(_case(net, behaviour, i, clean, name, spans))
    left = behaviour.n - len(aligned)
    notes = (f"{left} pairs whose prompts differ in length are left out.",) if left else ()
    notes = (
        *behaviour.notes,
        *notes,
        f"Known to vary is only what the two prompts of a pair differ in ({name}).",
    )
    return Cases(behaviour.name, tuple(found), None, behaviour.seed, notes, from_text=behaviour.from_text)


def _apart(behaviour: Behaviour, row: int) -> Span:
    """The smallest range of tokens that holds all that differs in a pair."""
    sides = zip(behaviour.clean_ids[row], behaviour.corrupted_ids[row], strict=True)
    differs = [i for i, (a, b) in enumerate(sides) if a != b]
    return differs[0], differs[-1] + 1


def _case(
    net: Network, behaviour: Behaviour, row: int, clean: bool, name: str, spans: dict[str, Span]
) -> Case:
    ids = (behaviour.clean_ids if clean else behaviour.corrupted_ids)[row]
    text = (behaviour.clean if clean else behaviour.corrupted)[row]
    first = (behaviour.right if clean else behaviour.wrong)[row]
    said = (behaviour.right_text if clean else behaviour.wrong_text)[row]
    answers: tuple[Answer, ...] = tuple(
        (said[k] if k < len(said) else str(token), (token,)) for k, token in enumerate(first)
    )
    at = behaviour.answer_pos[row]
    last = at % len(ids)
    start, stop = spans[name]
    words = "".join(net.token_strings(ids[start:stop])).strip()
    values = {name: words, PAIR: row}
    return Case(text, ids, values, answers, spans | {LAST: (last, last + 1)}, behaviour.template[row], at)
