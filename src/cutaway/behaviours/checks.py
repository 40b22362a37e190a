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

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.behaviours.answered import answered, better
from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.decisions import among_all, decisions, guessing, independent, margins
from cutaway.behaviours.rounding import measure_rounding, pairs_to_run
from cutaway.behaviours.telling import Miss, needed, not_above, pairs_for, right_enough
from cutaway.errors import BadBehaviour, BadFormat
from cutaway.network.items import without_logits
from cutaway.network.memory import rows_at_once
from cutaway.network.pricing import announce
from cutaway.network.recent import LOGITS, recent
from cutaway.reports import Figure, Page, display, result_page
from cutaway.results import Provenance, Work, brief, head, read, save_folder, strict, working
from cutaway.statistics import Estimate, mean_of, proportion, share_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cutaway.network import Edit, Network, Tokens

Which = Literal["clean", "corrupted"]
CHANCE = 0.5
AT_LEAST = 0.75
#: The least mean contrast, in spreads of the logits over the vocabulary. Networks of known mechanism have 1.3 to 12; random
#: weights below 0.7 on few decisions, below 0.3 on sixty.
LEAST_CONTRAST = 0.25
#: With fewer than `FEWEST` independent decisions, all of which a network may get right by luck, less than this is doubted.
CONTRAST_OF_FEW = 1.0
FEWEST = 4
#: Below this share of right next tokens the sentence warns that the answers are only the better of two.
_SELDOM = 0.1
_FIGURES = ("accuracy", "metric_clean", "metric_corrupted", "contrast")
#: Figures that results of earlier versions do not hold.
_LATER = ("told_apart", "size", "next_token")


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
    key = _key(behaviour, which)
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


def _key(behaviour: Behaviour, which: Which) -> tuple[object, ...]:
    """Under which key the logits of one side are kept."""
    ids = behaviour.clean_ids if which == "clean" else behaviour.corrupted_ids
    return LOGITS, ids, tuple(behaviour.answer_pos)


def _logits(net: Network, tokens: Tokens, edits: Sequence[Edit], at: Tensor | bool) -> Tensor:
    """The logits of one run; BadInput where the network has none."""
    logits = net.run(tokens, edits=list(edits), logits=at).logits
    if logits is None:
        raise without_logits(net)
    return logits


def measure(
    net: Network, behaviour: Behaviour, which: Which = "clean", edits: Sequence[Edit] = (), batch: int | None = None
) -> Tensor:  # fmt: skip
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
        does_it: is the accuracy at least what is asked and above chance beyond its interval, are corrupted prompts answered
            otherwise, and is the contrast above zero beyond its own interval and of some size?
        sentence: all of it in words.
        provenance: what it was measured on.
        told_apart: mean over pairs of (right on the clean prompt + not right on the corrupted one) / 2, which is 1/2 for
            every network that does not see what differs, whatever the answers are; None in results of earlier versions, as
            all that follows.
        size: the contrast of right and wrong answers in spreads of the logits over the vocabulary, which does not depend on
            how large the logits are.
        next_token: share of clean prompts whose likeliest token of all is a right answer, with its Wilson interval.
        rank: the median rank of the best right answer among all tokens; 1 is the likeliest.
        probability: the mean probability of the right answers together.
        guess: accuracy of a guess that ignores the prompt, as far as the answers tell.
        decisions: how many independent decisions the pairs ask (`decisions.independent`).
        missed: what of this is not so, in words; empty where it does the behaviour.
        asked: the accuracy that was asked for.
        needed: where the pairs are too few to tell whether it does the behaviour, how many like them would about tell; None
            where they tell.
    """

    kind: ClassVar[str] = "performance"
    accuracy: Estimate
    metric_clean: Estimate
    metric_corrupted: Estimate
    contrast: Estimate
    does_it: bool
    sentence: str
    provenance: Provenance = field(default_factory=lambda: Provenance("", ""), compare=False)
    told_apart: Estimate | None = None
    size: Estimate | None = None
    next_token: Estimate | None = None
    rank: float | None = None
    probability: float | None = None
    guess: float | None = None
    decisions: int | None = None
    missed: tuple[str, ...] = ()
    asked: float = AT_LEAST
    needed: int | None = None

    __repr__ = brief

    @property
    def passed(self) -> bool | None:
        """Does it do the behaviour (True) or not (False)? None where the pairs are too few to tell, and where it does, and
        `doubts` says what is open.
        """
        return None if self.needed is not None or (self.does_it and self.doubts) else self.does_it

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why nothing may be supported although it does the behaviour: an accuracy that may be less than what was asked; few
        independent decisions, which any network gets right by luck, with a contrast that random weights may have.
        """
        rounding = self.provenance.rounding
        doubts = [] if rounding is None or rounding.within else [rounding.doubt]
        if self.accuracy.ends(0.0)[0] < self.asked:
            enough = pairs_for(self.accuracy.value, self.asked, self.accuracy.n)
            tells = f" (about {enough} pairs like these would tell)" if enough else ""
            doubts.append(f"its accuracy may be below {self.asked:.2f}{tells}")
        if self.size is not None and (self.decisions or 0) < FEWEST and self.size.value < CONTRAST_OF_FEW:
            doubts.append(
                f"the pairs ask only {self.decisions} independent decisions, and a contrast of {self.size.value:.2g} "
                f"spreads of the logits may then be luck (it takes {FEWEST} decisions, or {CONTRAST_OF_FEW:g} spreads)"
            )
        return tuple(doubts)

    def __str__(self) -> str:
        return self.sentence

    def headline(self) -> str:
        """The result in words."""
        return self.sentence

    def _repr_html_(self) -> str:
        return display(self.sentence, table=self.to_pandas(), provenance=self.provenance)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        each = vars(self) | {"provenance": self.provenance.to_dict(), "missed": list(self.missed)}
        return {name: v.to_dict() if isinstance(v, Estimate) else v for name, v in each.items()}

    def to_pandas(self) -> pd.DataFrame:
        """One row for each figure, with its interval."""
        rows = []
        for name in (*_FIGURES, *_LATER):
            figure: Estimate | None = getattr(self, name)
            if figure is not None:
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
        first, _, rest = self.sentence.partition(" (required")
        said, _, share = first.rpartition(": ")
        asked, _, rest = rest.partition("). ")
        about, said = f"Required{asked}." if asked else "", f"{said} ({share}): {self._told}."
        return result_page(about, "Cutaway · performance", said, [figure], self.provenance, lead=rest)

    @property
    def _told(self) -> str:
        """Whether it does the behaviour, in a few words."""
        if self.needed is not None:
            return f"too few to tell whether it does the behaviour (about {self.needed} would)"
        if not self.does_it:
            return "it does not do the behaviour"
        return "it does the behaviour, with a doubt" if self.doubts else "it does the behaviour"

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
            figures |= {name: Estimate.from_dict(data[name]) for name in _LATER if data.get(name) is not None}
            later: Any = {
                name: data.get(name) for name in ("rank", "probability", "guess", "decisions", "needed")
            }
            source = data.get("provenance")
            provenance = Provenance("", "") if source is None else Provenance.from_dict(source)
            said: Any = {"does_it": bool(data["does_it"]), "sentence": str(data["sentence"])}
            asked, missed = float(data.get("asked", AT_LEAST)), tuple(map(str, data.get("missed", ())))
            return cls(**figures, **said, **later, provenance=provenance, missed=missed, asked=asked)
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
    work = working(work)
    known = [] if edits else [recent(net).get(_key(behaviour, which)) for which in ("clean", "corrupted")]
    forwards = (2 - sum(kept is not None for kept in known)) * behaviour.n
    forwards += 0 if edits else 4 * pairs_to_run(net, behaviour)
    announce(net, behaviour.clean_ids, work, "both sides", forwards)
    clean = answer_logits(net, behaviour, "clean", edits, batch, work)
    corrupted = answer_logits(net, behaviour, "corrupted", edits, batch, work)
    measured = performed(net.name, behaviour, clean, corrupted, at_least)
    if (rounding := None if edits else measure_rounding(net, behaviour, work)) is not None:
        measured = replace(measured, sentence=" ".join((measured.sentence, rounding.sentence)))
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
    correct, still, values = answered(behaviour, clean, corrupted)
    asked = independent(behaviour)
    which = behaviour.clusters if asked < FEWEST else decisions(behaviour)
    on_clean, on_corrupted = (mean_of(v, behaviour.clusters) for v in values)
    rank, probability, first = among_all(clean, behaviour.answers)
    done = Performance(
        accuracy=proportion(int(correct.sum()), behaviour.n),
        metric_clean=on_clean,
        metric_corrupted=on_corrupted,
        contrast=mean_of(better(behaviour, *values), behaviour.clusters),
        does_it=False,
        sentence="",
        told_apart=_told_apart(correct, still, which),
        size=mean_of(spreads_apart(behaviour, clean, corrupted), which),
        next_token=proportion(first, behaviour.n),
        rank=rank,
        probability=probability,
        guess=guessing(behaviour),
        decisions=asked,
        asked=at_least,
    )
    misses = _missed(done, _chance(behaviour), behaviour.n)
    enough = needed(misses, behaviour.n, fewest(behaviour))
    done = replace(done, does_it=not misses, missed=tuple(miss.why for miss in misses), needed=enough)
    return replace(done, sentence=_sentence(network, behaviour, done, int(correct.sum())))


def _told_apart(correct: np.ndarray, still: np.ndarray, which: Sequence[str | int] | None) -> Estimate:
    """The share of right answers on clean [n] and of other ones on corrupted prompts [n], a decision's prompts together."""
    of = [str(i) for i in range(len(correct))] if which is None else list(which)
    return share_of(np.concatenate([correct, 1.0 - still]), [*of, *of])


def spreads_apart(behaviour: Behaviour, clean: Tensor, corrupted: Tensor) -> np.ndarray:
    """By how many spreads of the logits [n v] over the vocabulary right and wrong answers are further apart on the clean
    prompt than on the corrupted one: [n].
    """
    answers = behaviour.answers
    return (margins(clean, answers) - margins(corrupted, answers)).double().cpu().numpy()


def _missed(done: Performance, chance: float, n: int) -> tuple[Miss, ...]:
    """What stands against saying that the network does the behaviour."""
    size, told = done.size, done.told_apart
    assert size is not None
    assert told is not None
    accuracy = done.accuracy
    low = Miss(f"its accuracy is below {done.asked:.2f}") if accuracy.value < done.asked else None
    small = None
    if size.value < LEAST_CONTRAST:
        apart = f"{size.value:.2g} spreads of the logits further apart on clean prompts (required: {LEAST_CONTRAST:g})"
        small = Miss(f"right and wrong answers are {apart}")
    checks = (
        low,
        not_above(
            accuracy, chance, ("its accuracy is not above chance", "its accuracy may be chance"), n,
            right_enough(accuracy.value, chance),
        ),
        not_above(
            told, CHANCE, ("corrupted prompts are not answered otherwise", "corrupted prompts may be answered alike"), n
        ),
        not_above(done.contrast, 0.0, ("the contrast is not above zero", "the contrast may be zero"), n),
        not_above(
            size, 0.0,
            (
                "right and wrong answers are not further apart on clean prompts",
                "right and wrong answers may be no further apart on clean prompts",
            ), n,
        ),
        small,
    )  # fmt: skip
    return tuple(miss for miss in checks if miss is not None)


def _sentence(network: str, behaviour: Behaviour, done: Performance, right: int) -> str:
    assert done.next_token is not None
    assert done.rank is not None
    seldom = ""
    if done.next_token.value < _SELDOM:
        seldom = "It hardly ever says a right answer: they are only the better of those that were compared. "
    return (
        f"{network} answers {right} of {behaviour.n} prompts of {behaviour.name!r} right: "
        f"{done.accuracy} (required: {done.asked:.2f}, chance: {_chance(behaviour):.2f}, a guess that ignores the prompt: "
        f"{done.guess:.2f}). {seldom}A right answer is its likeliest token of all on {done.next_token.value:.2f} of the "
        f"prompts (median rank {done.rank:.0f}, probability {done.probability:.2f}). Its {behaviour.metric.name} is "
        f"{done.metric_clean} on clean and {done.metric_corrupted} on corrupted prompts: a contrast of {done.size} "
        f"spreads (standard deviations) of its logits. It tells clean from corrupted prompts in {done.told_apart} of the "
        f"cases (right on the one, not on the other; chance: 0.50). "
        f"{_decision(done, behaviour.n)}"
    )


def _decision(done: Performance, n: int) -> str:
    """Whether it does the behaviour, in a sentence, or two."""
    why = "; ".join(done.missed)
    if done.needed is not None:
        these = "One pair is" if n == 1 else f"{n} pairs are"
        return f"{these} too few to tell whether it does the behaviour: {why}. About {done.needed} like these would tell."
    if done.missed:
        return f"It does not do the behaviour: {why}."
    doubts = f", but {'; '.join(done.doubts)}" if done.doubts else ""
    return f"It does the behaviour{doubts}."


def fewest(behaviour: Behaviour) -> int:
    """The fewest examples of which, all right, the accuracy is above chance beyond its interval."""
    return next(n for n in range(2, 1000) if proportion(n, n).above(_chance(behaviour)) is True)


def _chance(behaviour: Behaviour) -> float:
    """What guessing achieves: one of two answers, or one of all tokens."""
    return CHANCE if all(behaviour.wrong) else 0.0
