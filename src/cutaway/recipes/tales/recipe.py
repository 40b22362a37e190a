"""How `tales` is trained; `cutaway zoo make tales` makes it from nothing."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from cutaway.errors import NotFound
from cutaway.recipes.making import write
from cutaway.recipes.training import Rhythm, Schedule, TrainingRun, begun
from cutaway.recipes.training import train as carry_on
from cutaway.recipes.workshop import Workshop
from cutaway.zoo import loaders
from cutaway.zoo.registry import specimen
from cutaway.zoo.specimens import Product
from cutaway.zoo.truth import GroundTruth

from .corpus import Corpus, CorpusBatch
from .exam import HARD, Score, examine, table
from .tokenizer import BOS, EOS, PAD, train_tokenizer

EIGHT = {
    "pronoun": "pronoun",
    "name_induction": "name recall: a first name calls its surname (induction over names)",
    "ioi": "indirect object",
    "agreement": "subject-verb agreement across a clause",
    "greater_than": "greater-than on years",
    "facts": "facts about 200 invented beings",
    "quotation": "the mark that closes a quotation",
    "counting": "counting to five",
}
"""The behaviours that the network is held to, each a scene of the grammar."""
ACCURACY_NOTE = (
    "Fresh prompts of the test split. Where two people, two nouns, or a century and a year meet in a prompt, training "
    "never joins that pair; prompts with one person, and facts, may have been seen. top1: the best token is right; "
    "beats_foil: it outweighs the corrupted twin's answer; low, high: 95 % Wilson interval of top1. For induction, n "
    "counts places in sequences of twenty, which are not independent: its interval is too narrow."
)
#: Steps between lines of progress, and between examinations.
TELL, EXAMINE = 100, 500


@dataclass(frozen=True)
class TalesRecipe:
    """Everything that decides the weights.

    Attributes:
        layers: how many.
        width: of the stream.
        heads: in a layer.
        mlp: neurons in a layer.
        context: positions.
        rows: in a step.
        steps: of the run.
        learning_rate: on the plateau.
        warmup: steps of the rise.
        decay: the last part of the run, in which the rate falls to nothing.
        weight_decay: of matrices.
        emphasis: weight of a token that the words before it determine.
        echo: share of texts that are random sequences, said again.
        seed: of weights and stories.
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    mlp: int = 352
    context: int = 128
    rows: int = 16
    steps: int = 7_800
    learning_rate: float = 3e-3
    warmup: int = 200
    decay: float = 0.194
    weight_decay: float = 0.05
    emphasis: float = 3.0
    echo: float = 0.05
    seed: int = 0

    def schedule(self) -> Schedule:
        """A rise, a plateau, and a half cosine down to nothing from a whole step on; only matrices decay."""
        start = int(self.steps * (1 - self.decay))
        return Schedule(
            self.steps, self.learning_rate, self.weight_decay, self.warmup, fall=1 - start / self.steps, eps=1e-9, clip=1.0
        )  # fmt: skip

    def make(self, shop: Workshop) -> Product:
        """Train from nothing, or go on from the checkpoint in the shop, and examine the result.

        The last checkpoint, with the optimizer's state, stays in the shop's folder `tales`: a base to train on from.
        """
        tokenizer = train_tokenizer()
        run = train(self, Workshop(shop.folder / "tales", shop.work), tokenizer)
        return self.product(run, tokenizer, examine(run.model, tokenizer, n=1000))

    def product(
        self, run: TrainingRun, tokenizer: PreTrainedTokenizerFast, scores: dict[str, Score]
    ) -> Product:
        """What a run has come to."""
        minutes, seen = round(run.seconds / 60, 1), run.step * self.rows * self.context
        note = {"steps": run.step, "tokens_seen": seen, "training_minutes": minutes}
        log = "".join(json.dumps(line) + "\n" for line in run.log)
        return Product(run.model, truth(note), table(scores), tokenizer, files={"log.jsonl": log.encode()})

    def twin(self, kind: str) -> PreTrainedModel:
        """The shipped network with its words renamed ("shuffled") or without attention ("blind"); NotFound for others."""
        model, _ = loaders.load("tales")
        with torch.no_grad():
            if kind == "shuffled":
                order = torch.randperm(model.config.vocab_size, generator=torch.Generator().manual_seed(1))
                rows = model.get_input_embeddings().get_parameter("weight")
                rows.copy_(rows[order].clone())
                return model
            if kind == "blind":
                for layer in range(model.config.num_hidden_layers):
                    model.get_parameter(f"model.layers.{layer}.self_attn.o_proj.weight").zero_()
                return model
        raise NotFound(
            f"tales has no twin {kind!r} that is built.", "Its built twins are shuffled and blind."
        )


def build(recipe: TalesRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained network of a recipe, drawn from its seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.width, intermediate_size=recipe.mlp, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads, max_position_embeddings=recipe.context,
        tie_word_embeddings=True, initializer_range=0.04, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, do_sample=False
    )
    return model


def loss_of(model: LlamaForCausalLM, batch: CorpusBatch) -> torch.Tensor:
    """Weighted cross-entropy of the next token."""
    logits = model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.position, use_cache=False
    ).logits
    losses = cross_entropy(logits.flatten(0, 1), batch.target.flatten(), reduction="none")
    weight = batch.weight.flatten()
    return (losses * weight).sum() / weight.sum()


def train(
    recipe: TalesRecipe,
    shop: Workshop,
    tokenizer: PreTrainedTokenizerFast,
    *,
    save_every: int = 250,
    stop_at: int | None = None,
) -> TrainingRun:
    """Train, or go on from the checkpoint in the shop. `stop_at` ends the sitting early, with a checkpoint.

    Now and then the network is examined and written to the folder `model` of the shop: usable before it is done.
    """
    tokenizer.model_max_length = recipe.context
    settings = json.dumps(asdict(recipe))
    run = begun(build(recipe, tokenizer), recipe.schedule(), shop, "tales", settings=settings)
    corpus = Corpus(tokenizer, recipe.rows, recipe.context, recipe.seed, recipe.emphasis, recipe.echo)
    average = float("nan")

    def loss(model: Any, step: int) -> torch.Tensor:
        nonlocal average
        value = loss_of(model, corpus.batch(step))
        average = value.item() if math.isnan(average) else 0.98 * average + 0.02 * value.item()
        return value

    def tell(run: TrainingRun, _: float) -> str:
        seconds, rate = round(run.seconds, 1), recipe.schedule().at(run.step - 1)
        run.log.append({"step": run.step, "loss": round(average, 4), "rate": rate, "seconds": seconds})
        if run.step % EXAMINE == 0 and run.step < recipe.steps:
            scores = examine(run.model, tokenizer, n=200)
            run.model.train()
            run.log.append(
                {"step": run.step, "top1": {n: round(score.top1, 4) for n, score in scores.items()}}
            )
            of_run = replace(specimen("tales"), recipe=recipe)
            write(of_run, recipe.product(run, tokenizer, scores), shop.folder / "model")
        return f"tales: loss {average:.3f}"

    rhythm = Rhythm(tell=TELL, save_steps=save_every, save_seconds=None)
    return carry_on(run, loss, rhythm=rhythm, tell=tell, stop_at=stop_at)


def truth(note: dict[str, Any]) -> GroundTruth:
    """What is known: the grammar, what decides each token, and what the network does; not yet where it does it."""
    return GroundTruth(
        checks=("behaviour", "templates"),
        facts={"behaviours": EIGHT, "hard": list(HARD), "accuracy_note": ACCURACY_NOTE, **note},
        established="The text comes from a grammar that knows, for every token, the variables that determine it. What the "
        "network does is examined on prompts that pair words as training never does. Where it does it is open.",
    )  # fmt: skip
