"""What is asked of an explanation, and what it has found so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cutaway.behaviours.standing import FormPerformance
from cutaway.claims import Control
from cutaway.effects import Effects
from cutaway.explanations.carrying import CarriedBy
from cutaway.explanations.computation import NOTHING_STATED, Computation, StatedComputation
from cutaway.explanations.grain import SearchGrain
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.reads_and_writes import ReadsAndWrites
from cutaway.explanations.singles import PartScreening
from cutaway.explanations.sizes import WHOLE, Sizes
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.results.meter import spent
from cutaway.trials import Trial

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour, Performance
    from cutaway.behaviours.cases import Cases
    from cutaway.circuits import CircuitTest
    from cutaway.network import Network

#: Why what comes last is not there, where the work was stopped.
STOPPED = "the work was stopped before that"


@dataclass
class ExplanationDraft:
    """What has been found so far; what is left when the work is stopped.

    Attributes:
        maps: effects on discovery data.
        mechanism: the set that was found.
        trial: its test on held-out data.
        tested: how well the network does the held-out examples.
        described: what the members write and read.
        controls: those that were run.
        circuit: the circuit by edges; where there is none, `why_no_circuit` says why.
        why_no_circuit: the reason, or "".
        seconds: time of each stage.
        stage: the one at work.
        judged: were the test and all controls run?
        complete: was everything done?
        grain: how finely the network was searched.
        screening: which parts a gradient let through to be patched; None where all were.
        forwards: forward-equivalents of each stage.
        features: those that carry the behaviour; None where they were not looked for.
        why_no_features: the reason, where they were asked for; or "".
        computation: what is computed; None where that was not asked, or could not be told.
        why_no_computation: the reason, where it was asked for; or "".
    """

    maps: dict[str, Effects] = field(default_factory=dict)
    mechanism: Mechanism | None = None
    trial: Trial | None = None
    tested: Performance | None = None
    described: ReadsAndWrites = field(default_factory=ReadsAndWrites)
    controls: list[Control] = field(default_factory=list)
    circuit: CircuitTest | None = None
    why_no_circuit: str = f"{STOPPED.capitalize()}."
    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    judged: bool = False
    complete: bool = False
    grain: SearchGrain | None = None
    screening: PartScreening | None = None
    forwards: dict[str, float] = field(default_factory=dict)
    features: CarriedBy | None = None
    why_no_features: str = ""
    computation: Computation | None = None
    why_no_computation: str = ""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the stage, how long it takes, and how many forward-equivalents."""
        self.stage = stage
        started, spent_before = time.perf_counter(), spent()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)
            self.forwards[stage] = round(self.forwards.get(stage, 0.0) + spent() - spent_before, 1)


@dataclass(frozen=True, eq=False)
class ExplanationQuestion:
    """What is asked of which network, and how.

    Attributes:
        net: the network.
        behaviour: the whole behaviour.
        limits: fixed beforehand.
        seed: of everything random.
        work: who hears of progress, and may stop it.
        sizes: on how much each stage works.
        forms: performance on each sentence frame, also on those that were set aside.
        features: sites among whose features those that carry it are looked for.
        labels: of features.
        depth: how deep it goes.
        cases: the prompts of which it is asked what is computed; None where it is not.
        stated: what the network ought to compute, what it ought not to, and prompts of another distribution.
    """

    net: Network
    behaviour: Behaviour
    limits: SearchLimits
    seed: int
    work: Work
    sizes: Sizes = WHOLE
    forms: tuple[FormPerformance, ...] = ()
    features: tuple[Site, ...] = ()
    labels: Mapping[str, str] | None = None
    depth: str = "where"
    cases: Cases | None = None
    stated: StatedComputation = NOTHING_STATED

    @property
    def gone(self) -> tuple[FormPerformance, ...]:
        """The sentence frames that were set aside."""
        kept = set(self.behaviour.template)
        return tuple(form for form in self.forms if form.form not in kept)
