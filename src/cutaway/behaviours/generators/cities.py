"""A question in two steps: 'The city of Milan is in a country. Its language is' -> ' Italian', by way of Italy.

After the two-hop questions of Yang et al. 2024 (Do large language models latently perform multi-hop reasoning?). The
corrupted prompt asks the same of a city in another country. Spans: city, asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import DraftPair, choose, collect
from cutaway.behaviours.tokenizing import KnownWords

if TYPE_CHECKING:
    from cutaway.network import Network

FRAMES: Final = (
    "The city of {city} is in a country. Its {asked} is",
    "The {asked} of the country in which {city} lies is",
    "The {asked} of the country where {city} is located is",
    "The {asked} of the country to which {city} belongs is",
    "As for the country in which {city} lies, its {asked} is",
    "The {asked} of the country that {city} is in is",
)
#: What may be asked of a country.
ASKED: Final = ("capital", "language")


#: What is answered of a country.
THERE: Final = {
    country: {"capital": capital, "language": tongue} for _, country, capital, tongue in W.CITIES
}  # fmt: skip
COUNTRY: Final = {city: country for city, country, *_ in W.CITIES}


def cities(net: Network, n: int = 128, seed: int = 0) -> Behaviour:
    """Pairs of prompts that ask the capital or the language of the country of a city, of cities with as many tokens.

    Raises `BadBehaviour` where the tokenizer knows too few of the words.
    """
    asked, known, frames = words_of(net)

    def draw(rng: np.random.Generator) -> DraftPair:
        what, frame = choose(rng, asked), choose(rng, frames)
        one = choose(rng, known)
        others = [city for city in known if THERE[COUNTRY[city]][what] != THERE[COUNTRY[one]][what]]
        other = choose(rng, others or known)
        clean, corrupted = ({"city": city, "asked": what} for city in (one, other))
        right, wrong = (f" {THERE[COUNTRY[city]][what]}" for city in (one, other))
        return DraftPair(frame, clean, corrupted, (right,), (wrong,))

    return collect(net, "cities", draw, n, seed)


def words_of(net: Network) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What may be asked, the cities of as many tokens as each other, and the frames, as the tokenizer knows them."""
    words = KnownWords(net, "cities")
    asked = words.single(ASKED, 2, "kinds of answer")
    whole = [city for city in COUNTRY if all(words.size(said) == 1 for said in THERE[COUNTRY[city]].values())]
    return asked, words.even(whole, 4, "cities"), words.suited(FRAMES)
