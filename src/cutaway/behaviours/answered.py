"""What logits at the answers of clean and corrupted prompts say, pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from cutaway.behaviours.metrics import METRICS

if TYPE_CHECKING:
    from cutaway.behaviours.data import Behaviour


def answered(
    behaviour: Behaviour, clean: Tensor, corrupted: Tensor
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Of logits [n v]: whether clean and corrupted prompts are answered right, [n] each; the metric of both, [n] each.

    KL is measured against the clean prompts.
    """
    answers, accurate = behaviour.answers, METRICS["accuracy"]
    correct, still = (_numbers(accurate(logits, answers)) for logits in (clean, corrupted))
    if behaviour.metric.needs == "reference":
        answers = answers.with_reference(clean)
    return (
        correct,
        still,
        (_numbers(behaviour.metric(clean, answers)), _numbers(behaviour.metric(corrupted, answers))),
    )


def better(behaviour: Behaviour, clean: np.ndarray, corrupted: np.ndarray) -> np.ndarray:
    """How much better the metric [n] is on clean than on corrupted prompts: [n], signed so that more is better."""
    return (1.0 if behaviour.metric.higher else -1.0) * (clean - corrupted)


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
