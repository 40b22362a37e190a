"""Cases of built-in behaviours: their frames and words, with a variable for each thing that varies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.cases.collection import Cases
from cutaway.behaviours.cases.making import cases
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.agreement import FRAMES as AGREEING
from cutaway.behaviours.generators.agreement import PAST, subjects_of
from cutaway.behaviours.generators.cities import COUNTRY, THERE, words_of
from cutaway.behaviours.generators.facts import CAPITALS, known_facts
from cutaway.behaviours.generators.greater_than import DIGITS, single_digits, years_of
from cutaway.behaviours.generators.greater_than import FRAMES as LASTING
from cutaway.behaviours.generators.indirect_object import FRAMES as GIVING
from cutaway.behaviours.generators.pronoun import FRAMES as NAMING
from cutaway.behaviours.generators.pronoun import NOUN, name_pairs
from cutaway.behaviours.tokenizing import KnownWords, encode
from cutaway.errors import BadInput, NotFound, did_you_mean
from cutaway.results import strict
from cutaway.zoo.known import CaseRecipe
from cutaway.zoo.registry import known

if TYPE_CHECKING:
    from cutaway.network import Network

SINGULAR, PLURAL = "singular", "plural"
NUMBERS = (SINGULAR, PLURAL)


def _ioi(net: Network) -> CaseRecipe:
    words = KnownWords(net, "ioi")
    people = words.single(W.NAMES, 3, "names")
    variables = {
        "A": people, "B": people, "first": (True, False), "place": words.even(W.PLACES, 2, "places"),
        "thing": words.even(W.THINGS, 2, "things"), "S": lambda A, B, first: A if first else B,
    }  # fmt: skip
    return CaseRecipe(
        words.suited(GIVING), variables, lambda A, B, first: f" {B if first else A}", ("A", "B")
    )


def _greater_than(net: Network) -> CaseRecipe:
    words = KnownWords(net, "greater-than")
    used = words.suited(LASTING, keep=2)
    frames = tuple(f.replace("{CC}", "{century}").replace("{YY}", "{year}") for f in used)
    if single_digits(net, used[0]):
        variables = {
            "event": W.EVENTS, "century": W.CENTURIES, "tens": DIGITS[2:8], "unit": DIGITS,
            "year": lambda tens, unit: tens + unit,
        }  # fmt: skip
        return CaseRecipe(frames, variables, lambda tens: DIGITS[int(tens) + 1 :])
    by_century = years_of(net, used[0])
    years = sorted(set.intersection(*map(set, by_century.values())))
    asked = [year for year in years[:-1] if year > "01"]
    return CaseRecipe(
        frames,
        {"event": W.EVENTS, "century": tuple(by_century), "year": asked},
        lambda year: tuple(later for later in years if later > year),
    )


def _agreement(net: Network) -> CaseRecipe:
    words = KnownWords(net, "agreement")
    pairs, frames = subjects_of(words, W.NUMBER_PAIRS, AGREEING)
    used = words.suited(frames)
    forms = {one: dict(zip(NUMBERS, (one, many), strict=True)) for one, many in pairs}
    names = words.even(W.NAMES, 2, "names")
    variables: dict[str, Any] = {"number": NUMBERS, "word": tuple(forms), "A": names}
    if frames is not AGREEING:
        variables["subject"] = lambda word, number: forms[word][number]
        slots = tuple(f.replace("{N}", "{subject}") for f in used)
        return CaseRecipe(slots, variables, lambda number: " were" if number == PLURAL else " was")
    openings: dict[str, list[str]] = {}
    bodies: dict[str, None] = {}
    for frame in used:
        opening, _, rest = frame.partition(" the {N}")
        times = openings.setdefault("past" if frame.startswith(PAST) else "present", [])
        times += [opening] * (opening not in times)
        bodies["{when} the {subject}" + rest.replace("{D}", "{distractor}")] = None
    tenses = tuple(tense for tense in ("present", "past") if tense in openings)
    variables |= {
        "tense": tenses, "day": tuple(range(max(map(len, openings.values())))),
        "other_number": NUMBERS, "other_word": tuple(forms), "near": W.NEAR,
        "when": lambda tense, day: openings[tense][day % len(openings[tense])],
        "subject": lambda word, number: forms[word][number],
        "distractor": lambda other_word, other_number: forms[other_word][other_number],
    }  # fmt: skip
    verbs = {
        ("present", SINGULAR): " is", ("present", PLURAL): " are", ("past", SINGULAR): " was", ("past", PLURAL): " were"
    }  # fmt: skip
    return CaseRecipe(
        tuple(bodies), variables, lambda tense, number: verbs[tense, number], ("word", "other_word")
    )


def _pronoun(net: Network) -> CaseRecipe:
    words = KnownWords(net, "pronoun")
    words.single(("she", "he"), 2, "pronouns")
    people: dict[str, dict[str, str]] = {}
    known: set[str] = set()
    pairs = name_pairs(words, W.FEMALE, W.MALE)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    first = {name: len(ids) for name, ids in zip(names, encode(net, names), strict=True)}
    alike_at_first = [(her, him) for her, him in pairs if first[her] == first[him]]
    for her, him in alike_at_first or pairs:
        if not {her, him} & known:
            known |= {her, him}
            people[f"{her}/{him}"] = {"she": her, "he": him}
    alike = words.size("girl") == words.size("boy")
    used = words.suited([f for f in NAMING if alike or "{noun}" not in f], keep=6)
    pools = {"place": W.PLACES, "thing": W.THINGS, "feeling": W.FEELINGS}
    variables: dict[str, Any] = {"gender": ("she", "he"), "who": tuple(people)}
    variables |= {slot: words.even(pool, 2, f"{slot}s") for slot, pool in pools.items()}
    variables |= {"name": lambda gender, who: people[who][gender], "noun": lambda gender: NOUN[gender]}
    frames = tuple(f.replace("{A}", "{name}") for f in used)
    return CaseRecipe(frames, variables, lambda gender: f" {gender}")


def _capitals(net: Network) -> CaseRecipe:
    known = known_facts(KnownWords(net, "capitals"), CAPITALS)
    objects = {fact.subject: fact.object for fact in known}
    frames = tuple(f.replace("{subject}", "{country}") for f in known[0].frames)
    return CaseRecipe(frames, {"country": tuple(objects)}, lambda country: objects[country])


def _cities(net: Network) -> CaseRecipe:
    asked, known, frames = words_of(net)
    variables = {"city": known, "asked": asked, "country": lambda city: COUNTRY[city]}
    return CaseRecipe(frames, variables, lambda country, asked: f" {THERE[country][asked]}")


#: What is ready, by name.
READY: dict[str, Callable[[Network], CaseRecipe]] = {
    "ioi": _ioi,
    "greater-than": _greater_than,
    "agreement": _agreement,
    "pronoun": _pronoun,
    "capitals": _capitals,
    "cities": _cities,
}


#: What names of the zoo's networks begin with.
_ZOO = "zoo:"


@strict
def cases_of(name: str, net: Network, n: int = 128, seed: int = 0, kind: str = "") -> Cases:
    """Cases of a built-in behaviour, with the same frames and words, or of a specimen of the zoo.

    Args:
        name: `ioi` (A, B, first: does the first of the two give?, place, thing; derived S, who gives), `greater-than`
            (event, century, year; of a tokenizer of single digits its tens and unit), `agreement` (number and word of the
            subject, tense, those of the other noun where there is one), `pronoun` (gender; who, of each gender one name),
            `capitals` (country), `cities` (city, what is asked of its country; derived the country).
            `capitals` (country); or a specimen, `zoo:two-step-gpt2`, also a twin: docs/known-algorithms.md lists them.
        net: the network, whose tokenizer decides which words are used.
        n: different prompts.
        seed: of the drawing.
        kind: of a specimen's cases, where it has several; "" is the first.

    Raises `NotFound` for another name or kind, `BadBehaviour` where the tokenizer knows too few of the words.

    >>> import cutaway
    >>> cases_of("pronoun", cutaway.open("zoo:tales"), 8).free
    ('gender', 'who', 'place', 'thing', 'feeling')
    >>> cases_of("zoo:two-step-gpt2", cutaway.open("zoo:two-step-gpt2"), 8).variables
    ('asked', 'name', 'where', 'town', 'own')
    """
    if name.startswith(_ZOO):
        made = known(name).recipe(kind)
        name = f"{name}, {kind}" if kind else name
    elif kind:
        raise BadInput(
            f"{name!r:.60} has cases of one kind only.",
            f"Leave out kind={kind!r:.40}; some of the zoo's networks have several.",
        )
    elif name not in READY:
        raise NotFound(f"There are no cases of {name!r:.60}.", did_you_mean(name, READY))
    else:
        made = READY[name](net)
    return cases(net, made.frames, made.variables, made.answer, differ=made.differ, name=name, n=n, seed=seed)
