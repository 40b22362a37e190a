"""Thresholds after training, and figures on rows that were not trained on, against definitions in double precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.training.beds import planted
from torch import Tensor

from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, JumpReLU, Place, TopK
from cutaway.features.training.held_out import measured
from cutaway.features.training.thresholds import calibrated, rebuilt, unexplained


def dictionary(d: int = 16, f: int = 48, k: int = 4, seed: int = 0, by: bool = False) -> Dictionary:
    torch.manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(f, d))
    place = Place("", "rows", d)
    factor = torch.rand(f) + 0.5 if by else None
    encoder = Encoder(decoder.T.clone(), -0.1 * torch.rand(f), TopK(k, factor))
    return Dictionary(
        "autoencoder", (encoder,), (Decoder(0, 0, decoder),), (torch.zeros(d),), ((place,),), (place,)
    )


def across(d: int = 8, f: int = 40) -> Dictionary:
    """Two sources; the second target is written by both."""
    torch.manual_seed(1)
    places = Place("", "a", d), Place("", "b", d)
    encoders = tuple(Encoder(torch.randn(d, f), torch.randn(f) / 4, TopK(3)) for _ in range(2))
    decoders = tuple(Decoder(s, t, torch.randn(f, d) / 6) for s, t in ((0, 0), (0, 1), (1, 1)))
    return Dictionary(
        "cross-layer transcoder",
        encoders,
        decoders,
        (torch.zeros(d),) * 2,
        ((places[0],), (places[1],)),
        places,
    )


def largest_of_batches(made: Dictionary, rows: Tensor, k: int, batch: int) -> tuple[float, float]:
    """FVU and L0 where the k * n largest of each batch fire: the definition, dense and in double precision."""
    encoder = made.encoders[0]
    pre = (rows.double() @ encoder.weight.double() + encoder.bias.double()).relu()  # type: ignore[union-attr]
    kept = torch.zeros_like(pre)
    for start in range(0, len(rows), batch):
        part = pre[start : start + batch].flatten()
        at = part.topk(k * min(batch, len(rows) - start)).indices
        kept[start : start + batch] = torch.zeros_like(part).scatter(0, at, part[at]).view(-1, pre.shape[1])
    made_of = kept @ made.decoders[0].weight.double()
    spread = (rows.double() - rows.double().mean(0)).square().sum()
    return float((made_of - rows.double()).square().sum() / spread), float((kept > 0).sum(1).double().mean())


@pytest.mark.parametrize(("k", "batch"), [(4, 64), (2, 300), (7, 5000)])
def test_as_many_fire_as_in_training_and_the_error_is_no_larger(k: int, batch: int) -> None:
    rows, _ = planted(2000)
    made = dictionary(k=k)
    found, said = calibrated(made, [rows], [rows], k, batch)
    fvu, l0 = largest_of_batches(made, rows, k, batch)
    assert said.fvu_before == pytest.approx(fvu, rel=1e-4)
    assert said.l0_before == pytest.approx(l0, rel=1e-3)
    assert said.l0 == pytest.approx(k, rel=0.01)
    assert said.fvu <= 1.01 * said.fvu_before
    assert said.kept
    assert isinstance(found.encoders[0].activation, JumpReLU)
    assert (found.encode(rows) != 0).sum(1).double().mean() == pytest.approx(k, rel=0.01)
    assert said.thresholds[0] > 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 20), st.booleans())
def test_a_threshold_lies_where_bisection_of_all_ranks_finds_it(k: int, seed: int, by: bool) -> None:
    rows, _ = planted(300, seed=seed)
    made = dictionary(k=k, seed=seed, by=by)
    found, said = calibrated(made, [rows], [rows], k, 1)
    encoder = made.encoders[0]
    factor = encoder.activation.by if by else torch.ones(48)  # type: ignore[attr-defined]
    ranks = (encoder.pre(rows) * factor).relu().flatten().sort(descending=True).values
    assert float((ranks > said.thresholds[0]).sum()) == pytest.approx(k * 300, rel=2e-3, abs=1)
    assert torch.equal(found.encode(rows) != 0, (encoder.pre(rows) * factor) > said.thresholds[0])


def test_each_source_of_several_gets_its_own_threshold() -> None:
    torch.manual_seed(0)
    rows = [torch.randn(500, 8), 3 * torch.randn(500, 8)]
    found, said = calibrated(across(), rows, rows, 3, 100)
    latents, _ = rebuilt(found, rows)
    assert [float((z != 0).sum(1).double().mean()) for z in latents] == pytest.approx([3, 3], rel=0.01)
    assert said.thresholds[1] > 1.5 * said.thresholds[0]


def test_where_fewer_can_fire_the_threshold_is_zero() -> None:
    rows, _ = planted(200)
    made = dictionary(k=40)
    dead = replace(made, encoders=(replace(made.encoders[0], bias=torch.full((48,), -100.0)),))
    _, said = calibrated(dead, [rows], [rows], 40, 50)
    assert said.thresholds == (0.0,)
    assert said.l0 == 0
    assert not said.kept


def test_figures_are_those_of_the_definition() -> None:
    rows, _ = planted(900)
    made = dictionary()
    texts = torch.arange(900) // 30
    found = measured(made, [rows], [rows], texts)
    latents = made.to(torch.float64).encode(rows.double())
    error = (latents @ made.decoders[0].weight.double() - rows.double()).square().sum()
    spread = (rows.double() - rows.double().mean(0)).square().sum()
    assert found.fvu.value == pytest.approx(float(error / spread), rel=1e-5)
    assert found.l0 == pytest.approx(float((latents != 0).sum(1).double().mean()))
    assert found.silent == pytest.approx(float((latents == 0).all(0).double().mean()))
    assert found.nothing == pytest.approx(float((latents == 0).all(1).double().mean()))
    assert (found.rows, found.texts, found.fvu.n) == (900, 30, 30)
    low, high = found.fvu.ends()
    assert low < found.fvu.value < high
    assert found.errors.sum() == pytest.approx(float(error), rel=1e-5)


def test_fvu_is_the_mean_over_targets() -> None:
    torch.manual_seed(0)
    rows = [torch.randn(400, 8), 3 * torch.randn(400, 8)]
    found = measured(across(), rows, rows, torch.arange(400))
    assert found.fvu.value == pytest.approx(np.mean(list(found.by_target.values())))
    assert list(found.by_target) == ["0 a", "1 b"]
    assert unexplained(across(), rows, rows)[0] == pytest.approx(found.fvu.value, rel=1e-5)


def test_a_gain_over_another_is_told_from_chance_over_texts() -> None:
    rows, directions = planted(900)
    texts = torch.arange(900) // 30
    place = Place("", "rows", 16)
    true = Dictionary(
        "autoencoder", (Encoder(directions.T.clone(), -0.3 * torch.ones(24), TopK(3)),), (Decoder(0, 0, directions),),
        (torch.zeros(16),), ((place,),), (place,),
    )  # fmt: skip
    one, other = (measured(made, [rows], [rows], texts) for made in (true, dictionary(k=1)))
    assert one.better_than(other).above(0.0) is True
    assert other.better_than(one).above(0.0) is False
    assert one.better_than(one).value == 0
