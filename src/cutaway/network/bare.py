"""Weights that no module of their own holds: a parameter with which a module's own code multiplies, as a linear module.

Much code of this field writes `einsum("bpd,hde->bphe", x, self.W_Q) + self.b_Q`. Such a product is a matrix applied to
rows, as `nn.Linear` is, and is treated as one from discovery on: it has a path (the parameter's), an input, an output, a
matrix and a bias, and can be read and written.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

#: Products of rows with a weight that are understood.
PRODUCTS = frozenset({"linear", "addmm", "mm", "matmul", "einsum"})
#: Lookups in a table.
LOOKUPS = frozenset({"embedding", "getitem", "index_select"})

Role = Literal["product", "lookup", "addition"]


@dataclass(frozen=True)
class Contraction:
    """A product of rows with a weight, one letter for each axis of the rows, of the weight and of the result.

    Attributes:
        rows: axes of what is multiplied; a letter that occurs nowhere else has size one.
        weight: axes of the weight.
        out: axes of the product.

    >>> c = Contraction("bpd", "hde", "bphe")
    >>> c.summed, c.made
    ('d', 'he')
    """

    rows: str
    weight: str
    out: str

    @property
    def summed(self) -> str:
        """Axes that are summed over, as the rows order them."""
        return "".join(a for a in self.rows if a in self.weight)

    @property
    def made(self) -> str:
        """Axes that the weight brings in, as the product orders them."""
        return "".join(a for a in self.out if a in self.weight)

    @property
    def plain(self) -> bool:
        """Whether this is one matrix, the same for every row."""
        return set(self.weight) == set(self.summed) | set(self.made) and not set(self.summed) & set(self.out)

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as a matrix [out in]."""
        order = [self.weight.index(a) for a in self.made + self.summed]
        rows = math.prod(weight.shape[self.weight.index(a)] for a in self.made)
        return weight.permute(order).reshape(rows, -1)

    def flat(self, value: Tensor, side: Literal["in", "out"]) -> Tensor:
        """Rows [... in], or the product [... out], with the axes of one vector put last and made one."""
        axes, own = (self.rows, self.summed) if side == "in" else (self.out, self.made)
        rest = [i for i, a in enumerate(axes) if a not in own]
        if axes.endswith(own) and len(own) == 1:
            return value
        return value.permute(*rest, *(axes.index(a) for a in own)).flatten(len(rest))

    def back(self, value: Tensor, like: Tensor, side: Literal["in", "out"]) -> Tensor:
        """The inverse of `flat`, for a value that belongs where `like` is."""
        axes, own = (self.rows, self.summed) if side == "in" else (self.out, self.made)
        if axes.endswith(own) and len(own) == 1:
            return value
        order = [*(i for i, a in enumerate(axes) if a not in own), *(axes.index(a) for a in own)]
        spread = value.reshape([like.shape[i] for i in order])
        return spread.permute([order.index(i) for i in range(len(order))])


def letters_of(equation: str, ranks: list[int]) -> tuple[list[str], str] | None:
    """The letters of an einsum equation, its dots written out, for operands of so many axes; None where they do not fit.

    >>> letters_of("...qe,...ke->...qk", [3, 3])
    (['Aqe', 'Ake'], 'Aqk')
    """
    left, arrow, out = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if not arrow or len(parts) != len(ranks):
        return None
    spare = [a for a in string.ascii_uppercase if a not in equation]
    dots = max((n - len(p) + 3 for p, n in zip(parts, ranks, strict=True) if "..." in p), default=0)
    if dots < 0 or dots > len(spare):
        return None
    full = "".join(spare[:dots])
    written = [p.replace("...", full[dots - (n - len(p) + 3) :]) for p, n in zip(parts, ranks, strict=True)]
    return (written, out.replace("...", full)) if [len(p) for p in written] == ranks else None


def operands(args: tuple[Any, ...]) -> list[Any]:
    """The operands of an einsum, given one by one or as a list."""
    rest = list(args[1:])
    return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple) else rest


def contraction(
    op: str, equation: object, rows: tuple[int, ...], weight: tuple[int, ...], weight_first: bool = False
) -> Contraction | None:
    """The product of rows and weight of these shapes as letters; None where it is not one matrix for every row.

    equation: of an einsum. weight_first: does the weight stand before the rows?
    """
    if op == "einsum":
        ranks = [len(weight), len(rows)] if weight_first else [len(rows), len(weight)]
        read = letters_of(equation, ranks) if isinstance(equation, str) else None
        if read is None:
            return None
        (a, b), out = read
        made = Contraction(b, a, out) if weight_first else Contraction(a, b, out)
        alone = set(made.rows) - set(made.weight) - set(made.out)
        return made if made.plain and not alone else None
    if weight_first:
        return None
    lead = "abcdfghj"[: len(rows) - 1]
    if op == "linear":
        return Contraction(lead + "i", "oi", lead + "o") if len(weight) == 2 else None
    if len(weight) == 2:
        return Contraction(lead + "i", "io", lead + "o")
    return _broadcast(rows, weight) if op == "matmul" and len(weight) > 2 else None


def _broadcast(rows: tuple[int, ...], weight: tuple[int, ...]) -> Contraction | None:
    """A product of rows [b 1 p d] with one matrix for each head [h d e], spread over the axis that has size one."""
    extra, axes = len(weight) - 2, "abcdfghj"[: len(rows) - 1]
    own = "klmn"[:extra]
    out = list(axes[:-1])
    for i in range(1, extra + 1):
        if weight[-2 - i] == 1:
            return None
        if i > len(out):
            out.insert(0, own[-i])
        elif rows[-2 - i] == 1:
            out[-i] = own[-i]
        else:
            return None
    made = Contraction(axes + "i", own + "io", "".join(out) + axes[-1] + "o")
    return made if made.plain else None


class BareMatrix(nn.Module):
    """A linear map whose weight is a parameter of a module that does more: as a module, from rows [... in] to [... out].

    It holds nothing itself: `weight` [out in] and `bias` [out] are computed from the parameters as they are now.

    Attributes:
        path: of the parameter, by which it is addressed; with a number where several matrices are cut from it.
        parameter: of the parameter.
        owner: path of the module whose code uses it.
        role: is it multiplied with, looked up in, or added?
        biased: is a bias added apart, right after the product?
        uses: which of the uses of this parameter are meant, counted over one pass of the whole model.
    """

    def __init__(
        self,
        path: str,
        parameter: str,
        owner: str,
        role: Role,
        letters: Contraction | None = None,
        weight: Callable[[], Tensor] | None = None,
        bias: Callable[[], Tensor] | None = None,
        biased: bool = False,
        table: Callable[[], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.path, self.parameter, self.owner, self.role, self.biased = path, parameter, owner, role, biased
        self._letters, self._weight, self._bias, self._table = letters, weight, bias, table
        self.uses: list[int] = []

    @property
    def weight(self) -> Tensor:
        """The matrix [out in]."""
        if self._letters is None or self._weight is None:
            raise AttributeError("weight")
        return self._letters.matrix(self._weight())

    @property
    def table(self) -> Tensor:
        """The parameter as it is held."""
        if self._table is None:
            raise AttributeError("table")
        return self._table()

    @property
    def bias(self) -> Tensor | None:
        """The bias [out]; None where none is added."""
        return None if self._bias is None else self._bias().reshape(-1)

    @property
    def in_features(self) -> int:
        """Size of what it is applied to."""
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        """Size of what it gives."""
        return int(self.weight.shape[0])

    def forward(self, rows: Tensor) -> Tensor:
        """The product, with the bias."""
        return nn.functional.linear(
            rows, self.weight.to(rows), None if self.bias is None else self.bias.to(rows)
        )


@dataclass(frozen=True, eq=False)
class WeightRecipe:
    """How tensors are computed from parameters alone, step by step, so that they can be computed anew.

    Attributes:
        parameters: where each parameter lies, by number: (module, name).
        steps: by number: function, arguments with `Ref` in the place of tensors, keyword arguments, which of its results.
    """

    parameters: Mapping[int, tuple[nn.Module, str]]
    steps: Mapping[int, tuple[Callable[..., Any], Any, Any, int]] = field(default_factory=dict)

    def of(self, number: int) -> Callable[[], Tensor]:
        """A function that computes one of them from the parameters as they are when it is called."""

        def make(n: int) -> Tensor:
            if n in self.parameters:
                module, name = self.parameters[n]
                return getattr(module, name).detach()
            function, args, kwargs, which = self.steps[n]
            filled = tree_map(lambda a: make(a.number) if isinstance(a, Ref) else a, (args, kwargs))
            result = function(*filled[0], **filled[1])
            return result if torch.is_tensor(result) else result[which]

        return lambda: make(number)


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor of a recipe.

    Attributes:
        number: which one.
    """

    number: int
