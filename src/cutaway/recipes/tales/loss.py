"""A network's loss on stories beside the grammar's own entropy, and beside counting."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from cutaway.statistics import Estimate, ratio_of

from . import baselines
from .floor import log_probability
from .scenes import scripts
from .tokenizer import StoryEncoder


@dataclass(frozen=True)
class StoryLosses:
    """Nats a token (the end of a story is one) over the same fresh stories.

    Attributes:
        stories: how many.
        tokens: in all.
        grammar: the floor.
        network: of the network.
        above: the network's distance from the floor.
        determined: the network's on the tokens that the words before them determine.
        unigram: of counting tokens.
        bigram: of counting pairs.
    """

    stories: int
    tokens: int
    grammar: float
    network: Estimate
    above: Estimate
    determined: float
    unigram: float
    bigram: float


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    n: int = 1000,
    seed: int | str = "floor",
    counts: torch.Tensor | None = None,
) -> StoryLosses:
    """Losses on `n` fresh stories of the training split, those too long for the context left out.

    `counts` are those of `baselines.count`, counted here if not given. Intervals are over stories.
    """
    encode, context = StoryEncoder(tokenizer), model.config.max_position_embeddings
    counts = baselines.count(tokenizer, 4000) if counts is None else counts
    flat, pairs = baselines.unigram(counts).log(), baselines.bigram(counts).log()
    rows: list[tuple[float, ...]] = []
    for script in islice(scripts(seed), n):
        story = script.story
        ids, owner = encode(story)
        if len(ids) > context:
            continue
        row = torch.tensor(ids)
        with torch.no_grad():
            logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        losses = -logits.float().log_softmax(-1).gather(-1, row[1:, None])[:, 0]
        known = torch.tensor([i >= 0 and bool(story.words[i].labels["determined"]) for i in owner[1:]])
        counted = (-flat[row[1:]].sum(), -pairs[row[:-1], row[1:]].sum())
        network_losses = (float(losses.sum()), float(losses[known].sum()), float(known.sum()))
        rows.append((len(ids) - 1, -log_probability(script), *network_losses, *map(float, counted)))
    tokens, grammar, network, determined, known_tokens, uni, bi = np.array(rows).T
    return StoryLosses(
        stories=len(rows),
        tokens=int(tokens.sum()),
        grammar=float(grammar.sum() / tokens.sum()),
        network=ratio_of(network, tokens),
        above=ratio_of(network - grammar, tokens),
        determined=float(determined.sum() / known_tokens.sum()),
        unigram=float(uni.sum() / tokens.sum()),
        bigram=float(bi.sum() / tokens.sum()),
    )
