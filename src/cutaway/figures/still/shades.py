"""Colours as a description gives them, as Matplotlib takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cutaway.errors import BadInput

_NUMBERS = re.compile(r"rgba?\(([^)]*)\)")


def shade(colour: Any, default: str) -> Any:
    """`#rrggbb`, a name, or rgb(...) and rgba(...) as a tuple of shares; `default` for None.

    >>> shade("rgba(255,0,0,0.5)", "#000"), shade(None, "#000"), shade("#1c2127", "#000")
    ((1.0, 0.0, 0.0, 0.5), '#000', '#1c2127')
    """
    if colour is None:
        return default
    if match := _NUMBERS.fullmatch(str(colour).strip()):
        red, green, blue, *alpha = (float(part) for part in match[1].split(","))
        return (red / 255, green / 255, blue / 255, alpha[0] if alpha else 1.0)
    return str(colour)


def scale_of(described: Any) -> list[tuple[float, str]]:
    """A colour scale as `(place, #rrggbb)`.

    Raises BadInput where it is none.
    """
    from matplotlib.colors import to_hex

    if not isinstance(described, Sequence) or isinstance(described, str) or len(described) < 2:
        raise BadInput(
            f"{described!r:.80} is no colour scale.", "Give pairs of a place from 0 to 1 and a colour."
        )
    return [(float(place), to_hex(shade(colour, "#000000"))) for place, colour in described]
