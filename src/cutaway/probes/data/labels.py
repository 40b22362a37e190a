"""Labels: their kinds, how they are numbered as they come from files, and the columns that linear fits are made to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput

Kind = Literal["binary", "multiclass", "continuous", "multilabel"]
#: The kinds of label.
LABEL_KINDS: tuple[str, ...] = get_args(Kind)
#: With more different labels than this, in fewer than four examples each, it is asked whether they are classes at all.
_MANY_CLASSES = 50


def encode_labels(
    values: Sequence[Any], name: str, kind: Kind | None
) -> tuple[np.ndarray, Kind, tuple[str, ...]]:
    """Labels as they come in files -> numbers, their kind, class names.

    Without a kind: numbers with a fraction or more than ten of them are values; lists are several labels at once; anything
    else is classes, numbered in sorted order. Raises `BadInput` for missing labels, text where numbers belong, or a
    class for nearly every example.

    >>> encode_labels(["b", "a", "b"], "letter", None)
    (array([1, 0, 1]), 'binary', ('a', 'b'))
    """
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and value != value) or value == "":
            single = [v for v in values if not isinstance(v, list | tuple | set)]
            missing = sum(v is None or v != v or v == "" for v in single)
            what = f"{missing} of {len(values)} labels of {name!r} are missing, the first in row {row}."
            raise BadInput(what, "Leave such rows out, or label them.")
    several = [isinstance(v, list | tuple | set) for v in values]
    if any(several) and not all(several) or kind == "multilabel" and not all(several):
        row = several.index(False)
        what = f"The label {values[row]!r:.40} of {name!r} in row {row} is no list of labels, as others are."
        raise BadInput(what, "Give a list in every row, or one label in every row.")
    if kind == "multilabel" or all(several):
        marks = all(isinstance(x, int) and x in (0, 1) for v in values for x in v)
        if marks and len(values[0]) > 1 and len({len(v) for v in values}) == 1:
            raise BadInput(
                f"The labels of {name!r} are rows of 0 and 1, which could name labels 0 and 1 or mark which of "
                f"{len(values[0])} labels hold.",
                'Name the labels that hold in each row, as in ["red", "round"], or make ProbeData from the table with '
                'kind="multilabel" and names in `classes`.',
            )
        every = sorted({str(c) for v in values for c in v})
        table = np.array([[c in {str(x) for x in v} for c in every] for v in values], dtype=np.int64)
        return table, "multilabel", tuple(every)
    kinds = (int | float | np.number, bool | np.bool_)
    numbers = all(isinstance(v, kinds[0]) and not isinstance(v, kinds[1]) for v in values)
    if kind is None and numbers:
        some = {float(v) for v in values}
        kind = "continuous" if len(some) > 10 or any(not float(v).is_integer() for v in some) else None
    if kind == "continuous":
        try:
            measured = np.array([float(v) for v in values])
        except (TypeError, ValueError) as error:
            remedy = "Give numbers, or kind='multiclass' for classes."
            raise BadInput(f"A value of {name!r} is no number: {error}.", remedy) from error
        return measured, "continuous", ()
    ordered = sorted(set(values), key=lambda v: (str(type(v)), v))
    if len(ordered) > _MANY_CLASSES and len(ordered) > len(values) / 4:
        remedy = "Give labels that repeat, or kind='continuous' for numbers."
        raise BadInput(f"{name!r} has {len(ordered)} different labels in {len(values)} examples.", remedy)
    number = {v: i for i, v in enumerate(ordered)}
    labels = np.array([number[v] for v in values], dtype=np.int64)
    if kind == "binary" and len(ordered) > 2:
        raise BadInput(f"{name!r} has {len(ordered)} classes, not two.", "Use kind='multiclass'.")
    several_classes = len(ordered) > 2 or kind == "multiclass" and len(ordered) != 2
    return labels, "multiclass" if several_classes else "binary", tuple(map(str, ordered))


def as_targets(kind: Kind, labels: Tensor, classes: int) -> Tensor:
    """Labels [n] (or [n l]) as the columns that linear probes are fitted to: [n c], +1 and -1, or the values.

    >>> as_targets("binary", torch.tensor([0, 1]), 2).flatten().tolist()
    [-1.0, 1.0]
    """
    if kind == "continuous":
        return labels.double()[:, None]
    if kind == "binary":
        return (2.0 * labels.double() - 1)[:, None]
    if kind == "multilabel":
        return 2.0 * labels.double() - 1
    return 2.0 * torch.nn.functional.one_hot(labels.long(), classes).double() - 1
