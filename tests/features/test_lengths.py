"""Rows that are many times longer than the others: found, left out, said."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.training.beds import planted, recipe

from cutaway.errors import BadInput
from cutaway.features.lengths import Lengths, check_longest
from cutaway.features.training import train_on_rows
from cutaway.features.training.trained import DictionaryTraining


def with_long(seed: int, n: int, many: int, times: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n d], the first of which are so many times longer in one direction, and which these are."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    rows = rows / rows.norm(dim=1, keepdim=True) + 0.2
    rows[:many] = times * torch.nn.functional.normalize(torch.ones(6, dtype=torch.float64), dim=0)
    return rows, torch.arange(n) < many


@given(st.integers(0, 10**6), st.integers(50, 300), st.integers(1, 5), st.floats(50, 1e4))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_is_told_as_if_the_long_rows_were_not_there(
    seed: int, n: int, many: int, times: float
) -> None:
    rows, long = with_long(seed, n, many, times)
    found, alone = Lengths.of(rows, 10.0), Lengths.of(rows[~long], 10.0)
    assert torch.equal(~found(rows), long)
    assert torch.equal(found.mean, alone.mean)
    assert found.typical == pytest.approx(alone.typical, rel=1e-12)
    assert found.share == pytest.approx(many / n)
    about = (rows - rows.mean(0)).square().sum(1)
    assert found.weight == pytest.approx(float(about[long].sum() / about.sum()), rel=1e-9)
    assert alone.share == alone.weight == 0
    assert alone.said("x") == ""
    assert "are left out" in found.said("x")


def test_all_rows_are_kept_where_that_is_asked_for_and_it_is_said_what_a_few_hold() -> None:
    rows, _ = with_long(3, 200, 2, 500.0)
    found = Lengths.of(rows, None)
    assert bool(found(rows).all())
    assert torch.allclose(found.mean, rows.mean(0).float())
    assert found.said("x").startswith(
        "1 % of the rows of x are more than 5 times as long as the median and hold"
    )
    assert "figures speak mostly of these" in found.said("x")


@pytest.mark.parametrize("wrong", [0.0, 0.5, -3.0, float("nan"), float("inf")])
def test_a_multiple_that_leaves_nothing_is_refused(wrong: float) -> None:
    with pytest.raises(BadInput, match="longest"):
        check_longest(wrong)


def test_a_dictionary_learns_the_other_rows() -> None:
    """With two rows of a thousand that are two hundred times as long, variance explained says nothing of the rest."""
    rows, _ = planted(2000)
    long = torch.arange(2000) % 500 == 499  # every twentieth row, from the first on, is held out
    rows[long] = 200 * torch.nn.functional.normalize(torch.ones(1, 16)).expand(4, 16)
    settings = {"lr": 1e-2, "encoder_rate": 1.0}
    short = train_on_rows(rows, recipe(**settings), tokens=20_000, longest=10.0)
    everything = train_on_rows(rows, recipe(**settings), tokens=20_000)
    assert any("are left out (longest=None keeps them)" in note for note in short.notes)
    assert any("figures speak mostly of these" in note for note in everything.notes)

    def left(training: DictionaryTraining) -> float:
        own = rows[~long]
        made = training["rows"].reconstruct(own)
        return float((made - own).square().sum() / (own - own.mean(0)).square().sum())

    assert left(short) < 0.7 * left(everything)


def test_rows_that_are_left_out_do_not_count_as_trained_on() -> None:
    """However the rows that are too long fall, as many others are trained on as were asked for, or one fewer."""
    rows, _ = planted(1500)
    rows[torch.rand(1500, generator=torch.Generator().manual_seed(0)) < 0.05] *= 300.0
    for tokens in (700, 1001, 4000, 4999):
        found = train_on_rows(rows, recipe(), tokens=tokens, longest=10.0)
        assert found.trained[0].rows in (tokens, tokens - 1)
        assert not any("texts ended" in note for note in found.notes)
