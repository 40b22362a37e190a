"""The workers of `dictionaries.py`: one library trains a TopK autoencoder on rows from a file, in a process of its own.

    python dictionaries_workers.py LIBRARY ROWS.safetensors LATENTS K BATCH TOKENS LR THREADS SEED

Each library takes the steps that its own trainer takes, on the same batches in the same order, with Adam at the same rate;
one line of JSON says what the steps took and what the result leaves unexplained of rows that were held out. Runs in the
environment of the library that it measures.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file

#: Steps that are not timed: the first ones make what is kept between steps.
WARM = 3
#: Rows after which a latent that did not fire counts as dead, and the weight of reviving it, in every library.
DEAD_AFTER, REVIVE = 200_000, 1 / 32

Step = Callable[[torch.Tensor, int], None]
Reconstruct = Callable[[torch.Tensor], torch.Tensor]


def of_cutaway(
    d: int, latents: int, k: int, steps: int, batch: int, lr: float, seed: int
) -> tuple[Step, Reconstruct]:
    """Its own steps."""
    from cutaway.features.training import DictionaryRecipe
    from cutaway.features.training.trainee import Trainee

    recipe = DictionaryRecipe(
        ("rows",), ("rows",), activation="topk", latents=latents, k=k, batch=batch, lr=lr, revive=REVIVE,
        dead_after=DEAD_AFTER, seed=seed, lengths="unit",
    )  # fmt: skip
    trainee = Trainee(recipe, (d,), (d,))

    def step(rows: torch.Tensor, number: int) -> None:
        trainee.step([rows], [rows], number / steps)

    def reconstruct(rows: torch.Tensor) -> torch.Tensor:
        zero, one = [torch.zeros(d)], [1.0]
        return trainee.dictionary(zero, one, zero, one).reconstruct(rows)

    return step, reconstruct


def of_saelens(
    d: int, latents: int, k: int, steps: int, batch: int, lr: float, seed: int
) -> tuple[Step, Reconstruct]:
    """The steps of `SAETrainer.fit`, without its bar."""
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    torch.manual_seed(seed)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d, d_sae=latents, k=k, dtype="float32", device="cpu"))
    config = SAETrainerConfig(
        total_training_samples=steps * batch, train_batch_size_samples=batch, lr=lr, lr_end=lr / 10,
        lr_scheduler_name="constant", lr_warm_up_steps=steps // 20, lr_decay_steps=steps // 5, device="cpu",
        dead_feature_window=DEAD_AFTER // batch, logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    trainer: Any = SAETrainer(cfg=config, sae=sae, data_provider=iter(()))

    def step(rows: torch.Tensor, _number: int) -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(rows)
        trainer.n_training_steps += 1

    return step, lambda rows: sae(rows)


def of_dictionary_learning(
    d: int, latents: int, k: int, steps: int, batch: int, lr: float, seed: int
) -> tuple[Step, Reconstruct]:
    """The steps of `trainSAE`."""
    # its package imports nnsight for its buffers, which training from rows has no use for
    sys.modules.setdefault("nnsight", types.SimpleNamespace(LanguageModel=None))  # type: ignore[arg-type]
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(
        steps=steps, activation_dim=d, dict_size=latents, k=k, layer=0, lm_name="rows", lr=lr, auxk_alpha=REVIVE,
        warmup_steps=max(1, steps // 20), decay_start=steps - steps // 5, seed=seed, device="cpu",
        threshold_start_step=10**9,
    )  # fmt: skip
    trainer.dead_feature_threshold = DEAD_AFTER

    def step(rows: torch.Tensor, number: int) -> None:
        trainer.update(number, rows)

    return step, lambda rows: trainer.ae(rows)


def of_sparsify(
    d: int, latents: int, k: int, steps: int, batch: int, lr: float, seed: int
) -> tuple[Step, Reconstruct]:
    """What its `Trainer.fit` does with the inputs of one hookpoint, with its choice of Adam."""
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig
    from transformers import get_linear_schedule_with_warmup

    torch.manual_seed(seed)
    coder = SparseCoder(d, SparseCoderConfig(num_latents=latents, k=k))
    adam = torch.optim.Adam(coder.parameters(), lr=lr)
    schedule = get_linear_schedule_with_warmup(adam, max(1, steps // 20), steps)
    since = torch.zeros(latents, dtype=torch.long)

    def step(rows: torch.Tensor, number: int) -> None:
        if number == 0:
            coder.b_dec.data = rows.mean(0)
        coder.set_decoder_norm_to_unit_norm()
        out = coder(rows, dead_mask=since > DEAD_AFTER)
        (out.fvu + REVIVE * out.auxk_loss).backward()
        fired = torch.zeros(latents, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        schedule.step()
        since.add_(len(rows))
        since[fired] = 0

    return step, lambda rows: coder(rows).sae_out


LIBRARIES: dict[str, Callable[..., tuple[Step, Reconstruct]]] = {
    "cutaway": of_cutaway, "saelens": of_saelens, "dictionary_learning": of_dictionary_learning, "sparsify": of_sparsify,
}  # fmt: skip


def batches(rows: torch.Tensor, batch: int, steps: int, seed: int) -> Any:
    """So many batches, each row as often as any other but for one."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    at = 0
    for _ in range(steps):
        if at + batch > len(order):
            order, at = torch.randperm(len(rows), generator=generator), 0
        yield rows[order[at : at + batch]]
        at += batch


def product(d: int, latents: int, batch: int) -> float:
    """Seconds of the encoder's matrix product alone, the least of ten."""
    x, w = torch.randn(batch, d), torch.randn(latents, d)
    took = []
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(x, w.T)
        took.append(time.perf_counter() - began)
    return sorted(took)[len(took) // 2]


def main() -> None:
    """Train, and say what it took."""
    name, file = sys.argv[1:3]
    latents, k, batch, tokens = map(int, sys.argv[3:7])
    lr, threads, seed = float(sys.argv[7]), int(sys.argv[8]), int(sys.argv[9])
    torch.set_num_threads(threads)
    held = load_file(file)
    rows, test = held["train"], held["test"]
    steps = tokens // batch
    step, reconstruct = LIBRARIES[name](rows.shape[1], latents, k, steps, batch, lr, seed)
    alone = [product(rows.shape[1], latents, batch)]
    clock = busy = 0.0
    for number, some in enumerate(batches(rows, batch, steps, seed)):
        began, used = time.perf_counter(), time.process_time()
        step(some, number)
        if number >= WARM:
            clock, busy = clock + time.perf_counter() - began, busy + time.process_time() - used
        if number % max(1, steps // 8) == 0:
            alone.append(product(rows.shape[1], latents, batch))
    timed = (steps - WARM) * batch
    with torch.no_grad():
        error = (reconstruct(test) - test).double().square().sum()
        spread = (test - test.mean(0)).double().square().sum()
    print(json.dumps({
        "library": name, "seconds": clock, "processor": busy, "tokens": timed, "per_second": timed / clock,
        "fvu": float(error / spread), "product": sorted(alone)[len(alone) // 2] * (steps - WARM) / clock,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
