"""The messages of other people's errors, as sentences."""

from __future__ import annotations


def sentence(error: object) -> str:
    """The first line of an error, as a sentence that ends with a full stop.

    >>> sentence(ValueError("no such thing:"))
    'no such thing.'
    """
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(" .:;,") + "."
