"""The section of the report on what each component writes and reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.figures import Bar, bars, show_token
from cutaway.reports import Block, Figure, Section, Table, Text
from cutaway.trials import percent

if TYPE_CHECKING:
    from cutaway.explanations.reads_and_writes import PartDescription, ReadsAndWrites


def reads_and_writes_section(described: ReadsAndWrites) -> list[Section]:
    """What the members add by direct paths, the tokens they raise, from where they move it, who wrote what they read."""
    if not described.parts and not described.reason:
        return []
    lead = (
        "A description by direct paths, on clean held-out prompts: what a component adds to the answer by itself, past "
        "all that later components make of it. It is no test; a component that adds little here can matter through others."
    )
    if described.reason:
        return [Section("parts", "What each component writes and reads", [Text((described.reason,))], lead)]
    blocks: list[Block] = [
        Figure(
            bars([_bar(part) for part in described.parts], unit=f"{described.what} (logits)"),
            f"What each member adds to the {described.what}, which is {described.whole:+.2f} in the mean of {described.n} "
            "prompts, with 95 % intervals over prompts. The members' own contributions need not add up to the whole.",
        ),
        Table(
            ("Component", "Adds", "Raises most", "By way of", "Reads what was written by"),
            tuple(_row(part) for part in described.parts),
            "Raises most: the tokens that are most often among those whose logits its write raises most, on clean over "
            "corrupted prompts. By way of: the places that a head moves its contribution from. Reads what was written by: "
            "shares of the difference between clean and corrupted prompts in the stream that it reads (a head's values at "
            "the place by which what it adds differs most; others at the answer).",
            frozenset({1}),
        ),
    ]
    return [Section("parts", "What each component writes and reads", blocks, lead)]


def _bar(part: PartDescription) -> Bar:
    interval = part.adds.interval
    low, high = (part.adds.value,) * 2 if interval is None else (interval.low, interval.high)
    return Bar(part.part.words, part.adds.value, low, high, not low <= 0 <= high)


def _row(part: PartDescription) -> tuple[str, str, str, str, str]:
    moved = ", ".join(f"{show_token(label, escape=False)} {value:+.2f}" for label, value in part.moves_from)
    read = ", ".join(f"{name} {percent(share)}" for name, share in part.reads_from)
    raises = " ".join(f"“{show_token(token, escape=False)}”" for token in part.raises)
    return part.part.words, f"{part.adds.value:+.2f}", raises, moved or "–", read or "–"
