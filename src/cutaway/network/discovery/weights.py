"""Find the products, lookups and additions by which a module's own code uses its parameters, and make calls of them.

From then on they are found, tapped and checked as the calls of modules are. They are told by the parameter that they use,
never by a line of code or a count of all functions, so that a branch taken at another input does not shift them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from cutaway.network.bare import LOOKUPS, PRODUCTS, BareMatrix, Contraction, Role, WeightRecipe, contraction
from cutaway.network.discovery.trace import Call, Trace, TraceNode

#: Operations that only turn a matrix; `.T` and its like are recorded as reads of a property.
_TURNS = frozenset({"t", "transpose", "permute", "get_T", "get_mT"})


def add_bare_calls(model: nn.Module, trace: Trace) -> dict[str, BareMatrix]:
    """Append a call to the trace for every use of a parameter in a module's own code: the matrices, by path."""
    return _UseFinder(model, trace).find()


@dataclass(frozen=True)
class _Use:
    """One use of a parameter: by which node, what it reads of the stream, the weight, and what it gives."""

    node: TraceNode
    role: Role
    rows: int | None
    weight: int
    out: int
    letters: Contraction | None = None
    bias: int | None = None
    biased: bool = False


@dataclass(eq=False)
class _UseFinder:
    """Walks the nodes of a trace once."""

    model: nn.Module
    trace: Trace
    matrices: dict[Hashable, BareMatrix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules = dict(self.model.named_modules())
        places = {
            name: (self.modules[name.rpartition(".")[0]], name.rpartition(".")[2])
            for name in self.trace.weights.values()
        }
        self.places = places
        numbers = {v: places[name] for v, name in self.trace.weights.items()}
        self.recipe = WeightRecipe(numbers, self.trace.steps)
        self.counts: dict[str, int] = {}
        self.names: dict[int, str] = {}

    def find(self) -> dict[str, BareMatrix]:
        for node in list(self.trace.nodes):
            if not node.live or node.call < 0:
                continue
            use = self._use(node)
            if use is not None:
                self._note(use)
        return {m.path: m for m in self.matrices.values()}

    def _held(self, use: _Use) -> bool:
        """Whether it is no matrix of its own: of a module that calls its weight `weight`, given by another module, or one
        of many experts, each of which is given some rows of a flat table."""
        node = use.node
        if use.role == "addition":
            return use.weight not in self.trace.weights and self.trace.nodes[use.weight].call != node.call
        nodes, weight = self.trace.nodes, self.trace.nodes[use.weight]
        if use.role == "product" and use.rows is not None and len(nodes[use.rows].shape) == 2:
            parents = [v for v in weight.inputs if v in self.trace.weights]
            if weight.op == "getitem" and any(len(nodes[v].shape) == 3 for v in parents):
                return True
        own = getattr(self.trace.calls[node.call].module, "weight", None)
        return own is not None and any(
            self.trace.tensors.get(self._turned_back(v)) is own for v in node.inputs
        )

    def _turned_back(self, version: int) -> int:
        """What a transposed value is the transpose of."""
        node = self.trace.nodes[version]
        while node.op in _TURNS and len(node.inputs) == 1:
            version = node.inputs[0]
            node = self.trace.nodes[version]
        return version

    def name(self, version: int) -> str:
        """The parameter that a version which depends on no input is computed from; "" for constants."""
        if version not in self.names:
            named = self.trace.weights.get(version)
            parts = (self.name(v) for v in self.trace.nodes[version].inputs)
            self.names[version] = named if named is not None else next((n for n in parts if n), "")
        return self.names[version]

    def _use(self, node: TraceNode) -> _Use | None:
        nodes = self.trace.nodes
        live = [v for v in node.inputs if nodes[v].live]
        named = [v for v in node.inputs if not nodes[v].live and self.name(v)]
        if len(live) != 1 or not named or not node.floating:
            return None
        rows = live[0]
        if node.op in LOOKUPS and not nodes[rows].floating and len(named) == len(node.inputs) - 1 == 1:
            return _Use(node, "lookup", None, named[0], node.version)
        if node.op in PRODUCTS and nodes[rows].floating:
            return self._product(node, rows, named)
        if node.op == "add" and len(named) == 1 and self._by_position(rows, named[0]):
            return _Use(node, "addition", named[0], named[0], node.version)
        return None

    def _by_position(self, rows: int, weight: int) -> bool:
        """Whether a table [.. p d] is added to rows [b p d]: an embedding of positions."""
        a, b = self.trace.nodes[rows].shape, self.trace.nodes[weight].shape
        return len(a) == 3 and len(b) >= 2 and b[-2:] == a[-2:] and b[-2] > 1

    def _product(self, node: TraceNode, rows: int, named: list[int]) -> _Use | None:
        nodes = self.trace.nodes
        weight, bias = named[0], named[1] if len(named) > 1 else None
        if node.op == "addmm":
            bias, weight = named[0], named[-1]
        if len(node.inputs) != len(named) + 1:
            return None
        first = node.inputs.index(weight) < node.inputs.index(rows)
        equation = node.args[0] if node.args else None
        letters = contraction(node.op, equation, nodes[rows].shape, nodes[weight].shape, first)
        if letters is None:
            return None
        use = _Use(node, "product", rows, weight, node.version, letters, bias)
        return use if bias is not None else self._with_bias(use)

    def _with_bias(self, use: _Use) -> _Use:
        """The same with the bias that is added right after it in the same code."""
        nodes, call = self.trace.nodes, use.node.call
        end = self.trace.calls[call].end
        user = next((n for n in nodes[use.out + 1 : end] if use.out in n.inputs), None)
        if user is None or user.op != "add" or user.call != call or user.kwargs.get("alpha", 1) != 1:
            return use
        other = next((v for v in user.inputs if v != use.out), None)
        assert use.letters is not None
        if other is None or nodes[other].live or not self.name(other):
            return use
        shape, letters = nodes[other].shape, use.letters
        axes = letters.out[len(letters.out) - len(shape) :]
        fits = len(shape) <= len(letters.out) and all(
            n == 1 or a in letters.made for a, n in zip(axes, shape, strict=True)
        )
        whole = [n for a, n in zip(axes, shape, strict=True) if a in letters.made] == [
            nodes[use.out].shape[letters.out.index(a)] for a in letters.made
        ]
        if not (fits and whole) or any(nodes[v].live for v in range(use.out + 1, user.version)):
            return use
        return _Use(use.node, "product", use.rows, use.weight, user.version, letters, other, biased=True)

    def _note(self, use: _Use) -> None:
        call = self.trace.calls[use.node.call]
        name = self.name(use.weight)
        number = self.counts.get(name, 0)
        self.counts[name] = number + 1
        if self._held(use):
            return
        key = (name, use.role, self._made(use.weight), None if use.bias is None else self._made(use.bias))
        matrix = self.matrices.get(key)
        if matrix is None:
            same = sum(m.parameter == name for m in self.matrices.values())
            path = f"{name}#{same}" if same else name
            bias = None if use.bias is None else self.recipe.of(use.bias)
            weight = self.recipe.of(use.weight)
            table = partial(getattr, *self.places[name])
            matrix = BareMatrix(path, name, call.path, use.role, use.letters, weight, bias, use.biased, table)
            self.matrices[key] = matrix
        nth = len(matrix.uses)
        matrix.uses.append(number)
        inputs = [] if use.rows is None else [("0", use.rows)]
        index, start, end = len(self.trace.calls), use.node.version, use.out + 1
        bare = Call(
            index, matrix.path, matrix, call.index, nth, start, end, inputs=inputs, outputs=[("", use.out)]
        )
        self.trace.calls.append(bare)

    def _made(self, version: int) -> Hashable:
        """How a weight is cut from its parameter, to tell one cut from another."""
        if version in self.trace.weights:
            return self.trace.weights[version]
        node = self.trace.nodes[version]
        given = [str(a) for a in (*node.args, *node.kwargs.values())]
        which = self.trace.steps[version][3] if version in self.trace.steps else 0
        return (node.op, *given, which, *(self._made(v) for v in node.inputs))
