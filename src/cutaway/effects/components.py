"""The components that a mechanism is made of: attention heads, MLPs, and whatever else mixes tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cutaway.sweeps import Write

if TYPE_CHECKING:
    from cutaway.network import Network

_KINDS = {"head": "head", "attention": "attention", "mixer": "mixer", "mlp": "MLP"}
#: kind -> the site at which it is replaced.
_SITES = {"head": "z", "attention": "attn_write", "mixer": "mixer_write", "mlp": "mlp_write"}


@dataclass(frozen=True, order=True)
class Component:
    """One attention head, or one layer's MLP, token mixer, or whole attention (where heads cannot be told apart).

    >>> str(Component(3, "head", 1)), str(Component(0, "mlp"))
    ('head 3.1', 'MLP 0')
    """

    layer: int
    kind: str
    head: int | None = None

    def __str__(self) -> str:
        number = self.layer if self.head is None else f"{self.layer}.{self.head}"
        return f"{_KINDS[self.kind]} {number}"

    @property
    def write(self) -> Write:
        """The write that replaces this component's output at every position."""
        return Write(_SITES[self.kind], self.layer, self.head)

    @property
    def order(self) -> tuple[int, int, int]:
        """Sort key: as the forward pass meets them."""
        return self.layer, list(_KINDS).index(self.kind), self.head or 0


def components(net: Network) -> tuple[Component, ...]:
    """Every component of a network, in forward order. Layers without a certified site contribute none."""
    found: list[Component] = []
    with_heads = set(net.layers_with("z"))
    for layer in with_heads:
        found += [Component(layer, "head", head) for head in range(net.heads(layer) or 0)]
    for kind in ("attention", "mixer", "mlp"):
        layers = net.layers_with(_SITES[kind])
        found += [
            Component(layer, kind) for layer in layers if kind != "attention" or layer not in with_heads
        ]
    return in_order(found)


def uncovered(net: Network) -> tuple[str, ...]:
    """What writes to a stream of this network and yet is no component, in words; empty where all is covered.

    That is: other stacks (an encoder), sublayers of a kind that has no component (cross-attention), sublayers whose site
    was refused, and layers in which nothing was told apart.
    """
    here = {(part.layer, "attention" if part.kind == "head" else part.kind) for part in components(net)}
    left: dict[str, list[int]] = {}
    others = []
    for stack in net.anatomy.stacks:
        if stack.name:
            others.append(f"the {stack.name} ({len(stack.layers)} layers)")
            continue
        for layer in stack.layers:
            for kind in dict.fromkeys(sublayer.kind for sublayer in layer.sublayers):
                if (layer.index, kind) not in here:
                    name = _KINDS.get(kind, kind).replace("_", "-")
                    left.setdefault(name, []).append(layer.index)
            if not layer.sublayers and not any(index == layer.index for index, _ in here):
                left.setdefault("everything", []).append(layer.index)
    named = [
        f"{name} in layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
        for name, layers in left.items()
    ]
    return (*named, *others)


def in_order(members: Iterable[Component]) -> tuple[Component, ...]:
    """The members as the forward pass meets them."""
    return tuple(sorted(members, key=lambda c: c.order))


def kinds(members: Iterable[Component]) -> Counter[str]:
    """How many members of each kind."""
    return Counter(member.kind for member in members)


def count(members: Iterable[Component]) -> str:
    """The members counted in words.

    >>> count([Component(0, "mlp"), Component(1, "head", 2), Component(1, "head", 3)])
    '2 heads and 1 MLP'
    """
    parts = [
        f"{n} {_KINDS[kind]}{'s' if n != 1 and kind != 'attention' else ''}"
        for kind, n in sorted(kinds(members).items())
    ]
    return (
        " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 2 else parts)
        if parts
        else "no components"
    )


def listing(members: Iterable[Component]) -> str:
    """The members by name, heads together, MLPs together.

    >>> listing([Component(0, "mlp"), Component(1, "head", 2), Component(1, "head", 3)])
    'heads 1.2, 1.3; MLP 0'
    """
    groups: list[str] = []
    ordered = in_order(members)
    for kind, name in _KINDS.items():
        here = [str(m).split(" ")[1] for m in ordered if m.kind == kind]
        if here:
            plural = "s" if len(here) > 1 and kind != "attention" else ""
            groups.append(f"{name}{plural} {', '.join(here)}")
    return "; ".join(groups)
