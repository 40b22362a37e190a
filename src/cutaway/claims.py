"""A claim: what is said, the evidence for it, the controls it had to beat, and the verdict."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from cutaway.errors import BadFormat
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    from rich.panel import Panel

Verdict = Literal["supported", "refuted", "inconclusive"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
#: Colours of the verdicts, on screens of every kind.
COLOURS = {"supported": "#1a7f37", "refuted": "#b42318", "inconclusive": "#9a6700"}
_MARK = {True: "✓", False: "✗", None: "?"}


@dataclass(frozen=True)
class Evidence:
    """One test of a claim.

    Attributes:
        name: what it is called.
        estimate: its figure with an interval, where it has one.
        value: a bare figure.
        threshold: what the figure had to pass.
        passed: whether it did; None where the test could not decide.
        sentence: the same in words, with the figures.
        of: what the figure is a number of, in a few words.
    """

    name: str
    estimate: Estimate | None = None
    value: float | None = None
    threshold: float | None = None
    passed: bool | None = None
    sentence: str = ""
    of: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evidence:
        """The inverse of `to_dict`."""
        return cls(**_fields(data))

    def figure(self) -> str:
        """The figure as text: the estimate if there is one, else the value.

        >>> Evidence("accuracy", value=0.5).figure()
        '0.500'
        """
        if self.estimate is not None:
            return str(self.estimate)
        return "" if self.value is None else f"{self.value:z.3f}"


@dataclass(frozen=True)
class Control:
    """The same test where the claim must not hold: random sets, shuffled labels, random weights.

    Attributes:
        name: what it is called.
        estimate: its figure; None where it has none.
        expected: how it must come out, in words.
        passed: whether it came out so; None where it could not be run.
        sentence: what came out, in words.
        of: what the figure is a number of, in a few words.
    """

    name: str
    estimate: Estimate | None = None
    expected: str = ""
    passed: bool | None = None
    sentence: str = ""
    of: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Control:
        """The inverse of `to_dict`."""
        return cls(**_fields(data))

    def figure(self) -> str:
        """The figure as text; empty where there is none."""
        return "" if self.estimate is None else str(self.estimate)


def _to_dict(test: Evidence | Control) -> dict[str, Any]:
    """A test as plain data, its estimate too."""
    return {**vars(test), "estimate": test.estimate.to_dict() if test.estimate else None}


def _of(test: Evidence | Control) -> str:
    """A figure, and what it is a number of."""
    return f"{test.figure()} {test.of}".strip() if test.figure() else ""


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a test from its plain data."""
    return data | {"estimate": Estimate.from_dict(data["estimate"]) if data.get("estimate") else None}


@dataclass(frozen=True)
class Claim:
    """A statement about a network with its evidence, controls and verdict. It shows itself in a notebook and a terminal.

    The verdict is given by `cutaway.trials.claim_of`, which makes claims.

    Attributes:
        statement: what is said.
        verdict: supported, refuted or inconclusive.
        evidence: the tests that decide.
        controls: the tests that must not pass where there is nothing.
        notes: what caps the verdict, and remarks.

    >>> claim = Claim("Head 9.6 moves it.", "supported", (Evidence("knockout", value=0.8, passed=True),))
    >>> Claim.from_dict(claim.to_dict()) == claim
    True
    """

    statement: str
    verdict: Verdict
    evidence: tuple[Evidence, ...] = ()
    controls: tuple[Control, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        from cutaway.results import brief

        return brief(self)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise BadFormat(f"{self.verdict!r} is no verdict.", f"Use one of {', '.join(VERDICTS)}.")
        for name in ("evidence", "controls", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def supported(self) -> bool:
        """Is the verdict 'supported'?"""
        return self.verdict == "supported"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        tests = {name: [test.to_dict() for test in getattr(self, name)] for name in ("evidence", "controls")}
        return {"statement": self.statement, "verdict": self.verdict, **tests, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Claim:
        """The inverse of `to_dict`; BadFormat when the data is no claim."""
        try:
            return cls(
                data["statement"],
                data["verdict"],
                tuple(Evidence.from_dict(e) for e in data["evidence"]),
                tuple(Control.from_dict(c) for c in data["controls"]),
                tuple(data["notes"]),
            )
        except (KeyError, TypeError) as error:
            raise BadFormat(
                f"This is not the data of a claim: {error}.", "Pass what Claim.to_dict gave."
            ) from error

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The tests as text: kind, name, figure and of what, mark, sentence."""
        tests = [("evidence", e.name, _of(e), _MARK[e.passed], e.sentence) for e in self.evidence]
        return tests + [
            ("control", c.name, _of(c), _MARK[c.passed], c.sentence or c.expected) for c in self.controls
        ]

    def __str__(self) -> str:
        lines = [f"{self.verdict.upper()}: {self.statement}"]
        lines += [
            " ".join(f"  {mark} {name}: {figure} {text}".split())
            for _, name, figure, mark, text in self.rows()
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = [
            "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row)
            for row in self.rows()
        ]
        cells = "".join(f"<tr>{row}</tr>" for row in rows)
        notes = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in self.notes)
        head = "<tr><th>kind</th><th>test</th><th>figure</th><th></th><th>in words</th></tr>"
        return (
            f"<div><b style='color:{COLOURS[self.verdict]}'>{self.verdict}</b> {html.escape(self.statement)}"
            f"<table>{head}{cells}</table>{notes}</div>"
        )

    def __rich__(self) -> Panel:
        from rich.console import Group
        from rich.markup import escape
        from rich.panel import Panel
        from rich.table import Table

        colour = COLOURS[self.verdict]
        table = Table(box=None, show_header=False, padding=(0, 1))
        for row in self.rows():
            table.add_row(*(escape(cell) for cell in row))
        said = [escape(self.statement), *([table] if table.row_count else [])]
        said += [f"[dim]note:[/] {escape(note)}" for note in self.notes]
        title = f"[bold {colour}]{self.verdict}[/]"  # the statement is too long for a title, which is cut off
        return Panel(Group(*said), title=title, title_align="left", border_style=colour)
