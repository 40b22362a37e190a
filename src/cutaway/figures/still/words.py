"""Plotly's labels are markup; a still drawing has plain text."""

from __future__ import annotations

import html
import re

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
#: What no XML may hold.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_TAG = re.compile(r"</?(?:b|i|u|s|em|strong|span|sub|sup|a)(?:\s[^<>]*)?>", re.IGNORECASE)


def plain(label: object) -> str:
    """The text of a label: line breaks as such, tags that Plotly knows dropped, entities as the characters they stand for.

    What cannot stand in a file is shown as �.

    >>> plain("a<br><b>&lt;s&gt;</b> &amp; 1 < 2")
    'a\\n<s> & 1 < 2'
    """
    if label is None:
        return ""
    return _UNFIT.sub("\ufffd", html.unescape(_TAG.sub("", _BREAK.sub("\n", str(label)))))


def wrapped(text: str, size: float, width: float) -> str:
    """Text broken between words so that no line is much wider than `width`, at `size` points a letter's height.

    >>> wrapped("one two three", 10, 40)
    'one two\\nthree'
    """
    most, lines = max(6, int(width / (0.55 * size))), []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and len(line) + 1 + len(word) > most:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return "\n".join(lines)
