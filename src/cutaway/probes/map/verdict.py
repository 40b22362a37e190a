"""From figures to a verdict: encoded, confounded (with what), used. No more than was tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cutaway.claims import Claim, Control, Evidence
from cutaway.probes.data.permutations import ENOUGH
from cutaway.results import brief
from cutaway.statistics import Estimate
from cutaway.trials import Limits, any_of

USED = "encoded and used"
UNUSED = "encoded, not shown to be used"
ENCODED = "encoded"
ABSENT = "not encoded beyond the controls"
CONFOUNDED = "confounded"
UNDECIDED = "not decided"

ALPHA = Limits().alpha
#: What is claimed of a label at a place.
_ENCODED = "{!r} is linearly encoded at {}, beyond the controls."
#: A label is refuted, not just not found, where the interval ends below chance and this.
_WORTH = 0.1


@dataclass(frozen=True)
class Rival:
    """Something that might explain a probe's score: the tokens alone, random weights, a known column.

    Attributes:
        name: what it is, in words.
        score: its own held-out score, with interval.
        lead: the probe's lead over it, both resampled together; over a constant guess where it does worse than one.
        chance: the score of a constant guess.
    """

    name: str
    score: Estimate
    lead: Estimate
    chance: float

    @property
    def passed(self) -> bool:
        """Does the probe beat it: is its lead above zero beyond its interval?"""
        return self.lead.above(0.0) is True

    @property
    def able(self) -> bool:
        """Does it tell the labels by itself: is it above chance beyond its interval?"""
        return self.score.above(self.chance) is True

    def control(self) -> Control:
        """As a control of a claim."""
        theirs, led = "", "it"
        if self.score.value < self.chance:
            theirs, led = f", worse than a constant guess ({self.chance:.3g})", "that guess"
        sentence = f"{_capital(self.name)}: {self.score}{theirs}; the probe leads {led} by {self.lead}."
        return Control(_capital(self.name), self.score, "less than the probe", self.passed, sentence)


@dataclass(frozen=True)
class Finding:
    """A verdict in the words of this room, with the claims behind it.

    Attributes:
        word: encoded, encoded and used, confounded, ... (the constants of this module).
        confounds: what a confounded label may be confounded with.
        encoded: the claim that it is encoded.
        used: the claim that it is used; None where that was not tested.
        notes: what else should be known.
    """

    word: str
    confounds: tuple[str, ...] = ()
    encoded: Claim | None = None
    used: Claim | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    __repr__ = brief

    def __str__(self) -> str:
        return f"{self.word} (with {' and '.join(self.confounds)})" if self.confounds else self.word

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims: that it is encoded; that it is used."""
        return tuple(c for c in (self.encoded, self.used) if c is not None)

    def sentence(self, label: str, where: str, score: str) -> str:
        """What was found of a label at a place with this score, in a sentence without its full stop."""
        said = {
            USED: f"{label!r} is encoded at {where} ({score}), and the network uses it",
            UNUSED: f"{label!r} is encoded at {where} ({score}); that the network uses it is not shown",
            ENCODED: f"{label!r} is encoded at {where} ({score})",
            ABSENT: f"{label!r} is not told to be encoded anywhere beyond the controls; best is {where} ({score})",
            UNDECIDED: f"Whether {label!r} is encoded is not decided; best is {where} ({score})",
            CONFOUNDED: f"{label!r} is read at {where} ({score}), but no better than from {' and '.join(self.confounds)}",
        }
        return said.get(self.word, f"{label!r} at {where} ({score}): {self}")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "verdict": str(self), "word": self.word, "confounds": list(self.confounds),
            "claims": [c.to_dict() for c in self.claims], "notes": list(self.notes),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Finding:
        """The inverse of `to_dict`."""
        claims = [Claim.from_dict(c) for c in data["claims"]]
        return cls(
            data["word"], tuple(data["confounds"]), claims[0] if claims else None,
            claims[1] if len(claims) > 1 else None, tuple(data["notes"]),
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return f"<p><b>{self}</b></p>" + "".join(c._repr_html_() for c in self.claims)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Figures:
    """What the verdict on one place is made of.

    Attributes:
        label, where: what is probed for, and the place, in words.
        what: the score's name: AUROC, R², ...
        score: held-out, with interval.
        chance: the score of a constant guess.
        p_best: against the best cell of every permutation.
        cells, permutations: how many there are.
        rivals: what might explain the score.
        control_task: mean score on random labels by type, or None.
        left_out: the score on sources that the probe was not fitted on, or None.
        compression: bits of a uniform code over bits of the online code, with that of shuffled labels, or None.
        different: how many permutations differ from the real labels; None where that is all of them.
    """

    label: str
    where: str
    what: str
    score: Estimate
    chance: float
    p_best: float
    cells: int
    permutations: int
    rivals: Sequence[Rival] = ()
    control_task: float | None = None
    left_out: Estimate | None = None
    compression: tuple[float, float] | None = None
    different: int | None = None

    @property
    def tested(self) -> bool:
        """Are there enough different permutations of the labels to tell it from chance?"""
        return (self.permutations if self.different is None else self.different) >= ENOUGH

    @property
    def excluded(self) -> bool:
        """Is a score worth the name beyond the interval?"""
        interval = self.score.interval
        return interval is not None and interval.high < self.chance + _WORTH


def judge_encoded(f: Figures) -> Finding:
    """Is the label encoded there beyond the controls, or something else that goes with it?

    Not above chance, or no better than the best place under permuted labels: not encoded (refuted only where the interval
    leaves no score worth the name); above chance without enough permutations: not decided. Else, if a rival tells the
    labels by itself and the probe does not beat it, or the score does not carry over to sources left out: confounded,
    with what. A probe that neither beats a rival nor could be told from chance by it is not encoded beyond the controls.
    """
    evidence, controls = _evidence(f), [r.control() for r in f.rivals]
    confounds = [r.name for r in f.rivals if r.able and not r.passed]
    if f.control_task is not None:
        lead = f.score.value - max(f.control_task, f.chance)
        told = (
            f"Random labels, one for each type of input, are read with {f.control_task:.3f}; the real ones lead by "
            f"{lead:+.3f} (selectivity)."
        )
        if lead <= 0:
            told += " A probe of this form can learn any label of these types by heart, so the tokens alone decide."
        passed = True if lead > 0 else None
        controls.append(Control("Control task", None, "less than the probe", passed, told))
    if f.left_out is not None:
        carries = f.left_out.above(f.chance)
        sentence = f"On sources that the probe was not fitted on: {f.left_out} (chance {f.chance:.3g})."
        evidence.append(
            Evidence("Sources left out", f.left_out, None, f.chance, carries is True, sentence, f.what)
        )
        confounds += ["the source"] if carries is not True else []
    present = all(e.passed for e in evidence[:2])
    beaten = all(c.passed is not False for c in controls) and all(e.passed for e in evidence)
    if not f.tested and f.score.above(f.chance) is True:
        word, confounds = UNDECIDED, []
    elif not present or (not beaten and not confounds):
        word, confounds = ABSENT, []
    else:
        word = CONFOUNDED if confounds else ENCODED
    # the score and its permutations are one test, which fails where no score worth the name is left
    beyond = Evidence("Told beyond chance", passed=True if present else False if f.excluded else None)
    verdict = any_of([beyond], controls, confounds if present else ())
    said = _ENCODED.format(f.label, f.where)
    if word == CONFOUNDED:
        said = f"{f.label!r} is told from {f.where}, but so it is from {' and '.join(confounds)}."
    notes = () if f.compression is None else (_bits(f.compression),)
    return Finding(word, tuple(confounds), Claim(said, verdict, tuple(evidence), tuple(controls), notes))


def _evidence(f: Figures) -> list[Evidence]:
    best = "" if f.cells == 1 else f" (the best of {f.cells} places each time)"
    return [
        Evidence(
            "Held-out score", f.score, None, f.chance, f.score.above(f.chance) is True,
            f"{f.what} on held-out groups: {f.score} (chance {f.chance:.3g}).", f.what,
        ),
        _permuted(f, best),
    ]  # fmt: skip


def _permuted(f: Figures, best: str) -> Evidence:
    if not f.tested:
        why = f"The groups leave {f.different} different permutations of the labels"
        why = why if f.permutations else "No permutations of the labels were made"
        said = f"{why}, so it was not told from chance by them."
        return Evidence("Label permutations", None, None, ALPHA, None, said)
    return Evidence(
        "Label permutations", None, f.p_best, ALPHA, f.p_best <= ALPHA,
        f"Of {f.permutations} permutations of the labels{best}, {round(f.p_best * (f.permutations + 1)) - 1} score as "
        f"well: p = {f.p_best:.3f}.", "(p)",
    )  # fmt: skip


def _bits(compression: tuple[float, float]) -> str:
    real, shuffled = compression
    return (
        f"Description length: the probe shortens the code of the labels {real:.2f} times, and of shuffled labels "
        f"{shuffled:.2f} times (1: no gain)."
    )


def unfinished(label: str, where: str) -> Finding:
    """The finding of work that was stopped before the controls were run: not decided."""
    why = "The work was stopped before the controls were run."
    claim = Claim(_ENCODED.format(label, where), any_of([], caps=[why]), notes=(why,))
    return Finding(UNDECIDED, (), claim)


def with_use(finding: Finding, used: Claim) -> Finding:
    """The finding after the causal tests: `used` says whether the network uses the direction."""
    after = USED if used.supported else UNUSED
    return replace(finding, word=after if finding.word == ENCODED else finding.word, used=used)
