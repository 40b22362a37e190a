"""The verb: prompts on which intended and feared come apart, whose answers are given, what is used inside, and the shift."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cutaway.algorithms.exchanges import AnswerChoices, Predictions
from cutaway.algorithms.intended.apart import SettingPrompts, setting_prompts
from cutaway.algorithms.intended.following import Said, SettingShares, say, shares_of
from cutaway.algorithms.intended.limits import IntendedLimits
from cutaway.algorithms.intended.result import IntendedTest
from cutaway.algorithms.intended.telling import (
    STOPPED,
    feared_claim,
    intended_claim,
    shift_claim,
    shift_word,
    what_it_follows,
)
from cutaway.algorithms.limits import AlgorithmLimits
from cutaway.algorithms.model import Algorithm
from cutaway.algorithms.result import AlgorithmTest
from cutaway.algorithms.testing import ReadyAlgorithmTest
from cutaway.behaviours.cases import Cases
from cutaway.claims import Claim
from cutaway.errors import BadBehaviour, BadInput, CutawayError, Stopped
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict_as, working

if TYPE_CHECKING:
    from cutaway.network import Network

#: Prompts on which each feared computation comes apart, and exchanges of each variable.
PROMPTS = 200


@strict_as("intended")
def intended_test(
    net: Network,
    cases: Cases,
    intended: Algorithm,
    feared: Any = (),
    *,
    where: Mapping[str, Any] | None = None,
    shifted: Cases | None = None,
    n: int = PROMPTS,
    limits: IntendedLimits | None = None,
    controls: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> IntendedTest:
    """Is it the intended computation, or another one that gives the same answers on the prompts at hand?

    A network that was trained on prompts on which a goal and a proxy agree may follow either (Langosco et al. 2022, *Goal
    Misgeneralization in Deep Reinforcement Learning*). So prompts are taken on which what is intended and what is feared
    give other answers: of the held-out cases those on which they do, and more, made from their frames with chosen values.
    Whose answers the network gives there is told with intervals; where places are named, it is tested by exchanges at these
    (`test_algorithm`) which of them is used inside. All of it again on shifted prompts, where they are given.

    Supported: nine in ten prompts and more, by the whole interval, are answered as intended wherever a feared computation
    answers otherwise; where all agree the task is done; the network with random weights follows neither. Refuted: a feared
    one is followed so, or neither is by half. Anything else is a mixture, and inconclusive; its shares are told.

    Args:
        net: the network.
        cases: prompts whose variables are known; tested on their held-out half.
        intended: what it should compute, made by `cutaway.algorithm`.
        feared: one algorithm or several that it may compute instead; or pairs of one and the places of its own variables.
        where: the places of variables of the intended one, as `test_algorithm` takes them; of feared ones for variables of
            the same names.
        shifted: other prompts of the same variables: other frames, longer ones, other words.
        n: prompts for each feared computation, and exchanges of each variable.
        limits: what must be reached.
        controls: ask a network with random weights, and exchange other places; without them nothing is supported.
        seed: of everything that is drawn.
        work: hears of the price and of progress, and may stop it; what is finished comes back then.

    Raises:
        BadInput: for an algorithm that reads what is not there or fails, or answers what is the answer to no prompt.
        BadBehaviour: where intended and feared give the same answers to all prompts that there are or can be made; it says
            which prompts would tell them apart.
        Stopped: where it is stopped before the prompts at hand were answered; later, what is finished is given.
    """
    began = time.monotonic()
    limits = IntendedLimits() if limits is None else limits
    several = _checked(cases, intended, feared, shifted, n, limits)
    algorithms = [algorithm for algorithm, _ in several]
    with working(work).interruptible() as work:
        job = IntendedJob(net, intended, several, where, limits, controls, n, seed)
        job.here = job.setting(cases, cases.halves()[1], "at hand", where is not None)
        if algorithms and not any(one.cases for one in job.here.prompts.apart):
            raise BadBehaviour(
                f"Nothing tells {intended.name!r} from what is feared. {job.here.prompts.apart[0].would}",
                "Give cases in which they come apart.",
            )
        if shifted is not None:
            job.there = job.setting(shifted, shifted, "shifted", where is not None)
        job.announce(work)
        job.run(work)
    return _result(job, cases, Provenance.of(net, cases.hash, seed, time.monotonic() - began))


def _checked(
    cases: Any, intended: Any, feared: Any, shifted: Any, n: int, limits: Any
) -> list[tuple[Algorithm, Mapping[str, Any] | None]]:
    """The feared algorithms with their own places. Raises `BadInput` for what is none of what is asked for."""
    for given, what in ((cases, "cases"), *([] if shifted is None else [(shifted, "shifted cases")])):
        if not isinstance(given, Cases):
            raise BadInput(f"intended takes {what}, not {given!r:.60}.", "Make them by cutaway.cases(...).")
    if not isinstance(limits, IntendedLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give IntendedLimits(...), or leave them out.")
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 1_000_000:
        raise BadInput(f"n={n!r:.40} prompts are asked for.", "Ask for at least one; 200 are usual.")
    one = isinstance(feared, Algorithm) or (
        isinstance(feared, tuple) and len(feared) == 2 and isinstance(feared[1], Mapping)
    )
    several = [feared] if one else feared
    if not isinstance(several, Sequence) or isinstance(several, str | bytes):
        raise BadInput(f"What is feared is {feared!r:.60}.", "Give an algorithm, or a list of them.")
    found = []
    for item in several:
        algorithm, places = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(algorithm, Algorithm) or not (places is None or isinstance(places, Mapping)):
            raise BadInput(
                f"What is feared is {item!r:.60}.",
                "Give an algorithm, or a pair of one and {variable: place}.",
            )
        found.append((algorithm, places))
    names = [algorithm.name for algorithm, _ in found]
    for algorithm in (intended, *(algorithm for algorithm, _ in found)):
        if not isinstance(algorithm, Algorithm):
            raise BadInput(f"What is intended is {algorithm!r:.60}.", "Make it by cutaway.algorithm(...).")
        for given in (cases, shifted):
            if given is not None:
                algorithm.require(given)
    twice = next((name for name in (intended.name, *names) if [intended.name, *names].count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"Two computations are called {twice!r:.60}.", "Give each a name of its own.")
    return found


@dataclass(eq=False)
class IntendedSetting:
    """One setting: its prompts, the answers among which the network's is read, and the test of the places.

    Attributes:
        prompts: all of them.
        choices: the answers.
        test: of the places; None where there is none.
        why: why there is none, where places were named.
        said: what the network answered.
        random: what the network with random weights answered.
        inside: what the test of the places gave.
    """

    prompts: SettingPrompts
    choices: AnswerChoices
    test: ReadyAlgorithmTest | None = None
    why: str = ""
    said: Said | None = None
    random: Said | None = None
    inside: AlgorithmTest | None = None


@dataclass(eq=False)
class IntendedJob:
    """All that is run.

    Attributes:
        net, intended, feared, where, limits, controls, n, seed: as asked.
        here, there: the settings; the second is the shift.
        twin: the network with random weights; None where there is none.
        notes: what could not be run.
        complete: was all of it run?
    """

    net: Network
    intended: Algorithm
    feared: list[tuple[Algorithm, Mapping[str, Any] | None]]
    where: Mapping[str, Any] | None
    limits: IntendedLimits
    controls: bool
    n: int
    seed: int
    here: IntendedSetting | None = None
    there: IntendedSetting | None = None
    twin: Network | None = None
    notes: list[str] = field(default_factory=list)
    complete: bool = True

    def __post_init__(self) -> None:
        if not self.controls:
            return
        size = sum(parameter.numel() for parameter in self.net.model.parameters())
        none = "No network with random weights stands beside"
        if size > self.limits.largest:
            self.notes.append(f"{none}: {size:,} parameters are more than {self.limits.largest:,.0f}.")
            return
        try:
            self.twin = self.net.randomized((7_000 + self.seed) % 2**31, examine=False)
        except CutawayError as error:
            self.notes.append(f"{none}: {error.problem}")

    @property
    def settings(self) -> list[tuple[str, IntendedSetting]]:
        """Those that there are, by what they are called."""
        return [
            (name, one) for name, one in (("at hand", self.here), ("shifted", self.there)) if one is not None
        ]

    def setting(self, cases: Cases, held: Cases, name: str, places: bool) -> IntendedSetting:
        """The prompts of a setting, and the test of the places on them."""
        prompts = setting_prompts(
            self.net, held, self.intended, [f for f, _ in self.feared], self.n, self.seed
        )
        made = prompts.everything
        known = {case.ids for case in cases}
        whole = replace(cases, cases=(*cases.cases, *(case for case in made if case.ids not in known)))
        choices = AnswerChoices.of(whole)
        for algorithm in (self.intended, *(f for f, _ in self.feared)):
            Predictions(algorithm, choices).require_answers(held)
        found = IntendedSetting(prompts, choices)
        for one in prompts.apart:
            if one.cases and not one.at_hand:
                self.notes.append(
                    f"On no prompt {name} do {self.intended.name!r} and {one.feared.name!r} give other answers: "
                    f"{len(one.made)} prompts were made on which they do."
                )
        if places:
            self._ready(found, whole, made, name)
        return found

    def _ready(self, setting: IntendedSetting, whole: Cases, held: Cases, name: str) -> None:
        """Draw the exchanges; on a shift, where a place or span may be missing, say why there are none."""
        limits = AlgorithmLimits(
            accuracy=self.limits.follows, performs=self.limits.performs, differ=self.limits.prompts,
            changing=self.limits.prompts, largest=self.limits.largest,
        )  # fmt: skip
        rivals: list[Any] = []
        for algorithm, places in self.feared:
            if places is not None:
                rivals.append((algorithm, places))
            elif set(algorithm.variables) & set(self.where or {}):
                rivals.append(algorithm)
            elif name == "at hand":
                self.notes.append(
                    f"{algorithm.name!r} has none of the variables that have places: it is told by its answers alone."
                )
        try:
            setting.test = ReadyAlgorithmTest.of(
                self.net,
                whole,
                held,
                self.intended,
                self.where or {},
                rivals,
                self.n,
                limits,
                self.controls,
                self.seed,
            )
        except Stopped:
            raise
        except CutawayError as error:
            if name == "at hand":
                raise
            setting.why = error.problem
            self.notes.append(f"On the shifted prompts the places could not be exchanged. {error.problem}")

    def announce(self, work: Work) -> None:
        """Say what is about to be run."""
        stages = []
        for name, setting in self.settings:
            each = float(len(setting.prompts.run))
            stages.append((f"prompts {name}", each))
            if self.twin is not None:
                stages.append((f"random weights, {name}", each))
            if setting.test is not None:
                stages += [(f"{what}, {name}", price) for what, price in setting.test.plan.price(self.net)]
        assert self.here is not None
        rows = [list(case.ids) for case in self.here.prompts.run[:16]]
        count = sum(len(setting.prompts.run) for _, setting in self.settings)
        announce(
            self.net, rows, work, "intended", stages, rows=count, least=float(len(self.here.prompts.run))
        )

    def run(self, work: Work) -> None:
        """All of it. Raises `Stopped` where not even the prompts at hand were answered."""
        assert self.here is not None
        try:
            for name, setting in self.settings:
                setting.said = say(self.net, setting.prompts.run, setting.choices, work, f"prompts {name}")
            for name, setting in self.settings:
                if self.twin is not None:
                    label = f"random weights, {name}"
                    setting.random = say(self.twin, setting.prompts.run, setting.choices, work, label)
            for _, setting in self.settings:
                if setting.test is not None:
                    with work.account.verb():  # its price is part of what was announced
                        setting.inside = setting.test.run(work)
                    self.complete &= setting.inside.complete
        except Stopped:
            if self.here.said is None:
                raise
            self.complete = False


@dataclass(frozen=True)
class ToldSetting:
    """What is said of one setting.

    Attributes:
        shares: whose answers are given.
        claim: about what is intended.
        feared: about each of what is feared.
        follows: in a word.
    """

    shares: SettingShares
    claim: Claim
    feared: tuple[Claim, ...]
    follows: str


def _told(job: IntendedJob, setting: IntendedSetting) -> ToldSetting:
    assert setting.said is not None
    caps = [] if job.complete else [STOPPED]
    net, name, controlled = job.net.name, job.intended.name, job.controls and job.twin is not None
    shares = shares_of(
        job.net, setting.prompts, job.intended, setting.choices, setting.said, setting.random, job.seed
    )
    claim = intended_claim(net, name, shares, job.limits, caps, controlled)
    feared = tuple(
        feared_claim(net, name, one, shares, job.limits, caps, controlled) for one in shares.followed
    )
    return ToldSetting(shares, claim, feared, what_it_follows(claim, feared, shares, job.limits))


def _result(job: IntendedJob, cases: Cases, provenance: Provenance) -> IntendedTest:
    assert job.here is not None
    here = _told(job, job.here)
    there = None if job.there is None or job.there.said is None else _told(job, job.there)
    shift = None
    if there is not None and job.there is not None:
        shift = shift_claim(
            job.net.name, job.intended.name, here.claim, there.claim, job.here.inside, job.there.inside, there.shares,
            job.there.why,
        )  # fmt: skip
    notes = [*cases.notes, *job.here.choices.notes, *job.notes]
    return IntendedTest(
        job.intended.name, tuple(f.name for f, _ in job.feared), here.shares, None if there is None else there.shares,
        here.claim, here.feared, None if there is None else there.claim, job.here.inside,
        None if job.there is None else job.there.inside, shift, here.follows, "" if there is None else there.follows,
        "" if shift is None else shift_word(shift), job.limits.to_dict(), tuple(dict.fromkeys(notes)), job.complete,
        provenance,
    )  # fmt: skip
