"""`verify`: the ground truth of a specimen, proved by intervention on the weights; on its twins, it must fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.generators.specimen import of_pairs
from cutaway.calibration.checks import run_check
from cutaway.calibration.subject import Subject
from cutaway.claims import Evidence
from cutaway.errors import BadInput, CutawayError
from cutaway.network import Network
from cutaway.network.opening import examine
from cutaway.results import Work, strict, working
from cutaway.zoo import loaders
from cutaway.zoo.registry import specimen as find
from cutaway.zoo.truth import GroundTruth

if TYPE_CHECKING:
    from rich.table import Table

N = 64


@dataclass(frozen=True)
class Verification:
    """The evidence for a specimen's ground truth.

    Attributes:
        name: of the specimen, or of its twin.
        evidence: what its checks found.
        seconds: how long they took.
        n: how many pairs and interchanges were asked.
        seed: of the pairs.
    """

    name: str
    evidence: tuple[Evidence, ...]
    seconds: float
    n: int
    seed: int

    @property
    def holds(self) -> bool:
        """Whether every check passed (and there was one)."""
        return bool(self.evidence) and all(e.passed for e in self.evidence)

    @property
    def failures(self) -> tuple[Evidence, ...]:
        """The evidence that did not pass."""
        return tuple(e for e in self.evidence if not e.passed)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"holds": self.holds, "evidence": [e.to_dict() for e in self.evidence]}

    def __str__(self) -> str:
        lines = [f"{self.name}: {'verified' if self.holds else 'NOT verified'} ({self.seconds:.1f} s)"]
        lines += [f"  {'ok  ' if e.passed else 'FAIL'} {e.name}: {e.sentence}" for e in self.evidence]
        return "\n".join(lines)

    def __rich__(self) -> Table:
        from rich.table import Table

        verdict = "[green]verified[/]" if self.holds else "[red]not verified[/]"
        table = Table("", "check", "figure", "what was found", title=f"{self.name}: {verdict}", box=None)
        for e in self.evidence:
            table.add_row("[green]✓[/]" if e.passed else "[red]✗[/]", e.name, e.figure(), e.sentence)
        return table


@strict
def verify(
    net: Network | None,
    name: str | Path,
    *,
    n: int = N,
    checks: Sequence[str] | None = None,
    to_the_end: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> Verification:
    """Prove the ground truth of a specimen on fresh prompts.

    Args:
        net: a network to hold against it; None for the specimen's own.
        name: a specimen of the zoo, one of its twins (`NAME~KIND`, held against the ground truth of NAME), or a folder that
            `zoo make` wrote.
        n: how many pairs and interchanges.
        checks: only these; default all that the ground truth names. A check that cannot be made on this network has not
            passed.
        to_the_end: False stops after the first check that has not passed.
        seed: of the prompts.
        work: hears of every check, may stop it, and what it may spend.

    Raises NotFound for an unknown name, CorruptFile when weights are not those of the card, BadInput for the name before the
    network, Stopped where the work was stopped: a truth of which some checks were made is not proved.
    """
    if isinstance(net, str | Path) or isinstance(name, Network):
        raise BadInput(
            "verify takes the network first, then the name of the ground truth.",
            "Write verify(net, name), or verify(None, name) for the specimen's own network.",
        )
    began, work = time.monotonic(), working(work)
    work.check()
    subject = subject_of(name, net, n, seed)
    evidence: list[Evidence] = []
    wanted = list(checks or subject.truth.checks)
    for done, check in enumerate(wanted):
        work.step(f"{name}: {check}", done, len(wanted))
        try:
            evidence += run_check(check, subject)
        except CutawayError as error:
            if net is None and "~" not in str(name):
                raise
            evidence.append(Evidence(check, passed=False, sentence=f"It cannot be made: {error}"))
        if not to_the_end and not all(e.passed for e in evidence):
            break
    return Verification(str(name), tuple(evidence), round(time.monotonic() - began, 2), n, seed)


def subject_of(name: str | Path, net: Network | None = None, n: int = N, seed: int = 0) -> Subject:
    """A specimen opened for the checks; what is given means what it means for `verify`."""
    folder = Path(name)
    if (folder / loaders.CARD).is_file():
        loaders.check(folder)
        card = loaders.read_card(folder)
        base, shown = str(card.get("name", "")), folder.name
        model, tokenizer = (None, None) if net else loaders.load_folder(folder)
    else:
        base, shown = loaders.split(str(name))[0], f"zoo:{str(name).removeprefix('zoo:')}"
        card = loaders.card(base)
        model, tokenizer = (None, None) if net else loaders.load(str(name))
    what = find(base)
    opened = net if net is not None else examine(model, tokenizer, shown)  # type: ignore[arg-type]
    truth = GroundTruth.from_dict(card.get("truth", {}))
    pairs = of_pairs(f"zoo:{base}", what.task.pairs(n, seed), opened, what.task.words, seed)
    return Subject(opened, what, truth, pairs, n, seed)


def verify_twins(
    name: str, *, n: int = N, to_the_end: bool = False, seed: int = 0, work: Work | None = None
) -> tuple[Verification, ...]:
    """The same checks on every twin of a specimen. Each must fail: `holds` is False for all of them."""
    twins = find(loaders.split(name)[0]).twins
    return tuple(
        verify(None, f"{name}~{t.kind}", n=n, to_the_end=to_the_end, seed=seed, work=work) for t in twins
    )
