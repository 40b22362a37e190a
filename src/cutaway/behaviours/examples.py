"""One contrast pair on its way into a behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from cutaway.behaviours.data import Behaviour, Ids, Span

Answer = tuple[str, Ids]


@dataclass(frozen=True)
class Example:
    """The fields of one example, as `Behaviour` holds them in columns.

    Attributes:
        clean: the prompt as text.
        corrupted: its twin.
        clean_ids: the prompt as token ids.
        corrupted_ids: likewise its twin.
        right: (text, tokens) of each right answer.
        wrong: the same of each wrong one.
        spans: named token ranges.
        template: label of the examples that share a frame.
        answer_pos: whose logits are read.
    """

    clean: str
    corrupted: str
    clean_ids: Ids
    corrupted_ids: Ids
    right: tuple[Answer, ...]
    wrong: tuple[Answer, ...]
    spans: dict[str, Span] = field(default_factory=dict)
    template: str = ""
    answer_pos: int = -1

    @property
    def tells(self) -> bool:
        """Do right and wrong answers begin with different tokens?"""
        return not {ids[0] for _, ids in self.right} & {ids[0] for _, ids in self.wrong}

    @property
    def aligned(self) -> bool:
        """Have both prompts as many tokens?"""
        return len(self.clean_ids) == len(self.corrupted_ids)


def assemble(name: str, examples: Sequence[Example], **more: Any) -> Behaviour:
    """The behaviour of these examples; it has the spans that all of them have. `more`: its other fields."""
    plain = {f.name for f in fields(Example)} - {"right", "wrong", "spans"}
    columns: dict[str, Any] = {key: tuple(getattr(e, key) for e in examples) for key in plain}
    for side in ("right", "wrong"):
        answers: list[tuple[Answer, ...]] = [getattr(e, side) for e in examples]
        columns[side] = tuple(tuple(dict.fromkeys(ids[0] for _, ids in a)) for a in answers)
        columns[f"{side}_full"] = tuple(a[0][1] if a else () for a in answers)
        columns[f"{side}_text"] = tuple(tuple(text for text, _ in a) for a in answers)
    common = set.intersection(*(set(e.spans) for e in examples)) if examples else set()
    ordered = [span for span in examples[0].spans if span in common] if examples else []
    spans = {span: tuple(e.spans[span] for e in examples) for span in ordered}
    return Behaviour(name, spans=spans, **columns, **more)
