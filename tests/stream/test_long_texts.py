"""Texts of thousands of tokens: what grows with the square of the length is made only where it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.network import Network
from cutaway.stream.lenses import LogitLens, read_lens
from cutaway.sweeps.cost import peak_bytes
from cutaway.zoo.tiny import tiny

SHORT, LONG = 512, 2048
HEADS, LAYERS = 4, 2


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open(tiny("llama", num_hidden_layers=LAYERS, max_position_embeddings=4096))


def text(length: int, seed: int = 0) -> list[int]:
    return torch.randint(5, 60, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def lens(net: Network, length: int) -> object:
    return read_lens(net, LogitLens.of(net), text(length))


def stream(net: Network, length: int) -> object:
    return cutaway.logit_attribution(net, text(length), target=7, foil=9)


def probe(net: Network, length: int) -> object:
    rows = [{"text": text(length, seed), "label": seed % 2} for seed in range(10)]
    data = cutaway.probe_data(rows, label="label")
    return cutaway.probe(net, data, at="resid_post", by=["layer"], pos=-1, permutations=0)


def patch(net: Network, length: int) -> object:
    rows = [text(length, seed) for seed in range(2)]
    changed = [[*row[:30], row[30] + 1, *row[31:-2], row[-2] + 1, row[-1]] for row in rows]
    spans = {"early": ((20, 40),) * 2, "late": ((length - 5, length),) * 2}
    behaviour = Behaviour(
        name="ids", clean=tuple(map(str, rows)), corrupted=tuple(map(str, changed)), clean_ids=tuple(map(tuple, rows)),
        corrupted_ids=tuple(map(tuple, changed)), right=((7,), (8,)), wrong=((9,), (10,)), template=("one",) * 2,
        spans=spans,
    )  # fmt: skip
    return cutaway.patch(net, behaviour, by=("layer", "span"))


@pytest.mark.parametrize("verb", [lens, stream, probe])
def test_memory_grows_with_the_length_and_not_with_its_square(
    net: Network, verb: Callable[[Network, int], object]
) -> None:
    verb(net, 64)
    short, long = (peak_bytes(lambda n=n: verb(net, n)) for n in (SHORT, LONG))
    assert long < 1.3 * LONG / SHORT * short


def test_a_patch_by_span_makes_one_mask_for_each_row_and_no_table_of_a_head(net: Network) -> None:
    patch(net, 64)
    short, long = (peak_bytes(lambda n=n: patch(net, n)) for n in (SHORT, LONG))
    masks = 2 * 4 * LONG * LONG + LONG * LONG  # float32 for both rows of a wave, made of one of booleans
    assert long < 1.3 * LONG / SHORT * short + masks
    assert long < HEADS * 4 * LONG * LONG


def test_patterns_that_are_asked_for_are_square(net: Network) -> None:
    assert peak_bytes(lambda: cutaway.patterns(net, text(SHORT))) >= LAYERS * HEADS * SHORT * SHORT * 4


def test_a_lens_on_a_long_text_gives_the_numbers_of_the_definition(net: Network) -> None:
    ids = text(LONG)
    found = read_lens(net, LogitLens.of(net), ids, target=7, top=3)
    run = net.run([ids], keep="resid_post")
    assert run.logits is not None
    wanted = run.logits[0].double().log_softmax(-1)
    head = net.modules[net.anatomy.head.unembed]
    norm = net.modules[net.anatomy.head.norm]
    for row, layer in enumerate(found.layers):
        stream = run[f"resid_post.{layer - 1}"] if layer else net.run([ids], keep="resid_pre")["resid_pre.0"]
        with torch.no_grad():
            read = head(norm(stream))[0].double().log_softmax(-1)
        np.testing.assert_allclose(found.entropy[row], -(read.exp() * read).sum(-1), atol=1e-6)
        np.testing.assert_allclose(found.kl[row], (wanted.exp() * (wanted - read)).sum(-1), atol=1e-6)
        np.testing.assert_allclose(found.target[row], read[:, 7].exp(), atol=1e-7)
        np.testing.assert_allclose(found.probability[row], read.exp().topk(3, -1).values, atol=1e-7)
