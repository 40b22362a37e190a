"""Norms as affine maps: found by probing, frozen at a run, transposed; what is not affine is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from cutaway.errors import NotFoldable
from cutaway.network.norms import probe_norm


class Tanh(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.5 * x) * self.weight


class Squares(nn.Module):
    """Odd, finite, and no norm: each channel by its own size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.abs()


class Cube(nn.Module):
    """Nearly linear for small vectors only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * x**3


def random_norm(kind: str, width: int = 16) -> nn.Module:
    torch.manual_seed(1)
    norm = {
        "layer": nn.LayerNorm(width),
        "plain": nn.LayerNorm(width, elementwise_affine=False),
        "rms": LlamaRMSNorm(width),
        "gemma": GemmaRMSNorm(width),
        "identity": nn.Identity(),
    }[kind]
    with torch.no_grad():
        for p in norm.parameters():
            p.add_(0.5 * torch.randn(width))
            p[3] = 0.0
    return norm


@pytest.mark.parametrize("kind", ["layer", "plain", "rms", "gemma", "identity"])
@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.01, 1.0, 300.0]))
def test_folded_sum_is_the_norm_of_the_sum(kind: str, seed: int, size: float) -> None:
    norm = random_norm(kind)
    form = probe_norm(norm, 16, kind, torch.empty(0))
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(5, 2, 3, 16, generator=generator) * size
    whole = parts.sum(0)
    with torch.no_grad():
        out = norm(whole)
    fold = form.at(whole, out)
    got = fold(parts).sum(0) + fold.bias
    assert torch.allclose(got, out, rtol=1e-4, atol=1e-5 * float(out.abs().max()))


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_back_is_the_transpose(kind: str) -> None:
    norm = random_norm(kind)
    x, y, g = torch.randn(3, 2, 4, 16)
    with torch.no_grad():
        fold = probe_norm(norm, 16, kind, torch.empty(0)).at(x, norm(x))
    assert torch.allclose((fold(y) * g).sum(-1), (y * fold.back(g)).sum(-1), atol=1e-5)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_weight_against_the_modules_own(kind: str) -> None:
    norm = random_norm(kind).double()
    form = probe_norm(norm, 16, kind, torch.empty(0, dtype=torch.float64))
    assert form.centred == (kind == "layer")
    own = norm.weight.detach()
    factor = float((form.weight * own).sum() / own.square().sum())
    assert torch.allclose(form.weight, own * factor, rtol=1e-6, atol=1e-7)
    if kind == "layer":
        assert torch.allclose(form.bias, norm.bias.detach(), atol=1e-6)


@pytest.mark.parametrize("module", [Tanh(), Squares(), Cube(), nn.GELU(), nn.Softmax(-1), nn.ReLU()])
def test_what_is_not_affine_is_refused(module: nn.Module) -> None:
    with pytest.raises(NotFoldable, match="not an affine norm"):
        probe_norm(module, 16, "it", torch.empty(0))


def test_a_run_that_does_not_follow_the_form_is_refused() -> None:
    norm = random_norm("layer")
    form = probe_norm(norm, 16, "ln", torch.empty(0))
    x = torch.randn(2, 16)
    with pytest.raises(NotFoldable, match="relative difference"):
        form.at(x, norm(x).detach() + torch.randn(2, 16))
