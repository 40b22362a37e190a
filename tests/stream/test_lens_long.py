"""A long text through a lens: block by block, with the numbers of the whole."""

from __future__ import annotations

import numpy as np
import torch

import cutaway
from cutaway.stream.lenses import LogitLens, reading
from cutaway.stream.lenses.reading import read_lens
from cutaway.sweeps.cost import peak_bytes
from cutaway.zoo.tiny import tiny


def test_blocks_give_the_numbers_of_the_whole_in_the_memory_of_the_logits(monkeypatch):
    net = cutaway.open(tiny("llama", vocab_size=4000, max_position_embeddings=256))
    ids = torch.randint(5, 3000, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    whole = read_lens(net, LogitLens.of(net), ids, target=7)
    logits = len(ids) * 4000 * 4
    assert peak_bytes(lambda: read_lens(net, LogitLens.of(net), ids, target=7)) > 6 * logits
    monkeypatch.setattr(reading, "_BYTES", 20 * 8 * 4000)
    parts = []
    assert peak_bytes(lambda: parts.append(read_lens(net, LogitLens.of(net), ids, target=7))) < 3 * logits
    for name in ("probability", "entropy", "kl", "target"):
        np.testing.assert_allclose(getattr(parts[0], name), getattr(whole, name), atol=1e-6)
    assert (parts[0].top == whole.top).mean() > 0.99
