"""Every specimen that was trained naturally."""

from __future__ import annotations

from cutaway.recipes.natural import sequences as S
from cutaway.recipes.natural.modular import TASK, Grokking
from cutaway.recipes.natural.proxies import AGREEMENT, RECEIVER
from cutaway.recipes.natural.proxy_course import ProxyCourse
from cutaway.recipes.natural.recipes import Course, CourseShape
from cutaway.recipes.training import Schedule
from cutaway.zoo.specimens import RANDOM, Specimen, Twin

_CLASS = "GPT2LMHeadModel: sequential blocks, learned positions, LayerNorm, rectified neurons"
_SHUFFLED = Twin(
    "shuffled", "Trained as long as it needs to, with the answers shuffled among prompts.", "stored"
)
_COURSE = "ARENA, Mechanistic Interpretability (the courses' monthly problems)"

SORT = Course(
    S.SORTING, S.sort_row, 10, CourseShape(1, 48, 2, 96, 20), Schedule(1500, 2e-3),
    ({"role": "attends to answer", "at_least": 0.4},),
)  # fmt: skip
PALINDROME = Course(
    S.PALINDROMES, S.palindrome_row, 2 + 2 * S.HALF, CourseShape(2, 48, 4, 96, 12), Schedule(1500, 2e-3),
    ({"role": "attends to mirror", "at_least": 0.4},), rows=128,
)  # fmt: skip
BRACKETS = Course(
    S.BALANCE, S.bracket_row, S.BRACKETS + 2, CourseShape(2, 48, 4, 96, 16), Schedule(1500, 1e-3)
)
INDUCTION = Course(
    S.REPEATS, S.repeat_row, 1, CourseShape(2, 64, 4, 4, S.ROW, mlps=False), Schedule(2500, 2e-3),
    ({"role": "previous token", "at_least": 0.4}, {"role": "induction", "at_least": 0.4}), rows=64,
)  # fmt: skip


PROXIES = (ProxyCourse(AGREEMENT, 150, 800), ProxyCourse(RECEIVER, 400, 1000))
GOAL = Twin(
    "goal",
    "Trained with prompts among the others on which goal and proxy come apart: it follows the goal.",
    "stored",
)
_SHORTCUTS = (
    "Geirhos et al. 2020, Shortcut Learning in Deep Neural Networks",
    "Shah et al. 2022, Goal Misgeneralization: Why Correct Specifications Aren't Enough For Correct Goals",
)


def specimens() -> tuple[Specimen, ...]:
    """Modular addition, four small networks of the courses, and two that follow a proxy."""
    grokked = Specimen(
        "modular-addition", "trained naturally", "Adds two numbers modulo 113.", _CLASS, TASK, Grokking(),
        (
            RANDOM,
            Twin("shuffled", "Trained on the same pairs with their sums shuffled: it can only remember.", "stored"),
            Twin("without", "The same run before it grokked: it remembers what it saw.", "stored", revision="before"),
        ),
        minutes=4.0,
        sources=("Power et al. 2022, Grokking", "Nanda et al. 2023, Progress Measures for Grokking"),
        mechanism="Numbers become waves at a few key frequencies; attention adds them up; rectified neurons turn sums of "
        "waves into waves of the sum, which the unembedding compares with every number.",
    )  # fmt: skip
    rows = (
        ("sorting", "Sorts eight numbers.", SORT, 2.0, _COURSE,
         "As published: attention looks for the number that is next larger than the present one, and copies it."),
        ("palindrome", "Tells whether eight letters are a palindrome.", PALINDROME, 2.0, _COURSE,
         "As published: attention brings each letter to its mirror image; neurons compare; the last token collects."),
        ("balanced-brackets", "Tells whether twelve brackets are balanced.", BRACKETS, 2.0, _COURSE,
         "As published: attention counts brackets; neurons ask whether the count ever falls below zero, and its end."),
        ("induction", "Continues a random sequence when it is repeated.", INDUCTION, 3.0,
         "Olsson et al. 2022, In-context Learning and Induction Heads",
         "Previous-token heads in the first layer, induction heads in the second; the MLPs are as good as absent."),
    )  # fmt: skip
    return (
        grokked,
        *(
            Specimen(name, "trained naturally", says, _CLASS, course.task, course, (RANDOM, _SHUFFLED),
                     minutes=minutes, sources=(source,), mechanism=mechanism)
            for name, says, course, minutes, source, mechanism in rows
        ),
        *map(_follower, PROXIES),
    )  # fmt: skip


def _follower(course: ProxyCourse) -> Specimen:
    """A network that was trained where a proxy does as well as the goal."""
    task = course.task
    return Specimen(
        f"{task.name}-{course.architecture}", "trained naturally", task.says, course.architecture, course.questions, course,
        (RANDOM, _SHUFFLED, GOAL), minutes=4.0, sources=_SHORTCUTS, seed=course.seed, known=task.known(),
        mechanism=f"In all that it learnt from, two rules give the same answers: {task.goal} (the goal), and {task.proxy} "
        "(the proxy). Where they come apart, it follows the proxy.",
    )  # fmt: skip
