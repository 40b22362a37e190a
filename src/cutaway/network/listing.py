"""Several parts in words: counted, or listed kind by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cutaway.network.parts import KINDS, Part, in_order

#: With more channels than this, a listing says how many there are of the maps that most are of.
_CHANNELS_BY_NUMBER, _MAPS_NAMED = 12, 3


def count(parts: Iterable[Part]) -> str:
    """The parts counted in words.

    >>> count([Part("mlp", 0), Part("head", 1, 2), Part("head", 1, 3)])
    '2 heads and 1 MLP'
    """
    numbers = Counter(part.kind for part in parts)
    said = [f"{n} {row.plural if n != 1 else row.one}" for kind, row in KINDS.items() if (n := numbers[kind])]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said) or "no parts"


def listing(parts: Iterable[Part]) -> str:
    """The parts in words, those of a kind together, channels by the map that they are of: few by number, many counted.

    >>> listing([Part("mlp", 0), Part("head", 1, 2), Part("head", 1, 3)])
    'heads 1.2, 1.3; MLP 0'
    >>> listing([Part("channel", None, 2, "conv1"), Part("channel", None, 5, "conv1"), Part("channel", None, 0, "conv2")])
    'channels 2, 5 of conv1, 0 of conv2'
    """
    ordered, said = in_order(parts), []
    for kind, row in KINDS.items():
        if kind == "channel":
            said += _channels([part for part in ordered if part.kind == kind])
            continue
        words = [part.words for part in ordered if part.kind == kind]
        if len(words) > 1 and row.plural:
            words = [word.removeprefix(row.one).strip() for word in words]
            words[0] = f"{row.plural} {words[0]}"
        if words:
            said.append(", ".join(words))
    return "; ".join(said)


def _channels(parts: Sequence[Part]) -> list[str]:
    """Channels in words, map by map, as one item of a listing; none where there are none."""
    maps: dict[str, list[str]] = {}
    for part in parts:
        maps.setdefault(part.place, []).append(str(part.index))
    if not maps:
        return []
    if len(parts) > _CHANNELS_BY_NUMBER:
        most = sorted(maps.items(), key=lambda item: -len(item[1]))[:_MAPS_NAMED]
        named = ", ".join(f"{len(numbers)} of {place}" for place, numbers in most)
        several = f" of {len(maps)} maps, most of them" if len(maps) > _MAPS_NAMED else ":"
        return [f"{len(parts)} channels{several} {named}"]
    word = KINDS["channel"].plural if len(parts) > 1 else KINDS["channel"].one
    return [f"{word} " + ", ".join(f"{', '.join(numbers)} of {place}" for place, numbers in maps.items())]
