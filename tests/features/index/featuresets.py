"""Sets of features for tests, and their activations by hand."""

from __future__ import annotations

import numpy as np
import torch

from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, TopK
from cutaway.features.sets import FeatureSet, latents
from cutaway.network import Network

LENGTH = 48


def topk(net: Network, size: int = 96, k: int = 6, seed: int = 0) -> FeatureSet:
    """Latents along random directions, of which so many are active on every token; the last can never be."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(size, net.d_model or 0, generator=generator)
    bias = torch.zeros(size)
    bias[-1] = -1e9
    place = Place("", "resid_post.2", net.d_model or 0)
    encoder, decoder = Encoder(weight.T.contiguous(), bias, TopK(k)), Decoder(0, 0, weight)
    return latents(net, Dictionary("autoencoder", (encoder,), (decoder,), (None,), ((place,),), (place,)))


def along(net: Network, size: int = 7) -> FeatureSet:
    """Signed features: inner products with random directions."""
    site = net.resolve("resid_post.1")[0]
    rows = torch.randn(size, net.d_model or 0, generator=torch.Generator().manual_seed(1))
    names = tuple(f"direction {i}" for i in range(size))
    return FeatureSet(
        "directions", f"{size} directions", (site,), names, lambda v: v[0].float() @ rows.T, rows, signed=True
    )


def by_hand(
    net: Network, features: FeatureSet, texts: list[str], skip: int = 1
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Activations [n F] at every token that counts, one window at a time, and (text, position, token) of each."""
    found, where = [], []
    special = set(net.tokenizer.all_special_ids)
    for number, text in enumerate(texts):
        if not text:
            continue
        ids = net.tokens_of([text])[0]
        for start in range(0, len(ids), LENGTH):
            piece = ids[start : start + LENGTH]
            run = net.run([piece], keep=list(features.sites), logits=False)
            values = features.read([run[site][0] for site in features.sites]).float().numpy()
            for column, token in enumerate(piece):
                if column >= skip and token not in special:
                    found.append(values[column])
                    where.append((number, start + column, token))
    return np.array(found), where
