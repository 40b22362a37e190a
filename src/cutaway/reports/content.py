"""What a report says, as plain data. Strings are text, not markup: the template escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import plotly.graph_objects as go

from cutaway.claims import Claim, Verdict
from cutaway.figures import show_token
from cutaway.figures.theme import blend, ink_on
from cutaway.results import brief


@dataclass(frozen=True)
class Text:
    """Paragraphs.

    Attributes:
        paragraphs: each one string.
    """

    paragraphs: tuple[str, ...]
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Points:
    """A list of sentences.

    Attributes:
        items: each with its bold beginning, which may be empty.
    """

    items: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Figure:
    """A figure with its caption.

    Attributes:
        figure: of Plotly; a page draws it still, and leaves it to Plotly only on request.
        caption: below it.
        wide: does it take the page's whole width?
    """

    figure: go.Figure
    caption: str
    wide: bool = True
    kind: ClassVar[str] = "figure"

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.figure.layout.height or 300)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes:
        head: the names of the columns.
        rows: the cells.
        caption: below it.
        numeric: the columns (by index) that are set as figures, flush right.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"

    __repr__ = brief


@dataclass(frozen=True)
class Token:
    """One token of a prompt.

    Attributes:
        text: its own.
        differs: whether the two prompts of the pair differ there.
    """

    text: str
    differs: bool = False

    @property
    def shown(self) -> str:
        """The text with control characters made visible (not escaped: the template does that)."""
        return show_token(self.text, escape=False)

    @property
    def spaced(self) -> bool:
        """Whether a word begins here."""
        return self.text[:1] in (" ", "▁", "Ġ")


@dataclass(frozen=True)
class Pair:
    """A clean and a corrupted prompt.

    Attributes:
        clean, corrupted: their tokens.
        right, wrong: the answers.
        clean_says, corrupted_says: what the network says on each.
        clean_picture, corrupted_picture: data URIs of the images, where the prompts are images.
        sides: what the two are called.
    """

    clean: tuple[Token, ...]
    corrupted: tuple[Token, ...]
    right: str
    wrong: str
    clean_says: str = ""
    corrupted_says: str = ""
    clean_picture: str = ""
    corrupted_picture: str = ""
    sides: tuple[str, str] = ("clean", "corrupted")


@dataclass(frozen=True)
class Pairs:
    """Example pairs.

    Attributes:
        pairs: in order.
        caption: below them.
    """

    pairs: tuple[Pair, ...]
    caption: str = ""
    kind: ClassVar[str] = "pairs"


@dataclass(frozen=True)
class ClaimTests:
    """A claim with every piece of evidence and every control.

    Attributes:
        claim: whose tests are listed.
    """

    claim: Claim
    kind: ClassVar[str] = "tests"


@dataclass(frozen=True)
class Facts:
    """Names and values.

    Attributes:
        items: (name, value), in order.
    """

    items: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class TokenPassage:
    """A few tokens of a text, coloured by what was read at each.

    Attributes:
        tokens: the tokens.
        levels: what was read at each, from -1 to 1.
        at: which token it is about.
        label: what stands before it.
    """

    tokens: tuple[str, ...]
    levels: tuple[float, ...]
    at: int
    label: str = ""

    @property
    def coloured(self) -> tuple[tuple[str, str, str, bool, bool], ...]:
        """Each token as it is shown, its ground, its ink, whether a word begins there, and whether it is the one."""
        grounds = [blend(level, 1.0) for level in self.levels]
        return tuple(
            (
                show_token(token, escape=False),
                ground,
                ink_on(ground),
                token[:1] in (" ", "▁", "Ġ"),
                i == self.at,
            )
            for i, (token, ground) in enumerate(zip(self.tokens, grounds, strict=True))
        )


@dataclass(frozen=True)
class TokenPassages:
    """Passages below each other.

    Attributes:
        passages: in order.
        caption: above them.
    """

    passages: tuple[TokenPassage, ...]
    caption: str = ""
    kind: ClassVar[str] = "passages"


@dataclass(frozen=True)
class Listing:
    """Code or a command, set in a fixed width.

    Attributes:
        text: as it is set.
    """

    text: str
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section.

    Attributes:
        text: as it reads.
    """

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Said:
    """A sentence with what it rests on.

    Attributes:
        text: the sentence.
        anchor: the name of the section where its evidence is; "" for none.
        verdict: of the claim that it is made from; None where it says what was done or seen, which nobody claims.
        head: its bold beginning.
    """

    text: str
    anchor: str = ""
    verdict: Verdict | None = None
    head: str = ""


@dataclass(frozen=True)
class Told:
    """Sentences in order, each with its verdict and a link to its evidence.

    Attributes:
        items: the sentences.
        numbered: are they steps, or answers?
        caption: below them.
    """

    items: tuple[Said, ...]
    numbered: bool = False
    caption: str = ""
    kind: ClassVar[str] = "told"


Block = Text | Points | Figure | Table | Pairs | TokenPassages | ClaimTests | Facts | Listing | Heading | Told


@dataclass(frozen=True)
class Section:
    """A headed part of the report.

    Attributes:
        name: its anchor.
        title: its heading.
        blocks: what stands in it.
        lead: a sentence under the heading.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    lead: str = ""

    __repr__ = brief


@dataclass(frozen=True)
class KeyFigure:
    """One number that belongs at the top.

    Attributes:
        label: what it is.
        value: the number.
        detail: its interval or scale.
    """

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: what the report is about: the site, the direction, how many examples, the metric. Below the headline.
        kicker: a few words above the headline.
        verdict: the badge; None where the report makes no claim.
        headline: what was found, in one plain sentence with its figure, on top of the page. What is not told from chance
            is no finding: then it says so.
        lead: two or three sentences more.
        key_figures: the numbers at the top.
        sections: the body.
        colophon: one line at the end.
    """

    title: str
    kicker: str
    verdict: Verdict | None
    headline: str
    lead: str = ""
    key_figures: Sequence[KeyFigure] = ()
    sections: Sequence[Section] = ()
    colophon: str = ""

    __repr__ = brief
