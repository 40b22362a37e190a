"""How deep an explanation goes, and which stages that takes."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.errors import UnknownOption, did_you_mean

#: Where the behaviour is; what is computed there; as which algorithm.
DEPTHS = ("where", "what", "algorithm")


@dataclass(frozen=True)
class ComputationStage:
    """A stage of telling what is computed.

    Attributes:
        name: of the verb, and of the folder of its result.
        title: of its section on a page.
        doing: what is said while it runs.
        depth: from which depth on it is run.
        weight: forward-equivalents as a share of what the first stage takes, measured; for the price.
    """

    name: str
    title: str
    doing: str
    depth: str
    weight: float


#: In order. What a later one needs comes before it.
STAGES: tuple[ComputationStage, ...] = (
    ComputationStage("carried", "What each part carries", "what each part carries", "what", 1.0),
    ComputationStage("passing", "How variables move", "how variables move", "what", 0.5),
    ComputationStage("roles", "What kind of work each part does", "what kind of work each part does", "what", 0.5),
    ComputationStage("inputs", "Seen from outside: which words matter", "which words matter", "what", 0.2),
    ComputationStage("backups", "What takes over where a part is gone", "what takes over", "what", 0.5),
    ComputationStage("proposed", "As which algorithm", "as which algorithm", "algorithm", 0.8),
    ComputationStage("intended", "Is it the intended computation?", "whether it is intended", "algorithm", 0.4),
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
