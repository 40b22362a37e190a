"""The verb: weigh the input tokens by every method, sum up by spans, exchange the variables, and hold both together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.algorithms.inputs.agreeing import (
    CORRELATION,
    DIFFERENCE,
    by_chance,
    effects_of,
    mean_at,
    merged,
    rank_correlations,
    shares_at,
)
from cutaway.algorithms.inputs.limits import InputLimits
from cutaway.algorithms.inputs.result import InputAgreement, InputAttribution
from cutaway.algorithms.inputs.telling import RankEstimates, claim_about_inputs, misleading
from cutaway.behaviours import Behaviour
from cutaway.behaviours.cases import Cases
from cutaway.effects.inputs import METHODS, EmbeddedRows, InputOptions, InputQuestion, InputRows, TokenScores
from cutaway.errors import BadInput, CutawayError, Stopped, did_you_mean
from cutaway.network.memory import rows_at_once
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working
from cutaway.statistics import Estimate
from cutaway.trials import percent

if TYPE_CHECKING:
    from cutaway.network import Network

#: Prompts that are weighed, and steps of the integral: with the Gauss-Legendre rule they miss less than a hundredth mostly.
PROMPTS, STEPS = 24, 20
_STOPPED = "It was stopped before the end."


@strict
def input_attribution(
    net: Network,
    question: Cases | Behaviour | str | Sequence[Any],
    *,
    method: str | Sequence[str] | None = None,
    baseline: str = "mean",
    steps: int = STEPS,
    window: int = 1,
    target: str | int | None = None,
    foil: str | int | None = None,
    n: int = PROMPTS,
    limits: InputLimits | None = None,
    controls: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> InputAttribution:
    """Say which input tokens an answer rests on, and how far that agrees with exchanging what stands there.

    Integrated gradients by the embeddings (Sundararajan et al. 2017), occlusion (Zeiler and Fergus 2014) and attention
    rollout (Abnar and Zuidema 2020). Of cases, whose variables are known, each free variable is exchanged as well, all else
    left as it is: what that does to the metric is the truth about the tokens that it changes. The rank correlation between
    shares of the attribution and these effects is given with intervals over prompts, and the variables about which a method
    says the contrary of what their exchange does.

    Supported, of a method: the correlation's whole interval lies above `limits.agrees`, no variable misleads, and spans
    moved to other places and a network with random weights (Adebayo et al. 2018) do worse.

    Args:
        net: the network.
        question: cases, a behaviour or its name, or a text or several. Of cases the metric is the logit of the right answers
            less that of those which an exchange of one variable makes right.
        method: which of `integrated_gradients`, `occlusion`, `rollout`; default all that the network allows.
        baseline: what stands in a token's place, as an embedding: "zero", "mean" (of all tokens of these prompts),
            "corrupted" (of a behaviour of pairs), or a token, e.g. a mask or a pad.
        steps: of the integral.
        window: tokens that are occluded together.
        target: of a text, the token whose logit is explained; default the network's own likeliest.
        foil: of a text, the token whose logit is taken off.
        n: prompts, at most.
        limits: by which the agreement is judged.
        controls: ask a network with random weights, too; without it nothing is supported.
        seed: of the prompts, of the exchanges and of everything that is drawn.
        work: hears of the price and of progress, and may stop it; what is finished comes back then.

    Raises:
        BadInput: for a question, a method, a baseline or a number that is none.
        BadBehaviour: where no exchange changes an answer, the metric has no gradient, or corrupted prompts do not fit.
        SiteUnavailable: where the network has no embedding that can be written, or not what a method reads.
    """
    began = time.monotonic()
    limits = InputLimits() if limits is None else limits
    if not isinstance(limits, InputLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give InputLimits(...), or leave them out.")
    for name, value, least in (("steps", steps, 1), ("window", window, 1), ("n", n, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 100_000:
            raise BadInput(f"{name}={value!r:.40} is out of range.", f"Give a whole number from {least} on.")
    chosen, notes = _methods(net, method)
    with working(work).interruptible() as work:
        asked = InputQuestion.of(net, question, target, foil, n, seed)
        options = InputOptions(steps, window)
        job = InputJob(
            net,
            asked,
            chosen,
            baseline,
            options,
            limits,
            controls and bool(asked.exchanges.variables),
            seed,
            work,
        )
        job.announce()
        job.run()
    notes = [*asked.notes, *notes, *job.notes]
    return _result(job, notes, Provenance.of(net, asked.rows.of[:64], seed, time.monotonic() - began))


def _methods(net: Network, given: Any) -> tuple[tuple[str, ...], list[str]]:
    """The methods that are run, and why some are not."""
    if given is None:
        refused = {name: row.refusal(net) for name, row in METHODS.items()}
        notes = [f"{error.problem} It is left out." for error in refused.values() if error is not None]
        return tuple(name for name, error in refused.items() if error is None), notes
    several = (given,) if isinstance(given, str) else given
    if not isinstance(several, Sequence) or not several:
        raise BadInput(f"method={given!r:.60} names none.", f"Use {', '.join(METHODS)}.")
    for name in several:
        if not isinstance(name, str) or name not in METHODS:
            raise BadInput(f"There is no method {name!r:.60}.", did_you_mean(name, METHODS))
        if (error := METHODS[name].refusal(net)) is not None:
            raise error
    return tuple(dict.fromkeys(several)), []


@dataclass(eq=False)
class InputJob:
    """All that is run, and what came out so far.

    Attributes:
        net, asked, methods, baseline, options, limits, controls, seed, work: as asked.
        scores: by method, of the network.
        random: by method, of the network with random weights, on the first prompts.
        own: the metric of each prompt.
        moved: the metric with each variable exchanged [v n]; None where that was not run.
        notes: what could not be run.
        complete: was all of it run?
    """

    net: Network
    asked: InputQuestion
    methods: tuple[str, ...]
    baseline: str
    options: InputOptions
    limits: InputLimits
    controls: bool
    seed: int
    work: Work
    scores: dict[str, TokenScores] = field(default_factory=dict)
    random: dict[str, TokenScores] = field(default_factory=dict)
    own: np.ndarray = field(default_factory=lambda: np.zeros(0))
    moved: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    complete: bool = True

    def __post_init__(self) -> None:
        size = sum(parameter.numel() for parameter in self.net.model.parameters())
        if self.controls and size > self.limits.largest:
            self.controls = False
            self.notes.append(
                f"No network with random weights is asked: {size:,} parameters are more than {self.limits.largest:,.0f}."
            )

    @property
    def few(self) -> list[int]:
        """The prompts on which the network with random weights is asked."""
        n = len(self.asked.rows.ids)
        return np.unique(np.linspace(0, n - 1, min(n, int(self.limits.control))).round().astype(int)).tolist()

    def announce(self) -> None:
        """Say what is about to be run."""
        lengths = self.asked.rows.lengths
        few = [lengths[i] for i in self.few]
        stages = [
            (METHODS[m].words, METHODS[m].forwards(self.net, lengths, self.options)) for m in self.methods
        ]
        stages.append(("exchanging variables", float(self.asked.exchanges.count + len(lengths))))
        if self.controls:
            again = sum(METHODS[m].forwards(self.net, few, self.options) for m in self.methods)
            stages.append(("random weights", again))
        first = METHODS[self.methods[0]].forwards(self.net, lengths, self.options)
        gradients = 0.8 if "integrated_gradients" in self.methods else 0.0
        rows = [list(ids) for ids in self.asked.rows.ids]
        announce(
            self.net,
            rows,
            self.work,
            "input attribution",
            stages,
            rows=sum(lengths),
            gradients=gradients,
            least=first,
        )

    def run(self) -> None:
        """Every method, the exchanges, the network with random weights. Raises `Stopped` where nothing is finished."""
        of = EmbeddedRows.of(self.net, self.asked.rows, self.baseline)
        try:
            for name in self.methods:
                self.scores[name] = METHODS[name].run(of, self.options, self.work)
            self.own = _metric(self.net, self.asked.rows, self.asked.rows.ids, range(of.n), self.work)
            if self.asked.exchanges.variables:
                self.moved = self._exchanged()
            if self.controls:
                self._control()
        except Stopped:
            if not self.scores:
                raise
            self.complete = False
        if not len(self.own):
            self.own = np.full(of.n, np.nan)

    def _exchanged(self) -> np.ndarray:
        rows = self.asked.rows
        found = np.full((len(self.asked.exchanges.variables), len(rows.ids)), np.nan)
        for v, one in enumerate(self.asked.exchanges.others):
            there = [row for row, other in enumerate(one) if other is not None]
            if there:
                others = [other for other in one if other is not None]
                found[v, there] = _metric(self.net, rows, others, there, self.work)
        return found

    def _control(self) -> None:
        try:
            twin = self.net.randomized((7_000 + self.seed) % 2**31)
            rows = part_of(self.asked.rows, self.few)
            of = EmbeddedRows.of(twin, rows, self.baseline)
            for name in self.methods:
                self.random[name] = METHODS[name].run(of, self.options, self.work.within("random weights"))
        except Stopped:
            raise
        except CutawayError as error:
            self.notes.append(f"The network with random weights could not be asked. {error.problem}")


def part_of(rows: InputRows, some: Sequence[int]) -> InputRows:
    """Some of the prompts."""
    import torch

    take = lambda column: tuple(column[i] for i in some)  # noqa: E731
    spans = {name: take(at) for name, at in rows.spans.items()}
    others = None if rows.others is None else take(rows.others)
    return InputRows(
        rows.name, take(rows.ids), take(rows.answer_pos), rows.answers[torch.tensor(list(some))], rows.metric, spans,
        take(rows.templates), others, rows.of,
    )  # fmt: skip


def _metric(
    net: Network, rows: InputRows, ids: Sequence[Sequence[int]], which: Sequence[int], work: Work
) -> np.ndarray:
    """The metric [k] of other prompts in the place of `which` [k]."""
    import torch

    size, found = rows_at_once(net, max(map(len, ids)), work), []
    for begin in range(0, len(ids), size):
        work.step("exchanging variables", begin, len(ids))
        index = torch.tensor(list(which[begin : begin + size]))
        where = torch.tensor([[rows.answer_pos[i]] for i in index.tolist()])
        run = net.run([list(row) for row in ids[begin : begin + size]], logits=where)
        assert run.logits is not None
        found.append(rows.score(run.logits[:, 0], index).detach().double().cpu().numpy())
    return np.concatenate(found)


def _result(job: InputJob, notes: Sequence[str], provenance: Provenance) -> InputAttribution:
    rows, limits = job.asked.rows, job.limits
    changed = job.asked.exchanges.changed(rows.ids)
    spans = {name: np.array(at) for name, at in rows.spans.items()}
    width = np.arange(max(rows.lengths))
    masks = {name: (width >= at[:, :1]) & (width < at[:, 1:]) for name, at in spans.items()}
    shares: dict[str, dict[str, Estimate | None]] = {}
    for name, scores in job.scores.items():
        each = (
            shares_at(scores.values, np.stack(list(masks.values())))
            if masks
            else np.zeros((0, len(rows.ids)))
        )
        shares[name] = {span: mean_at(one, rows.clusters) for span, one in zip(masks, each, strict=True)}
    notes, effects, agreements = list(notes), dict[str, Estimate | None](), tuple[InputAgreement, ...]()
    variables = job.asked.exchanges.variables if job.moved is not None else ()
    changes = np.zeros((0, len(rows.ids)))
    if job.moved is not None:
        changes = job.moved - job.own
        effects, agreements = _agreements(job, changed, np.abs(changes), provenance.network)
    ig = job.scores.get("integrated_gradients")
    missed = np.zeros(0) if ig is None else ig.missed
    if len(missed) and (bad := missed > limits.complete).any():
        notes.append(
            f"On {int(bad.sum())} of {len(missed)} prompts integrated gradients miss more than {percent(limits.complete)} "
            f"of the change of the metric (at most {percent(float(np.nanmax(missed)))}): take more steps than "
            f"{job.options.steps}."
        )
    return InputAttribution(
        rows.name, rows.metric.name, job.baseline, job.options.steps, job.options.window,
        tuple(tuple(job.net.token_strings(list(ids))) for ids in rows.ids), tuple(job.scores),
        {name: scores.values for name, scores in job.scores.items()}, job.own, missed, rows.templates, spans, shares,
        variables, changed[: len(variables)], changes, effects, agreements, limits.to_dict(), tuple(dict.fromkeys(notes)),
        job.complete, provenance,
    )  # fmt: skip


def _agreements(
    job: InputJob, where: np.ndarray, effects: np.ndarray, net: str
) -> tuple[dict[str, Estimate | None], tuple[InputAgreement, ...]]:
    """Every method beside the exchanges. Intervals by which a variable misleads are widened for all of them."""
    rows, limits = job.asked.rows, job.limits
    variables, where, effects = merged(job.asked.exchanges.variables, where, effects)
    level = 1 - 0.05 / (2 * len(variables))
    _, strict_effects = effects_of(effects, rows.clusters, level)
    _, plain = effects_of(effects, rows.clusters, 0.95)
    corrected = dict(zip(variables, strict_effects, strict=True))
    found = []
    for name, scores in job.scores.items():
        each = shares_at(scores.values, where)
        shares = {v: mean_at(one, rows.clusters, level) for v, one in zip(variables, each, strict=True)}
        misled = misleading(shares, corrected, limits)
        ranks = _ranks(job, name, scores.values, where, effects)
        caps = [] if job.complete else [_STOPPED]
        if not job.controls or name not in job.random:
            caps.append("No network with random weights was asked.")
        claim = claim_about_inputs(
            net, METHODS[name].words, rows.name, ranks, misled, shares, corrected, limits, caps
        )
        told = {v: mean_at(one, rows.clusters) for v, one in zip(variables, each, strict=True)}
        found.append(InputAgreement(name, ranks, told, misled, claim))
    return dict(zip(variables, plain, strict=True)), tuple(found)


def _ranks(
    job: InputJob, name: str, values: np.ndarray, where: np.ndarray, effects: np.ndarray
) -> RankEstimates:
    rows = job.asked.rows
    own = rank_correlations(shares_at(values, where), effects)
    chance = by_chance(values, where, effects, rows.lengths, int(job.limits.draws), job.seed)
    random = over = None
    if name in job.random:
        few, table = job.few, job.random[name].values
        there = where[:, few, : table.shape[1]]
        fresh = rank_correlations(shares_at(table, there), effects[:, few])
        clusters = None if rows.clusters is None else [rows.templates[i] for i in few]
        random = mean_at(fresh, clusters, within=CORRELATION)
        over = mean_at(own[few] - fresh, clusters, within=DIFFERENCE)
    return RankEstimates(
        mean_at(own, rows.clusters, within=CORRELATION), mean_at(chance, rows.clusters, within=CORRELATION),
        mean_at(own - chance, rows.clusters, within=DIFFERENCE), random, over,
    )  # fmt: skip
