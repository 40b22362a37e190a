"""The graph files of the EAP-IG package and of MIB: JSON, and `.pt` tensors.

JSON: {"cfg": {n_layers, n_heads, parallel_attn_mlp, d_model}, "nodes": {name: {in_graph, score?, neurons?,
neurons_scores?}}, "edges": {"a0.h1->a5.h3<q>": {score, in_graph}}}. The order of nodes and edges is the package's (see
`_edge_order`). `.pt`: a dictionary of tensors
[writers readers], readers per layer all q heads, all k, all v, then the MLP; the logits last.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.graph.nodes import Graph, standard
from cutaway.circuits.recipe import GraphFile
from cutaway.circuits.scores import Scores, spread
from cutaway.circuits.selection import nodes_of
from cutaway.errors import BadFormat, BadInput, UnsafeFile
from cutaway.results import atomic_write

_CFG = ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")


def configuration(graph: Graph, d_model: int = 0) -> dict[str, Any]:
    """The `cfg` of a plain transformer's graph; BadInput where the graph is not one."""
    layers, heads = graph.layers, _heads(graph)
    for parallel in (False, True):
        if heads and standard(layers, heads, parallel).same_as(graph):
            return {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": parallel, "d_model": d_model}
    raise BadInput(
        "This graph has other nodes than attention heads and MLPs in every layer, which the format cannot say.",
        "Save it in Cutaway's own form: circuit.save('folder').",
    )


def _heads(graph: Graph) -> int:
    """How many heads the first layer has."""
    return sum(w.kind == "head" and w.layer == 0 for w in graph.writers)


def _graph(cfg: Any, where: object) -> Graph:
    try:
        return standard(int(cfg["n_layers"]), int(cfg["n_heads"]), bool(cfg["parallel_attn_mlp"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadFormat(
            f"{where} names no layers and heads: {error!r}.", f"Its cfg must hold {', '.join(_CFG)}."
        ) from error


def _edge_order(graph: Graph) -> Iterator[tuple[int, int]]:
    """(writer, reader) in the order of the package's files: layer by layer, for each writer its edges into every head (q, k,
    v) and then the MLP's; in sequential blocks the MLP's edges come after all those of the layer's heads.
    """
    layers, heads = graph.layers, _heads(graph)
    parallel = configuration(graph)["parallel_attn_mlp"]
    width = 3 * heads + 1
    for layer in range(layers):
        start = layer * width
        for w in range(graph.before[start]):
            for h in range(heads):
                for part in range(3):
                    yield w, start + part * heads + h
            if parallel:
                yield w, start + 3 * heads
        if not parallel:
            for w in range(graph.before[start + 3 * heads]):
                yield w, start + 3 * heads
    for w in range(len(graph.writers)):
        yield w, len(graph.readers) - 1


def to_json(circuit: Circuit) -> str:
    """A circuit as the text of a graph file, with the numbers and order that the package itself would write."""
    graph, file, values = circuit.graph, _file(circuit), _values(circuit)
    scores, inside = _node_scores(circuit), _nodes_in(circuit)
    nodes: dict[str, Any] = {}
    for i, writer in enumerate(graph.writers):
        entry: dict[str, Any] = {"in_graph": bool(inside[i])}
        if scores is not None:
            entry["score"] = float(scores[i])
        if file.neurons is not None and file.neurons_scores is not None:
            entry |= {"neurons": file.neurons[i], "neurons_scores": file.neurons_scores[i]}
        nodes[str(writer)] = entry
    nodes["logits"] = dict(file.logits or {"in_graph": True})
    edges = {
        graph.edge_name(w, r): {"score": float(values[w, r]), "in_graph": bool(circuit.membership[w, r])}
        for w, r in _edge_order(graph)
    }
    return json.dumps({"cfg": file.cfg, "nodes": nodes, "edges": edges})


def _file(circuit: Circuit) -> GraphFile:
    """What the file says beside edges and scores; BadInput where the graph is not a plain transformer's."""
    cfg = configuration(circuit.graph)
    return circuit.file or GraphFile(cfg)


def _values(circuit: Circuit) -> np.ndarray:
    if circuit.scores is None:
        return np.zeros(circuit.graph.shape, dtype=np.float32)
    return circuit.scores.values


def _node_scores(circuit: Circuit) -> np.ndarray | None:
    return None if circuit.scores is None else circuit.scores.nodes


def _nodes_in(circuit: Circuit) -> np.ndarray:
    if circuit.file is not None and circuit.file.nodes_in_graph is not None:
        return np.asarray(circuit.file.nodes_in_graph, dtype=bool)
    return nodes_of(circuit.graph, circuit.membership)


def write_json(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write a graph file, whole or not at all. BadInput where the graph is not a plain transformer's."""
    return atomic_write(path, to_json(circuit))


def read_json(path: str | os.PathLike[str]) -> Circuit:
    """Read a graph file.

    Raises BadFormat where it is none, and names an edge or node that its own `cfg` does not have.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFormat(f"{path} cannot be read as JSON: {error}.", "Give a graph file.") from error
    if not isinstance(data, dict) or not {"cfg", "nodes", "edges"} <= set(data):
        raise BadFormat(
            f"{path} is no graph file: it lacks cfg, nodes or edges.", "Give a file that EAP-IG or MIB wrote."
        )
    graph = _graph(data["cfg"], path)
    values = np.zeros(graph.shape)
    inside = np.zeros(graph.shape, dtype=bool)
    try:
        for name, entry in data["edges"].items():
            place = graph.edge(name)
            values[place], inside[place] = float(entry["score"]), bool(entry["in_graph"])
        listed = {n: dict(e) for n, e in data["nodes"].items()}
        for name in set(listed) - {"logits"}:
            graph.writer(name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFormat(
            f"{path} holds an entry that cannot be read: {error!r}.", "Write the file again."
        ) from error
    names = [str(w) for w in graph.writers]
    has_neurons = any("neurons" in entry for entry in listed.values())
    file = GraphFile(
        data["cfg"], tuple(bool(listed.get(n, {}).get("in_graph", False)) for n in names),
        listed.get("logits", {"in_graph": True}),
        neurons=[listed[n].get("neurons") for n in names] if has_neurons else None,
        neurons_scores=[listed[n].get("neurons_scores") for n in names] if has_neurons else None,
    )  # fmt: skip
    nodes = None
    if any("score" in listed.get(n, {}) for n in names):
        nodes = np.array([float(listed[n].get("score", math.nan)) for n in names])
    return _circuit(graph, values, inside, nodes, file)


def _circuit(
    graph: Graph, values: np.ndarray, inside: np.ndarray, nodes: np.ndarray | None, file: GraphFile
) -> Circuit:
    if nodes is not None and np.isfinite(nodes).all() and not values.any():
        values = spread(graph, nodes)
    scores = Scores(graph, values, "file", nodes=nodes)
    return Circuit(graph, inside, scores, scores.grain, selection="file", file=file)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def to_pt(circuit: Circuit) -> bytes:
    """A circuit as the content of a `.pt` file: plain tensors and names."""
    graph, file, values = circuit.graph, _file(circuit), _tensor(_values(circuit))
    if file.dtype == "float32":
        values = values.float()
    data: dict[str, Any] = {
        "cfg": dict(file.cfg), "src_nodes": [str(w) for w in graph.writers],
        "dst_nodes": [str(r) for r in graph.readers], "edges_scores": values,
        "edges_in_graph": _tensor(circuit.membership), "nodes_in_graph": _tensor(_nodes_in(circuit)),
    }  # fmt: skip
    if (scores := _node_scores(circuit)) is not None:
        data["nodes_scores"] = _tensor(scores).to(values.dtype)
    data |= file.neuron_tensors or {}
    stream = io.BytesIO()
    torch.save(data, stream)
    return stream.getvalue()


def write_pt(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Write a `.pt` graph file, whole or not at all. BadInput where the graph is not a plain transformer's."""
    return atomic_write(path, to_pt(circuit))


def read_pt(path: str | os.PathLike[str]) -> Circuit:
    """Read a `.pt` graph file; nothing is unpickled but plain tensors and names.

    Raises BadFormat where it is no graph file, UnsafeFile where it would run code.
    """
    try:
        data = torch.load(Path(path), map_location="cpu", weights_only=True)
    except (OSError, EOFError) as error:
        raise BadFormat(f"{path} cannot be read: {error}.", "Give a graph file.") from error
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise UnsafeFile(f"{path} holds more than tensors and names.", "Ask for it as JSON.") from error
        raise BadFormat(f"{path} cannot be read: {error}.", "Give a graph file.") from error
    needed = {"cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph"}
    if not isinstance(data, dict) or not needed <= set(data):
        raise BadFormat(f"{path} is no graph file.", f"It must hold {', '.join(sorted(needed))}.")
    graph = _graph(data["cfg"], path)
    names = [[str(part) for part in parts] for parts in (graph.writers, graph.readers)]
    if [list(data["src_nodes"]), list(data["dst_nodes"])] != names:
        raise BadFormat(f"The nodes of {path} are not those of its cfg.", "Write the file again.")
    values, inside = data["edges_scores"], data["edges_in_graph"].bool()
    if tuple(values.shape) != graph.shape or tuple(inside.shape) != graph.shape:
        raise BadFormat(
            f"The tensors of {path} do not have the shape {list(graph.shape)}.", "Write the file again."
        )
    neurons = {key: data[key] for key in ("neurons_in_graph", "neurons_scores") if key in data}
    file = GraphFile(
        data["cfg"], tuple(data["nodes_in_graph"].bool().tolist()), dtype=str(values.dtype).removeprefix("torch."),
        neuron_tensors=neurons or None,
    )  # fmt: skip
    nodes = data["nodes_scores"].numpy() if "nodes_scores" in data else None
    return _circuit(graph, values.numpy(), inside.numpy(), nodes, file)
