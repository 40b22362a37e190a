"""One prompt of the task, cut into the words that a drawing stands on, and what is known of all prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.cases import LAST, Case, Cases

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True)
class TaskExample:
    """A prompt, and what is known of all of them.

    Attributes:
        text: the prompt.
        answer: what is right behind it.
        words: the prompt in pieces, from left to right: each span that all prompts have, and what stands between.
        at: of each span the piece that it is, or ends in.
        variables: of each that can be changed alone its value here.
        n: prompts in all.
        frames: sentence frames.
        several: are several answers right?
    """

    text: str
    answer: str
    words: tuple[str, ...]
    at: Mapping[str, int]
    variables: Mapping[str, Any]
    n: int
    frames: int
    several: bool = False

    @classmethod
    def of(cls, net: Network, cases: Cases) -> TaskExample:
        """The first prompt of cases, in pieces."""
        case = cases.cases[0]
        words, at = _pieces(net, case, cases.spans)
        return cls(
            case.text, case.answers[0][0], words, at, {name: case.values[name] for name in cases.free}, len(cases),
            len({one.template for one in cases}), len(case.answers) > 1,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {
            "words": list(self.words),
            "at": dict(self.at),
            "variables": dict(self.variables),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskExample:
        """The inverse of `to_dict`."""
        return cls(**{**data, "words": tuple(data["words"])})


def _pieces(net: Network, case: Case, spans: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The prompt's tokens in runs: cut where a span that all prompts have begins or ends, and before the last token."""
    tokens = net.token_strings(case.ids)
    cuts = {0, len(tokens)} | {end for name in spans for end in case.spans[name]}
    ends = sorted(cut for cut in cuts if 0 <= cut <= len(tokens))
    pieces = list(zip(ends, ends[1:], strict=False))
    words = tuple("".join(tokens[start:stop]).strip() or "·" for start, stop in pieces)
    at = {}
    for name in (*spans, LAST):
        stop = case.spans[name][1]
        at[name] = next(i for i, (_, end) in enumerate(pieces) if end == stop)
    return words, at
