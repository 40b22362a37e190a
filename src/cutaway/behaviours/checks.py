"""Does the network do the behaviour at all? Explaining what is not there is refused, with the figures.

Who runs what: `answer_logits` runs prompts for their logits alone, which is all that a performance needs, and may run them
with edits. `effects.baselines.measure` runs both sides where sites are wanted as well. Both keep the logits of unedited
prompts under the same key with the network (`network.recent`), so that neither runs what the other has run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.metrics import METRICS
from cutaway.errors import BadBehaviour, BadFormat, BadInput, NotPerformed
from cutaway.network.memory import rows_at_once
from cutaway.network.recent import LOGITS, recent
from cutaway.reports import Figure, Page, display, result_page
from cutaway.results import Provenance, Work, head, read, save_folder, strict, working
from cutaway.statistics import Estimate, mean_of, proportion

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cutaway.network import Edit, Network, Tokens

Which = Literal["clean", "corrupted"]
CHANCE = 0.5
AT_LEAST = 0.75
_FIGURES = ("accuracy", "metric_clean", "metric_corrupted", "contrast")


def answer_logits(
    net: Network,
    behaviour: Behaviour,
    which: Which = "clean",
    edits: Sequence[Edit] = (),
    batch: int | None = None,
    work: Work | None = None,
) -> Tensor:
    """Logits at the answer position of every example's prompt: [n v], on the network's device, in its precision.

    Without edits they are kept with the network, so that nobody runs the same prompts twice.

    Raises `Stopped` where the work was asked to end.
    """
    work = working(work)
    ids = behaviour.clean_ids if which == "clean" else behaviour.corrupted_ids
    key = (LOGITS, ids, tuple(behaviour.answer_pos))
    if not edits and (kept := recent(net).get(key)) is not None:
        return kept
    tokens = behaviour.clean_tokens(net) if which == "clean" else behaviour.corrupted_tokens(net)
    pos, size = torch.tensor(behaviour.answer_pos)[:, None], batch or rows_at_once(net, tokens.width, work)
    parts = []
    for start in range(0, behaviour.n, size):
        work.step(f"{which} prompts", start, behaviour.n)
        rows = slice(start, min(start + size, behaviour.n))
        parts.append(_logits(net, tokens[rows], edits, pos[rows])[:, 0])
    logits = torch.cat(parts)
    if not edits:
        recent(net).keep(key, logits)
    return logits


def _logits(net: Network, tokens: Tokens, edits: Sequence[Edit], at: Tensor | bool) -> Tensor:
    """The logits of one run; BadInput where the network has none."""
    logits = net.run(tokens, edits=list(edits), logits=at).logits
    if logits is None:
        raise BadInput(
            f"{net.name} gives no logits.", "Behaviours need a network with an output over tokens."
        )
    return logits


def measure(
    net: Network,
    behaviour: Behaviour,
    which: Which = "clean",
    edits: Sequence[Edit] = (),
    batch: int | None = None,
) -> Tensor:
    """The behaviour's metric on every example: [n]. KL is measured against the unedited clean prompts."""
    answers = behaviour.answers
    if behaviour.metric.needs == "reference":
        answers = answers.with_reference(answer_logits(net, behaviour, "clean", (), batch))
    return behaviour.metric(answer_logits(net, behaviour, which, edits, batch), answers)


def answer_log_prob(
    net: Network,
    behaviour: Behaviour,
    answer: Literal["right", "wrong"] = "right",
    which: Which = "clean",
    edits: Sequence[Edit] = (),
    batch: int = 16,
) -> Tensor:
    """Log probability (nats) of each example's whole answer [n], all its tokens, where it follows the prompt.

    One answer for each example (the first, where there are several). Edits with positions counted from the end (-1) would
    mean the answer's last token here; count them from the start. Raises BadBehaviour when the answer position is not the
    last token, or an example has no such answer.
    """
    full = behaviour.right_full if answer == "right" else behaviour.wrong_full
    prompts = behaviour.clean_ids if which == "clean" else behaviour.corrupted_ids
    if any(pos not in (-1, len(ids) - 1) for pos, ids in zip(behaviour.answer_pos, prompts, strict=True)):
        raise BadBehaviour(
            f"{behaviour.name!r} has answers in the middle of prompts.",
            "Whole answers are scored where they follow one.",
        )
    if not all(full):
        raise BadBehaviour(
            f"An example of {behaviour.name!r} has no {answer} answer.", "Give one for each example."
        )
    scores = []
    for start in range(0, behaviour.n, batch):
        rows = range(start, min(start + batch, behaviour.n))
        tokens = net.encode([[*prompts[i], *full[i]] for i in rows])
        logits = _logits(net, tokens, edits, True)
        for j, i in enumerate(rows):
            at = int(tokens.first[j]) + len(prompts[i]) - 1
            told = logits[j, at : at + len(full[i])].float().log_softmax(-1)
            scores.append(told.gather(1, torch.tensor(full[i], device=told.device)[:, None]).sum())
    return torch.stack(scores)


@dataclass(frozen=True)
class Performance:
    """How well a network does a behaviour.

    Attributes:
        accuracy: share of clean prompts on which the best right answer beats every wrong one (every token, where there are
            no wrong ones), with its Wilson interval.
        metric_clean: the behaviour's metric on clean prompts.
        metric_corrupted: the same on corrupted prompts, against the clean prompt's answers.
        contrast: clean minus corrupted, paired, signed so that more is better.
        does_it: is the accuracy at least what is asked, above chance beyond its interval, and the contrast above zero beyond
            its own?
        sentence: all of it in words.
        provenance: what it was measured on.
    """

    kind: ClassVar[str] = "performance"
    accuracy: Estimate
    metric_clean: Estimate
    metric_corrupted: Estimate
    contrast: Estimate
    does_it: bool
    sentence: str
    provenance: Provenance = field(default_factory=lambda: Provenance("", ""), compare=False)

    def __str__(self) -> str:
        return self.sentence

    def headline(self) -> str:
        """The result in words."""
        return self.sentence

    def _repr_html_(self) -> str:
        return display(self.sentence, table=self.to_pandas(), provenance=self.provenance)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        said = {"does_it": self.does_it, "sentence": self.sentence, "provenance": self.provenance.to_dict()}
        return {name: getattr(self, name).to_dict() for name in _FIGURES} | said

    def to_pandas(self) -> pd.DataFrame:
        """One row for each figure, with its interval."""
        rows = []
        for name in _FIGURES:
            figure: Estimate = getattr(self, name)
            rows.append((name.replace("_", " "), figure.value, *figure.ends()))
        return pd.DataFrame(rows, columns=["figure", "value", "low", "high"])

    def plot(self) -> go.Figure:
        """The figures as bars with their intervals."""
        from cutaway.figures import Bar, bars

        rows = self.to_pandas().itertuples(index=False)
        return bars([Bar(*row) for row in rows], unit="share, or the metric's unit")

    def page(self) -> Page:
        """The page of the figures."""
        figure = Figure(self.plot(), "Accuracy and metric with 95 % intervals.")
        title, kicker = "Does it do it?", "Cutaway · performance"
        return result_page(title, kicker, self.sentence, [figure], self.provenance)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        return save_folder(path, head(self.kind, self.provenance, performance=self.to_dict()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Performance:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        return cls.from_dict(read(path, cls.kind)[0].manifest["performance"])

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Performance:
        """The inverse of `to_dict`; `BadFormat` where the data are none."""
        try:
            figures: Any = {name: Estimate.from_dict(data[name]) for name in _FIGURES}
            source = data.get("provenance")
            provenance = Provenance("", "") if source is None else Provenance.from_dict(source)
            said: Any = {"does_it": bool(data["does_it"]), "sentence": str(data["sentence"])}
            return cls(**figures, **said, provenance=provenance)
        except (KeyError, TypeError) as error:
            raise BadFormat(f"This is not the data of a performance: {error!r}.", "Make it again.") from error


@strict
def performance(
    net: Network,
    behaviour: Behaviour,
    *,
    at_least: float = AT_LEAST,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch: int | None = None,
    work: Work | None = None,
) -> Performance:
    """Run all clean and corrupted prompts and say whether the network does the behaviour, with intervals.

    Args:
        at_least: the accuracy that is asked for.
        edits: made in every run.
        seed: recorded with the result; nothing is drawn here.
        batch: rows at a time; default as many as the memory allows.
        work: hears of progress, may stop it, and what it may spend.

    Raises `Stopped` where the work was stopped: nothing is said of some of the examples.
    """
    clean = answer_logits(net, behaviour, "clean", edits, batch, work)
    corrupted = answer_logits(net, behaviour, "corrupted", edits, batch, work)
    measured = performed(net.name, behaviour, clean, corrupted, at_least)
    return replace(measured, provenance=Provenance.of(net, behaviour.hash, seed))


def performed(
    network: str,
    behaviour: Behaviour,
    clean: Tensor,
    corrupted: Tensor,
    at_least: float = AT_LEAST,
) -> Performance:
    """What a network's logits [n v] at the answers of clean and corrupted prompts say of a behaviour."""
    largest = max(number for row in (*behaviour.right, *behaviour.wrong) for number in row)
    if largest >= clean.shape[-1]:
        raise BadBehaviour(
            f"{behaviour.name!r} has answer {largest}, and the logits of {network} end at {clean.shape[-1] - 1}.",
            "Make the behaviour anew for this network.",
        )
    answers = behaviour.answers
    correct = METRICS["accuracy"](clean, answers)
    if behaviour.metric.needs == "reference":
        answers = answers.with_reference(clean)
    values = [behaviour.metric(logits, answers).double().cpu().numpy() for logits in (clean, corrupted)]
    sign = 1.0 if behaviour.metric.higher else -1.0
    accuracy = proportion(int(correct.sum()), behaviour.n)
    on_clean, on_corrupted = (mean_of(v, behaviour.clusters) for v in values)
    contrast = mean_of(sign * (values[0] - values[1]), behaviour.clusters)
    chance = _chance(behaviour)
    does_it = accuracy.value >= at_least and accuracy.above(chance) is True and contrast.above(0.0) is True
    sentence = (
        f"{network} answers {int(correct.sum())} of {behaviour.n} prompts of {behaviour.name!r} right: "
        f"{accuracy} (asked: {at_least:.2f}, chance: {chance:.2f}). "
        f"Its {behaviour.metric.name} is {on_clean} on clean and "
        f"{on_corrupted} on corrupted prompts. It {'does' if does_it else 'does not do'} the behaviour."
    )
    return Performance(accuracy, on_clean, on_corrupted, contrast, does_it, sentence)


def fewest(behaviour: Behaviour) -> int:
    """The fewest examples of which, all right, the accuracy is above chance beyond its interval."""
    return next(n for n in range(2, 1000) if proportion(n, n).above(_chance(behaviour)) is True)


def _chance(behaviour: Behaviour) -> float:
    """What guessing achieves: one of two answers, or one of all tokens."""
    return CHANCE if all(behaviour.wrong) else 0.0


def require_several(net: Network, behaviour: Behaviour) -> None:
    """NotPerformed when there is a single example, saying that this cannot be told from one."""
    if behaviour.n == 1:
        raise NotPerformed(
            f"One example of {behaviour.name!r} is too few to tell whether {net.name} does it.",
            f"Give more (it can be told from {fewest(behaviour)} on, if all are right), or pass force=True to go on.",
        )


def require_performed(
    net: Network, behaviour: Behaviour, force: bool = False, at_least: float = AT_LEAST
) -> Performance:
    """The performance; NotPerformed, with the figures, when the network does not do the behaviour and `force` is off."""
    measured = performance(net, behaviour, at_least=at_least)
    if not measured.does_it and not force:
        require_several(net, behaviour)
        remedy = "Choose another behaviour or network, or pass force=True to go on all the same."
        raise NotPerformed(measured.sentence, remedy)
    return measured
