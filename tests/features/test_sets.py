"""Features of every kind in one form."""

from __future__ import annotations

import pytest
import torch

import cutaway
from cutaway.errors import BadAddress, BadInput, NotFinite
from cutaway.features import sets, with_dictionary
from cutaway.features.components import independent_components, principal_components
from cutaway.features.texts import values_at
from cutaway.results import working

TEXTS = [
    "Mary was sad because she lost the ball.",
    "John and Mary saw a dog in the park and they were happy.",
    "The dog saw Mary and the cat.",
]


@pytest.fixture(scope="module")
def net() -> cutaway.Network:
    return cutaway.open("zoo:tales")


def _rows(net: cutaway.Network, features: sets.FeatureSet) -> tuple[list[torch.Tensor], torch.Tensor]:
    values, _ = values_at(net, TEXTS, features.sites, 10_000, working(None))
    rows = [values[site] for site in features.sites]
    return rows, features.read(rows)


def test_neurons_are_read_as_they_are_and_write_along_rows_of_the_output_matrix(net: cutaway.Network) -> None:
    found = sets.neurons(net, 2)
    rows, read = _rows(net, found)
    assert torch.equal(read, rows[0])
    assert found.names[7] == "n2.7"
    (site, directions), out = found.writes[0], net.run(TEXTS[0], keep=["mlp_act.2", "mlp_out.2"])
    assert str(site) == "mlp_out.2"
    written = out["mlp_act.2"] @ directions
    bias = out["mlp_out.2"] - written
    assert float((bias - bias[0, 0]).abs().max()) < 1e-4, (
        "what neurons write along their rows, and a bias, is all"
    )


def test_heads_are_the_length_of_what_they_write(net: cutaway.Network) -> None:
    found = sets.heads(net, 1)
    rows, read = _rows(net, found)
    assert found.names[0] == "a1.h0"
    assert torch.allclose(read, torch.stack([rows[0][:, h].norm(dim=-1) for h in range(len(found))], 1))
    assert not found.signed


def test_a_direction_is_an_inner_product_and_writes_what_gives_it_back(net: cutaway.Network) -> None:
    vectors = torch.randn(3, net.d_model)
    found = sets.directions(net, "resid_post.1", vectors, names=["a", "b", "c"])
    rows, read = _rows(net, found)
    assert torch.allclose(read, rows[0] @ vectors.T, atol=1e-4)
    step = found.writes[0][1]
    assert torch.allclose((step * vectors).sum(1), torch.ones(3), atol=1e-5)
    assert found.index("b") == 1
    with pytest.raises(BadAddress, match="no feature 'd'"):
        found.index("d")


def test_random_directions_have_length_one_and_a_seed(net: cutaway.Network) -> None:
    first, again, other = (sets.random_directions(net, "resid_post.1", 5, seed=s).reads for s in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.allclose(first.norm(dim=1), torch.ones(5))


def test_principal_components_are_those_of_the_covariance(net: cutaway.Network) -> None:
    found = sets.components(net, TEXTS, "resid_post.2", 4)
    _, read = _rows(net, found)
    values, _ = values_at(net, TEXTS, found.sites, 10_000, working(None))
    rows = values[found.sites[0]].double()
    spectrum = torch.linalg.svdvals(rows - rows.mean(0)) ** 2 / len(rows)
    variance = read.double().square().mean(0)
    assert torch.allclose(variance, spectrum[:4], rtol=1e-3)


def test_independent_components_are_found_where_principal_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(3)
    source = -torch.empty(20_000, 3, dtype=torch.float64).exponential_(generator=generator)
    mixing = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    rows = (source - source.mean(0)) @ mixing
    unit = mixing / mixing.norm(dim=1, keepdim=True)

    def matched(written: torch.Tensor) -> float:
        cosine = (unit @ (written / written.norm(dim=1, keepdim=True)).T).abs()
        return float(cosine.max(1).values.min())

    reads, writes = independent_components(rows, 3)
    assert matched(writes) > 0.99
    assert matched(principal_components(rows, 3)[1]) < 0.95
    assert torch.allclose((rows @ reads.T).square().mean(0), torch.ones(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose((rows @ reads.T) @ writes, rows, atol=1e-8), "three sources are the whole of it"


def test_components_and_directions_are_attached_like_any_dictionary(net: cutaway.Network) -> None:
    found = sets.components(net, TEXTS, "resid_post.2", 8)
    seen = with_dictionary(net, found.dictionary(), name="pca")
    run = seen.run(TEXTS[0], keep=["pca.features.2", "resid_post.2", "resid_pre.3"])
    assert torch.equal(run.logits, net.run(TEXTS[0]).logits)
    assert torch.allclose(run["pca.features.2"][0], found.read([run["resid_post.2"][0]]), atol=1e-4)
    moved = seen.run(TEXTS[0], keep=["resid_pre.3"], edits=[cutaway.Ablate("pca.features.2", neuron=3)])
    assert found.reads is not None
    change = moved["resid_pre.3"] - run["resid_pre.3"]
    along = run["pca.features.2"][..., 3:4] * found.reads[3]
    assert torch.allclose(change, -along, atol=1e-4)


def test_latents_are_those_of_the_dictionary(net: cutaway.Network) -> None:
    pca = sets.components(net, TEXTS, "resid_post.2", 8).dictionary()
    found = sets.latents(net, pca, name="pca")
    assert found.names[3] == "pca.f2.3"
    assert found.signed
    assert found.dictionary() is pca


def test_pixels_of_a_map_are_rows() -> None:
    value = torch.randn(2, 5, 4, 3)
    rows = sets.map_rows(value)
    assert rows.shape == (24, 5)
    assert torch.equal(rows[12 + 5], value[1, :, 1, 2])


@pytest.mark.parametrize(
    ("vectors", "names", "error"),
    [
        (torch.zeros(2, 64), None, BadInput),
        (torch.full((1, 64), float("nan")), None, NotFinite),
        (torch.ones(1, 5), None, BadInput),
        (torch.eye(64)[:2], ["same", "same"], BadInput),
        (torch.eye(64)[:2], ["one"], BadInput),
    ],
)
def test_directions_that_cannot_be_read_are_refused(
    net: cutaway.Network, vectors: torch.Tensor, names: list[str] | None, error: type[Exception]
) -> None:
    wide = vectors if vectors.shape[1] == 5 else vectors.repeat(1, -(-net.d_model // 64))[:, : net.d_model]
    with pytest.raises(error):
        sets.directions(net, "resid_post.1", wide, names=names)


def test_what_has_no_directions_is_no_dictionary(net: cutaway.Network) -> None:
    with pytest.raises(BadInput, match="parts of the network"):
        sets.heads(net, 1).dictionary()
    with pytest.raises(BadInput, match="Give 1 to"):
        sets.components(net, TEXTS, "resid_post.2", net.d_model + 1)
