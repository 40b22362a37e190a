"""How deep an explanation goes, and which stages that takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cutaway.errors import UnknownOption, did_you_mean

#: Where the behaviour is; what is computed there; as which algorithm.
DEPTHS = ("where", "what", "algorithm")


@dataclass(frozen=True)
class ComputationSize:
    """How much is asked.

    Attributes:
        pairs: of each variable in each half.
        variables: that are exchanged.
        parts: that are asked.
        spans: where.
        large: is it a network of which not all parts are asked? Then later stages take fewer pairs and parts.
    """

    pairs: int
    variables: int
    parts: int
    spans: int
    large: bool

    @property
    def role_pairs(self) -> int:
        """Pairs on which it is asked what kind of work parts do."""
        return min(self.pairs, 16) if self.large else self.pairs

    @property
    def prompts(self) -> int:
        """Prompts whose words are attributed to."""
        return min(self.pairs, 8 if self.large else 16)

    @property
    def removed(self) -> int:
        """Parts of which it is asked what takes over."""
        return min(self.parts, 12) if self.large else self.parts


@dataclass(frozen=True)
class ComputationStage:
    """A stage of telling what is computed.

    Attributes:
        name: of the verb, and of the folder of its result.
        title: of its section on a page.
        doing: what is said while it runs.
        depth: from which depth on it is run.
        forwards: forward-equivalents that it takes, by what was measured on tales and on a network of 300 parts.
    """

    name: str
    title: str
    doing: str
    depth: str
    forwards: Callable[[ComputationSize], float]


#: Prompts on which it is asked what is intended.
INTENDED = 200
#: In order. What a later one needs comes before it.
STAGES: tuple[ComputationStage, ...] = (
    ComputationStage("carried", "What each part carries", "what each part carries", "what",
                     lambda s: 0.22 * s.pairs * s.variables * s.parts * s.spans),
    ComputationStage("passing", "How variables move", "how variables move", "what", lambda s: 30.0 * s.pairs * s.variables),
    ComputationStage("roles", "What kind of work each part does", "what kind of work each part does", "what",
                     lambda s: 48.0 * s.role_pairs * s.variables),
    ComputationStage("inputs", "Seen from outside: which words matter", "which words matter", "what",
                     lambda s: 150.0 * s.prompts),
    ComputationStage("backups", "What takes over where a part is gone", "what takes over", "what",
                     lambda s: 4.8 * s.pairs * s.removed),
    ComputationStage("proposed", "As which algorithm", "as which algorithm", "algorithm",
                     lambda s: 4000.0 if s.large else 11500.0),
    ComputationStage("intended", "Is it the intended computation?", "whether it is intended", "algorithm",
                     lambda _: 4.0 * INTENDED),
)  # fmt: skip


def stages_of(depth: str, intended: bool) -> tuple[ComputationStage, ...]:
    """The stages that a depth takes. intended: was it stated what the network ought to compute?"""
    deep = DEPTHS.index(check_depth(depth))
    return tuple(
        stage
        for stage in STAGES
        if DEPTHS.index(stage.depth) <= deep and (intended or stage.name != "intended")
    )


def check_depth(depth: object) -> str:
    """The depth. Raises `UnknownOption` for what is none.

    >>> check_depth("what")
    'what'
    """
    if not isinstance(depth, str) or depth not in DEPTHS:
        raise UnknownOption(f"depth={depth!r} is not known.", did_you_mean(depth, DEPTHS))
    return depth
