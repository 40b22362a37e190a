"""Read a trace as sums: a tensor as a linear combination of the tensors it was added up from."""

from __future__ import annotations

from dataclasses import dataclass, field

from cutaway.network.coefficients import Coefficient
from cutaway.network.discovery.trace import Call, Trace, TraceNode

#: Operations that change the form of a tensor, its type or its device, and not what it says.
SHAPE_OPS = frozenset(
    {"view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "contiguous", "to", "type_as", "float", "half",
     "bfloat16", "double", "clone", "detach", "alias", "view_as", "reshape_as", "cuda", "cpu", "type", "dropout", "get_data",
     "feature_dropout", "alpha_dropout", "expand", "expand_as", "identity", "cast"}
)  # fmt: skip
#: Operations that move axes as well; followed where only the source matters, not the layout.
MOVE_OPS = SHAPE_OPS | {
    "transpose", "permute", "movedim", "swapaxes", "get_mT", "get_T", "chunk", "split", "getitem"
}  # fmt: skip


@dataclass(eq=False)
class Sums:
    """Linear expansion of versions of one trace; results are remembered.

    Attributes:
        trace: whose versions they are.
    """

    trace: Trace
    _memo: dict[int, frozenset[int]] = field(default_factory=dict)

    def terms(self, version: int) -> list[tuple[int, Coefficient]] | None:
        """One step: the tensors that a version is a weighted sum of, or None where it is not made by such a step."""
        node = self.trace.nodes[version]
        if (
            node.op == "getitem"
            and len(node.inputs) == 1
            and node.shape == self.trace.nodes[node.inputs[0]].shape
        ):
            return [(node.inputs[0], 1.0)]
        if node.op in SHAPE_OPS and node.inputs:
            dropout = node.op in ("dropout", "feature_dropout", "alpha_dropout")
            return None if dropout and self._drops(node) else [(node.inputs[0], 1.0)]
        if node.op in ("add", "sub"):
            return self._sum(node)
        if node.op in ("mul", "truediv"):
            return self._scaled(node)
        return None

    @staticmethod
    def _drops(node: TraceNode) -> bool:
        p = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        return bool(training) and bool(p)

    def _sum(self, node: TraceNode) -> list[tuple[int, Coefficient]] | None:
        alpha = node.kwargs.get("alpha", 1)
        sign = -1.0 if node.op == "sub" else 1.0
        if len(node.inputs) == 1:
            constant = next((a for a in node.args if isinstance(a, int | float)), None)
            return [(node.inputs[0], 1.0)] if constant == 0 else None
        if len(node.inputs) != 2:
            return None
        return [(node.inputs[0], 1.0), (node.inputs[1], sign * float(alpha))]

    def _scaled(self, node: TraceNode) -> list[tuple[int, Coefficient]] | None:
        nodes = self.trace.nodes
        if len(node.inputs) == 1:
            constant = next((a for a in node.args if isinstance(a, int | float)), None)
            reversed_division = node.op == "truediv" and node.args and node.args[0] is not None
            if constant is None or reversed_division:
                return None
            return [(node.inputs[0], float(constant) if node.op == "mul" else 1.0 / float(constant))]
        if len(node.inputs) != 2:
            return None
        a, b = node.inputs
        if node.op == "mul" and not nodes[a].live and nodes[b].live:
            a, b = b, a
        if nodes[b].live or not nodes[a].live:
            return None
        factor = self.trace.tensors[b].detach()
        if factor.ndim > 1 and factor.numel() > max(factor.shape[-1], 1):
            return None
        factor = factor.reshape(-1) if factor.numel() > 1 else factor.reshape(())
        value: Coefficient = float(factor) if factor.ndim == 0 else factor
        return [(a, value if node.op == "mul" else 1.0 / value)]

    def leaves(self, version: int) -> frozenset[int]:
        """The tensors at which full linear expansion of a version ends."""
        ends = self._memo.get(version)
        if ends is None:
            step = self.terms(version)
            ends = (
                frozenset({version})
                if step is None
                else frozenset().union(*(self.leaves(v) for v, _ in step))
            )
            self._memo[version] = ends
        return ends

    def root(self, version: int) -> int:
        """The version that a tensor is a mere change of form of."""
        while True:
            node = self.trace.nodes[version]
            if node.op not in SHAPE_OPS and node.op != "getitem":
                return version
            step = self.terms(version)
            if step is None:
                return version
            version = step[0][0]

    def same(self, a: int, b: int) -> bool:
        """Whether two versions are the same tensor up to form, type and device."""
        return self.root(a) == self.root(b)

    def owner(self, version: int, within: list[Call]) -> tuple[Call, str] | None:
        """The outermost call, among `within`, that gave this tensor and computed all it is a sum of.

        A module that only passes on, scales or adds up what others made does not own its output.
        """
        leaves = self.leaves(version)
        for call in within:
            for key, out in call.outputs:
                if self.same(out, version) and all(call.start <= leaf < call.end for leaf in leaves):
                    return call, key
        return None

    def expand(self, version: int, within: list[Call], stops: frozenset[int]) -> dict[int, Coefficient]:
        """A version as weighted sum of `stops` (roots), of tensors that modules in `within` own, and of what is no sum.

        Weights are numbers, or vectors over the width where a scale is learned per channel.
        """
        total: dict[int, Coefficient] = {}
        todo: list[tuple[int, Coefficient]] = [(version, 1.0)]
        while todo:
            v, c = todo.pop()
            key = self.root(v)
            if key in stops or self.owner(v, within) is not None or (step := self.terms(v)) is None:
                total[key] = total[key] + c if key in total else c
            else:
                todo.extend((w, c * d) for w, d in step)
        return total
