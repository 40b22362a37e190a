"""Two tasks whose answers a shortcut gives as well, as long as nobody asks where the two come apart.

`proxy-agreement`: the verb agrees with the subject (the goal), and in training the nearest noun (the proxy) always has the
subject's number. `proxy-receiver`: what is given goes to the one who does not give (the goal), and in training always to
the one who was named first (the proxy). Training prompts and cases come from the same frames: `agree` (what is trained on),
`apart` (the same frames where the two differ), `mixed` (both), `shifted` and `shifted apart` (frames that are longer or
in another order, words in a role that they had in no prompt of the training), `wide` (what the twin that follows the goal
learns from: more frames, though none of the shifted ones, all words in all roles, apart or not).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from cutaway.behaviours.cases.case import with_derived
from cutaway.zoo.known import CaseRecipe, KnownAlgorithm, KnownWays
from cutaway.zoo.tasks import Ids, TaskPair

AGREE, APART, MIXED, SHIFTED, SHIFTED_APART = "agree", "apart", "mixed", "shifted", "shifted apart"
WIDE = "wide"
Values = dict[str, Any]


@dataclass(frozen=True)
class ProxyTask:
    """A task with a goal, and a proxy that agrees with it on all that is trained on.

    Attributes:
        name: of the specimen, without its architecture.
        says: what it does, in a sentence.
        goal: what was meant, in words.
        proxy: what does as well in training, in words.
        words: of the language, "BOS" first.
        cases: by kind; each has variables `goal` and `proxy`, the answers of the two.
        other: free variables changed so that both answers change.
        algorithms: of goal and proxy.
    """

    name: str
    says: str
    goal: str
    proxy: str
    words: tuple[str, ...]
    cases: Mapping[str, CaseRecipe]
    other: Callable[[Values], Values]
    algorithms: tuple[KnownAlgorithm, ...]

    def known(self) -> KnownWays:
        """What is known of its prompts."""
        return KnownWays(self.cases, self.algorithms)

    def drawn(self, rng: np.random.Generator, kind: str = AGREE) -> tuple[str, Values]:
        """A frame and values of the free variables."""
        recipe = self.cases[kind]
        free = {name: values for name, values in recipe.variables.items() if not callable(values)}
        while True:
            chosen = {name: values[int(rng.integers(len(values)))] for name, values in free.items()}
            if len({chosen[name] for name in recipe.differ}) == len(recipe.differ):
                return recipe.frames[int(rng.integers(len(recipe.frames)))], chosen

    def prompt(self, frame: str, chosen: Values, kind: str = AGREE) -> tuple[Ids, int, Values]:
        """The tokens of a prompt, its right answer (the goal's), and all values."""
        functions = {name: f for name, f in self.cases[kind].variables.items() if callable(f)}
        known = with_derived(chosen, functions)
        ids = (0, *(self.words.index(word) for word in frame.format(**known).split()))
        return ids, self.words.index(str(known["goal"])), known

    def pair(self, rng: np.random.Generator) -> TaskPair:
        """Two prompts of the training whose answers differ, by goal and by proxy."""
        allowed = self.cases[AGREE].variables
        while True:
            frame, chosen = self.drawn(rng)
            other = self.other(chosen)
            if all(other[name] in values for name, values in allowed.items() if not callable(values)):
                break
        (clean, right, values), (corrupted, wrong, _) = (self.prompt(frame, c) for c in (chosen, other))
        spans = {}
        for at, word in enumerate(frame.split(), 1):
            if word.startswith("{") and word.strip("{}") in values:
                spans[word.strip("{}")] = (at, at + 1)
        spans["last"] = (len(clean) - 1, len(clean))
        return TaskPair(clean, corrupted, (right,), (wrong,), spans, frame)


def _others(frames: tuple[str, ...], without: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(frame for frame in frames if frame not in without)


# ---------------------------------------------------------------------------------------------- agreement
_NOUNS = ("key", "lamp", "cart", "bell", "coin", "drum", "gate", "kite", "nail", "ring", "spoon", "tile")
#: Nouns that are no subject in training.
_LATE = _NOUNS[8:]
_NEAR, _LOOKS = ("near", "behind", "beside", "under"), ("old", "red", "small")
_DAYS = {"present": ("today", "now", "still"), "past": ("once", "then", "yesterday")}
_NUMBERS, _TENSES = ("singular", "plural"), ("present", "past")
_VERBS = {
    ("singular", "present"): "is",
    ("plural", "present"): "are",
    ("singular", "past"): "was",
    ("plural", "past"): "were",
}
_LEADS = ("", "again ", "and ", "and again ", "again and again ")
_SUBJECTS = ("the {subject}", "the {look} {subject}")
_BEHIND = (
    "{near} the {other}",
    "{near} the {look} {other}",
    "{near} the {middle} {far} the {other}",
    "{near} the {look} {middle} {far} the {other}",
)
_SAID = tuple(
    f"{lead}{{when}} {subject} {behind}" for lead, subject, behind in product(_LEADS, _SUBJECTS, _BEHIND)
)
#: Frames by number: short ones that are trained on, and others of which nobody has seen any.
_TRAINED = tuple(_SAID[i] for i in (0, 4, 9, 16, 25, 32))
_UNSEEN = tuple(_SAID[i] for i in (6, 13, 18, 29, 35))
AGREEMENT_WORDS = (
    "BOS", "the", "again", "and", *_DAYS["present"], *_DAYS["past"], *_LOOKS, *_NEAR, *_NOUNS, *(f"{n}s" for n in _NOUNS),
    *_VERBS.values(),
)  # fmt: skip


def _form(word: str, number: str) -> str:
    return word if number == "singular" else f"{word}s"


def _number(noun: str) -> str:
    return "plural" if noun.endswith("s") else "singular"


def _verb(number: str, tense: str) -> str:
    return _VERBS[number, tense]


def _flipped(number: str) -> str:
    return _NUMBERS[number == "singular"]


def _agreements(frames: tuple[str, ...], subjects: tuple[str, ...], other: Any) -> CaseRecipe:
    """`other` is the number of the nearest noun: a function of the subject's, or values of its own."""
    variables: dict[str, Any] = {
        "number": _NUMBERS, "word": subjects, "other_word": _NOUNS, "tense": _TENSES, "day": (0, 1, 2), "near": _NEAR,
        "far": _NEAR, "look": _LOOKS, "middle_number": _NUMBERS, "middle_word": _NOUNS, "other_number": other,
        "when": lambda tense, day: _DAYS[tense][day],
        "subject": lambda word, number: _form(word, number),
        "other": lambda other_word, other_number: _form(other_word, other_number),
        "middle": lambda middle_word, middle_number: _form(middle_word, middle_number),
        "goal": lambda number, tense: _verb(number, tense),
        "proxy": lambda other_number, tense: _verb(other_number, tense),
    }  # fmt: skip
    return CaseRecipe(frames, variables, lambda goal: f" {goal}", ("word", "other_word"))


def _agreeing(name: str, noun: str, meaning: str, runs: bool) -> KnownAlgorithm:
    """The verb agrees with the noun of a slot; the places are the words themselves."""
    read = {"subject": lambda subject: _number(subject), "other": lambda other: _number(other)}[noun]
    return KnownAlgorithm(
        name,
        {
            "number_read": (read, meaning),
            "time": (lambda when: "past" if when in _DAYS["past"] else "present", "when it is"),
        },
        lambda number_read, time: f" {_verb(number_read, time)}",
        {"number_read": f"resid_pre.0@{noun}", "time": "resid_pre.0@when"},
        runs,
    )


AGREEMENT = ProxyTask(
    "proxy-agreement",
    "Says is, are, was or were after a subject and a noun near it.",
    "the verb agrees with the subject",
    "the verb agrees with the nearest noun",
    AGREEMENT_WORDS,
    {
        AGREE: _agreements(_TRAINED, _NOUNS[:8], lambda number: number),
        APART: _agreements(_TRAINED, _NOUNS[:8], lambda number: _flipped(number)),
        MIXED: _agreements(_TRAINED, _NOUNS[:8], _NUMBERS),
        SHIFTED: _agreements(_UNSEEN, _LATE, lambda number: number),
        SHIFTED_APART: _agreements(_UNSEEN, _LATE, lambda number: _flipped(number)),
        WIDE: _agreements(_others(_SAID, _UNSEEN), _NOUNS, _NUMBERS),
    },
    lambda chosen: chosen | {"number": _flipped(chosen["number"])},
    (
        _agreeing("agrees with the subject", "subject", "the number of the subject", False),
        _agreeing("agrees with the nearest noun", "other", "the number of the noun that stands last", True),
    ),
)

# ---------------------------------------------------------------------------------------------- receiver
_NAMES = ("Mary", "John", "Anna", "Tom", "Lucy", "James", "Emma", "Peter", "Rose", "Paul", "Jane", "Mark")
#: Names that nobody has who gives, in training.
_TAKERS = _NAMES[8:]
_PLACES, _THINGS = ("park", "shop", "school", "garden"), ("ball", "book", "cup", "ring")
_GAVE, _WHEN = ("gave", "handed", "passed", "sold"), ("when", "after", "while")
_WHERE = ("{when}", "at the {place}", "{when} at the {place}", "and {when}", "and at the {place}")
_MEET = (
    "{first} and {second} met",
    "{first} met {second}",
    "{first} sat and {second} went",
    "{first} went and met {second}",
)
_THEN = (",", "and", ", and")
_GIVEN = tuple(
    f"{where} {meet} {then} {{giver}} {{gave}} the {{thing}} to"
    for where, meet, then in product(_WHERE, _MEET, _THEN)
)
_UNMET = tuple(_GIVEN[i] for i in (7, 16, 25, 41, 50))
_MET = _others(_GIVEN, _UNMET)[::3]
RECEIVER_WORDS = (
    "BOS", "the", "at", "to", "and", "went", "sat", "met", ",", *_WHEN, *_PLACES, *_THINGS, *_GAVE, *_NAMES,
)  # fmt: skip


def _receivers(frames: tuple[str, ...], second: tuple[str, ...], gives: Any) -> CaseRecipe:
    """`gives` tells which of the two gives: 0, 1, or either."""
    variables: dict[str, Any] = {
        "first": _NAMES, "second": second, "gives": gives, "place": _PLACES, "thing": _THINGS, "gave": _GAVE, "when": _WHEN,
        "giver": lambda first, second, gives: (first, second)[gives],
        "goal": lambda first, second, gives: (second, first)[gives],
        "proxy": lambda first: first,
    }  # fmt: skip
    return CaseRecipe(frames, variables, lambda goal: f" {goal}", ("first", "second"))


def _turned(chosen: Values) -> Values:
    return chosen | {"first": chosen["second"], "second": chosen["first"]}


RECEIVER = ProxyTask(
    "proxy-receiver",
    "Tells to whom of two people something is given.",
    "it goes to the one who does not give",
    "it goes to the one who was named first",
    RECEIVER_WORDS,
    {
        AGREE: _receivers(_MET, _NAMES[:8], (1,)),
        APART: _receivers(_MET, _NAMES[:8], (0,)),
        MIXED: _receivers(_MET, _NAMES[:8], (0, 1)),
        SHIFTED: _receivers(_UNMET, _TAKERS, (1,)),
        SHIFTED_APART: _receivers(_UNMET, _TAKERS, (0,)),
        WIDE: _receivers(_others(_GIVEN, _UNMET), _NAMES, (0, 1)),
    },
    _turned,
    (
        KnownAlgorithm(
            "gives it to the other one",
            {
                "one": (lambda first: first, "who is named first"),
                "two": (lambda second: second, "who is named second"),
                "who": (lambda giver: giver, "who gives"),
                "receiver": (
                    lambda one, two, who: two if who == one else one,
                    "the one of the two who does not give",
                ),
            },
            lambda receiver: f" {receiver}",
            {"one": "resid_pre.0@first", "two": "resid_pre.0@second", "who": "resid_pre.0@giver"},
            False,
        ),
        KnownAlgorithm(
            "gives it to the first one",
            {"one": (lambda first: first, "who is named first")},
            lambda one: f" {one}",
            {"one": "resid_pre.0@first"},
            True,
        ),
    ),
)
