"""A circuit on trial: everything that is measured of it on held-out examples, and what that says against the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours import Performance, performance
from cutaway.circuits.candidate import CircuitCandidate
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.evaluation.completeness import Completeness, Marginal, completeness, marginal, without
from cutaway.circuits.evaluation.faithfulness import Curve, curve, dynamic
from cutaway.circuits.evaluation.hypotheses import (
    Tested,
    beats_random,
    equivalence,
    independence,
    least_for_equivalence,
    minimality,
)
from cutaway.circuits.evaluation.random_circuits import inflated
from cutaway.circuits.evaluation.stability import over_bootstrap
from cutaway.circuits.limits import CircuitLimits
from cutaway.circuits.passes.ablation import carried
from cutaway.claims import Evidence
from cutaway.errors import BadInput
from cutaway.network.parts import in_words, parts_of
from cutaway.results import Work, brief, finite
from cutaway.statistics import Estimate
from cutaway.trials import Bench, from_other_prompts, inside, percent, performs, resampled, with_interval
from cutaway.trials.trial import HALF

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class CircuitTrial:
    """What was measured of a circuit on held-out examples. Shares are of the gap between m(empty) and m(N).

    Attributes:
        performance: how well the network does the behaviour there.
        kept: faithfulness of the circuit alone.
        removed: what is left when its edges are ablated.
        random_kept: faithfulness of random circuits of its size, means over examples [r].
        random_removed: what is left without random circuits of its size made of the rest [r].
        dynamic: each example's own faithfulness [n].
        tests: the hypothesis tests.
        complete: completeness in three senses.
        nodes: each node's marginal effect.
        curve: faithfulness over size; None where the circuit has no scores.
        stability: Jaccard over bootstrap samples; None where that was not tried.
        metrics: m(N), m(C), m(empty), m(N without C) per example.
        caps: why nothing may be supported on this scale.
        resampled: what its nodes keep, with all edges among them, when all other parts hold what they hold on other prompts;
            None where that was not tried.
    """

    performance: Performance
    kept: Estimate
    removed: Estimate
    random_kept: np.ndarray
    random_removed: np.ndarray
    dynamic: np.ndarray
    tests: tuple[Tested, ...]
    complete: Completeness
    nodes: Marginal
    curve: Curve | None
    stability: Estimate | None
    metrics: dict[str, np.ndarray]
    caps: tuple[str, ...] = ()
    resampled: Estimate | None = None

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        nodes = {"names": self.nodes.names, "effects": self.nodes.effects}
        said = vars(self) | {"completeness": self.complete, "nodes": nodes}
        return finite({name: value for name, value in said.items() if name != "complete"})

    def test(self, name: str) -> Tested:
        """The hypothesis test of that name."""
        return next(t for t in self.tests if t.name == name)


def measure_circuit(
    net: Network,
    circuit: Circuit,
    behaviour: Behaviour,
    limits: CircuitLimits,
    seed: int,
    work: Work,
    full: bool = True,
) -> CircuitTrial:
    """Measure a circuit on these examples. full: also completeness by knock-outs, minimality, the curve and stability.

    Raises BadInput where the circuit is another network's or is empty, BadBehaviour where there is no gap.
    """
    bench = EdgeBench.of(net, behaviour, circuit.ablation, seed, work)
    circuit.check_network(net, bench.wiring.graph)
    if not circuit.n_edges:
        raise BadInput(
            "The circuit has no edges, so there is nothing to test.", "Trace it with a larger size."
        )
    candidate = CircuitCandidate(circuit)
    work.step("random circuits", 0, 2)
    kept = candidate.keep(bench, candidate.like_it(np.random.default_rng([seed, 1]), limits.random))
    work.step("random circuits", 1, 2)
    removed = candidate.remove(bench, candidate.apart(np.random.default_rng([seed, 2]), limits.random))
    work.step("random circuits", 2, 2)
    tests = _tests(bench, circuit, kept, removed, limits, seed, full)
    complete = completeness(bench, circuit, limits.subsets if full else 0, seed)
    work.step("completeness", 1, 1)
    nodes = Marginal((), np.zeros(0), np.zeros(0))
    if full and limits.nodes:
        nodes = marginal(bench, circuit, most=limits.nodes)
    work.step("minimality", 1, 1)
    scores = circuit.scores
    return CircuitTrial(
        performance(net, behaviour, work=work), bench.share(kept[0]), bench.share(removed[0]), bench.shares(kept[1:]),
        bench.shares(removed[1:]), dynamic(bench, kept[0]), tests, complete, nodes,
        curve(bench, scores) if full and scores is not None else None,
        _stability(circuit, limits, seed) if full else None,
        {"network": bench.whole, "circuit": kept[0], "empty": bench.empty, "complement": removed[0]},
        bench.scale.caps,
        _resampled(net, circuit, behaviour, seed, work) if full else None,
    )  # fmt: skip


def _resampled(
    net: Network, circuit: Circuit, behaviour: Behaviour, seed: int, work: Work
) -> Estimate | None:
    """What its nodes keep with other prompts' values in all other parts; None where parts cannot be told apart so."""
    parts = parts_of(net)
    members = [part for part in parts if str(part) in set(circuit.nodes)]
    if not behaviour.aligned or not members or set(members) == set(parts):
        return None
    return resampled(Bench.of(net, behaviour, seed, work, parts), members)


def _tests(
    bench: EdgeBench, circuit: Circuit, kept: np.ndarray, removed: np.ndarray, limits: CircuitLimits, seed: int, full: bool
) -> tuple[Tested, ...]:  # fmt: skip
    """Equivalence, independence, minimality, sufficiency, partial necessity. kept, removed: [1 + random n]."""
    alone, rest = kept[0], removed[0]
    tie = limits.sham * abs(bench.gap)

    def distance(metric: np.ndarray) -> np.ndarray:
        return np.abs(metric - bench.whole).mean(-1)

    tests = [
        equivalence(bench.whole, alone, limits.epsilon, limits.alpha),
        independence(bench.whole, rest, 1000, limits.alpha, seed),
        beats_random(
            "Sufficiency",
            f"alone it comes nearer to the network than at most {100 * limits.quantile:g} % of random circuits",
            -float(distance(alone)), -distance(kept[1:]), limits.quantile, limits.alpha, tie,
        ),
        beats_random(
            "Partial necessity",
            f"its removal changes more than that of at most {100 * limits.quantile:g} % of random circuits of the rest",
            float(distance(rest)), distance(removed[1:]), limits.quantile, limits.alpha, tie,
        ),
    ]  # fmt: skip
    if full and circuit.grain == "edge" and limits.edges:
        tests.insert(2, _minimality(bench, circuit, limits, seed))
    return tuple(tests)


def _minimality(bench: EdgeBench, circuit: Circuit, limits: CircuitLimits, seed: int) -> Tested:
    graph, rng = bench.wiring.graph, np.random.default_rng([seed, 3])
    single = marginal(bench, circuit, "edge", limits.edges)
    drawn = [inflated(graph, circuit.membership, rng) for _ in range(limits.random)]
    pairs = [pair for pair in drawn if pair is not None]
    if not pairs:
        said = "Every edge is in it."
        return Tested("Minimality", "", 1.0, None, float("nan"), 0, limits.alpha, limits.random, said)
    wide, fewer = bench.metric([m for m, _ in pairs]), bench.metric([without(*pair) for pair in pairs])
    reference = np.abs(wide - fewer).mean(-1) / abs(bench.gap)
    edges = tuple(map(in_words, single.names))
    return minimality(edges, single.effects, reference, limits.quantile, limits.alpha)[0]


def _stability(circuit: Circuit, limits: CircuitLimits, seed: int) -> Estimate | None:
    scores = circuit.scores
    if scores is None or scores.examples is None or circuit.grain != "edge":
        return None
    return over_bootstrap(scores, circuit.n_edges, limits.bootstrap, seed)[0]


def least_examples(name: str, limits: CircuitLimits) -> int:
    """The fewest examples that a named test needs to be able to fail; BadInput for an unknown name."""
    names = {
        "equivalence": least_for_equivalence(limits.epsilon, limits.alpha), "independence": 5, "faithfulness": 2,
        "sufficiency": 1, "partial necessity": 1, "minimality": 1,
    }  # fmt: skip
    if name.lower() not in names:
        raise BadInput(f"There is no test {name!r}.", f"Tests are {', '.join(names)}.")
    return names[name.lower()]


def evidence(circuit: Circuit, trial: CircuitTrial, limits: CircuitLimits) -> tuple[Evidence, ...]:
    """What decides: each figure, its limit, and whether it passed (None: it cannot tell)."""
    small = circuit.share <= limits.largest
    tests = [
        performs(trial.performance),
        Evidence(
            "Faithful", trial.kept, None, limits.kept, inside(trial.kept, limits.kept, limits.excess),
            f"Alone, when every other edge carries {carried(circuit.ablation)}, it keeps "
            f"{with_interval(trial.kept)} of the gap; required: {percent(limits.kept)} to {percent(limits.excess)}.",
            "of the gap kept",
        ),
        Evidence(
            "Removed", trial.removed, None, limits.left, inside(trial.removed, float("-inf"), limits.left),
            f"When only its own edges carry that, and all others are as they were, {with_interval(trial.removed)} of the "
            f"gap is left; required: at most {percent(limits.left)}.", "of the gap left",
        ),
        _beside("Sufficient", trial.test("Sufficiency"), limits, small),
        Evidence(
            "Small", None, circuit.share, limits.largest, True if small else None,
            f"{circuit.n_edges} of {circuit.graph.n_edges} edges; more than {percent(limits.largest)} would explain "
            "nothing.", "of all edges",
        ),
    ]  # fmt: skip
    if not breaks_anyway(trial, limits):
        tests.insert(4, _beside("Necessary", trial.test("Partial necessity"), limits, small))
    if trial.resampled is not None:
        tests.append(from_other_prompts(trial.resampled, limits))
    return tuple(tests)


def _beside(word: str, test: Tested, limits: CircuitLimits, small: bool) -> Evidence:
    """Does it beat random circuits? It is refuted where it does not beat even half of them.

    Those of the size of nearly everything are nearly the circuit itself: that they do as well, or that there are none,
    refutes nothing.
    """
    passed, sentence = test.passed, test.sentence
    if not limits.random:
        sentence = "Random circuits were not run: there is nothing to compare it with."
    elif not test.n:
        sentence = "There is nothing to compare it with: no other circuit of this size does anything else."
    elif not small and not passed:
        passed, sentence = None, f"{sentence} At this size they hold most of what it holds."
    elif passed is False and test.statistic >= HALF:
        passed = None
    return Evidence(f"{word} beside random circuits", None, test.p, limits.alpha, passed, sentence, "(p)")


def breaks_anyway(trial: CircuitTrial, limits: CircuitLimits) -> bool:
    """Does removing random circuits of this size break the behaviour as well (or is there no rest of that size)?"""
    if not limits.random:  # not run
        return False
    return not len(trial.random_removed) or float(np.mean(trial.random_removed)) <= limits.left
