"""Greater-than: 'The war lasted from the year 1732 to the year 17' -> a year above 32; corrupted: the year 1701.

After Hanna et al. 2023, 'How does GPT-2 compute greater-than?'. Spans: event, YY. Metric: probability difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import DraftPair, choose, collect
from cutaway.behaviours.metrics import METRICS
from cutaway.behaviours.tokenizing import KnownWords, continuation
from cutaway.errors import BadBehaviour

if TYPE_CHECKING:
    from cutaway.network import Network

FRAMES: Final = (
    "The {event} lasted from the year {CC}{YY} to the year {CC}",
    "The {event} lasted from {CC}{YY} to {CC}",
    "The {event} began in {CC}{YY} and ended in {CC}",
)
_LEAST_YEARS = 20


def greater_than(net: Network, n: int = 128, seed: int = 0, frames: Sequence[str] = FRAMES) -> Behaviour:
    """Pairs of greater-than; right: all later two-digit years, wrong: that year and all earlier ones.

    Only centuries are used whose years this tokenizer cuts into two tokens of two digits each. Where it cuts numbers into
    single digits, the next token is the tens digit: right are the later ones, wrong the earlier ones, and that of the year
    itself, which may be either, is neither. Raises BadBehaviour where it cuts them otherwise, showing how.
    """
    words = KnownWords(net, "greater-than")
    used = words.suited(frames, keep=2)
    if single_digits(net, used[0]):
        return collect(net, "greater-than", _by_digits(used), n, seed, METRICS["prob_diff"])
    years = years_of(net, used[0])

    @cache
    def answers(century: str, year: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(y for y in years[century] if y > year), tuple(y for y in years[century] if y <= year)

    def draw(rng: np.random.Generator) -> DraftPair:
        century = choose(rng, tuple(years))
        year = choose(rng, [y for y in years[century][:-1] if y > "01"])
        clean = {"event": choose(rng, W.EVENTS), "CC": century, "YY": year}
        right, wrong = answers(century, year)
        return DraftPair(choose(rng, used), clean, clean | {"YY": "01"}, right, wrong, {"CC": ""})

    return collect(net, "greater-than", draw, n, seed, METRICS["prob_diff"])


DIGITS: Final = tuple("0123456789")


def years_of(net: Network, frame: str) -> dict[str, tuple[str, ...]]:
    """The years of each century that are one token after it. Raises `BadBehaviour` where there are too few of any."""
    years = {century: _years(net, frame, century) for century in W.CENTURIES}
    years = {century: ys for century, ys in years.items() if len(ys) >= _LEAST_YEARS and "01" in ys}
    if not years:
        words = KnownWords(net, "greater-than")
        cut = words.tokenizer.convert_ids_to_tokens(list(continuation(net, "to", " 1732")))
        raise BadBehaviour(
            "'greater-than' needs years of two tokens of two digits, or of single digits, and this tokenizer cuts ' 1732' "
            f"into {cut}.",
            "Use a tokenizer that cuts numbers into pairs of digits, or into digits.",
        )
    return years


def single_digits(net: Network, frame: str) -> bool:
    """Whether the tokenizer makes a token of each digit of a year, in the middle of it and after a century."""
    prompt = frame.format(event="war", CC="17", YY="32")
    try:
        cut = continuation(net, "from", " 1732")[-4:]
        return len(set(cut)) == 4 and (
            continuation(net, "from 17", "32"),
            continuation(net, prompt, "3"),
        ) == (
            cut[-2:],
            cut[-2:-1],
        )
    except BadBehaviour:
        return False


def _by_digits(frames: Sequence[str]) -> Callable[[np.random.Generator], DraftPair]:
    """Pairs that a tokenizer of single digits can answer, by the tens digit of the later year."""

    def draw(rng: np.random.Generator) -> DraftPair:
        tens = choose(rng, DIGITS[2:8])
        clean = {
            "event": choose(rng, W.EVENTS),
            "CC": choose(rng, W.CENTURIES),
            "YY": tens + choose(rng, DIGITS),
        }
        right, wrong = DIGITS[int(tens) + 1 :], DIGITS[: int(tens)]
        return DraftPair(choose(rng, frames), clean, clean | {"YY": "01"}, right, wrong, {"CC": ""})

    return draw


def _years(net: Network, frame: str, century: str) -> tuple[str, ...]:
    """The years of a century that are one token after it, and the same token wherever the year stands."""
    prompt = frame.format(event="war", CC=century, YY="32")
    years = []
    for year in W.YEARS:
        try:
            after = continuation(net, prompt, year)
            inside = continuation(net, f"from {century}", year)
        except BadBehaviour:
            continue
        if len(after) == 1 and after == inside:
            years.append(year)
    return tuple(years)
