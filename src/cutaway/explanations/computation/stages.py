"""The stages: each calls the verb that finds it, with what the stages before it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cutaway.algorithms.backups import backups
from cutaway.algorithms.carried import CarriedVariables, carried
from cutaway.algorithms.inputs import input_attribution
from cutaway.algorithms.intended import intended
from cutaway.algorithms.passing import passing
from cutaway.algorithms.proposing import ProposalLimits, propose_algorithm
from cutaway.algorithms.roles import roles
from cutaway.behaviours.cases import Cases
from cutaway.explanations.computation.asking import StatedComputation
from cutaway.explanations.computation.depth import INTENDED, ComputationSize
from cutaway.network.parts import Part
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class ComputationQuestion:
    """What is asked of a network.

    Attributes:
        net: the network.
        cases: prompts whose variables are known.
        variables: those that are exchanged.
        parts: those that are asked.
        size: how much of it.
        stated: what the network ought to compute.
        controls: are they run?
        force: go on where it does not do the task?
        seed: of everything that is drawn.
        found: what the stages before found.
    """

    net: Network
    cases: Cases
    variables: tuple[str, ...]
    parts: tuple[Part, ...]
    size: ComputationSize
    stated: StatedComputation
    controls: bool
    force: bool
    seed: int
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """What all stages are told."""
        return {"n": self.size.pairs, "controls": self.controls, "seed": self.seed}

    @property
    def carried(self) -> CarriedVariables:
        """What the first stage found."""
        return self.found["carried"]


def _carried(asked: ComputationQuestion, work: Work) -> Any:
    return carried(
        asked.net,
        asked.cases,
        asked.variables,
        parts=asked.parts,
        force=asked.force,
        work=work,
        **asked.options,
    )


def _passing(asked: ComputationQuestion, work: Work) -> Any:
    return passing(asked.net, asked.cases, asked.carried, force=asked.force, work=work, **asked.options)


def _roles(asked: ComputationQuestion, work: Work) -> Any:
    return roles(
        asked.net, asked.cases, variables=asked.variables, carried=asked.carried, work=work, **asked.options
    )


def _inputs(asked: ComputationQuestion, work: Work) -> Any:
    n = asked.size.prompts
    return input_attribution(asked.net, asked.cases, n=n, controls=asked.controls, seed=asked.seed, work=work)


def _backups(asked: ComputationQuestion, work: Work) -> Any:
    frame = asked.carried.to_pandas()
    strongest = dict.fromkeys(frame.sort_values("share", ascending=False, na_position="last")["part"])
    some = list(strongest)[: asked.size.removed]
    return backups(
        asked.net,
        asked.cases,
        some,
        variable=asked.carried.variables[0],
        force=asked.force,
        work=work,
        **asked.options,
    )


def _proposed(asked: ComputationQuestion, work: Work) -> Any:
    options: dict[str, Any] = {"limits": _FEWER, "n": 100} if asked.size.large else {}
    return propose_algorithm(
        asked.net, asked.cases, asked.carried, controls=asked.controls, seed=asked.seed, work=work, **options
    )


def _intended(asked: ComputationQuestion, work: Work) -> Any:
    stated = asked.stated
    assert stated.intended is not None
    return intended(
        asked.net, asked.cases, stated.intended, stated.feared, shifted=stated.shifted, n=INTENDED, controls=asked.controls,
        seed=asked.seed, work=work,
    )  # fmt: skip


#: Of a large network fewer variables are tried at places, and fewer other algorithms.
_FEWER = ProposalLimits(tried=20, places=8, rivals=3)
#: What runs each stage.
RUN: Mapping[str, Callable[[ComputationQuestion, Work], Any]] = {
    "carried": _carried, "passing": _passing, "roles": _roles, "inputs": _inputs, "backups": _backups,
    "proposed": _proposed, "intended": _intended,
}  # fmt: skip
