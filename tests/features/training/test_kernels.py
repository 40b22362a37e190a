"""Products with what is listed, and their gradients, against ordinary products with zeros in between."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cutaway.features.training.kernels import Full, Listed, full, listed


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layouts(mask: Tensor, bounds: tuple[int, ...]) -> tuple[Listed, Full]:
    flat = mask.reshape(-1).nonzero().squeeze(1)
    return listed(flat, *mask.shape, bounds), full(flat, *mask.shape, bounds)


@st.composite
def masks(draw: st.DrawFn) -> tuple[Tensor, tuple[int, ...], int]:
    n, size, d = draw(st.integers(1, 7)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    seed, share = draw(st.integers(0, 10**6)), draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    mask = torch.rand(n, size, generator=torch.Generator().manual_seed(seed)) < share
    inner = draw(st.lists(st.integers(1, size), max_size=2, unique=True))
    return mask, tuple(sorted({*inner, size})), d


@given(masks(), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=80)
def test_products_and_gradients_are_those_of_dense_ones(
    case: tuple[Tensor, tuple[int, ...], int], dtype: torch.dtype
) -> None:
    mask, bounds, d = case
    n, size = mask.shape
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    by = drawn(5, n, len(bounds), d, dtype=dtype)
    results = []
    for layout in (*layouts(mask, bounds), None):
        rows, weight = drawn(1, n, d, dtype=dtype), drawn(2, size, d, dtype=dtype)
        bias, decoder, factor = (
            drawn(3, size, dtype=dtype),
            drawn(4, size, d, dtype=dtype),
            drawn(6, size, dtype=dtype),
        )
        leaves = [t.requires_grad_() for t in (rows, weight, bias, decoder, factor)]
        if layout is None:
            pre = (rows @ weight.T + bias) * factor * mask
            parts = [pre[:, :b] @ decoder[:b] for b in bounds]
            out = torch.stack(parts, 1)
        else:
            known = (rows @ weight.T + bias).detach()[mask]
            pre = layout.encoded(rows, weight, bias, known)
            out = layout.decoded(layout.kept(pre * layout.spread(factor)), decoder)
        results.append([out.detach(), *torch.autograd.grad((out * by).sum(), leaves)])
    for result in results[:2]:
        assert all(
            torch.allclose(a, b, rtol=tolerance, atol=tolerance)
            for a, b in zip(result, results[2], strict=True)
        )


@given(masks())
def test_both_say_the_same_of_what_fired(case: tuple[Tensor, tuple[int, ...], int]) -> None:
    mask, bounds, _ = case
    of_list, of_mask = layouts(mask, bounds)
    values = drawn(8, *mask.shape)
    assert torch.equal(of_list.touched, of_mask.touched)
    assert torch.equal(of_list.touched, mask.any(0))
    assert torch.equal(of_list.fired(values[mask]), of_mask.fired(values * mask))


def test_gradients_against_finite_differences() -> None:
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    at, _ = layouts(mask, (3, 7))
    rows, weight, bias = (
        drawn(1, 5, 4).requires_grad_(),
        drawn(2, 7, 4).requires_grad_(),
        drawn(3, 7).requires_grad_(),
    )
    values, decoder = drawn(4, int(mask.sum())).requires_grad_(), drawn(5, 7, 3).requires_grad_()

    def encoded(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return at.encoded(rows, weight, bias, (rows @ weight.T + bias).detach()[mask])

    assert torch.autograd.gradcheck(encoded, (rows, weight, bias), atol=1e-6)
    assert torch.autograd.gradcheck(at.decoded, (values, decoder), atol=1e-6)
    assert torch.autograd.gradcheck(at.spread, (bias,), atol=1e-6)


@pytest.mark.parametrize("needs", [0, 1])
def test_what_is_frozen_gets_no_gradient_and_costs_none(needs: int) -> None:
    at, _ = layouts(torch.ones(2, 3, dtype=torch.bool), (3,))
    held = [drawn(1, 6), drawn(2, 3, 4)]
    held[needs].requires_grad_()
    at.decoded(held[0], held[1]).sum().backward()
    assert held[needs].grad is not None
    assert held[1 - needs].grad is None
    assert ("by_latent" in at.__dict__) == (needs == 1)
