"""What counting alone achieves: a unigram and a bigram model of the grammar's text, on the examination's prompts."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .exam import Prompt, Score, questions, score_probabilities
from .scenes import stories
from .tokenizer import StoryEncoder


def count(tokenizer: PreTrainedTokenizerFast, n: int = 20_000, seed: int | str = "counts") -> Tensor:
    """How often each token follows each, in `n` stories: `[v v]`."""
    encode, size = StoryEncoder(tokenizer), len(tokenizer)
    pairs = torch.zeros(size * size)
    for story in islice(stories(seed), n):
        ids = torch.tensor(encode(story)[0])
        pairs.index_add_(0, ids[:-1] * size + ids[1:], torch.ones(len(ids) - 1))
    return pairs.view(size, size)


def bigram(counts: Tensor) -> Tensor:
    """Probability of the next token given the last, `[v v]`; a little of the unigram where a pair is rare."""
    return (counts + unigram(counts)) / (counts.sum(1, keepdim=True) + 1)


def unigram(counts: Tensor) -> Tensor:
    """Probability of a token, whatever is before it, `[v]`."""
    return (counts.sum(0) + 1e-3) / (counts.sum() + 1e-3 * len(counts))


def scores(
    tokenizer: PreTrainedTokenizerFast, counts: Tensor, behaviour: str, n: int = 1000, seed: int = 0
) -> dict[str, Score]:
    """The scores of both models on `n` prompts of a behaviour: the prompts that a network is asked."""
    prompts: list[Prompt] = list(islice(questions(behaviour, seed), n))
    last = torch.tensor([tokenizer.encode(prompt.text)[-1] for prompt in prompts])
    flat = unigram(counts).expand(len(prompts), -1)
    return {
        "unigram": score_probabilities(tokenizer, flat, prompts),
        "bigram": score_probabilities(tokenizer, bigram(counts)[last], prompts),
    }
