"""Variables under test: interchange interventions with predicted results, and linear readouts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cutaway.calibration.subject import Subject, answers_of, told_right
from cutaway.interventions import Interchange, Intervention, Patch
from cutaway.network import Network, Run
from cutaway.statistics import Estimate, proportion
from cutaway.zoo.tasks import Swap
from cutaway.zoo.truth import Variable

_LABELS = 400


def interchanged(subject: Subject, variable: Variable) -> Estimate | None:
    """Interchange intervention accuracy: the share of swaps whose answer is the one that the causal model predicts.

    None where the task has no swaps for this variable. Geiger et al. 2021, Causal Abstractions of Neural Networks.
    """
    swaps = subject.specimen.task.swaps(variable.name, subject.n, subject.seed)
    if not swaps:
        return None
    right = 0
    for group in by_length(swaps):
        logits = swapped_logits(subject.net, variable, group)
        right += told_right(logits, [swap.right for swap in group])
    return proportion(right, len(swaps))


def swapped_logits(net: Network, variable: Variable, swaps: Sequence[Swap]) -> Tensor:
    """[n v] logits at the answer positions of the bases with the variable's value of the sources.

    The swaps must have prompts of one length and as many positions each.
    """
    source = net.run([list(s.source) for s in swaps], keep=[variable.site], logits=False)
    pos = torch.tensor([s.pos for s in swaps])
    where = torch.tensor([[s.answer_pos] for s in swaps])
    edit = exchange(variable, source, pos)
    return answers_of(net.run([list(s.base) for s in swaps], edits=[edit], logits=where))


def exchange(variable: Variable, source: Run, pos: Tensor) -> Intervention:
    """The intervention that gives a variable its value of another run at positions [n k]."""
    if variable.basis is None:
        return Patch(variable.site, source, head=variable.head, pos=pos)
    return Interchange(variable.site, source, torch.tensor(variable.basis), head=variable.head, pos=pos)


def by_length(swaps: Sequence[Swap]) -> list[list[Swap]]:
    """The swaps in groups that can run together: prompts of one length, as many positions."""
    groups: dict[tuple[int, int, int], list[Swap]] = {}
    for swap in swaps:
        groups.setdefault((len(swap.base), len(swap.source), len(swap.pos)), []).append(swap)
    return list(groups.values())


def decoded(subject: Subject, variable: Variable) -> Estimate | None:
    """Held-out accuracy of a ridge readout of the variable's classes from where it is said to live.

    None where the variable has no classes or the task gives no labels.
    """
    labels = subject.specimen.task.labels(variable.name, _LABELS, subject.seed)
    if not labels or variable.classes is None:
        return None
    run = subject.net.run([list(label.ids) for label in labels], keep=[variable.site], logits=False)
    value = run[variable.site]
    first = run.tokens.first if run.tokens is not None else torch.zeros(len(labels), dtype=torch.long)
    at = torch.tensor([label.pos % len(label.ids) for label in labels]) + first
    rows = value[torch.arange(len(labels)), at]
    rows = rows[:, variable.head] if variable.head is not None else rows.flatten(1)
    if variable.basis is not None:
        rows = rows @ torch.tensor(variable.basis).to(rows).T
    rows = rows.double().cpu()
    classes = torch.tensor([label.value for label in labels])
    half = len(labels) // 2
    mean, spread = rows[:half].mean(0), rows[:half].std(0).clamp(min=1e-6)
    scaled = torch.cat([(rows - mean) / spread, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
    wanted = torch.nn.functional.one_hot(classes[:half], variable.classes).double()
    gram = scaled[:half].T @ scaled[:half] + 1e-3 * half * torch.eye(scaled.shape[1], dtype=rows.dtype)
    readout = torch.linalg.solve(gram, scaled[:half].T @ wanted)
    right = int(((scaled[half:] @ readout).argmax(1) == classes[half:]).sum())
    return proportion(right, len(labels) - half)
