"""The worker of `known_truth.py`: SAELens trains one of its architectures on rows from a file, in a process of its own.

    python known_truth_workers.py ARCHITECTURE ROWS.safetensors OUT.safetensors LATENTS K BATCH TOKENS LR THREADS SEED

Its own trainer takes the steps, with its defaults but for the rate and its course. Architectures that are charged for what
fires are trained with several charges, sought until about K fire; the one nearest to that is taken. The decoder [F d]
is written, and one line of JSON says the seconds of its training, without the others, and what fires.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors.torch import load_file, save_file

#: Rows after which a latent that did not fire counts as dead.
DEAD_AFTER = 100_000
#: Architectures that take a charge, the first that is tried, how often, and how near (as a logarithm) is enough.
CHARGED, FIRST, TRIES, NEAR = ("standard", "jumprelu", "gated"), 0.3, 6, 0.1
_AT_ONCE = 1024


def made(name: str, d: int, latents: int, k: int, steps: int, charge: float) -> Any:
    """An untrained one."""
    from sae_lens.registry import get_sae_training_class

    slowly = steps // 4
    settings: dict[str, Any] = {
        "standard": {"l1_coefficient": charge, "l1_warm_up_steps": slowly},
        "gated": {"l1_coefficient": charge, "l1_warm_up_steps": slowly},
        # at rates at which the encoder learns, the threshold alone moves too little in so few steps
        "jumprelu": {"l0_coefficient": charge, "l0_warm_up_steps": slowly, "jumprelu_ste_to_input": True},
        "topk": {"k": k},
        "batchtopk": {"k": k},
        "matryoshka_batchtopk": {"k": k, "matryoshka_widths": [latents // 2**i for i in (4, 3, 2, 1, 0)]},
    }[name]  # fmt: skip
    kind, config = get_sae_training_class(name)
    return kind(config(
        d_in=d, d_sae=latents, dtype="float32", device="cpu", normalize_activations="expected_average_only_in", **settings
    ))  # fmt: skip


def batches(rows: torch.Tensor, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Without end; each row as often as any other but for one."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for at in range(0, len(rows) - batch + 1, batch):
            yield rows[order[at : at + batch]]


def trained(
    name: str,
    rows: torch.Tensor,
    latents: int,
    k: int,
    batch: int,
    tokens: int,
    lr: float,
    seed: int,
    charge: float,
) -> tuple[Any, float]:
    """It, trained by `SAETrainer.fit`, and the seconds."""
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    torch.manual_seed(seed)
    steps = max(1, tokens // batch)
    began = time.process_time()
    sae = made(name, rows.shape[1], latents, k, steps, charge)
    config = SAETrainerConfig(
        n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, total_training_samples=steps * batch,
        device="cpu", autocast=False, lr=lr, lr_end=lr / 10, lr_scheduler_name="constant", lr_warm_up_steps=steps // 20,
        adam_beta1=0.9, adam_beta2=0.999, lr_decay_steps=steps // 5, n_restart_cycles=1, train_batch_size_samples=batch,
        dead_feature_window=max(1, DEAD_AFTER // batch), feature_sampling_window=2000, n_batches_for_norm_estimate=100,
        logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    trainer: Any = SAETrainer(cfg=config, sae=sae, data_provider=batches(rows, batch, seed))
    return trainer.fit(), time.process_time() - began


@torch.no_grad()
def figures(sae: Any, test: torch.Tensor) -> tuple[float, float]:
    """Latents that fire on a row, mean; and the share of the variance unexplained."""
    fired, error = 0.0, 0.0
    for rows in test.split(_AT_ONCE):
        latents = sae.encode(rows)
        fired += float((latents != 0).sum())
        error += float((sae.decode(latents) - rows).double().square().sum())
    spread = float((test - test.mean(0)).double().square().sum())
    return fired / len(test), error / spread


def steered(
    name: str, test: torch.Tensor, k: int, train: Callable[[float], tuple[Any, float]]
) -> tuple[Any, float, float]:
    """It, its seconds and its charge; of several charges that with which nearest to k latents fire."""
    if name not in CHARGED:
        return *train(0.0), 0.0
    charge, low, high = FIRST, 0.0, math.inf
    tried: list[tuple[float, float, Any, float]] = []
    for _ in range(TRIES):
        sae, seconds = train(charge)
        off = math.log(max(figures(sae, test)[0], 1e-3) / k)
        tried.append((abs(off), charge, sae, seconds))
        if abs(off) < NEAR:
            break
        low, high = (charge, high) if off > 0 else (low, charge)
        charge = 4 * low if high == math.inf else high / 4 if low == 0 else math.sqrt(low * high)
    _, charge, sae, seconds = min(tried, key=lambda one: one[:2])
    return sae, seconds, charge


def main() -> None:
    """Train, and write what came out."""
    name, file, out = sys.argv[1:4]
    latents, k, batch, tokens = map(int, sys.argv[4:8])
    lr, threads, seed = float(sys.argv[8]), int(sys.argv[9]), int(sys.argv[10])
    torch.set_num_threads(threads)
    held = load_file(file)
    rows, test = held["train"], held["test"]
    sae, seconds, charge = steered(
        name, test, k, lambda charge: trained(name, rows, latents, k, batch, tokens, lr, seed, charge)
    )
    fires, unexplained = figures(sae, test)
    save_file({"decoder": sae.W_dec.detach().float().contiguous()}, out)
    print(json.dumps({"seconds": seconds, "l0": fires, "fvu": unexplained, "charge": charge}))


if __name__ == "__main__":
    main()
