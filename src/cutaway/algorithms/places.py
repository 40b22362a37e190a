"""Where a variable lives: a part or a site at a span of the prompt, several together, perhaps a subspace only.

Written `a1.h0@last` (head 1.0 at the last token), `m0@S` (MLP 0 at the span of S), `resid_post.2@all`; several that carry a
variable together are joined by `+`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.cases import LAST, Case
from cutaway.errors import BadFormat, BadInput, did_you_mean
from cutaway.interventions import Interchange, Intervention, Patch
from cutaway.network.parts import KINDS, Part, parts_of
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.network import Network, Run

#: The span of all tokens of a prompt.
ALL = "all"
#: The keyword of an address by which entries of an axis are named.
_KEYWORD = {"head": "head", "neuron": "neuron", "feature": "neuron", "channel": "neuron"}


@dataclass(frozen=True, eq=False)
class VariablePlace:
    """A part or site at a span.

    Attributes:
        part: a part (`a1.h0`, `m0`, "head 1.0") or a site (`resid_post.2`).
        span: by name; "last" is the token whose logits are read, "all" every token.
        basis: [k d] rows that span the subspace that is meant, as an alignment's `basis`; None for the whole value.

    >>> str(VariablePlace.parse("head 1.0@S")), VariablePlace.parse("a1.h0") == VariablePlace("a1.h0", "all")
    ('a1.h0@S', True)
    """

    part: str
    span: str = ALL
    basis: Tensor | None = None

    def __post_init__(self) -> None:
        if (
            not isinstance(self.part, str)
            or not self.part.strip()
            or not isinstance(self.span, str)
            or not self.span
        ):
            raise BadInput(
                f"{self.part!r:.40} at {self.span!r:.40} is no place.", 'Write e.g. "a1.h0@last" or "m0@S".'
            )
        basis = self.basis
        if basis is not None and not (
            torch.is_tensor(basis) and basis.ndim == 2 and 0 < basis.shape[0] <= basis.shape[1]
        ):
            raise BadInput(
                "The basis of a place is no matrix [k d].", "Give the rows that span the subspace."
            )
        try:
            object.__setattr__(self, "part", str(Part.parse(self.part)))
        except BadFormat:
            object.__setattr__(self, "part", self.part.strip())

    @classmethod
    def parse(cls, text: str) -> VariablePlace:
        """The place that a text names. Raises `BadInput` where it names none."""
        part, at, span = text.partition("@") if isinstance(text, str) else ("", "", "")
        if not part.strip() or (at and not span.strip()):
            raise BadInput(f"{text!r:.60} names no place.", 'Write e.g. "a1.h0@last", "m0@S + m1@S".')
        return cls(part.strip(), span.strip() or ALL)

    def __str__(self) -> str:
        inside = "" if self.basis is None else f" ({self.basis.shape[0]} of {self.basis.shape[1]} dimensions)"
        return f"{self.part}@{self.span}{inside}"

    @property
    def words(self) -> str:
        """For people."""
        named = self.named.words if self.named is not None else self.part
        where = {ALL: "everywhere", LAST: "at the last token"}.get(self.span, f"at {self.span}")
        inside = (
            "" if self.basis is None else f"{self.basis.shape[0]} of {self.basis.shape[1]} dimensions of "
        )
        return f"{inside}{named} {where}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VariablePlace) or (self.part, self.span) != (other.part, other.span):
            return False
        mine, its = self.basis, other.basis
        return mine is its or (mine is not None and its is not None and torch.equal(mine, its))

    def __hash__(self) -> int:
        return hash((self.part, self.span))

    @property
    def named(self) -> Part | None:
        """The part; None where it is a site."""
        try:
            return Part.parse(self.part)
        except BadFormat:
            return None

    def site(self, net: Network) -> Site:
        """The one site that it is at. Raises what the network raises where there is none, and `BadInput` for several."""
        part = self.named
        if part is not None and part.site is None:
            raise BadInput(
                f"{part.words} has no value that can be exchanged.", "Name a head, an MLP or a site."
            )
        found = net.resolve(part.site if part is not None and part.site is not None else self.part)
        if len(found) != 1:
            raise BadInput(
                f"{self.part!r} names {len(found)} sites.",
                f'Name one, e.g. "{found[0]}", and join several by "+".',
            )
        return found[0]

    def require(self, net: Network, cases: Sequence[Case]) -> None:
        """Raises where the network has no such part, or a case no such span."""
        self.edit(net, cases[:1], 0.0).sites(net, self.site(net))
        if self.span in (ALL, LAST):
            return
        lacking = [case for case in cases if self.span not in case.spans]
        if lacking:
            raise BadInput(
                f"{len(lacking)} of {len(cases)} cases have no span {self.span!r:.40}, e.g. {lacking[0].text!r:.60}.",
                did_you_mean(self.span, dict.fromkeys((ALL, LAST, *lacking[0].spans))),
            )

    def tokens(self, case: Case) -> list[int]:
        """The positions of the span in a case."""
        if self.span == ALL:
            return list(range(len(case.ids)))
        last = case.answer_pos % len(case.ids)
        return list(range(*case.spans.get(self.span, (last, last + 1))))

    def positions(self, cases: Sequence[Case]) -> Tensor | None:
        """[n k] row-relative positions in each case, one of them repeated where a span is shorter than others; None: all."""
        if self.span == ALL:
            return None
        rows = [self.tokens(case) for case in cases]
        widest = max(len(row) for row in rows)
        return torch.tensor([row + row[:1] * (widest - len(row)) for row in rows])

    def edit(self, net: Network, cases: Sequence[Case], source: Run | float) -> Intervention:
        """What gives the place its value of a source run, whose rows are aligned with these cases."""
        part = self.named
        axis = "" if part is None or part.index is None else _KEYWORD.get(KINDS[part.kind].axis, "")
        where: dict[str, Any] = {axis: part.index} if part is not None and axis else {}
        site, pos = self.site(net), self.positions(cases)
        if self.basis is None:
            return Patch(site, source, pos=pos, **where)
        return Interchange(site, source, self.basis.float(), pos=pos, **where)


Places = tuple[VariablePlace, ...]


def places_of(given: Any) -> Places:
    """One place or several that carry a variable together, from a place, a text or a sequence of these.

    Raises `BadInput` for what is none.

    >>> [str(place) for place in places_of("a1.h0@last + m0@S")]
    ['a1.h0@last', 'm0@S']
    """
    if isinstance(given, VariablePlace):
        return (given,)
    if isinstance(given, str):
        found = tuple(VariablePlace.parse(text) for text in given.split("+"))
    elif isinstance(given, Sequence) and not isinstance(given, bytes) and given:
        found = tuple(place for item in given for place in places_of(item))
    else:
        raise BadInput(f"{given!r:.60} is no place.", 'Write e.g. "a1.h0@last", "m0@S + m1@S".')
    if len(set(found)) < len(found):
        raise BadInput(f"{said(found)} names a place twice.", "Name each once.")
    return found


def said(places: Places) -> str:
    """Several places as one text, which `places_of` reads.

    >>> said(places_of("a1.h0@last+m0@S"))
    'a1.h0@last + m0@S'
    """
    return " + ".join(map(str, places))


def shams(
    net: Network, places: Places, taken: Sequence[VariablePlace], cases: Sequence[Case], count: int, seed: int
) -> list[Places]:
    """Other places like these, at which nothing is said to live: at most `count`, different from each other.

    For a head or an MLP others of the same kind at the same span; where all of these are taken, and for a site, the same at
    other spans; for a subspace random ones of as many dimensions. Fewer, or none, where there are no more.
    """
    rng = np.random.default_rng([seed, 31])
    found: list[Places] = []
    for turn in range(20 * count):
        drawn: list[VariablePlace] = []
        for place in places:
            options = _like(net, place, [*taken, *drawn], cases, [seed, turn, len(drawn)])
            if options:
                drawn.append(options[int(rng.integers(len(options)))])
        if len(drawn) == len(places) and set(drawn) not in [set(f) for f in found]:
            found.append(tuple(drawn))
        if len(found) >= count:
            break
    return found


def _like(
    net: Network, place: VariablePlace, taken: Sequence[VariablePlace], cases: Sequence[Case], seed: list[int]
) -> list[VariablePlace]:
    """What may stand for a place: none of the parts, or of the spans of its site, that are taken."""
    if place.basis is not None:
        draw = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**31)))
        k, d = place.basis.shape
        if k == d:  # nothing else is as large
            return []
        rows = torch.linalg.qr(torch.randn(d, k, generator=draw, dtype=torch.float64)).Q.T
        return [replace(place, basis=rows.contiguous())]
    part = place.named
    if part is not None and part.kind in ("head", "mlp", "attention", "mixer"):
        parts = parts_of(net, heads=part.kind != "attention")
        names = [str(other) for other in parts if other.kind == part.kind and other.place == part.place]
        others = [VariablePlace(n, place.span) for n in names if n not in {other.part for other in taken}]
        if others:
            return others
    if place.span == ALL:
        return []
    here = [other for other in taken if other.part == place.part]
    spans = [name for name in cases[0].spans if all(name in case.spans for case in cases)]
    free = [name for name in spans if not any(_overlap(other, name, cases) for other in here)]
    return [VariablePlace(place.part, name) for name in free]


def _overlap(place: VariablePlace, span: str, cases: Sequence[Case]) -> bool:
    """Has the span a token in common with the place in any case?"""
    if place.span == ALL:
        return True
    other = VariablePlace(place.part, span)
    return any(set(place.tokens(case)) & set(other.tokens(case)) for case in cases)
