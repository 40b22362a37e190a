"""A few seconds of plain gradient descent, for tests that need a dictionary that was trained and not built."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, TopK


def trained(
    rows: Tensor,
    latents: int,
    k: int,
    seed: int,
    steps: int = 400,
    frozen: bool = False,
    site: str = "",
    lr: float = 3e-3,
) -> Dictionary:
    """An autoencoder with top-k; frozen: its decoder stays as it was drawn."""
    draw = torch.Generator().manual_seed(1000 + seed)
    width, mean = rows.shape[1], rows.mean(0)
    scale = float((rows - mean).norm(dim=1).mean()) / width**0.5
    writes = torch.nn.functional.normalize(torch.randn(latents, width, generator=draw), dim=1)
    reads = writes.T.clone().requires_grad_()
    writes.requires_grad_(not frozen)
    bias = torch.zeros(latents, requires_grad=True)
    optimiser = torch.optim.Adam([p for p in (reads, writes, bias) if p.requires_grad], lr=lr)
    for _ in range(steps):
        x = (rows[torch.randint(len(rows), (512,), generator=draw)] - mean) / scale
        made = TopK(k)(x @ reads + bias) @ writes
        loss = (made - x).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if not frozen:
            with torch.no_grad():
                writes /= writes.norm(dim=1, keepdim=True)
    place = Place("", site, width)
    encoder = Encoder(reads.detach(), bias.detach() * scale, TopK(k), centre=mean)
    return Dictionary(
        "autoencoder", (encoder,), (Decoder(0, 0, writes.detach()),), (mean,), ((place,),), (place,)
    )
