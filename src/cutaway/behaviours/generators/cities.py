"""A question in two steps: 'The city of Milan is in a country. Its language is' -> ' Italian', by way of Italy.

After the two-hop questions of Yang et al. 2024 (Do large language models latently perform multi-hop reasoning?). The
corrupted prompt asks the same of a city in another country. Spans: city, asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cutaway.behaviours.data import Behaviour
from cutaway.errors import BadInput

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


def cities(net: Network, n: int = 128, seed: int = 0) -> Behaviour:
    """Pairs of prompts that ask the capital or the language of the country of a city, of cities with as many tokens.

    The prompts are those of `cases_of("cities")`, whose variables are the city, the country, and what is asked. Raises
    `BadBehaviour` where the tokenizer knows too few of the words.
    """
    from cutaway.behaviours.cases import cases_of

    if n < 1:
        raise BadInput(f"{n} examples are asked for.", "Ask for at least one.")
    pairs = cases_of("cities", net, n, seed).behaviour(net, "city", n=n, seed=seed)
    return replace(pairs, name="cities")
