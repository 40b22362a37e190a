"""The words and sentence frames of `tales`: plain data, read by the grammar and by anyone who builds prompts.

A frame is a sentence (or a few) with slots. `{A}` is filled with a word; `{IO!}` marks a slot whose word is
*determined* by the words before it. The last marked slot of a frame is its question: the text before it is a
prompt, the word in it is the answer.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEMALE: Final = _words(
    "Mary Anna Lucy Emma Rose Jane Alice Clara Nora Ruth Ella Grace Helen Sara Julia Kate "
    "Laura Lily Maria Nina Paula Rita Susan Tina Vera Wendy Amy Betty Diana Eva Fiona Ivy"
)
MALE: Final = _words(
    "John Tom James Peter Paul Mark David Henry Jack Luke Adam Simon Frank George Oscar Sam "
    "Leo Max Ned Otto Robert Steven Victor Walter Arthur Ben Carl Dan Eric Fred Hugo Ivan"
)
SURNAMES: Final = _words(
    "Stone Reed Brook Hill Wood Baker Marsh Lake Ford Cook Fox Hart Lane Moss Page Price "
    "Snow Swift Vance West Wolf York Young Banks"
)
PLACES: Final = _words(
    "park shop school garden house market station church library river forest beach farm bridge hotel museum "
    "harbor kitchen castle village office tower valley field"
)
THINGS: Final = _words(
    "ball book cup key ring letter hat lamp coin flower cake map bell rope basket drum "
    "pen plum knife mirror box ribbon shoe clock"
)
ADJECTIVES: Final = _words(
    "happy sad tired cold warm quiet loud tall new small big dirty clean bright late lost"
)
NOUNS: Final = (  # (singular, plural)
    ("boy", "boys"), ("girl", "girls"), ("dog", "dogs"), ("cat", "cats"), ("horse", "horses"),
    ("bird", "birds"), ("tree", "trees"), ("door", "doors"), ("chair", "chairs"), ("ship", "ships"),
    ("doctor", "doctors"),
    ("teacher", "teachers"), ("window", "windows"), ("wagon", "wagons"), ("king", "kings"),
    ("queen", "queens"), ("cow", "cows"), ("fish", "fishes"), ("star", "stars"), ("table", "tables"),
)  # fmt: skip
NUMBERS: Final = _words("one two three four five six seven eight nine ten")
EVENTS: Final = _words("war fair storm reign journey drought feast voyage siege strike")
CENTURIES: Final = _words("11 12 13 14 15 16 17 18")
YEARS: Final = tuple(f"{n:02d}" for n in range(100))

# Invented beings have two-word names (head + tail), each word one token, so that a fact belongs to the pair.
ENTITY_HEADS: Final = _words(
    "Zor Vel Quin Drim Plo Gna Kru Thal Wex Jub Fli Myr Bron Osk Hyl Nep Tza Ruv Cyd Lum"
)
ENTITY_TAILS: Final = _words(
    "Vak Dor Mip Zul Gax Fen Tho Bix Lun Kre Pon Wis Jad Hob Nuk Sby Tez Rog Cim Yap"
)
ENTITY_COUNT: Final = 200
CITIES: Final = _words(
    "Paris Rome London Berlin Cairo Delhi Tokyo Lima Oslo Madrid Vienna Athens Dublin Prague"
)
JOBS: Final = _words("barber farmer sailor painter guard judge miner singer tailor hunter pilot monk")
COLOURS: Final = _words("red blue green yellow white black brown purple pink gray")
PETS: Final = _words("goat snake rabbit mouse wolf bear frog pig duck lion hen tiger")

WENT: Final = (
    "went to",
    "walked to",
    "ran to",
    "drove to",
    "came to",
    "were at",
    "met at",
    "sat in",
    "arrived at",
)
GAVE: Final = ("gave", "handed", "passed", "offered", "sold", "threw", "showed", "brought")
MOVED: Final = ("went to", "walked to", "ran to", "drove to", "came to")
SAID: Final = ("said", "cried", "answered", "whispered", "shouted", "wrote")
NEAR: Final = ("near", "behind", "beside", "under")
QUOTES: Final = ('"', "'")

FRAMES: Final[dict[str, tuple[str, ...]]] = {
    "ioi": (
        "When {A} and {B} {went} the {place}, {S} {gave} the {thing} to {IO!}.",
        "After {A} and {B} {went} the {place}, {S} {gave} a {thing} to {IO!}.",
        "While {A} and {B} {went} the {place}, {S} {gave} the {thing} to {IO!}.",
        "Then {A} and {B} {went} the {place}. {S} {gave} a {thing} to {IO!}.",
        "{A} and {B} {went} the {place}. Later {S} {gave} the {thing} to {IO!}.",
        "One day {A} and {B} {went} the {place}, and {S} {gave} the {adj} {thing} to {IO!}.",
        "{A} and {B} had a {thing} at the {place}. {S} {gave} it to {IO!}.",
        "When {A} and {B} found a {thing} at the {place}, {S} wanted to give it to {IO!}.",
        "The {place} was {adj} when {A} and {B} found the {thing}, so {S} {gave} it to {IO!}.",
        "{A} saw {B} at the {place}. Then {S} {gave} the {thing} to {IO!}.",
    ),
    "pronoun": (
        "{A} {moved} the {place} because {he!} was {adj}.",
        "{A} was {adj}, so {he!} {moved} the {place}.",
        "{A} felt {adj} when {he!} saw the {thing}.",
        "{A} met {B} at the {place} because {he!} was {adj}.",
        "{A} {gave} the {thing} to {B} because {he!} was {adj}.",
        "{A} found the {adj} {thing}, and {he!} was happy.",
        "When {A} came to the {place}, {he!} was {adj}.",
        "{A} lost the {thing} at the {place}, so {he!} felt sad.",
    ),
    "possessive": (
        "{A} took {his!} {thing} to the {place}.",
        "{A} {moved} the {place} with {his!} {thing}.",
        "{A} was {adj} and took {his!} {thing}.",
    ),
    "object_pronoun": (
        "{A} was {adj}, and the {noun} helped {him!}.",
        "The {noun} saw {A} at the {place} and thanked {him!}.",
        "{A} lost the {thing}, but the {noun} helped {him!}.",
    ),
    "name_recall": (
        "A {girl} named {A} lived in the {place}. The friends called {him!} {A!}.",
        "There was a {girl} named {A} who had a {thing}. At the {place} they called {him!} {A!}.",
        "A {girl} named {A} and a {boy} named {B} lived in the {place}. "
        "The {boy} was called {B!} and the {girl!} was called {A!}.",
        "A {girl} named {A} met a {boy} named {B}. The name of the {girl} was {A!}.",
        "A {boy} named {B} met a {girl} named {A}. The name of the {girl} was {A!}.",
        "The {girl} was {A} and the {boy} was {B}. The {noun} was {adj}. The name of the {girl} was {A!}.",
    ),
    "name_induction": (
        "{A} {SA} met {B} {SB} at the {place}. Then {B} {SB!} smiled, and {A} {SA!} laughed.",
        "{B} {SB} and {A} {SA} {went} the {place}. {A} {SA!} was {adj}.",
        "{A} {SA} had the {thing}. The {noun} saw {A} {SA!}.",
        "{A} {SA} and {B} {SB} were friends. {B} {SB!} was {adj}, but {A} {SA!} was {adj2}.",
        "One day {A} {SA} saw {B} {SB} near the {place}. The {noun} helped {A} {SA!}.",
    ),
    "agreement": (
        "Here the {N} {is!} {adj}.",
        "Today the {N} {near} the {D} {is!} {adj}.",
        "Now the {adj2} {N} {near} the {D} {is!} {adj}.",
        "Today the {N} that the {D} saw {is!} {adj}.",
        "Now the {N} that {A} liked {is!} {adj}.",
        "This morning the {N} {was!} {adj}.",
        "Yesterday the {N} {near} the {D} {was!} {adj}.",
        "Last night the {N} {near} the {adj2} {D} {was!} {adj}.",
        "Yesterday the {N} that the {D} liked {was!} {adj}.",
        "Last night the {N} that {A} saw {was!} {adj}.",
    ),
    "greater_than": (
        "The {event} lasted from {CC}{YY} to {CC!}{ZZ!}.",
        "The {event} in {city} lasted from {CC}{YY} to {CC!}{ZZ!}.",
        "The {event} began in {CC}{YY} and ended in {CC!}{ZZ!}.",
    ),
    "facts": (
        "{E} lives in {city!}.",
        "The home of {E} is {city!}.",
        "{E} works as a {job!}.",
        "The job of {E} is {job!}.",
        "{E} always wears {colour!}.",
        "The color of {E} is {colour!}.",
        "{E} owns a {pet!}.",
        "The pet of {E} is a {pet!}.",
    ),
    "quotation": (
        "{A} {said}, {q}The {N} {near} the {place} {is} {adj}.{Q!}",
        "{A} {said}, {q}I like the {thing}.{Q!}",
        "{A} {said} to {B}, {q}We saw the {N} at the {place}.{Q!}",
        "{A} {said}, {q}{B} has the {thing}.{Q!}",
        "The {noun} {said}, {q}The {thing} is in the {place}.{Q!}",
        "{A} {said}, {q}My {thing} is {adj} and {adj2}.{Q!}",
    ),
    "counting": (
        "{A} counted: {k1}, {k2!}, {k3!}.",
        "{A} counted the {nouns}: {k1}, {k2!}, {k3!}, {k4!}.",
        "{A} counted to {B}: {k1}, {k2!}, {k3!}, {k4!}, {k5!}.",
        "The {noun} counted the {nouns}: {k1}, {k2!}, {k3!}, {k4!}, {k5!}.",
    ),
    "tally": (
        "{A} had {a1} {t1}, {a2} {t2} and {a3} {t3}. That made {n!}.",
        "{A} had {a1} {t1}, {a2} {t2}, {a3} {t3} and {a4} {t4}. That made {n!}.",
        "{A} had {a1} {t1}, {a2} {t2}, {a3} {t3}, {a4} {t4} and {a5} {t5}. That made {n!}.",
    ),
    "adding": (
        "{A} had {x} {nouns}. {B} {gave} {him!} {y} more. Now {A} had {z!} {nouns}.",
        "{A} saw {x} {nouns} at the {place}, and then {y} more came. {A} saw {z!} {nouns} in all.",
    ),
    "possession": (
        "{A} had the {thing}. {A} {gave} the {thing!} to {B}. Now the {thing} belonged to {B!}.",
        "{A} had the {thing} and {B} had the {thing2}. So the {thing} belonged to {A!}.",
        "{B} had the {thing2} and {A} had the {thing}. So the {thing} belonged to {A!}.",
    ),
    "location": (
        "{A} {moved} the {place} and {B} {moved2} the {place2}. So {A} was in the {place!}.",
        "{B} {moved2} the {place2} and {A} {moved} the {place}. So {A} was in the {place!}.",
    ),
    "filler": (
        "It was a {adj} day.",
        "The {noun} slept near the {place}.",
        "{A} smiled.",
        "{A} and {B} were friends.",
        "The {place} was {adj}.",
        "{A} lived near the {place}.",
        "Every day the {nouns} ran to the {place}.",
        "{A} liked the {adj} {thing}.",
        "{B} waited for {A} at the {place}.",
        "A {noun} came to the {place} and saw the {thing}.",
        "The {nouns} laughed.",
        "{A} thought of the {adj} {noun}.",
        "There was a {thing} in the {place}.",
        "At night the {place} was {adj}.",
        "{A} wanted to see the {noun}.",
    ),
}  # fmt: skip
