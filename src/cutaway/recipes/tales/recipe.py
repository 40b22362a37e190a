"""How `tales` is trained; `cutaway zoo make tales` makes it from nothing."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cutaway.results import atomic_write

from .corpus import Batch, Corpus
from .exam import HARD, Score, examine, table
from .tokenizer import BOS, EOS, PAD, train_tokenizer

ACCURACY_NOTE = (
    "Fresh prompts of the test split. Where two people, two nouns, or a century and a year meet in a prompt, training "
    "never joins that pair; prompts with one person, and facts, may have been seen. top1: the best token is right; "
    "beats_foil: it outweighs the corrupted twin's answer; low, high: 95 % Wilson interval of top1. For induction, n "
    "counts places in sequences of twenty, which are not independent: its interval is too narrow."
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    mlp: int = 352
    context: int = 128
    rows: int = 16
    steps: int = 7_800
    learning_rate: float = 3e-3
    warmup: int = 200
    decay: float = 0.194  # the last part of the run, in which the rate falls to nothing
    weight_decay: float = 0.05
    emphasis: float = 3.0
    echo: float = 0.05
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step: a rise, a plateau, and a half cosine down."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = int(self.steps * (1 - self.decay))
        if step < start:
            return self.learning_rate
        return (
            self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, self.steps - start)))
        )


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained network of a recipe, drawn from its seed."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        initializer_range=0.04,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def optimizer_for(model: LlamaForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; only matrices decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted cross-entropy of the next token."""
    logits = model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.position, use_cache=False
    ).logits
    losses = cross_entropy(logits.flatten(0, 1), batch.target.flatten(), reduction="none")
    weight = batch.weight.flatten()
    return (losses * weight).sum() / weight.sum()


@dataclass(frozen=True)
class Trained:
    """The result of a run. `seconds` is the time spent in training, over all its sittings; `log` a line per 100 steps."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    steps: int
    seconds: float
    log: tuple[dict[str, Any], ...] = ()


def _save(path: Path, trained: Trained, optimizer: torch.optim.Optimizer) -> None:
    state = {
        "step": trained.steps,
        "seconds": trained.seconds,
        "log": list(trained.log),
        "model": trained.model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def train(
    recipe: Recipe,
    work: Path,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    save_every: int = 250,
    examine_every: int = 500,
    stop_at: int | None = None,
    report: Callable[[str], None] = print,
) -> Trained:
    """Train, or go on from the checkpoint in `work`. `stop_at` ends the sitting early, with a checkpoint.

    Every `examine_every` steps the network is examined and written to `work/model`: usable before it is done.
    """
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or train_tokenizer()
    model = build(recipe, tokenizer)
    optimizer = optimizer_for(model, recipe)
    corpus = Corpus(tokenizer, recipe.rows, recipe.context, recipe.seed, recipe.emphasis, recipe.echo)
    checkpoint = work / "checkpoint.pt"
    step, before = 0, 0.0
    log: list[dict[str, Any]] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, before, log = state["step"], state["seconds"], list(state.get("log", ()))
        report(f"resumed at step {step}")
    started, last = time.monotonic(), step
    end = min(recipe.steps, stop_at or recipe.steps)
    average = float("nan")
    while step < end:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        loss = loss_of(model, corpus.batch(step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if step % 100 == 0:
            pace = (step - last) / (time.monotonic() - started)
            minutes = (end - step) / pace / 60
            spent = round(before + time.monotonic() - started, 1)
            log.append(
                {"step": step, "loss": round(average, 4), "rate": recipe.rate(step - 1), "seconds": spent}
            )
            report(
                f"step {step}/{recipe.steps}  loss {average:.3f}  {pace:.2f} steps/s  {minutes:.0f} min left"
            )
        if step % save_every == 0 or step == end:
            spent = before + time.monotonic() - started
            _save(checkpoint, Trained(model, tokenizer, step, spent, tuple(log)), optimizer)
        if step % examine_every == 0 and step < end:
            scores = examine(model, tokenizer, n=200)
            model.train()
            report(
                "  ".join(f"{name} {score.top1:.2f}/{score.beats_foil:.2f}" for name, score in scores.items())
            )
            log.append({"step": step, "top1": {name: round(score.top1, 4) for name, score in scores.items()}})
            export(
                Trained(model, tokenizer, step, before + time.monotonic() - started, tuple(log)),
                recipe,
                scores,
                work / "model",
            )
    return Trained(model, tokenizer, step, before + time.monotonic() - started, tuple(log))


def export(trained: Trained, recipe: Recipe, scores: dict[str, Score], folder: Path) -> Path:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` open."""
    folder.mkdir(parents=True, exist_ok=True)
    trained.model.generation_config = GenerationConfig(
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        do_sample=False,
    )
    trained.model.save_pretrained(folder)
    trained.tokenizer.model_max_length = recipe.context
    trained.tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    card = {
        "name": "tales",
        "task": "Little English stories from a known grammar, with facts about 200 invented beings.",
        "architecture": {
            "class": "LlamaForCausalLM",
            "layers": recipe.layers,
            "width": recipe.width,
            "heads": recipe.heads,
            "mlp": recipe.mlp,
            "vocabulary": len(trained.tokenizer),
            "context": recipe.context,
            "tied_embeddings": True,
            "parameters": sum(p.numel() for p in trained.model.parameters()),
            "dtype": "float32",
        },
        "accuracy": table(scores),
        "accuracy_note": ACCURACY_NOTE,
        "hard": list(HARD),
        "recipe": asdict(recipe),
        "made_by": "cutaway zoo make tales",
        "seed": recipe.seed,
        "steps": trained.steps,
        "tokens_seen": trained.steps * recipe.rows * recipe.context,
        "training_minutes": round(trained.seconds / 60, 1),
        "licence": "Apache-2.0",
        "sha256": {"model.safetensors": digest},
    }
    part = folder / "card.json.part"
    part.write_text(json.dumps(card, indent=2) + "\n")
    os.replace(part, folder / "card.json")
    return folder
