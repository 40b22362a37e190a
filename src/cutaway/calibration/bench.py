"""Methods of discovery on networks whose circuit is known: how near does each come, at what cost; and false claims.

`bench` scores every method on every specimen, over seeds; `negatives` traces and tests circuits on networks that lack the
mechanism, where nothing may be supported.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from cutaway.calibration.subject import Subject
from cutaway.calibration.verify import subject_of
from cutaway.circuits import CircuitLimits, EdgeBench, Graph, Scores, TraceRecipe, score
from cutaway.circuits.choosing import choose
from cutaway.circuits.evaluation import stability
from cutaway.circuits.evaluation.faithfulness import curve
from cutaway.circuits.methods import known_options, options_of
from cutaway.circuits.passes.certify import wiring
from cutaway.circuits.testing import evidence_alone
from cutaway.errors import BadBehaviour, CutawayError, NotPerformed, Stopped
from cutaway.results import Work, brief, working
from cutaway.statistics import Estimate, auroc, mean_of, proportion
from cutaway.trials import Limits
from cutaway.zoo import names as shipped
from cutaway.zoo.registry import all_specimens
from cutaway.zoo.truth import GroundTruth

METHODS = (
    "eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "relp", "flow", "path-patching", "acdc", "mask-edges",
    "ensemble", "random", "atp", "atp-star", "node-ig", "node-patching",
)  # fmt: skip


@dataclass(frozen=True)
class BenchRow:
    """One method on one specimen with one seed.

    Attributes:
        specimen: name of the network.
        method: name of the method.
        seed: of the pairs.
        auroc: of the edges that the pairs exercise; None for methods that score nodes.
        auroc_all: of all edges.
        auroc_nodes: of nodes.
        cpr: circuit performance ratio on held-out pairs.
        cmd: circuit-model distance on held-out pairs.
        seconds: how long it took.
        megabytes: the most that the process grew by.
        error: why it could not be run.
    """

    specimen: str
    method: str
    seed: int
    auroc: float | None = None
    auroc_all: float | None = None
    auroc_nodes: float | None = None
    cpr: float | None = None
    cmd: float | None = None
    seconds: float = 0.0
    megabytes: float = 0.0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class ScoreTable:
    """All rows, and the mean of every figure for each method with an interval over specimens (seeds within them).

    Attributes:
        rows: one for each method, specimen and seed.
        n: how many pairs each had.
        negatives: what came of tries where there is nothing to find; None where that was not tried.
    """

    rows: tuple[BenchRow, ...]
    n: int
    negatives: Negatives | None = None

    __repr__ = brief

    def methods(self) -> list[str]:
        """The methods, the best edge AUROC first; those that score nodes after the others."""
        names = list(dict.fromkeys(r.method for r in self.rows))

        def rank(name: str) -> tuple[bool, float]:
            edges = self.mean(name, "auroc")
            best = edges or self.mean(name, "auroc_nodes")
            return edges is None, 0.0 if best is None else -best.value

        return sorted(names, key=rank)

    def mean(self, name: str, figure: str) -> Estimate | None:
        """Mean of a figure over specimens and seeds, with an interval over specimens; None where there is none."""
        figures = [(r.specimen, getattr(r, figure)) for r in self.rows if r.method == name and not r.error]
        figures = [(s, v) for s, v in figures if v is not None and np.isfinite(v)]
        return mean_of([v for _, v in figures], [s for s, _ in figures]) if figures else None

    def headline(self) -> str:
        """What was scored, in one line."""
        specimens = len({row.specimen for row in self.rows})
        return f"{len(self.methods())} methods on {specimens} networks whose circuit is known, {self.n} pairs each"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "n": self.n, "rows": [r.to_dict() for r in self.rows],
            "negatives": None if self.negatives is None else self.negatives.to_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class Negatives:
    """Tries on networks that lack the mechanism.

    Attributes:
        tries: how many.
        supported: how many would have been supported by the evidence alone (before the controls with random weights and
            shuffled answers).
        refused: how many were refused.
        verdicts: how often each verdict was given, `refused` among them.
        examples: the supported ones, by twin and seed.
    """

    tries: int
    supported: int
    refused: int
    verdicts: dict[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    @property
    def rate(self) -> Estimate:
        """Share of false support with its Wilson interval."""
        return proportion(self.supported, max(self.tries, 1))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**self.__dict__, "rate": self.rate.to_dict(), "examples": list(self.examples)}


class Peak:
    """The most memory that this process grew by while it was watched, in megabytes (of the device, where there is one)."""

    def __init__(self) -> None:
        self.megabytes = 0.0

    @contextmanager
    def watching(self, device: torch.device):
        """While active, look every few milliseconds."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            yield
            self.megabytes = (torch.cuda.max_memory_allocated(device) - before) / 2**20
            return
        before, done = _resident(), threading.Event()

        def look() -> None:
            while not done.wait(0.003):
                self.megabytes = max(self.megabytes, _resident() - before)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.megabytes = max(self.megabytes, _resident() - before)


def _resident() -> float:
    """Resident megabytes of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096 / 2**20
    except OSError:
        return 0.0


def known(graph: Graph, truth: GroundTruth) -> tuple[np.ndarray, bool]:
    """The known edges in a network's graph: bool [writers readers], and whether they name q, k, v of every head.

    An edge into a head that names none of its inputs stands for all three.
    """
    there = np.zeros(graph.shape, dtype=bool)
    for edge in truth.edges:
        if edge.target.port == "any":
            w = graph.writer(str(edge.source))
            there[w, [graph.reader(f"{edge.target}<{port}>") for port in "qkv"]] = True
        else:
            there[graph.edge(str(edge))] = True
    return there & graph.allowed, all(edge.target.port != "any" for edge in truth.edges)


def exercised(subject: Subject) -> np.ndarray:
    """Bool [writers readers]: edges through which something flows that tells the prompts of a pair apart.

    Those whose exact patching changes the metric by more than 1e-4 of the gap on average, in the clean run or (where others
    stand in there) in the corrupted one. A known edge that carries the same on both prompts (the query of an induction
    head, whose token does not change) cannot be seen by any method that compares them.
    """
    behaviour = subject.behaviour.discovery
    back = replace(
        behaviour, clean=behaviour.corrupted, corrupted=behaviour.clean, clean_ids=behaviour.corrupted_ids,
        corrupted_ids=behaviour.clean_ids,
    )  # fmt: skip
    sizes = []
    for one_way in (behaviour, back):
        scores = score(subject.net, one_way, method="path-patching")
        assert scores.examples is not None
        sizes.append(np.abs(scores.examples).mean(0))
    return np.maximum(*sizes) > 1e-4 * max(subject.range, 1e-9)


def edge_auroc(scores: Scores, truth: GroundTruth, seen: np.ndarray | None = None) -> float:
    """AUROC of edges; where the truth does not tell q, k, v apart, of the largest of an edge's three.

    seen: known edges outside it are left out of the comparison.
    """
    graph = scores.graph
    there, exact = known(graph, truth)
    sizes = np.abs(scores.values)
    values, wanted = [], []
    for owner in range(-1, graph.shape[0]):
        mine = np.flatnonzero(graph.owner == owner)
        for columns in [mine] if not exact and mine.size else mine[:, None]:
            before = graph.before[int(columns[0])]
            true: np.ndarray = np.any(there[:before, columns], axis=1)
            visible = np.ones(before, bool) if seen is None else np.any(seen[:before, columns], axis=1)
            use = ~true | visible
            values.append(sizes[:before, columns].max(1)[use])
            wanted.append(true[use])
    return stability.edge_auroc(np.concatenate(values), np.concatenate(wanted))


def node_auroc(scores: Scores, truth: GroundTruth) -> float:
    """AUROC of nodes (the input left out): a node's own score, or the largest of its outgoing edges'."""
    graph = scores.graph
    sizes = np.abs(scores.nodes) if scores.nodes is not None else np.abs(scores.values).max(1)
    wanted = np.zeros(graph.shape[0], dtype=bool)
    wanted[[graph.writer(str(node)) for node in truth.nodes]] = True
    return float(auroc(sizes[1:], wanted[1:]))


def specimens() -> list[str]:
    """The shipped specimens that have a known circuit, their edges included."""
    from cutaway.zoo import truth

    return [n for n in shipped() if n in all_specimens() and truth(n).edges and truth(n).nodes]


def one(subject: Subject, name: str, seed: int, seen: np.ndarray, steps: int = 5) -> BenchRow:
    """One method on one specimen: scored on discovery pairs, CPR and CMD on held-out ones."""
    label, net = subject.specimen.name, subject.net
    behaviour = subject.behaviour
    peak, started = Peak(), time.perf_counter()
    try:
        with peak.watching(net.device):
            given = known_options(name, {"steps": steps, "seed": seed, "examples": False})
            scores = score(net, behaviour.discovery, method=name, **given)
        seconds = time.perf_counter() - started
        by_size = curve(EdgeBench.of(net, behaviour.held_out, seed=seed), scores)
    except CutawayError as error:
        return BenchRow(label, name, seed, error=str(error))
    truth, areas = subject.truth, (None, None)
    if scores.nodes is None:
        areas = edge_auroc(scores, truth, seen), edge_auroc(scores, truth)
    cost = round(seconds, 3), round(peak.megabytes, 1)
    return BenchRow(label, name, seed, *areas, node_auroc(scores, truth), by_size.cpr, by_size.cmd, *cost)


def bench(
    chosen: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    n: int = 48,
    seeds: Sequence[int] = (0, 1, 2),
    work: Work | None = None,
) -> ScoreTable:
    """Every method on every specimen with every seed (fresh pairs from each). Ctrl-C keeps the rows that are done."""
    work = working(work)
    subjects = list(chosen or specimens())
    rows: list[BenchRow] = []
    total = len(subjects) * len(methods) * len(seeds)
    try:
        for name in subjects:
            for seed in seeds:
                subject = subject_of(name, n=n, seed=seed)
                wiring(subject.net)  # found once, and no method's cost
                seen = exercised(subject)
                for m in methods:
                    work.step(f"{name}: {m}", len(rows), total)
                    rows.append(one(subject, m, seed, seen))
    except Stopped:
        pass
    return ScoreTable(tuple(rows), n)


def twins(chosen: Sequence[str] | None = None) -> list[str]:
    """The twins of the specimens: networks that lack the mechanism that is asked for."""
    each = ((name, twin.kind) for name in chosen or specimens() for twin in all_specimens()[name].twins)
    return [f"{name}~{kind}" for name, kind in each if kind in _LACKING]


#: Kinds of twins in which there is no circuit for the behaviour: a network that does the task another way has one.
_LACKING = ("random", "shuffled", "without", "blind")


def negatives(
    tries: int = 100,
    chosen: Sequence[str] | None = None,
    name: str = "eap-ig",
    n: int = 40,
    limits: Limits | None = None,
    work: Work | None = None,
) -> Negatives:
    """Trace and test circuits where nothing is to be found: on every twin in turn, with new pairs in each round.

    Counted as supported is what the evidence on held-out pairs and random circuits alone would support.
    """
    work = working(work)
    pool, bounds = twins(chosen), CircuitLimits.of(limits)
    verdicts: Counter[str] = Counter()
    examples: list[str] = []
    try:
        for number in range(tries):
            twin, seed = pool[number % len(pool)], number // len(pool)
            work.step(f"negative control {twin}", number, tries)
            try:
                subject = subject_of(twin, n=n, seed=100 + seed)
                verdict = _verdict(subject, name, bounds, seed)
            except (BadBehaviour, NotPerformed):
                verdict = "refused"
            verdicts[verdict] += 1
            if verdict == "supported":
                examples.append(f"{twin}, seed {100 + seed}")
    except Stopped:
        pass
    done, refused = verdicts.total(), verdicts["refused"]
    return Negatives(done, len(examples), refused, dict(verdicts), tuple(examples))


def _verdict(subject: Subject, name: str, limits: CircuitLimits, seed: int) -> str:
    options = options_of(name, None, known_options(name, {"seed": seed, "examples": False}))
    scores = score(subject.net, subject.behaviour.discovery, method=name, options=options)
    circuit = choose(subject.net, subject.behaviour.discovery, scores, TraceRecipe(name, options))
    if not circuit.n_edges:
        return "refused"
    return evidence_alone(subject.net, circuit, subject.behaviour.held_out, limits, seed)
