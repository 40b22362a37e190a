"""What a hook sees of a module call: tensors by dotted key, each replaceable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cutaway.errors import BadInput
from cutaway.network.discovery.trace import tensor_leaves


@dataclass(eq=False)
class Exchange:
    """The arguments or the output of one module call, as a hook sees them: tensors by key, replaceable.

    Attributes:
        value: the arguments or the output.
        changed: was a tensor replaced?
    """

    value: Any
    changed: bool = False

    def first(self) -> str:
        """Key of the first tensor; of a floating one if there is any.

        Raises `BadInput` where there is none.
        """
        leaves = list(tensor_leaves(self.value))
        if not leaves:
            raise BadInput("A module that was named handles no tensor.", "Name another module.")
        return next((k for k, t in leaves if t.is_floating_point()), leaves[0][0])

    def get(self, key: str) -> Any:
        """The item at a dotted key."""
        item = self.value
        for part in key.split(".") if key else ():
            item = item[int(part)] if isinstance(item, tuple | list) else item[part]
        return item

    def set(self, key: str, new: Any) -> None:
        """Replace the item at a dotted key, rebuilding the tuples on the way."""
        self.value = _replaced(self.value, key.split(".") if key else [], new)
        self.changed = True


def _replaced(value: Any, parts: list[str], new: Any) -> Any:
    if not parts:
        return new
    head, rest = parts[0], parts[1:]
    if isinstance(value, tuple | list):
        items = list(value)
        items[int(head)] = _replaced(items[int(head)], rest, new)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    value[head] = _replaced(value[head], rest, new)
    return value


class Arguments(Exchange):
    """A module's positional and keyword arguments: numbers are positions, names are keywords."""

    def first(self) -> str:
        """Key of the first tensor among positional, then keyword arguments."""
        args, kwargs = self.value
        return Exchange(args).first() if any(True for _ in tensor_leaves(args)) else Exchange(kwargs).first()

    def get(self, key: str) -> Any:
        """The argument at a dotted key."""
        args, kwargs = self.value
        head, _, rest = key.partition(".")
        item = args[int(head)] if head.isdigit() else kwargs[head]
        return Exchange(item).get(rest)

    def set(self, key: str, new: Any) -> None:
        """Replace the argument at a dotted key."""
        args, kwargs = self.value
        parts = key.split(".")
        if parts[0].isdigit():
            args = _replaced(args, parts, new)
        else:
            kwargs = _replaced(dict(kwargs), parts, new)
        self.value, self.changed = (args, kwargs), True
