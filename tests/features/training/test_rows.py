"""Rows to train on: which tokens they are of, held out by text, the same again from any chunk on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.features.training.beds import network, planted, texts
from torch import Tensor

import cutaway
from cutaway.errors import BadInput, NotFinite, SiteUnavailable
from cutaway.features.training.normal import Normal, short_enough
from cutaway.features.training.rows import (
    HELD_OUT,
    HELD_ROWS,
    Chunk,
    ChunkSizes,
    PlainRows,
    RowSource,
    StoredRows,
    TextRows,
    is_held_out,
    order,
    widths_at,
)
from cutaway.network import Network
from cutaway.results import Work

SITES = ("resid_post.0", "mlp_out.1")


@pytest.fixture(scope="module")
def net() -> Network:
    return network()


def reading(net: Network, given: object, sizes: ChunkSizes, tokens: int | None = None) -> TextRows:
    sites = [net.resolve(name)[0] for name in SITES]
    return TextRows(net, given, sites, widths_at(net, sites), sizes, Work(), tokens)  # type: ignore[arg-type]


def by_hand(net: Network, texts: list[list[int]], site: str, length: int, skip: int, held: bool) -> Tensor:
    """One window at a time, through the same network."""
    found = []
    for number, text in enumerate(texts):
        if is_held_out(number) == held:
            for start in range(0, len(text), length):
                window = text[start : start + length]
                found.append(net.run([window], keep=[site], logits=False)[site][0, skip:].flatten(1))
    return torch.cat(found)


@pytest.mark.parametrize(("length", "skip"), [(12, 1), (5, 2), (12, 0)])
def test_rows_are_those_of_every_text_but_the_first_tokens_and_those_held_out(
    net: Network, length: int, skip: int
) -> None:
    given = texts(45)
    rows = reading(net, given, ChunkSizes(10_000, 8, length, skip))
    chunk = next(rows.chunks(0, 0))
    held = rows.held(10_000)
    for site in SITES:
        torch.testing.assert_close(
            chunk.values[site], by_hand(net, given, site, length, skip, False), atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(
            held.values[site], by_hand(net, given, site, length, skip, True), atol=1e-5, rtol=1e-4
        )
    assert rows.per_epoch == len(chunk)
    assert not set(chunk.texts.tolist()) & set(held.texts.tolist())
    assert set(held.texts.tolist()) == {0, 20, 40}


def sources(net: Network, folder: Path) -> dict[str, RowSource]:
    given = texts(60)
    sizes = ChunkSizes(150, 8, 12)
    store = cutaway.activations(net, given, at=list(SITES), folder=folder / "store", length=12)
    values, _ = planted(700)
    return {
        "texts": reading(net, given, sizes),
        "store": StoredRows(store, SITES, sizes, frozenset()),
        "array": PlainRows({"a": values, "b": values.double() + 1}, sizes),
    }


def same(one: Chunk, other: Chunk) -> bool:
    assert (one.epoch, one.number) == (other.epoch, other.number)
    return torch.equal(one.texts, other.texts) and all(
        torch.equal(v, other.values[p]) for p, v in one.values.items()
    )


@pytest.mark.parametrize("name", ["texts", "store", "array"])
def test_chunks_are_the_same_bit_for_bit_from_any_one_on(net: Network, tmp_path: Path, name: str) -> None:
    rows = sources(net, tmp_path)[name]
    first = list(islice(rows.chunks(0, 0), 9))
    assert {c.epoch for c in first} >= {0, 1}
    assert len({c.number for c in first}) > 2
    for start in (1, 3, 6):
        again = islice(rows.chunks(first[start].epoch, first[start].number), 9 - start)
        assert all(same(one, other) for one, other in zip(first[start:], again, strict=True))
    assert sum(len(c) for c in first if c.epoch == 0) == rows.per_epoch
    held = set(rows.held(10_000).texts.tolist())
    assert all(not held & set(c.texts.tolist()) for c in first)


def test_a_store_gives_the_rows_that_texts_do(net: Network, tmp_path: Path) -> None:
    found = sources(net, tmp_path)
    one, other = next(found["texts"].chunks(0, 0)), next(found["store"].chunks(0, 0))
    n = min(len(one), len(other))
    for site in SITES:
        torch.testing.assert_close(one.values[site][:n], other.values[site][:n], atol=1e-5, rtol=1e-4)
    assert torch.equal(one.texts[:n], other.texts[:n])


def test_a_store_in_half_precision_is_read_in_single(net: Network, tmp_path: Path) -> None:
    store = cutaway.activations(net, texts(30), at=SITES[0], folder=tmp_path / "a", dtype="bfloat16")
    chunk = next(StoredRows(store, SITES[:1], ChunkSizes(99, 1, store.length), frozenset()).chunks(0, 0))
    assert chunk.values[SITES[0]].dtype == torch.float32


def test_special_tokens_and_padding_never_count() -> None:
    net = cutaway.open("zoo:tales")
    special = net.tokenizer.all_special_ids
    assert special
    given = ["Mary was sad because she", "John saw", "the dog saw Mary and the dog saw John"] * 8
    rows = TextRows(
        net,
        given,
        net.resolve("resid_post.0"),
        widths_at(net, net.resolve("resid_post.0")),
        ChunkSizes(9999, 4, 64),
        Work(),
    )
    ids = [net.tokens_of([t])[0] for n, t in enumerate(given) if n % HELD_OUT]
    assert len(next(rows.chunks(0, 0))) == sum(i not in special for row in ids for i in row[1:])


def test_an_iterator_without_end_is_read_once_and_holds_texts_out(net: Network) -> None:
    def forever() -> Iterator[list[int]]:
        for seed in count():
            yield from texts(10, seed=seed)

    rows = reading(net, forever(), ChunkSizes(300, 8, 12), tokens=900)
    found = [c for c, _ in zip(rows.chunks(0, 0), range(3), strict=False)]
    assert [c.number for c in found] == [0, 1, 2]
    assert not {t for c in found for t in c.texts.tolist() if t % HELD_OUT == 0}
    assert len(rows.held(50)) > 0
    assert [len(c) for c in reading(net, iter(texts(30)), ChunkSizes(200, 8, 12), 10_000).chunks(0, 0)] == [
        209,
        99,
    ]


@pytest.mark.parametrize(
    ("given", "tokens", "said"),
    [
        (iter(texts(30)), None, "How many tokens"),
        (texts(1), None, "too few to train on"),
        ([[3], [4], [5]], None, "too few to train on"),
        ([], None, "no text with a token"),
        ([[3, 99_999_999]], None, "outside the vocabulary"),
    ],
)
def test_texts_that_are_too_few_are_refused(
    net: Network, given: object, tokens: int | None, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        reading(net, given, ChunkSizes(100, 4, 12), tokens)


def test_nan_is_named_with_its_text(net: Network) -> None:
    bad = network()
    rows = reading(bad, texts(30), ChunkSizes(10_000, 4, 12))
    with torch.no_grad():
        bad.model.transformer.wte.weight[7] = float("nan")
    wanted = next(i for i, t in enumerate(texts(30)) if i % HELD_OUT and 7 in t)
    with pytest.raises(NotFinite, match=f"in text {wanted}[.]"):
        next(rows.chunks(0, 0))
    values, _ = planted(100)
    values[wanted] = float("inf")
    with pytest.raises(NotFinite, match=f"rows holds NaN or infinity in text {wanted}"):
        next(PlainRows({"rows": values}, ChunkSizes(200, 1, 1)).chunks(0, 0))


@pytest.mark.parametrize(
    "values",
    [torch.zeros(3), torch.zeros(4, 2, dtype=torch.int64), "rows", torch.zeros(0, 4), torch.zeros(9, 4)],
)
def test_what_is_no_rows_is_refused(values: object) -> None:
    def measure() -> None:
        rows = PlainRows({"rows": values}, ChunkSizes(10, 1, 1))
        Normal.of(next(rows.chunks(0, 0)).values["rows"], "rows", None)

    with pytest.raises(BadInput):
        measure()


def test_a_site_without_tokens_is_refused(net: Network) -> None:
    with pytest.raises(SiteUnavailable, match="no value for each token"):
        widths_at(net, net.resolve("pattern.0"))


def test_rows_are_about_as_long_as_the_root_of_their_width() -> None:
    values, _ = planted(500, d=9)
    found = Normal.of(values * 70 + 5, "rows", None)
    scaled = found(values * 70 + 5)
    assert float(scaled.norm(dim=1).mean()) == pytest.approx(3.0, rel=1e-5)
    assert float(scaled.mean(0).abs().max()) < 1e-5


def test_rows_that_are_too_long_are_left_out_at_all_places() -> None:
    values, _ = planted(200)
    long = values.clone()
    long[17] *= 100
    chunk = Chunk(0, 0, {"a": long, "b": values}, torch.arange(200))
    normals = {p: Normal.of(v, p, 10.0) for p, v in chunk.values.items()}
    kept = short_enough(chunk, normals)
    assert kept.texts.tolist() == [i for i in range(200) if i != 17]
    assert len(kept.values["b"]) == 199


def test_the_order_depends_on_seed_epoch_and_chunk_and_on_nothing_else() -> None:
    orders = [tuple(order(50, *key).tolist()) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]]
    assert len(set(orders)) == 4
    assert all(sorted(o) == list(range(50)) for o in orders)
    torch.manual_seed(5)
    assert tuple(order(50, 0, 0, 0).tolist()) == orders[0]
    assert np.array_equal(order(50, 0, 0, 0), orders[0])


def test_rows_that_are_held_out_are_counted_beforehand(net: Network) -> None:
    rows = reading(net, texts(100), ChunkSizes(64, 8, 12))
    assert 0 < rows.held_rows == len(rows.held(HELD_ROWS))
    assert reading(net, iter(texts(100)), ChunkSizes(64, 8, 12), 100).held_rows == HELD_ROWS
