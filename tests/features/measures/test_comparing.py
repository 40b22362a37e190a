"""Controls are what they are said to be, and a dictionary that reconstructs without recovering is not said to recover."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.measures.training import trained

from cutaway.errors import BadInput
from cutaway.features.dictionaries import Dictionary, Place
from cutaway.features.measures.comparing import ROWS, compare_rows, halves
from cutaway.features.measures.contenders import Contender, contenders_of
from cutaway.features.measures.recovery import oracle, random_directions, recovery
from cutaway.features.measures.sums import row_sums
from cutaway.features.planted import Planted, plant


def _rows(seed: int, n: int = 60, d: int = 5) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw) @ torch.randn(d, d, generator=draw) + 3.0


def _itself(d: int, k: int) -> Contender:
    truth = plant(2 * d, d, seed=1)
    return Contender("the dictionary", oracle(truth, k), ROWS, "itself")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_principal_components_keep_the_k_on_which_a_row_lies_furthest_out(seed: int, k: int) -> None:
    rows = _rows(seed)
    made = contenders_of(_itself(5, k), ROWS, {ROWS: rows}, k, 0, None)[0].dictionary
    x = rows.double().numpy()
    mean = x.mean(0)
    _, _, axes = np.linalg.svd(x - mean, full_matrices=False)
    wanted = []
    for row in x - mean:
        along = axes @ row
        kept = sorted(range(5), key=lambda i: -abs(along[i]))[:k]
        wanted.append(mean + sum(along[i] * axes[i] for i in kept))
    scale = sum((w - mean) @ r for w, r in zip(wanted, x - mean, strict=True)) / sum(
        (w - mean) @ (w - mean) for w in wanted
    )
    by_hand = mean + scale * (np.array(wanted) - mean)
    np.testing.assert_allclose(made.reconstruct(rows).numpy(), by_hand, atol=2e-4)
    assert scale == pytest.approx(1.0)  # parts of orthogonal axes need none
    assert int((made.encode(rows) != 0).sum(1).max()) == k


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_random_directions_are_scaled_as_least_squares_say(seed: int, k: int) -> None:
    rows = _rows(seed)
    made = contenders_of(_itself(5, k), ROWS, {ROWS: rows}, k, seed, None)[1].dictionary
    assert made.sizes == (10,)
    centred = rows.double() - rows.double().mean(0)
    part = made.reconstruct(rows).double() - rows.double().mean(0)
    error = (part - centred).square().sum()
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert (factor * part - centred).square().sum() > error
    assert int((made.encode(rows) != 0).sum(1).max()) <= k


def test_where_it_reads_is_not_where_it_writes_least_squares_give_what_is_written() -> None:
    draw = torch.Generator().manual_seed(0)
    read = torch.randn(300, 5, generator=draw)
    wanted = read @ torch.randn(5, 3, generator=draw) + 1.0
    made = contenders_of(_itself(5, 5), "there", {ROWS: read, "there": wanted}, 5, 0, None)[0].dictionary
    assert made.kind == "transcoder"
    assert float((made.reconstruct(read) - wanted).square().mean()) < 1e-4 * float(wanted.var())


def test_sums_by_text_are_those_of_loops() -> None:
    rows, owner = _rows(3), np.repeat([4, 7, 9], 20)
    dictionary = _itself(5, 2).dictionary
    sums = row_sums(dictionary, rows, rows, owner)
    made, mean = dictionary.reconstruct(rows).double(), rows.double().mean(0)
    for at, text in enumerate((4, 7, 9)):
        mine = np.flatnonzero(owner == text)
        error = sum(float((made[i] - rows[i].double()).square().sum()) for i in mine)
        spread = sum(float((rows[i].double() - mean).square().sum()) for i in mine)
        cosine = sum(
            float(torch.nn.functional.cosine_similarity(made[i], rows[i].double(), dim=0)) for i in mine
        )
        fires = sum(int((dictionary.encode(rows[i]) != 0).sum()) for i in mine)
        assert (sums.error[at], sums.spread[at]) == pytest.approx((error, spread), rel=1e-6)
        assert (sums.cosine[at], sums.l0[at], sums.rows[at]) == pytest.approx((cosine, fires, 20), rel=1e-6)
    np.testing.assert_array_equal(sums.fires, (dictionary.encode(rows) != 0).sum(0).numpy())


def test_controls_are_made_of_other_texts_than_those_they_are_measured_on() -> None:
    owner = np.repeat(np.arange(9), 5)
    made_of = halves(owner, 0)
    assert not set(owner[made_of]) & set(owner[~made_of])
    assert len(set(owner[made_of])) == 4
    assert not np.array_equal(made_of, halves(owner, 1))
    with pytest.raises(BadInput, match="There are 2 texts"):
        halves(np.array([0, 0, 1]), 0)


# what the numbers are worth -------------------------------------------------------------------------------------------


@cache
def packed() -> tuple[Planted, torch.Tensor, torch.Tensor, dict[str, Dictionary]]:
    """Many more features than latents, so that a dictionary can explain the variance and has nothing of its own to find."""
    truth = plant(512, 32, most=0.1, least=0.02, exponent=0.5, spread=0.2, seed=3)
    rows = truth.sample(8000)[0]
    made = {f"seed {s}": trained(rows, 128, 12, s, steps=200, lr=5e-3) for s in range(2)}
    made["frozen decoder"] = trained(rows, 128, 12, 5, steps=200, lr=5e-3, frozen=True)
    return truth, *truth.sample(3000, seed=1), made


def test_what_explains_the_variance_and_recovers_nothing_is_not_said_to_recover() -> None:
    truth, rows, active, made = packed()
    known = recovery(made["seed 0"], truth, rows, active)
    assert 1 - known.fvu >= 0.7
    assert known.recovered <= 0.2
    found = compare_rows(
        made["seed 0"], rows, siblings={"seed 1": made["seed 1"]},
        frozen={"frozen decoder": made["frozen decoder"]},
    )  # fmt: skip
    assert found.recovering.verdict == "refuted"
    assert "those of its seed" in found.recovering.statement
    assert found.stability[0].excess < 0.1
    assert not found.claim.supported  # principal components do as well
    assert "principal components" in found.claim.statement


def test_what_recovers_is_told_from_it_without_knowing_the_truth() -> None:
    truth = plant(48, 32, coherence=0.4, most=0.1, least=0.03, exponent=0.5, spread=0.2, seed=3)
    rows = truth.sample(3000, seed=1)[0]
    draw = torch.Generator().manual_seed(0)

    def again(moved: float) -> Dictionary:
        vectors = truth.vectors + moved * torch.randn(48, 32, generator=draw) / 32**0.5
        return oracle(
            Planted(
                torch.nn.functional.normalize(vectors, dim=1), truth.rates, truth.means, truth.spreads, truth.parents,
                truth.exclusive, truth.factors, 0.0, truth.bias,
            ), 4,
        )  # fmt: skip

    found = compare_rows(
        again(0.05),
        rows,
        siblings={"seed 1": again(0.05)},
        frozen={"random": random_directions(truth, 48, 4)},
    )
    assert found.claim.supported, str(found.claim)
    assert found.recovering.supported, str(found.recovering)
    assert found.stability[0].shared.value > 0.95
    assert found.stability[0].chance < 0.1


def test_without_siblings_or_frozen_twins_nothing_is_said_of_what_it_found() -> None:
    truth = plant(48, 32, coherence=0.4, most=0.1, least=0.03, seed=3)
    rows = truth.sample(1000, seed=1)[0]
    right = oracle(truth, 4)
    for given_too in (
        {},
        {"siblings": {"seed 1": right}},
        {"frozen": {"random": random_directions(truth, 48, 4)}},
    ):
        found = compare_rows(right, rows, **given_too)  # type: ignore[arg-type]
        assert found.recovering.verdict == "inconclusive"
        assert any("was given" in note for note in found.recovering.notes)


def test_what_fires_much_more_often_is_no_rival() -> None:
    truth = plant(48, 32, coherence=0.4, most=0.1, least=0.03, seed=3)
    rows = truth.sample(1000, seed=1)[0]
    found = compare_rows(oracle(truth, 3), rows, beside={"many": oracle(truth, 24)})
    many = found.figures.measured[-1]
    assert (many.name, many.comparable) == ("many", False)
    assert any("too many" in note for note in found.claim.notes)


def test_what_does_not_stand_in_the_same_place_is_refused() -> None:
    truth, other = plant(12, 8, seed=0), plant(12, 6, seed=0)
    rows = truth.sample(400)[0]
    right = oracle(truth, 2)
    with pytest.raises(BadInput, match="does not read rows"):
        compare_rows(oracle(other, 2), rows)
    with pytest.raises(BadInput, match="does not stand"):
        compare_rows(right, rows, beside={"narrow": oracle(other, 2)})
    with pytest.raises(BadInput, match="is taken"):
        compare_rows(right, rows, beside={"the dictionary": right})
    with pytest.raises(BadInput, match="writes other rows"):
        compare_rows(right, rows, siblings={"narrow": oracle(other, 2)})
    assert Place("", "", 8) == right.writes[0]
