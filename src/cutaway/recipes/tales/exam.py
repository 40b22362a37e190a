"""The examination of `tales`: fresh contrast prompts for each behaviour, and how often a network is right."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from cutaway.recipes.measures import share_of

from . import prompts as P
from .grammar import Draw, Slots, Split, answer_text, prompt_text, question
from .scenes import BY_NAME, CHANT_WORDS, SCENES, contrast, fill
from .tokenizer import BOS, SPECIAL

BEHAVIOURS = tuple(scene.name for scene in SCENES if scene.name != "filler")
HARD = ("pronoun", "name_recall", "name_induction", "ioi", "agreement", "induction")


@dataclass(frozen=True)
class Prompt:
    """A question and its corrupted twin, equal in tokens.

    Attributes:
        behaviour: that is asked.
        frame: the sentence.
        text: the question.
        corrupted: its twin.
        answers: right after `text`.
        foils: right after `corrupted`.
        slots: what fills the sentence.
    """

    behaviour: str
    frame: str
    text: str
    corrupted: str
    answers: tuple[str, ...]
    foils: tuple[str, ...]
    slots: Slots


@dataclass(frozen=True)
class Score:
    """How often a network answers right.

    Attributes:
        n: answers.
        top1: the share whose best token is right.
        low: of the 95 % Wilson interval of `top1`.
        high: of the same.
        beats_foil: the share in which right outweighs wrong.
    """

    n: int
    top1: float
    low: float
    high: float
    beats_foil: float


def questions(behaviour: str, seed: int | str, split: Split = "test") -> Iterator[Prompt]:
    """An endless stream of prompts; those of the test split pair words that training never pairs.

    Raises KeyError for a behaviour without frames (`BEHAVIOURS` lists those that have them).
    """
    scene = BY_NAME[behaviour]
    draw = Draw(random.Random(f"exam:{behaviour}:{seed}"), split)
    while True:
        frame = draw.pick(scene.frames)
        clean = fill(draw, scene, frame, *draw.couple(scene.mixed))
        twin = contrast(draw, scene, frame, clean)
        asked = question(frame)
        right, wrong = _answers(asked, clean), _answers(asked, twin)
        if behaviour == "greater_than":
            wrong = tuple(year for year in P.YEARS if year not in right)
        texts = (prompt_text(frame, clean), prompt_text(frame, twin))
        answers, foils = (tuple(answer_text(frame, word) for word in side) for side in (right, wrong))
        yield Prompt(behaviour, frame, *texts, answers, foils, clean)


def _answers(asked: str, slots: Slots) -> tuple[str, ...]:
    return tuple(year for year in P.YEARS if year > slots["YY"]) if asked == "ZZ" else (slots[asked],)


def ask(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]) -> Score:
    """Score a network on prompts: last-position logits, answers and foils each summed in probability."""
    texts = [p.text for p in prompts]
    encode = tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="right", return_token_type_ids=False
    )
    with torch.no_grad():
        logits = model(**encode).logits
    last = encode["attention_mask"].sum(1) - 1
    probs = logits[torch.arange(len(prompts)), last].float().softmax(-1)
    return score_probabilities(tokenizer, probs, prompts)


def score_probabilities(
    tokenizer: PreTrainedTokenizerFast, probs: torch.Tensor, prompts: list[Prompt]
) -> Score:
    """Score next-token probabilities `[n v]`, from wherever they come, on n prompts."""
    right = beats = 0
    for row, prompt in zip(probs, prompts, strict=True):
        good, bad = (_ids(tokenizer, words) for words in (prompt.answers, prompt.foils))
        right += int(row.argmax()) in good
        beats += bool(row[good].sum() > row[bad].sum())
    return _score(right, beats, len(prompts))


def _ids(tokenizer: PreTrainedTokenizerFast, words: tuple[str, ...]) -> list[int]:
    return [tokenizer.encode(word, add_special_tokens=False)[0] for word in words]


def _score(right: int, beats: int, n: int) -> Score:
    return Score(n, *share_of(right, n), beats / n)


def induction(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, n: int, seed: int, kind: str = "words", length: int = 20
) -> Score:  # fmt: skip
    """Random sequences said twice: top-1 on the second half. The foil is the token one place too far.

    The `kind` is "words" of the grammar, or any "tokens" of the vocabulary.
    """
    rng = random.Random(f"exam:induction:{kind}:{seed}")
    words = _ids(tokenizer, tuple(" " + w for w in CHANT_WORDS))
    pool = words if kind == "words" else range(len(SPECIAL), len(tokenizer))
    half = torch.tensor([rng.sample(pool, length) for _ in range(n)])
    ids = torch.cat([torch.full((n, 1), BOS), half, half], dim=1)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, length + 1 : -1]  # predicts places 2.. of the second half
    target, foil = half[:, 1:], half.roll(-1, 1)[:, 1:]
    right = int((logits.argmax(-1) == target).sum())
    beats = int((logits.gather(-1, target[..., None]) > logits.gather(-1, foil[..., None])).sum())
    return _score(right, beats, target.numel())


def examine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, n: int = 500, seed: int = 0
) -> dict[str, Score]:
    """The whole examination: `n` fresh prompts for each behaviour, and `n // 10` sequences for induction."""
    model.eval()
    scores = {name: ask(model, tokenizer, list(islice(questions(name, seed), n))) for name in BEHAVIOURS}
    scores["induction"] = induction(model, tokenizer, max(n // 10, 8), seed)
    scores["induction_any_token"] = induction(model, tokenizer, max(n // 10, 8), seed, "tokens")
    return scores


def table(scores: dict[str, Score]) -> dict[str, dict[str, float]]:
    """Scores as plain data, rounded to four places."""
    return {
        name: {k: round(value, 4) for k, value in asdict(score).items()} for name, score in scores.items()
    }
