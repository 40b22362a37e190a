"""A circuit on trial: everything that is measured of it on held-out examples, and what that says against the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours import performance
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.bench import Bench
from cutaway.circuits.evaluation.completeness import Completeness, Marginal, completeness, marginal
from cutaway.circuits.evaluation.faithfulness import Curve, curve, dynamic
from cutaway.circuits.evaluation.hypotheses import (
    Tested,
    beats_random,
    equivalence,
    independence,
    least_for_equivalence,
    minimality,
)
from cutaway.circuits.evaluation.random_circuits import inflated, random_circuit, random_nodes
from cutaway.circuits.evaluation.stability import over_bootstrap
from cutaway.circuits.limits import Limits
from cutaway.claims import Evidence
from cutaway.errors import BadInput
from cutaway.results import Work
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour, Performance
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Trial:
    """What was measured.

    kept: faithfulness of the circuit alone. removed: what is left when its edges are ablated. random_kept, random_removed:
    the same, mean over examples, for random circuits of its size [r]. dynamic: each example's own faithfulness [n]. tests:
    the hypothesis tests. complete, nodes: completeness, and each node's marginal effect. curve: faithfulness over
    size, where
    the circuit has scores. stability: Jaccard over bootstrap samples. m(N), m(C), m(empty), m(N without C) per example.
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

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "performance": self.performance.to_dict(), "kept": self.kept.to_dict(), "removed": self.removed.to_dict(),
            "random_kept": self.random_kept.tolist(), "random_removed": self.random_removed.tolist(),
            "dynamic": [None if v != v else float(v) for v in self.dynamic], "tests": [t.to_dict() for t in self.tests],
            "completeness": self.complete.to_dict(),
            "nodes": {"names": list(self.nodes.names), "effects": self.nodes.effects.tolist()},
            "curve": None if self.curve is None else self.curve.to_dict(),
            "stability": None if self.stability is None else self.stability.to_dict(),
            "metrics": {k: v.tolist() for k, v in self.metrics.items()},
        }  # fmt: skip

    def test(self, name: str) -> Tested:
        """The hypothesis test of that name."""
        return next(t for t in self.tests if t.name == name)


def put_to_test(
    net: Network,
    circuit: Circuit,
    behaviour: Behaviour,
    limits: Limits,
    seed: int,
    work: Work,
    full: bool = True,
) -> Trial:
    """Measure a circuit on these examples. full: also completeness by knock-outs, minimality, the curve and stability.

    Raises BadInput where the circuit is another network's or is empty, BadBehaviour where there is no gap.
    """
    bench = Bench.of(net, behaviour, circuit.ablation, seed)
    circuit.check_network(net, bench.wiring.graph)
    if not circuit.n_edges:
        raise BadInput(
            "The circuit has no edges, so there is nothing to test.", "Trace it with a larger size."
        )
    own = bench.of_circuit(circuit)
    rest = bench.metric([without(circuit)])[0]
    work.step("random circuits", 0, 2)
    kept_random = bench.metric(_random(bench, circuit, limits.random, seed))
    work.step("random circuits", 1, 2)
    removed_random = _random_removed(bench, circuit, limits.random, seed)
    work.step("random circuits", 2, 2)
    tests = _tests(bench, circuit, own, rest, kept_random, removed_random, limits, seed, full)
    complete = completeness(bench, circuit, limits.subsets if full else 0, seed)
    work.step("completeness", 1, 1)
    nodes = marginal(bench, circuit) if full else Marginal((), np.zeros(0), np.zeros(0))
    work.step("minimality", 1, 1)
    scores = circuit.scores
    return Trial(
        performance(net, behaviour), bench.share(own, seed), bench.share(rest, seed), bench.shares(kept_random),
        bench.shares(removed_random), dynamic(bench, own), tests, complete, nodes,
        curve(bench, scores) if full and scores is not None else None,
        _stability(circuit, limits, seed) if full else None,
        {"network": bench.whole, "circuit": own, "empty": bench.empty, "complement": rest},
    )  # fmt: skip


def without(circuit: Circuit) -> np.ndarray:
    """The network without a circuit: all other edges. Of a node circuit the input stays, or nothing could be kept."""
    rest = circuit.graph.allowed & ~circuit.membership
    if circuit.grain == "node":
        rest[0] = circuit.graph.allowed[0]
    return rest


def _random(bench: Bench, circuit: Circuit, n: int, seed: int) -> list[np.ndarray]:
    """Random circuits of the same size: of paths, or of nodes."""
    graph, rng = bench.wiring.graph, np.random.default_rng([seed, 1])
    if circuit.grain == "node":
        count = int(circuit.node_membership.sum()) - 1
        return [random_nodes(graph, count, rng) for _ in range(n)]
    return [random_circuit(graph, circuit.n_edges, rng) for _ in range(n)]


def _random_removed(bench: Bench, circuit: Circuit, n: int, seed: int) -> np.ndarray:
    """m(N without R) for random circuits R of the same size from the complement: [r n]; none where it is too small."""
    graph, rng = bench.wiring.graph, np.random.default_rng([seed, 2])
    rest = graph.allowed & ~circuit.membership
    if circuit.grain == "node":
        nodes = np.flatnonzero(~circuit.node_membership)
        count = int(circuit.node_membership.sum()) - 1
        if len(nodes) < count:
            return np.zeros((0, bench.behaviour.n))
        masks = []
        for _ in range(n):
            out = graph.allowed.copy()
            out[rng.permutation(nodes)[:count]] = False
            masks.append(out)
        return bench.metric(masks)
    if int(rest.sum()) < circuit.n_edges:
        return np.zeros((0, bench.behaviour.n))
    masks = [graph.allowed & ~random_circuit(graph, circuit.n_edges, rng, rest) for _ in range(n)]
    return bench.metric(masks)


def _tests(
    bench: Bench, circuit: Circuit, own: np.ndarray, rest: np.ndarray, kept: np.ndarray, removed: np.ndarray,
    limits: Limits, seed: int, full: bool,
) -> tuple[Tested, ...]:  # fmt: skip
    """Equivalence, independence, minimality, sufficiency, partial necessity."""

    def distance(metric: np.ndarray) -> np.ndarray:
        return np.abs(metric - bench.whole).mean(-1)

    found = [
        equivalence(bench.whole, own, limits.epsilon, limits.alpha),
        independence(bench.whole, rest, 1000, limits.alpha, seed),
        beats_random(
            "Sufficiency", f"alone it comes nearer to the network than at most {100 * limits.quantile:g} "
            "% of random circuits",
            -float(distance(own)), -distance(kept), limits.quantile, limits.alpha,
        ),
        beats_random(
            "Partial necessity",
            f"its removal changes more than that of at most {100 * limits.quantile:g} % of random circuits of the rest",
            float(distance(rest)), distance(removed), limits.quantile, limits.alpha,
        ),
    ]  # fmt: skip
    if full and circuit.grain == "edge":
        found.insert(2, _minimality(bench, circuit, own, limits, seed))
    return tuple(found)


def _minimality(bench: Bench, circuit: Circuit, own: np.ndarray, limits: Limits, seed: int) -> Tested:
    graph, rng = bench.wiring.graph, np.random.default_rng([seed, 3])
    single = marginal(bench, circuit, "edge", limits.edges)
    pairs = [
        p for p in (inflated(graph, circuit.membership, rng) for _ in range(limits.random)) if p is not None
    ]
    if not pairs:
        return Tested(
            "Minimality", "", 1.0, None, float("nan"), 0, limits.alpha, limits.random, "Every edge is in it."
        )
    wide = bench.metric([m for m, _ in pairs])
    without = []
    for mask, edge in pairs:
        fewer = mask.copy()
        fewer[edge] = False
        without.append(fewer)
    reference = np.abs(wide - bench.metric(without)).mean(-1) / abs(bench.gap)
    return minimality(single.names, single.effects, reference, limits.quantile, limits.alpha)[0]


def _stability(circuit: Circuit, limits: Limits, seed: int) -> Estimate | None:
    scores = circuit.scores
    if scores is None or scores.examples is None or circuit.grain != "edge":
        return None
    return over_bootstrap(scores, circuit.n_edges, limits.bootstrap, seed)[0]


#: What tests need at least, by the name that a caller may ask for.
def least_examples(name: str, limits: Limits) -> int:
    """The fewest examples that a named test needs to be able to fail; BadInput for an unknown name."""
    names = {
        "equivalence": least_for_equivalence(limits.epsilon, limits.alpha), "independence": 5, "faithfulness": 2,
        "sufficiency": 1, "partial necessity": 1, "minimality": 1,
    }  # fmt: skip
    if name.lower() not in names:
        raise BadInput(f"There is no test {name!r}.", f"Tests are {', '.join(names)}.")
    return names[name.lower()]


def evidence(circuit: Circuit, trial: Trial, limits: Limits) -> tuple[Evidence, ...]:
    """What decides: each figure, its limit, and whether it passed (None: it cannot tell)."""
    done = trial.performance
    sufficiency, necessity = trial.test("Sufficiency"), trial.test("Partial necessity")
    found = [
        Evidence("Performs it", done.accuracy, None, 0.5, done.does_it, done.sentence),
        Evidence(
            "Faithful", trial.kept, None, limits.kept, inside(trial.kept, limits.kept, limits.excess),
            f"Alone, with every other edge ablated ({circuit.ablation}), it keeps {percent(trial.kept)} of "
            "the gap; asked was "
            f"{100 * limits.kept:g} to {100 * limits.excess:g} %.",
        ),
        Evidence(
            "Removed", trial.removed, None, limits.left, inside(trial.removed, float("-inf"), limits.left),
            f"With its edges ablated and all others as they are, {percent(trial.removed)} is left; asked was at most "
            f"{100 * limits.left:g} %.",
        ),
        _beside("Sufficient", sufficiency, limits),
        Evidence(
            "Small", None, circuit.share, limits.largest, True if circuit.share <= limits.largest else None,
            f"{circuit.n_edges} of {circuit.graph.n_edges} edges; more than {100 * limits.largest:g} % "
            "would explain nothing.",
        ),
    ]  # fmt: skip
    if not breaks_anyway(trial, limits):
        found.insert(4, _beside("Necessary", necessity, limits))
    return tuple(found)


def _beside(word: str, test: Tested, limits: Limits) -> Evidence:
    return Evidence(f"{word} beside random circuits", None, test.p, limits.alpha, test.passed, test.sentence)


def breaks_anyway(trial: Trial, limits: Limits) -> bool:
    """Does removing random circuits of this size break the behaviour as well (or is there no rest of that size)?"""
    return not len(trial.random_removed) or float(np.mean(trial.random_removed)) <= limits.left


def inside(estimate: Estimate, low: float, high: float) -> bool | None:
    """Is the whole interval between two limits (True), outside them (False), or neither (None)?"""
    interval = estimate.interval
    if interval is None:
        return None
    if low < interval.low and interval.high < high:
        return True
    return False if interval.high < low or interval.low > high else None


def percent(estimate: Estimate) -> str:
    """A share and its interval in per cent."""
    if estimate.interval is None:
        return f"{100 * estimate.value:z.0f} % (no interval)"
    return f"{100 * estimate.value:z.0f} % ({100 * estimate.interval.low:z.0f} to {100 * estimate.interval.high:z.0f})"
