"""What is probed for: texts (or token ids, or images) with labels, and all that says which examples belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.probes.data.labels import Kind


@dataclass(frozen=True, eq=False)
class ProbeData:
    """n labelled examples. Made by `probe_data(...)`, or by hand.

    Attributes:
        inputs: texts, rows of token ids, or a mapping of a model's own tensors [m ...] (images).
        labels: class numbers [n] (binary, multiclass) or values (continuous); 0 and 1 [n l] (multilabel).
        kind: which of these.
        classes: names of the classes (or of the labels, where multilabel).
        name: of the label.
        rows: which input each example stands in [n] (several may share one).
        spans: for each example a half-open range of tokens, counted from the row's first; None where whole inputs are
            labelled.
        groups: examples that must not be parted by a split (template, entity, speaker).
        sources: where each comes from, for leaving one source out.
        types: what the control task gives one random label each.
        also: other things known of each example, against which the label may be confounded.
        notes: what was found and done on the way in.

    Raises `BadInput` where something is missing, of the wrong kind, or of unequal length.
    """

    inputs: Sequence[str] | Sequence[Sequence[int]] | Mapping[str, Tensor]
    labels: np.ndarray
    kind: Kind = "binary"
    classes: tuple[str, ...] = ("0", "1")
    name: str = "label"
    rows: np.ndarray | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    groups: tuple[Any, ...] | None = None
    sources: tuple[Any, ...] | None = None
    types: tuple[Any, ...] | None = None
    also: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        object.__setattr__(self, "labels", labels)
        n = len(labels)
        if self.kind == "binary" and self.classes == ("0", "1") and _fractions(labels):
            object.__setattr__(self, "kind", "continuous")
            object.__setattr__(self, "classes", ())
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(n))
        if n == 0:
            raise BadInput(f"There are no examples of {self.name!r}.", "Give texts with labels.")
        columns = {"rows": self.rows, "spans": self.spans, "groups": self.groups, "sources": self.sources}
        for name, column in {**columns, "types": self.types, **self.also}.items():
            if column is not None and len(column) != n:
                what = f"{self.name!r} has {n} labels but {len(column)} entries of {name}."
                raise BadInput(what, "Give one for each example.")
        if int(self.rows.max()) >= self.n_inputs or int(self.rows.min()) < 0:  # type: ignore[union-attr]
            remedy = "Give one label for each input, or say in `rows` which input each label belongs to."
            raise BadInput(f"{self.name!r} has {n} labels for {self.n_inputs} inputs.", remedy)
        self._check_labels()

    def _check_labels(self) -> None:
        labels = self.labels
        if not np.issubdtype(labels.dtype, np.number):
            remedy = "Make the data with probe_data, which numbers the classes, or give class numbers."
            raise BadInput(f"The labels of {self.name!r} are {labels.dtype}, not numbers.", remedy)
        missing = np.argwhere(~np.isfinite(labels.astype(float)))
        if len(missing):
            what = f"The label of example {int(missing[0][0])} of {self.name!r} is missing."
            raise BadInput(what, "Leave such examples out, or label them.")
        if labels.ndim != 1 and self.kind != "multilabel":
            raise BadInput(
                f"The labels of {self.name!r} have {labels.ndim} dimensions, and {self.kind} labels have one.",
                'Give one number per example, or kind="multilabel" for a table of 0 and 1.',
            )
        if self.kind == "continuous":
            if labels.std() == 0:
                what = f"Every value of {self.name!r} is {labels[0]}."
                raise BadInput(what, "There is nothing to tell apart.")
            return
        if self.kind == "multilabel":
            if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
                raise BadInput(f"{self.name!r} is no table of 0 and 1.", "Give labels [n l] of 0 and 1.")
            if labels.shape[1] != len(self.classes):
                raise BadInput(
                    f"{self.name!r} has {labels.shape[1]} columns of labels but {len(self.classes)} names for them.",
                    "Give as many names in `classes`.",
                )
            lone = [self.classes[i] for i in range(labels.shape[1]) if len(np.unique(labels[:, i])) < 2]
            if lone:
                raise BadInput(f"The label {lone[0]!r} is the same everywhere.", "Leave it out.")
            return
        self._check_classes()

    def _check_classes(self) -> None:
        labels, last = self.labels, len(self.classes) - 1
        odd = labels[(labels != labels.astype(int)) | (labels < 0) | (labels > last)]
        if len(odd):
            raise BadInput(
                f"{odd[0]} is no class number of {self.name!r}: they run from 0 to {last}.",
                'Make the data with probe_data, which numbers the classes, or give kind="continuous" for values.',
            )
        counts = np.bincount(labels.astype(int), minlength=len(self.classes))
        if (counts > 0).sum() < 2:
            only = self.classes[int(counts.argmax())]
            remedy = "Give examples of at least two classes: with one there is nothing to tell apart."
            raise BadInput(f"Every example of {self.name!r} is of the class {only!r}.", remedy)
        if (counts == 0).any():
            what = f"Class numbers of {self.name!r} do not run from 0 to {len(self.classes) - 1}."
            raise BadInput(what, "Make the data with probe_data, which numbers the classes.")

    @property
    def n(self) -> int:
        """How many examples."""
        return len(self.labels)

    def __len__(self) -> int:
        return self.n

    @property
    def of_tokens(self) -> bool:
        """Are the inputs texts or token ids, not a model's own tensors?"""
        return not hasattr(self.inputs, "items")

    @property
    def n_inputs(self) -> int:
        """How many texts, rows or images."""
        if isinstance(self.inputs, Mapping):
            return int(next(iter(self.inputs.values())).shape[0])
        return len(self.inputs)

    @property
    def n_classes(self) -> int:
        """Classes of a binary or multi-class label; columns of a multi-label one; 1 for values."""
        return 1 if self.kind == "continuous" else len(self.classes)

    @property
    def hash(self) -> str:
        """Identity of inputs, labels and groups: 16 hexadecimal digits."""
        if isinstance(self.inputs, Mapping):
            raw: Any = {name: tensor.cpu().numpy().tobytes() for name, tensor in self.inputs.items()}
            inputs: Any = {name: hashlib.sha256(part).hexdigest() for name, part in raw.items()}
        else:
            inputs = [r if isinstance(r, str) else [int(i) for i in r] for r in self.inputs]
        data = [inputs, self.labels.tolist(), self.kind, self.classes, self.rows.tolist(), self.spans]  # type: ignore[union-attr]
        data += [g if g is None else list(map(str, g)) for g in (self.groups, self.sources, self.types)]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    def take(self, chosen: Sequence[int] | np.ndarray, two: np.ndarray | None = None) -> ProbeData:
        """These examples only (all inputs stay, so that rows keep their numbers); two: labels [n] of 0 and 1 that they get
        instead of their own."""
        index = np.asarray(chosen, dtype=int)
        columns = {name: getattr(self, name) for name in ("spans", "groups", "sources", "types")}
        pick = {name: tuple(c[i] for i in index) for name, c in columns.items() if c is not None}
        also = {k: np.asarray(v)[index] for k, v in self.also.items()}
        labels = self.labels[index] if two is None else two
        kind, classes = (self.kind, self.classes) if two is None else ("binary", ("0", "1"))
        rows = np.asarray(self.rows)[index]
        return replace(self, labels=labels, kind=kind, classes=classes, rows=rows, also=also, **pick)

    def two_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """The examples of the first two classes, by number, and which of the two each is; of values whether each is above
        the median. Raises `BadInput` for several labels at once."""
        labels = self.labels
        if self.kind == "multilabel":
            raise BadInput("Causal tests need two classes.", "Test one label at a time.")
        if self.kind == "continuous":
            return np.arange(self.n), (labels > np.median(labels)).astype(int)
        chosen = np.flatnonzero(np.isin(labels, (0, 1)))
        return chosen, (labels[chosen] == 1).astype(int)

    def with_labels(
        self, labels: np.ndarray, kind: Kind | None = None, classes: tuple[str, ...] | None = None
    ) -> ProbeData:
        """The same examples labelled otherwise."""
        return replace(self, labels=labels, kind=kind or self.kind, classes=classes or self.classes)

    def __str__(self) -> str:
        if self.kind == "continuous":
            what = f"values {self.labels.min():.4g} to {self.labels.max():.4g}"
        elif self.kind == "multilabel":
            what = ", ".join(f"{c} {int(v)}" for c, v in zip(self.classes, self.labels.sum(0), strict=True))
        else:
            counts = np.bincount(self.labels.astype(int), minlength=len(self.classes))
            shown = [f"{c} {k}" for c, k in zip(self.classes, counts, strict=True)][:6]
            what = ", ".join(shown) + (", ..." if len(self.classes) > 6 else "")
        groups = "" if self.groups is None else f", {len(set(self.groups))} groups"
        lines = [f"{self.name}: {self.n} examples in {self.n_inputs} inputs, {self.kind} ({what}){groups}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    __repr__ = __str__


def _fractions(labels: np.ndarray) -> bool:
    """Are they numbers of which one is no whole number, so that they can be no classes?"""
    return (
        labels.ndim == 1
        and labels.dtype.kind == "f"
        and bool((np.isfinite(labels) & (labels % 1 != 0)).any())
    )
