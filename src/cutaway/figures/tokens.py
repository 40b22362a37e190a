"""How a token is shown: visible where it is invisible, escaped where it would be taken for markup."""

from __future__ import annotations

import html
import unicodedata

_VISIBLE = {"\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u200b": "∅", "\u2028": "↵", "\u2029": "¶"}


def show_token(token: str, escape: bool = True, strip: bool = True) -> str:
    """The token as a person should see it: control characters made visible, the leading space dropped.

    Args:
        token: the token's own text.
        escape: replace `<`, `>`, `&` and quotes by entities (Plotly reads labels as markup).
        strip: drop one leading space (word starts); a token that is only spaces is shown as `␣`.

    >>> show_token(" Mary"), show_token("  "), show_token("<s>"), show_token("\\n")
    ('Mary', '␣␣', '&lt;s&gt;', '↵')
    """
    text = token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")
    if text and not text.strip(" "):
        text = "␣" * len(text)
    elif strip and text.startswith(" "):
        text = text[1:]
    text = "".join(_VISIBLE.get(char, char if _printable(char) else f"\\x{ord(char):02x}") for char in text)
    return html.escape(text) if escape else text


def _printable(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"
