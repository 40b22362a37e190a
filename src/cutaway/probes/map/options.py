"""How probing is done: the options that travel together."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.errors import BadInput, NotFound, did_you_mean
from cutaway.probes.data.permutations import ENOUGH
from cutaway.probes.fits.kinds import LINEAR, Fitting

_GIB = 1024**3


@dataclass(frozen=True)
class ProbeOptions:
    """How a label is probed for. `probe` takes the same names as keywords.

    Attributes:
        kind: of probe: ridge, logistic, means, lda, mass-mean.
        folds: of the outer, grouped cross-validation.
        permutations: of the labels; 0 leaves the test, and with it the verdict, out.
        control_tasks: random labels by type, so many times.
        penalties: to choose among, inside the training folds (None: the kind's own).
        standardise: features, on the training fold.
        precise: ridge regression all in float64; otherwise it is factorised in float32, where that holds, and refined.
        untrained: also probe the network with random weights.
        baselines: also fit the tokens themselves, the length, the position and other known columns.
        control: compare each probe's direction with the one that controls the output.
        memory: bytes that activations may take; beyond, only sums are kept (ridge; scores are then R² of the label).
        n_boot: resamples of each interval.

    Raises `BadInput` for numbers that make no sense, `NotFound` for an unknown kind.
    """

    kind: str = "ridge"
    folds: int = 5
    permutations: int = 100
    control_tasks: int = 3
    penalties: tuple[float, ...] | None = None
    standardise: bool = True
    precise: bool = False
    untrained: bool = True
    baselines: bool = True
    control: bool = True
    memory: float = 2 * _GIB
    n_boot: int = 300

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("permutations", 0), ("control_tasks", 0), ("n_boot", 20)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise BadInput(f"{name}={value!r} is not possible.", f"Give a whole number from {least} on.")
        for name in ("standardise", "precise", "untrained", "baselines", "control"):
            if not isinstance(getattr(self, name), bool):
                raise BadInput(f"{name}={getattr(self, name)!r} is not True or False.", "Give one of them.")
        if not isinstance(self.memory, int | float) or isinstance(self.memory, bool) or not self.memory >= 0:
            raise BadInput(f"memory={self.memory!r} is no number of bytes.", "Give one from 0 on.")
        if 0 < self.permutations < ENOUGH:
            raise BadInput(
                f"With {self.permutations} permutations no label could be told from chance: the least p is "
                f"{1 / (self.permutations + 1):.2f}.",
                f"Use at least {ENOUGH}, or 0 to leave the test, and with it the verdict, out.",
            )
        if self.kind not in LINEAR:
            raise NotFound(
                f"There is no kind of probe called {self.kind!r}.", did_you_mean(self.kind, LINEAR)
            )
        if self.penalties is not None and (not self.penalties or any(not p > 0 for p in self.penalties)):
            raise BadInput("Penalties must be numbers above zero.", "Leave them out for the usual path.")

        for name, given, kinds in (
            ("penalties", self.penalties is not None, ("ridge", "logistic")),
            ("precise", self.precise, ("ridge",)),
        ):
            if given and self.kind not in kinds:
                raise BadInput(
                    f"A {self.kind} probe does not read {name!r}.",
                    f"It is an option of {' and '.join(kinds)}.",
                )

    @property
    def fitting(self) -> Fitting:
        """The part that concerns one fit."""
        return Fitting(self.kind, self.penalties, self.standardise, self.precise)
