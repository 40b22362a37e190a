"""Norms that are probed: each form once for a network, both telling of the same module."""

import pytest
import torch
from torch import nn

import cutaway
from cutaway.errors import NotFoldable
from cutaway.network.norms import affine_norm, norm_of
from cutaway.zoo.tiny import tiny


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "olmo2"])
def test_both_forms_tell_of_one_norm(kind):
    net = cutaway.open(tiny(kind))
    path = net.anatomy.head.norm
    form, norm = affine_norm(net, path), norm_of(net, path)
    assert affine_norm(net, path) is form
    assert norm_of(net, path) is norm
    assert form.centred == norm.centred
    x = torch.randn(2, 3, net.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = net.modules[path](x)
    fold = form.at(x, y)
    assert torch.allclose(fold(x) + fold.bias, y, atol=1e-5)
    hat, _ = norm.unit(x)
    assert torch.allclose(hat * norm.gain + form.bias, y, atol=1e-5)
    net.forget()
    assert norm_of(net, path) is not norm


def test_the_derivative_is_that_of_autograd():
    net = cutaway.open(tiny("gpt2"))
    module = net.modules[net.anatomy.head.norm]
    x = torch.randn(1, 4, net.d_model, requires_grad=True)
    vectors = torch.randn(1, 4, net.d_model)
    (wanted,) = torch.autograd.grad(module(x), x, vectors)
    got = norm_of(net, net.anatomy.head.norm).pull(x.detach(), vectors[None])[0]
    assert torch.allclose(got, wanted, atol=1e-5)


def test_what_is_no_norm():
    class Squash(nn.Module):
        def forward(self, x):
            return torch.tanh(x)

    net = cutaway.open(tiny("gpt2"))
    net.core.modules["squash"] = Squash()
    with pytest.raises(NotFoldable, match="squash is not an affine norm"):
        affine_norm(net, "squash")
    assert norm_of(net, "squash").gain is None
