"""Every term of the loss for every parameter: against finite differences where there is a derivative, and straight-through
estimators against their closed form. And that dead latents are reached."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.features.training.test_steps import KINDS, gradients, recipe_of, rows_of, trainee_of
from torch import Tensor

from cutaway.features.training import Trainee
from cutaway.features.training.kernels import Listed
from cutaway.features.training.objectives import SQUARE, jump, step
from cutaway.features.training.reviving import revival, sample, strongest_dead

#: What has a derivative: all but the terms that thresholds enter, and the step of a gate.
SMOOTH = ("topk", "batchtopk", "relu", "gated", "groupmax")
CASES = [
    *itertools.product(SMOOTH, KINDS),
    ("jumprelu", "skip cross-layer transcoder"),
    ("jumprelu", "crosscoder"),
]


def terms_of(trainee: Trainee, kind: str, number: int = 7) -> dict[str, Tensor]:
    reads, writes = rows_of(kind, number, n=12)
    return trainee.terms(trainee.run(reads), writes)[0]


@pytest.mark.parametrize(("activation", "kind"), CASES)
def test_every_term_against_finite_differences(activation: str, kind: str) -> None:
    trainee = trainee_of(recipe_of(activation, kind, (5, 12, 24)), kind)
    trainee.run(rows_of(kind, 0)[0])
    trainee._since[:, 3:20] = 1000  # dead, as far as the revival is concerned
    base = terms_of(trainee, kind)
    assert "revival" in base
    generator = torch.Generator().manual_seed(4)
    # what the definitions hold fixed: error and normaliser of the revival, the decoder of the gates
    fixed = {"revival": ("biases", "skips"), "gates": ("decoders", "biases", "skips")}
    for term in base:
        found = gradients(trainee, terms_of(trainee, kind)[term])
        for name, gradient in found.items():
            if name.split(".")[0] in fixed.get(term, ()):
                assert not bool(gradient.any())
                continue
            if (
                name.endswith("threshold") or term == "revival"
            ):  # the target of the latter is fixed, too: below
                continue
            flat = trainee.parameters[name].detach().view(-1)
            for at in torch.randperm(flat.numel(), generator=generator)[:4].tolist():
                first, h = float(flat[at]), 1e-6
                values = []
                for move in (h, -h):
                    flat[at] = first + move
                    values.append(float(terms_of(trainee, kind)[term].detach()))
                flat[at] = first
                slope = (values[0] - values[1]) / (2 * h)
                assert abs(slope - float(gradient.view(-1)[at])) < 1e-6 * max(1, abs(slope)), (term, name, at)


def dead_case(bias: float = -5.0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rows, encoder, bias, decoder, error, where latents 2, 5 and 6 are silent: their pre-activations are far below zero."""
    generator = torch.Generator().manual_seed(1)
    rows, left = (torch.randn(9, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, decoder = (torch.randn(8, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    biases = torch.zeros(8, dtype=torch.float64)
    biases[[2, 5, 6]] = bias
    return rows, weight, biases, decoder, left


def test_a_dead_latent_with_negative_pre_activations_receives_gradient() -> None:
    rows, weight, bias, decoder, left = dead_case()
    dead = torch.tensor([2, 5, 6])
    assert float((rows @ weight[dead].T + bias[dead]).max()) < 0
    leaves = [t.requires_grad_() for t in (weight, bias, decoder)]
    loss, touched = revival(rows, weight, bias, decoder, left, dead, 3, torch.arange(9))
    for gradient in torch.autograd.grad(loss, leaves):
        rowwise = gradient.reshape(8, -1).abs().sum(1)
        assert bool((rowwise[dead] > 1e-3).all())
        assert not bool(rowwise[[0, 1, 3, 4, 7]].any())
    assert touched.nonzero().squeeze(1).tolist() == [2, 5, 6]


def test_with_a_relu_before_the_pick_or_after_it_that_gradient_is_zero() -> None:
    """The bug of two public trainers: what it computes has no gradient for a latent that is silent everywhere."""
    rows, weight, bias, decoder, left = dead_case()
    weight.requires_grad_()
    for before in (True, False):
        pre = (rows @ weight.T + bias)[:, [2, 5, 6]]
        best = (pre.relu() if before else pre).topk(3, dim=1)
        loss = ((left - (best.values.relu()[..., None] * decoder[[2, 5, 6]][best.indices]).sum(1)) ** 2).sum()
        assert not bool(torch.autograd.grad(loss, weight)[0].any())


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "groupmax", "jumprelu", "relu", "gated"])
def test_a_step_moves_dead_latents_and_without_revival_it_does_not(activation: str) -> None:
    moved = {}
    for revive in (0.3, 0.0):
        trainee = trainee_of(recipe_of(activation, "autoencoder", revive=revive, k=2), "autoencoder")
        trainee.run(rows_of("autoencoder", 0)[0])
        with torch.no_grad():
            trainee.parameters["encoders.0.bias"][[4, 9]] = -50.0
        trainee._since[0, [4, 9]] = 10_000
        before = trainee.parameters["encoders.0.weight"].detach().clone()
        report = trainee.step(*rows_of("autoencoder", 1), 0.5)
        assert report.dead == 2
        assert ("revival" in report.loss) == bool(revive)
        change = (trainee.parameters["encoders.0.weight"].detach() - before)[[4, 9]].abs().sum(1)
        moved[revive] = change.tolist()
    assert min(moved[0.3]) > 0
    assert moved[0.0] == [0.0, 0.0]


def test_the_revival_against_finite_differences() -> None:
    rows, weight, bias, decoder, left = dead_case(-1.0)
    dead, at = torch.tensor([1, 2, 4, 5, 6]), torch.tensor([0, 2, 3, 7])

    def loss(rows: Tensor, weight: Tensor, bias: Tensor, decoder: Tensor) -> Tensor:
        return revival(rows, weight, bias, decoder, left, dead, 2, at)[0]

    leaves = tuple(t.requires_grad_() for t in (rows, weight, bias, decoder))
    assert torch.autograd.gradcheck(loss, leaves, atol=1e-6)


def test_what_is_left_over_gets_no_gradient_from_the_revival() -> None:
    rows, weight, bias, decoder, left = dead_case()
    left.requires_grad_()
    decoder.requires_grad_()
    loss, _ = revival(rows, weight, bias, decoder, left, torch.tensor([2, 5]), 2, torch.arange(9))
    assert torch.autograd.grad(loss, left, allow_unused=True)[0] is None


def test_the_sample_of_rows_is_unbiased() -> None:
    """In the mean over all first rows, the loss on a sample is the loss on all rows."""
    rows, weight, bias, decoder, left = dead_case()
    dead = torch.tensor([2, 5])

    def loss(at: Tensor) -> float:
        return float(revival(rows, weight, bias, decoder, left, dead, 2, at)[0])

    spaced = (torch.arange(4) * 9) // 4
    assert sum(loss((spaced + s) % 9) for s in range(9)) / 9 == pytest.approx(
        loss(torch.arange(9)), rel=1e-12
    )


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 400), st.integers(0, 100))
def test_the_sample_is_bounded(n: int, k: int, k_aux: int, seed: int) -> None:
    at = sample(n, k, k_aux, seed)
    assert len(set(at.tolist())) == at.numel()
    assert 0 <= int(at.min()) <= int(at.max()) < n
    assert at.numel() == min(n, 16) or (at.numel() * k_aux * 4 <= n * k and at.numel() * 8 <= n)


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0, 1]))
def test_the_strongest_dead_are_those_of_sorting(seed: int, k_aux: int, rounded: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    weight, bias = (
        torch.randn(10, 3, generator=generator, dtype=torch.float64),
        torch.zeros(10, dtype=torch.float64),
    )
    if rounded:
        rows, weight = rows.round(), weight.round()
    dead = (torch.rand(10, generator=generator) < 0.6).nonzero().squeeze(1)
    if not dead.numel():
        return
    chosen, values = strongest_dead(rows, weight, bias, dead, k_aux)
    pre = (rows @ weight.T).tolist()
    wanted = []
    for r in range(4):
        best = sorted(dead.tolist(), key=lambda i: (-pre[r][i], i))[:k_aux]
        wanted += [(r, i) for i in sorted(best)]
    assert isinstance(chosen, Listed)
    assert list(zip(chosen.rows.tolist(), chosen.latents.tolist(), strict=True)) == wanted
    assert values.tolist() == pytest.approx([pre[r][i] for r, i in wanted])


# straight-through estimators --------------------------------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(0.05, 2), st.floats(0.01, 2), st.floats(-2, 2))
def test_the_estimators_have_their_closed_form(
    pre: float, threshold: float, bandwidth: float, by: float
) -> None:
    x, t = torch.tensor([pre], dtype=torch.float64), torch.tensor([threshold], dtype=torch.float64)
    x.requires_grad_()
    t.requires_grad_()
    on, near = float(pre > threshold), float(abs(pre - threshold) < bandwidth / 2)
    value = jump(x, t, bandwidth)
    to_x, to_t = torch.autograd.grad((by * value).sum(), (x, t))
    assert float(value.detach()) == on * pre
    assert float(to_x) == pytest.approx(by * on)
    assert float(to_t) == pytest.approx(-by * near * threshold / bandwidth)
    count = step(x, t, bandwidth)
    to_x, to_t = torch.autograd.grad((by * count).sum(), (x, t), allow_unused=True)
    assert float(count.detach()) == on
    assert to_x is None or float(to_x) == 0
    assert float(to_t) == pytest.approx(-by * near / bandwidth)


def test_the_step_is_of_the_pre_activation_and_not_of_the_output() -> None:
    """Just below its threshold a latent's output is zero, far from it; the threshold still learns that it could fire."""
    x, t = (
        torch.tensor([0.95], dtype=torch.float64),
        torch.tensor([1.0], dtype=torch.float64, requires_grad=True),
    )
    (of_pre,) = torch.autograd.grad(step(x, t, 0.2).sum(), t)
    (of_output,) = torch.autograd.grad(step(torch.where(x > t, x, 0.0), t, 0.2).sum(), t)
    assert float(of_pre) == pytest.approx(-5.0)
    assert float(of_output) == 0


def test_the_charge_by_number_has_its_closed_form() -> None:
    recipe = recipe_of("jumprelu", "autoencoder")
    trainee = trainee_of(recipe, "autoencoder")
    reads, writes = rows_of("autoencoder", 0)
    trainee.run(reads)
    trainee._coefficients[0] = 0.7
    terms, _ = trainee.terms(trainee.run(reads), writes)
    p = {n: v.detach() for n, v in trainee.parameters.items()}
    pre = reads[0] @ p["encoders.0.weight"].T + p["encoders.0.bias"]
    theta, width, n = p["encoders.0.threshold"], trainee.state()["bandwidths"][0], len(reads[0])
    excess = float((pre > theta).sum()) / n / recipe.k - 1
    assert float(terms["sparsity"].detach()) == pytest.approx(0.7 * excess + SQUARE / 2 * excess**2)
    near = ((pre - theta).abs() < width / 2).sum(0) / width
    expected = -(0.7 + SQUARE * excess) / (n * recipe.k) * near
    found = gradients(trainee, terms["sparsity"])
    assert torch.allclose(found["encoders.0.threshold"], expected, atol=1e-12)
    assert bool(expected.any())
    assert all(not bool(g.any()) for name, g in found.items() if not name.endswith("threshold"))
