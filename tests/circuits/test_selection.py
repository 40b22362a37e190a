"""Selections: sizes, connection, and the integer programme against all subgraphs of a tiny graph."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.circuits import TraceRecipe, selection
from cutaway.circuits.choosing import choose
from cutaway.circuits.evaluation.random_circuits import inflated, random_circuit
from cutaway.circuits.graph.nodes import Graph, standard
from cutaway.circuits.methods import options_of
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput

TINY = standard(1, 1)  # input, a0.h0, m0; readers q k v m logits


def drawn(graph: Graph, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(graph.shape)
    return np.where(graph.allowed, values, 0.0)


def connected(graph: Graph, chosen: np.ndarray) -> bool:
    return np.array_equal(selection.prune(graph, chosen), chosen)


@given(st.integers(0, 200), st.integers(0, 30))
def test_top_n_takes_the_largest(seed: int, n: int):
    graph = standard(2, 2)
    values = drawn(graph, seed)
    chosen = selection.top_n(graph, values, n)
    assert chosen.sum() == n
    if n:
        assert np.abs(values[chosen]).min() >= np.abs(values[graph.allowed & ~chosen]).max()
    assert np.array_equal(selection.threshold(graph, values, 0.7), graph.allowed & (np.abs(values) >= 0.7))


@given(st.integers(0, 200), st.integers(1, 30))
def test_greedy_hangs_on_the_logits(seed: int, n: int):
    graph = standard(2, 2)
    chosen = selection.greedy(graph, drawn(graph, seed), n)
    assert chosen.sum() == n
    for _, r in graph.edges(chosen):
        owner = graph.owner[r]
        assert owner < 0 or chosen[owner].any()


@given(st.integers(0, 500))
def test_prune_leaves_what_lies_on_a_path(seed: int):
    """Against a search of all paths from input to logits."""
    graph = standard(2, 1)
    rng = np.random.default_rng(seed)
    chosen = graph.allowed & (rng.random(graph.shape) < 0.35)
    on_path: set[tuple[int, int]] = set()

    def walk(node: int, edges: list[tuple[int, int]]) -> None:
        for r in np.flatnonzero(chosen[node]):
            here = [*edges, (node, int(r))]
            owner = int(graph.owner[r])
            if owner < 0:
                on_path.update(here)
            else:
                walk(owner, here)

    walk(0, [])
    assert set(graph.edges(selection.prune(graph, chosen))) == on_path


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_optimum_is_the_best_of_all_subgraphs(seed: int, n: int):
    values = drawn(TINY, seed)
    best = 0.0
    edges = list(map(tuple, np.argwhere(TINY.allowed)))
    for size in range(1, n + 1):
        for subset in combinations(edges, size):
            chosen = np.zeros(TINY.shape, dtype=bool)
            chosen[tuple(np.array(subset).T)] = True
            if connected(TINY, chosen):
                best = max(best, float(np.abs(values[chosen]).sum()))
    found = selection.optimum(TINY, values, n)
    assert found.proven
    assert found.membership.sum() <= n
    assert connected(TINY, found.membership)
    assert found.value == pytest.approx(best)


def test_the_optimum_beats_greedy_where_the_strong_edges_lie_deep():
    graph = standard(3, 3)
    values = drawn(graph, 3)
    for n in (5, 12):
        ours = selection.optimum(graph, values, n)
        others = selection.prune(graph, selection.greedy(graph, values, n))
        assert ours.value >= np.abs(values[others]).sum() - 1e-9


def test_sizes():
    graph = standard(12, 12)
    assert selection.size(graph, 0.02) == 649
    assert selection.size(graph, 1.0) == graph.n_edges
    for bad in (-1, 1.5, graph.n_edges + 1, float("nan"), True, "2"):
        with pytest.raises(BadInput):
            selection.size(graph, bad)


@given(st.integers(0, 300), st.integers(1, 40))
def test_random_circuits_have_their_size(seed: int, n: int):
    graph = standard(2, 2)
    chosen = random_circuit(graph, min(n, graph.n_edges), np.random.default_rng(seed))
    assert chosen.sum() == min(n, graph.n_edges)
    assert not (chosen & ~graph.allowed).any()
    made = inflated(graph, chosen, np.random.default_rng(seed))
    if made is not None:
        wider, edge = made
        assert wider[edge]
        assert not chosen[edge]
        assert (wider | chosen).sum() == wider.sum()


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_the_least_number_of_edges_that_connect(seed: int):
    graph = standard(2, 2)
    values = drawn(graph, seed)
    n, strength = selection.connecting(graph, values)
    sizes = [
        bool(selection.prune(graph, selection.top_n(graph, values, k)).any())
        for k in range(graph.n_edges + 1)
    ]
    assert sizes.index(True) == n
    assert selection.prune(graph, selection.threshold(graph, values, strength)).any()
    assert (
        not selection.prune(graph, selection.threshold(graph, values, strength * (1 + 1e-9))).any() or n == 1
    )


NAMED = SimpleNamespace(name="named")  # all that a choice of a given size asks of a behaviour


def unconnected() -> Scores:
    """Scores whose five strongest edges form no path from the input to the logits."""
    graph = standard(2, 1)
    values = np.where(graph.allowed, 0.01, 0.0)
    strong = ["a0.h0->m0", "a0.h0->a1.h0<q>", "m0->a1.h0<k>", "m0->m1", "a1.h0->m1"]
    for i, edge in enumerate(strong):
        values[graph.edge(edge)] = 2.0 + i
    values[graph.edge("m1->logits")], values[graph.edge("input->a0.h0<q>")] = 1.0, 0.9
    return Scores(graph, values, "eap")


def test_a_budget_whose_strongest_edges_do_not_connect_takes_the_optimum_and_says_so():
    scores, recipe = unconnected(), TraceRecipe("eap", options_of("eap"))
    circuit = choose(None, NAMED, scores, recipe, edges=5)  # type: ignore[arg-type]
    assert 0 < circuit.n_edges <= 5
    assert circuit.membership.sum() == circuit.pruned().n_edges
    best = selection.optimum(scores.graph, scores.values, 5)
    assert np.array_equal(circuit.membership, best.membership)
    assert circuit.selection == "optimum of at most 5 edges, as top 5 edges do not connect"
    note = next(note for note in circuit.notes if "No path" in note)
    assert "the strongest 5 edges (it takes the 7 strongest)" in note
    whole = choose(None, NAMED, scores, recipe, edges=7)  # type: ignore[arg-type]
    assert whole.selection == "top 7 edges"
    assert not whole.notes or "No path" not in "".join(whole.notes)


def test_a_share_of_less_than_an_edge_and_a_threshold_that_leaves_no_path_are_refused():
    scores, recipe = unconnected(), TraceRecipe("eap", options_of("eap"))
    for edges in (0.001, 0):
        with pytest.raises(BadInput, match="less than one"):
            choose(None, NAMED, scores, recipe, edges=edges)  # type: ignore[arg-type]
    above = TraceRecipe("eap", options_of("eap"), "threshold")
    with pytest.raises(BadInput, match=r"at most 0\.9"):
        choose(None, NAMED, scores, above, threshold=1.5)  # type: ignore[arg-type]
    assert choose(None, NAMED, scores, above, threshold=0.9).n_edges == 7  # type: ignore[arg-type]
