"""Random circuits: made of random paths from the input to the logits, so that they are as connected as any other."""

from __future__ import annotations

import numpy as np

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.selection import fed, of_nodes, read_by
from cutaway.errors import BadInput

_TRIES = 40


class PathCounts:
    """Draws random paths within some of the edges of a graph."""

    def __init__(self, graph: Graph, within: np.ndarray | None, rng: np.random.Generator) -> None:
        self.rng = rng
        self.within = graph.allowed if within is None else within & graph.allowed
        self.inputs = {n: np.flatnonzero(graph.owner == n) for n in range(-1, graph.shape[0])}
        self.fed = fed(graph, self.within)

    def path(self) -> list[tuple[int, int]] | None:
        """The edges of one random path, from the logits back to the input; None where there is none."""
        edges: list[tuple[int, int]] = []
        node = -1
        while node != 0:
            places = np.argwhere(self.within[:, self.inputs[node]] & self.fed[:, None])
            if not len(places):
                return None
            w, i = places[self.rng.integers(len(places))]
            edges.append((int(w), int(self.inputs[node][i])))
            node = int(w)
        return edges


def random_circuit(
    graph: Graph, edges: int, rng: np.random.Generator, within: np.ndarray | None = None
) -> np.ndarray:
    """A union of random paths with exactly so many edges: bool [writers readers].

    within: only these edges are used. The last few edges, where no whole path fits, are drawn from the edges between nodes
    that are already in. Raises BadInput where there are not so many edges.
    """
    paths = PathCounts(graph, within, rng)
    total = int(paths.within.sum())
    if edges > total:
        raise BadInput(f"{edges} edges were asked for, of {total}.", "Ask for fewer.")
    chosen = np.zeros(graph.shape, dtype=bool)
    count, tries = 0, 0
    while count < edges and tries < _TRIES:
        path = paths.path()
        new = [e for e in path or () if not chosen[e]]
        if path is None or not new or count + len(new) > edges:
            tries += 1
            continue
        for edge in new:
            chosen[edge] = True
        count, tries = count + len(new), 0
    if count < edges:
        _fill(graph, chosen, paths.within, edges - count, rng)
    return chosen


def _fill(
    graph: Graph, chosen: np.ndarray, within: np.ndarray, missing: int, rng: np.random.Generator
) -> None:
    """Add edges between nodes that are in, then, if they do not suffice, any."""
    used: np.ndarray = np.any(chosen, axis=1)
    used[0] = True
    for pool in (within & ~chosen & used[:, None] & read_by(graph, used)[None], within & ~chosen):
        places = np.argwhere(pool & ~chosen)
        take = places[rng.permutation(len(places))[:missing]]
        chosen[take[:, 0], take[:, 1]] = True
        missing -= len(take)
        if missing <= 0:
            return


def random_nodes(graph: Graph, nodes: int, rng: np.random.Generator) -> np.ndarray:
    """A random node circuit: the input and so many other nodes, with all their outgoing edges."""
    return of_nodes(graph, [0, *(1 + rng.permutation(graph.shape[0] - 1)[:nodes])])


def inflated(
    graph: Graph, membership: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """A circuit with one random path added, and a random edge of what was added; None where a path adds nothing.

    Shi et al. 2024, section 3.3: what the minimality of an edge is compared with.
    """
    paths = PathCounts(graph, None, rng)
    for _ in range(_TRIES):
        new = [e for e in paths.path() or () if not membership[e]]
        if new:
            wider = membership.copy()
            for edge in new:
                wider[edge] = True
            return wider, new[int(rng.integers(len(new)))]
    return None
