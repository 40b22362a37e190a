"""How well an answer is given: functions of the logits at the answer position, one number for each example.

Everything is computed in float32 (float64 logits stay float64), whatever the network's own precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from cutaway.errors import BadBehaviour, BadInput, NotFinite, NotFound, did_you_mean

Needs = Literal["both", "right", "reference", "nothing"]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answer tokens of n examples, as sets padded to a common size, and logits to compare with (for KL).

    Attributes:
        right: LongTensor [n r].
        right_mask: BoolTensor [n r], False where a row is padded.
        wrong: LongTensor [n w]; w may be 0.
        wrong_mask: BoolTensor [n w].
        reference: [n v], or None.
    """

    right: Tensor
    right_mask: Tensor
    wrong: Tensor
    wrong_mask: Tensor
    reference: Tensor | None = None

    @classmethod
    def of(cls, right: Sequence[Sequence[int]], wrong: Sequence[Sequence[int]]) -> Answers:
        """From token sets.

        >>> Answers.of([[5], [6, 7]], [[1], [2]]).right_mask.tolist()
        [[True, False], [True, True]]
        """
        return cls(*_padded(right), *_padded(wrong))

    def __len__(self) -> int:
        return len(self.right)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Answers:
        return self._each(lambda t: t[rows])

    def to(self, device: torch.device | str) -> Answers:
        """The same on a device."""
        return self._each(lambda t: t.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Answers:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(t) for name, t in tensors.items() if t is not None})

    def repeat(self, times: int) -> Answers:
        """The same examples `times` over, one run after the other: for a batch of several edits."""
        rows = torch.arange(len(self)).repeat(times)
        return self[rows.to(self.right.device)]

    def vocabulary(self) -> Tensor:
        """The answer tokens of all examples, ascending: LongTensor [k]."""
        return torch.cat([self.right[self.right_mask], self.wrong[self.wrong_mask]]).unique()

    def within(self, vocabulary: Tensor) -> Answers:
        """The same answers as places in a list of tokens (ascending, as `vocabulary` gives it)."""
        right, wrong = (torch.searchsorted(vocabulary, t.contiguous()) for t in (self.right, self.wrong))
        top = max(int(vocabulary.numel()) - 1, 0)
        return replace(self, right=right.clamp(max=top), wrong=wrong.clamp(max=top), reference=None)

    def with_reference(self, logits: Tensor) -> Answers:
        """The same with logits [n v] to compare with, those of the clean prompts for instance."""
        return replace(self, reference=logits)


def _padded(sets: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max((len(s) for s in sets), default=0)
    ids = torch.zeros(len(sets), width, dtype=torch.long)
    mask = torch.zeros(len(sets), width, dtype=torch.bool)
    for row, tokens in enumerate(sets):
        ids[row, : len(tokens)] = torch.tensor(list(tokens), dtype=torch.long)
        mask[row, : len(tokens)] = True
    return ids, mask


@dataclass(frozen=True)
class Metric:
    """A named function of (logits [n v], Answers of n examples) -> [n].

    Calling it raises NotFinite on NaN or +inf logits (-inf is a masked token and allowed), BadBehaviour when an answer that
    it needs is not there.

    Attributes:
        name: by which `behaviour(metric=...)` and files know it.
        function: takes logits in float32 or float64, and the answers on the same device.
        needs: which answers it reads.
        higher: is more of it better at the behaviour?
        unit: of what it is a number.
        says: what it is, in words.
        few: does it read the logits of the answer tokens and of no others?
    """

    name: str
    function: Callable[[Tensor, Answers], Tensor]
    needs: Needs = "both"
    higher: bool = True
    unit: str = ""
    says: str = ""
    few: bool = False

    def __call__(self, logits: Tensor, answers: Answers) -> Tensor:
        """The metric of each example: [n]."""
        if logits.ndim != 2 or len(logits) != len(answers):
            raise BadInput(
                f"{self.name} takes logits [{len(answers)} v], not of shape {list(logits.shape)}.",
                "Pass the logits at the answer position of each example.",
            )
        self._check(answers)
        values = logits.double() if logits.dtype == torch.float64 else logits.float()
        bad = torch.isnan(values) | (values == float("inf"))
        if bool(bad.any()):
            row, token = (int(i) for i in bad.nonzero()[0])
            raise NotFinite(
                f"{int(bad.any(1).sum())} of {len(values)} examples have logits that are NaN or infinite, "
                f"first at example {row}, token {token}.",
                "Look at that run's activations; such examples are not averaged away.",
            )
        return self._checked(self.function(values, answers.to(values.device)), len(values))

    def _checked(self, result: object, n: int) -> Tensor:
        """The result when it is one number for each example; BadInput or NotFinite, blaming the metric, when not."""
        if not isinstance(result, Tensor) or result.shape != (n,) or result.is_complex():
            shape = (
                f"shape {list(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"
            )
            raise BadInput(
                f"The metric {self.name!r} gave {shape}, not one number for each of {n} examples.",
                f"Return a tensor of shape [{n}], one number per row of the logits.",
            )
        if bool(torch.isnan(result).any()):
            row = int(torch.isnan(result).nonzero()[0])
            raise NotFinite(
                f"The metric {self.name!r} itself gives NaN, first at example {row}; the logits hold none.",
                "Look at the metric's function (a division by zero, inf minus inf), or use another metric.",
            )
        return result

    def _check(self, answers: Answers) -> None:
        lacks_wrong = answers.wrong.shape[1] == 0 or not bool(answers.wrong_mask.any(1).all())
        if self.needs == "both" and lacks_wrong:
            raise BadBehaviour(
                f"{self.name} compares with wrong answers, and an example has none.",
                "Give wrong answers, or use log_prob or cross_entropy.",
            )
        if self.needs == "reference" and answers.reference is None:
            raise BadInput(
                f"{self.name} compares with reference logits, and there are none.",
                "Use answers.with_reference(logits), e.g. the logits of the clean prompts.",
            )


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1)


def _pick(values: Tensor, ids: Tensor, mask: Tensor, fill: float = float("-inf")) -> Tensor:
    return values.gather(1, ids).masked_fill(~mask, fill)


def _logit_diff(logits: Tensor, a: Answers) -> Tensor:
    right, wrong = logits.gather(1, a.right), logits.gather(1, a.wrong)
    return _mean(right, a.right_mask) - _mean(wrong, a.wrong_mask)


def _logit_diff_lse(logits: Tensor, a: Answers) -> Tensor:
    right, wrong = _pick(logits, a.right, a.right_mask), _pick(logits, a.wrong, a.wrong_mask)
    return right.logsumexp(1) - wrong.logsumexp(1)


def _prob_diff(logits: Tensor, a: Answers) -> Tensor:
    probs = logits.softmax(-1)
    return _pick(probs, a.right, a.right_mask, 0).sum(1) - _pick(probs, a.wrong, a.wrong_mask, 0).sum(1)


def _log_prob(logits: Tensor, a: Answers) -> Tensor:
    return _pick(logits.log_softmax(-1), a.right, a.right_mask).logsumexp(1)


def _cross_entropy(logits: Tensor, a: Answers) -> Tensor:
    return -_log_prob(logits, a)


def _kl(logits: Tensor, a: Answers) -> Tensor:
    if a.reference is None or a.reference.shape != logits.shape:
        raise BadInput(
            f"The reference logits do not have the shape {list(logits.shape)} of the logits.",
            "Take them at the same positions of the same examples.",
        )
    # nearly equal distributions cancel: in float32 the rounding would be larger than the divergence
    log_p, log_q = a.reference.double().log_softmax(-1), logits.double().log_softmax(-1)
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p)).sum(-1).to(logits.dtype)


def _accuracy(logits: Tensor, a: Answers) -> Tensor:
    right = _pick(logits, a.right, a.right_mask).amax(1)
    best = logits.amax(1)
    beats = right >= best
    if a.wrong.shape[1]:
        wrong = _pick(logits, a.wrong, a.wrong_mask).amax(1)
        beats = torch.where(a.wrong_mask.any(1), right > wrong, beats)
    return beats.to(logits.dtype)


_MEAN = "mean logit of the right answers minus that of the wrong"
_ODDS = "log odds of any right answer against any wrong answer"
_SHARE = "1 where the best right answer beats every wrong one (every token, where there are none)"
METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("logit_diff", _logit_diff, unit="logits", says=_MEAN, few=True),
        Metric("logit_diff_lse", _logit_diff_lse, unit="nats", says=_ODDS, few=True),
        Metric("prob_diff", _prob_diff, says="probability of the right answers minus the wrong ones", unit="probability"),
        Metric("log_prob", _log_prob, "right", True, "nats", "log probability that the next token is a right answer"),
        Metric("cross_entropy", _cross_entropy, "right", False, "nats", "minus log_prob"),
        Metric("kl", _kl, "reference", False, "nats", "KL(reference || these logits)"),
        Metric("accuracy", _accuracy, "right", True, "share", _SHARE),
    )
}  # fmt: skip


def metric(which: str | Metric | Callable[[Tensor, Answers], Tensor]) -> Metric:
    """A metric by name, or made of any function of (logits [n v], Answers) -> [n].

    >>> metric("logit_diff")(torch.tensor([[1.0, 3.0]]), Answers.of([[1]], [[0]])).item()
    2.0
    """
    if isinstance(which, Metric):
        return which
    if callable(which):
        return custom(which)
    if which not in METRICS:
        raise NotFound(f"There is no metric {which!r}.", did_you_mean(which, METRICS, 3))
    return METRICS[which]


def custom(function: Callable[[Tensor, Answers], Tensor], name: str = "", higher: bool = True) -> Metric:
    """A metric of your own: `function(logits [n v] in float32, answers) -> [n]`. Files hold its name only.

    >>> entropy = custom(lambda logits, _: -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1), "entropy")
    >>> round(entropy(torch.zeros(1, 4), Answers.of([[0]], [[1]])).item(), 3)
    1.386
    """
    return Metric(name or getattr(function, "__name__", "custom"), function, "nothing", higher)


def shares(metric_values: Tensor, clean: Tensor, corrupted: Tensor) -> tuple[Tensor, Tensor]:
    """What was restored and what there was to restore, for each example [n]: numerator and denominator of a share.

    Their ratio of means is 0 at the corrupted level, 1 at the clean level. Use `statistics.ratio_of` on them.
    """
    return metric_values - corrupted, clean - corrupted
