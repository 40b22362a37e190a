"""Adam over rows that fired, against Adam in which all moments decay in every step and only rows with a gradient move."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cutaway.features.training import adam
from cutaway.features.training.adam import RowAdam


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Reference:
    """One parameter, every step on all rows."""

    def __init__(self, value: Tensor) -> None:
        self.w, self.m, self.v, self.t = value.clone(), torch.zeros_like(value), torch.zeros_like(value), 0

    def step(self, g: Tensor, on: Tensor, rate: float, unit: bool) -> None:
        self.t += 1
        on = on.reshape(-1, *[1] * (g.ndim - 1))
        if unit:
            g = g - (g * self.w).sum(1, keepdim=True) * self.w
        g = torch.where(on, g, torch.zeros_like(g))
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g * g
        change = rate * (self.m / (1 - 0.9**self.t)) / ((self.v / (1 - 0.999**self.t)).sqrt() + 6.25e-10)
        new = self.w - change
        new = new / new.norm(dim=1, keepdim=True) if unit else new
        self.w = torch.where(on, new, self.w)


@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.5, 1.1]),
    st.sampled_from([0.05, 0.5, 0.95, 1.0]),
    st.booleans(),
)
@settings(max_examples=40)
def test_lazy_rows_are_the_dense_ones(seed: int, dense_from: float, share: float, small: bool) -> None:
    size, block = 11, adam._BLOCK
    values = {
        "matrix": drawn(seed, size, 3),
        "vector": drawn(seed + 1, size),
        "unit": drawn(seed + 2, size, 4),
    }
    values["unit"] /= values["unit"].norm(dim=1, keepdim=True)
    references = {name: Reference(value) for name, value in values.items()}
    mine = RowAdam(dense_from=dense_from)
    mine.add("rows", values)
    generator = torch.Generator().manual_seed(seed)
    adam._BLOCK = 7 if small else block
    try:
        for number in range(25):
            on = torch.rand(size, generator=generator) < share
            grads = {n: drawn(seed + number + i, *v.shape) for i, (n, v) in enumerate(values.items())}
            mine.steps += 1
            rates = {"matrix": 0.01, "vector": 0.02, "unit": 0.01}
            mine.update("rows", values, grads, rates, on, ("unit",))
            for name, reference in references.items():
                reference.step(grads[name], on, rates[name], name == "unit")
    finally:
        adam._BLOCK = block
    for name, reference in references.items():
        assert bool(((values[name] - reference.w).abs() < 1e-12).all()), name


def test_all_rows_at_once_are_torch_s_adam() -> None:
    mine, theirs = {"w": drawn(1, 5, 3)}, drawn(1, 5, 3).requires_grad_()
    here, there = RowAdam(), torch.optim.Adam([theirs], lr=0.01, eps=6.25e-10)
    here.add("w", mine)
    for number in range(10):
        theirs.grad = drawn(number + 2, 5, 3)
        there.step()
        here.steps += 1
        here.update("w", mine, {"w": drawn(number + 2, 5, 3)}, {"w": 0.01})
    assert bool(((mine["w"] - theirs.detach()).abs() < 1e-12).all())


def test_rows_without_a_gradient_are_not_moved_and_nothing_is_read_from_theirs() -> None:
    values, before = {"w": drawn(1, 6, 2)}, drawn(1, 6, 2)
    on = torch.tensor([True, False, False, True, False, False])
    grads = {"w": torch.full((6, 2), float("nan"), dtype=torch.float64)}
    grads["w"][on] = 1.0
    for dense_from in (0.0, 1.1):
        held = {"w": values["w"].clone()}
        mine = RowAdam(dense_from=dense_from)
        mine.add("w", held)
        mine.steps = 1
        mine.update("w", held, grads, {"w": 0.1}, on)
        assert torch.equal(held["w"][~on], before[~on])
        assert bool(((held["w"] - before)[on] + 0.1).abs().max() < 1e-6)
        assert bool(torch.isfinite(mine.first["w"]).all())


def test_no_row_at_all_changes_nothing() -> None:
    values = {"w": drawn(1, 4, 2)}
    mine = RowAdam()
    mine.add("w", values)
    mine.steps = 3
    mine.update("w", values, {"w": drawn(2, 4, 2)}, {"w": 0.1}, torch.zeros(4, dtype=torch.bool))
    assert torch.equal(values["w"], drawn(1, 4, 2))
    assert mine.stamps["w"].tolist() == [0] * 4


@pytest.mark.parametrize("dense_from", [0.0, 1.1])
def test_it_goes_on_from_its_state(dense_from: float) -> None:
    def some(mine: RowAdam, values: dict[str, Tensor], numbers: range) -> None:
        for number in numbers:
            on = torch.rand(6, generator=torch.Generator().manual_seed(number)) < 0.5
            mine.steps += 1
            mine.update("w", values, {"w": drawn(number, 6, 2)}, {"w": 0.1}, on)

    whole, values = RowAdam(dense_from=dense_from), {"w": drawn(1, 6, 2)}
    whole.add("w", values)
    some(whole, values, range(5))
    again, copy = RowAdam(dense_from=dense_from), {"w": values["w"].clone()}
    again.add("w", copy)
    again.load(whole.state())
    some(whole, values, range(5, 9))
    some(again, copy, range(5, 9))
    assert torch.equal(values["w"], copy["w"])
