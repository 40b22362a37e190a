"""Lenses: the protocol, each lens against a definition or brute force, training that resumes, reports that can say no."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stream_beds import opened, rows
from torch import Tensor, nn

import cutaway
from cutaway.errors import BadAddress, BadInput, CutawayError, SiteUnavailable, TooLong
from cutaway.network import Network
from cutaway.results import Budget, Progress, Work
from cutaway.stream.lenses import (
    AffineLens,
    ConstantLens,
    Lens,
    LensTraining,
    LogitLens,
    OutputHead,
    Rows,
    Sampling,
    Translator,
    compare_lenses,
    future_lens,
    jacobian_lens,
    load_lens,
    read_lens,
    rows_of,
    train_tuned_lens,
)
from cutaway.zoo.tiny import tiny

KINDS = ["gpt2", "gemma2", "cohere2", "granite", "openai-gpt", "gptj", "mixtral", "mamba", "ctrl"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_on_the_last_stream_is_the_network(kind: str) -> None:
    net = opened(kind)
    run = net.run(rows(net), keep=[f"resid_post.{net.n_layers - 1}"])
    got = OutputHead(net)(run["resid_post", net.n_layers - 1])
    assert torch.allclose(got, run.logits, atol=1e-5)


def test_logit_lens_by_hand() -> None:
    net = opened("gpt2")
    ids = rows(net, 1)
    core = net.model.transformer
    run = net.run(ids, keep="resid_pre")
    with torch.no_grad():
        wanted = net.model.lm_head(core.ln_f(run["resid_pre", 1]))
    lens = LogitLens.of(net)
    assert isinstance(lens, Lens)
    assert torch.allclose(lens.logits(run["resid_pre", 1], 1), wanted, atol=1e-6)
    reading = read_lens(net, lens, ids[0].tolist(), target=7)
    probs = wanted[0].double().softmax(-1)
    assert np.allclose(reading.probability[1, :, 0], probs.max(-1).values.numpy(), atol=1e-6)
    assert np.allclose(reading.entropy[1], -(probs * probs.log()).sum(-1).numpy(), atol=1e-5)
    assert np.allclose(reading.target[1], probs[:, 7].numpy(), atol=1e-6)
    assert np.allclose(reading.kl[-1], 0, atol=1e-6)
    assert reading.layers == (0, 1, 2, 3)


def test_a_norm_that_is_not_affine_still_has_lenses() -> None:
    class Squash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(32))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) * self.weight

    torch.manual_seed(0)
    model = tiny("gpt2").eval()
    model.transformer.ln_f = Squash()
    net = cutaway.open(model)
    reading = read_lens(net, LogitLens.of(net), rows(net, 1)[0].tolist())
    assert np.allclose(reading.kl[-1], 0, atol=1e-6)


@pytest.fixture(scope="module")
def text(tales: Network) -> Rows:
    from itertools import islice

    from cutaway.recipes.tales.scenes import stories

    return rows_of(tales, (s.text + " " for s in islice(stories("lenses"), 400)), length=32, most=120)


SHORT = LensTraining(steps=40, rows=8, length=32, rate=3e-3)


@pytest.fixture(scope="module")
def tuned(tales: Network, text: Rows) -> AffineLens:
    return train_tuned_lens(tales, text.split()[0], training=SHORT)


def test_tuned_lens_beats_the_logit_lens_and_a_constant(
    tales: Network, text: Rows, tuned: AffineLens
) -> None:
    fit, held = text.split()
    report = compare_lenses(tales, [LogitLens.of(tales), tuned, ConstantLens.of(tales, fit)], held)
    for layer in range(4):
        assert report.kl["tuned", layer].mean() < report.kl["logit", layer].mean()
    for layer in (1, 2, 3):  # forty steps are too few for the embedding
        assert report.kl["tuned", layer].mean() < report.kl["constant", layer].mean()
    assert report.kl["tuned", 4].max() < 1e-6
    assert report.bias["tuned", 2] < report.bias["logit", 2]
    better = report.claim("tuned", "logit")
    assert better.verdict == "supported"
    assert len(better.evidence) == 4
    assert report.claim("logit", "tuned").verdict == "refuted"
    assert report.cross_entropy["logit", 4].mean() == pytest.approx(report.own_cross_entropy.mean(), abs=1e-6)
    assert list(report.wide().columns) == ["logit", "tuned", "constant"]


def test_translators_start_at_zero(tales: Network, text: Rows) -> None:
    fit, held = text.split()
    still = train_tuned_lens(
        tales, fit, training=LensTraining(steps=1, rows=2, length=32, rate=0.0, decay=0.0)
    )
    report = compare_lenses(tales, [LogitLens.of(tales), still], Rows(held.ids[:4], held.special))
    for layer in range(5):
        assert np.allclose(report.kl["tuned", layer], report.kl["logit", layer], atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_stopped_training_goes_on_as_if_never_stopped(optimizer: str, tmp_path: Path) -> None:
    net = opened("gpt2")
    text = Rows(rows(net, 24, 12))
    training = LensTraining(steps=6, rows=4, length=12, optimizer=optimizer, rate=1e-2)
    whole = train_tuned_lens(net, text, training=training)
    seen = []

    def stop(step: Progress) -> None:
        seen.append(step.done)
        if step.done == 3:
            raise KeyboardInterrupt

    part = train_tuned_lens(
        net, text, training=training, work=Work(stop), checkpoint=tmp_path / "c", every=100
    )
    assert not part.origin["complete"]
    assert part.origin["steps_done"] == 3
    again = train_tuned_lens(
        net,
        text,
        training=training,
        work=Work(lambda step: seen.append(step.done)),
        checkpoint=tmp_path / "c",
    )
    assert seen == [1, 2, 3, 4, 5, 6]
    assert again.origin["complete"]
    for layer in range(3):
        assert torch.equal(again.translators[layer].matrix, whole.translators[layer].matrix)
        assert torch.equal(again.translators[layer].shift, whole.translators[layer].shift)
    with pytest.raises(BadInput, match="another training"):
        train_tuned_lens(
            net, text, training=LensTraining(steps=7, rows=4, length=12), checkpoint=tmp_path / "c"
        )


def test_training_leaves_the_network_as_it_was(tales: Network, text: Rows) -> None:
    before = {k: v.clone() for k, v in tales.model.state_dict().items()}
    wanted = [p.requires_grad for p in tales.model.parameters()]
    train_tuned_lens(tales, text, training=LensTraining(steps=2, rows=2, length=32))
    assert all(torch.equal(before[k], v) for k, v in tales.model.state_dict().items())
    assert wanted == [p.requires_grad for p in tales.model.parameters()]
    assert all(p.grad is None for p in tales.model.parameters())


def test_saved_lenses_come_back_and_belong_to_their_network(
    tuned: AffineLens, tales: Network, tmp_path: Path
) -> None:
    tuned.save(tmp_path / "lens")
    again = load_lens(tales, tmp_path / "lens")
    x = torch.randn(2, 128)
    assert torch.equal(again.logits(x, 1), tuned.logits(x, 1))
    assert again.name == "tuned"
    with pytest.raises(BadInput, match="made for"):
        load_lens(opened("gpt2"), tmp_path / "lens")
    with pytest.raises(CutawayError):
        load_lens(tales, tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma2", "mixtral"])
def test_mean_jacobian_against_brute_force(kind: str) -> None:
    """With one position per row that counts, the mean Jacobian is exact."""
    net = opened(kind)
    ids = rows(net, 3, 5)
    one_by_one = Work(budget=Budget(memory=1))
    lens = jacobian_lens(net, Rows(ids), sampling=Sampling(rows=3, at_once=7, skip=4), work=one_by_one)
    matrices, means, lasts = [], [], []
    for row in ids:
        run = net.run(
            row[None], keep=["resid_pre.1", f"resid_post.{net.n_layers - 1}"], grad=True, logits=False
        )
        x, y = run["resid_pre.1"], run[f"resid_post.{net.n_layers - 1}"]
        matrices.append(
            torch.stack([torch.autograd.grad(y[0, -1, i], x, retain_graph=True)[0][0, -1] for i in range(32)])
        )
        means.append(x[0, -1].detach())
        lasts.append(y[0, -1].detach())
    wanted = torch.stack(matrices).mean(0)
    assert torch.allclose(lens.translators[1].matrix, wanted, atol=1e-4 * float(wanted.abs().max()))
    centre = torch.stack(means).mean(0)
    assert torch.allclose(lens.translated(centre, 1), torch.stack(lasts).mean(0), atol=1e-4)


def test_signs_average_out_what_later_positions_owe() -> None:
    """All positions at once against each position alone: equal up to what random signs leave."""
    net = opened("gpt2")
    ids = rows(net, 64, 4)
    quick = jacobian_lens(net, Rows(ids), sampling=Sampling(rows=64, skip=0)).translators[0].matrix
    exact = torch.zeros(32, 32)
    for p in range(4):
        part = jacobian_lens(net, Rows(ids[:, : p + 1].contiguous()), sampling=Sampling(rows=64, skip=p))
        exact += part.translators[0].matrix / 4
    assert float((quick - exact).norm() / exact.norm()) < 0.15


def test_future_lens_against_least_squares() -> None:
    net = opened("gpt2")
    ids = rows(net, 40, 12)
    lens = future_lens(net, Rows(ids), ahead=2, ridge=0.0)
    run = net.run(ids, keep=["resid_pre", "resid_post.2"])
    x = run["resid_pre", 1][:, :-2].reshape(-1, 32).double()
    y = run["resid_post", 2][:, 2:].reshape(-1, 32).double()
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    assert torch.allclose(lens.translators[1].matrix.double(), solved[:-1].T, atol=1e-4)
    assert lens.layers == (0, 1, 2, 3)
    assert lens.name == "future+2"
    reading = read_lens(net, lens, ids[0].tolist())
    assert np.isnan(reading.kl[:, -2:]).all()
    assert not np.isnan(reading.kl[:, :-2]).any()


def test_future_lens_reads_what_is_determined(tales: Network, text: Rows) -> None:
    """On text, two tokens on: better than the constant, which is its chance level."""
    fit, held = text.split()
    lens = future_lens(tales, fit, ahead=1)
    constant = ConstantLens.of(tales, fit)
    report = compare_lenses(tales, [lens, constant], held)
    assert report.layers("future+1") == [0, 1, 2, 3, 4]
    assert report.rows == held.n


def test_bad_input(tales: Network) -> None:
    lens = LogitLens.of(tales)
    with pytest.raises(BadInput, match="empty"):
        read_lens(tales, lens, "Mary was sad", layers=[])
    with pytest.raises(BadInput, match="empty"):
        read_lens(tales, lens, "Mary was sad", layers=range(0))
    with pytest.raises(BadAddress):
        read_lens(tales, lens, "Mary was sad", layers=[9])
    with pytest.raises(TooLong):
        read_lens(tales, lens, "Mary " * 500)
    with pytest.raises(BadInput):
        read_lens(tales, lens, "Mary was sad", target=" she he")
    with pytest.raises(BadInput):
        rows_of(tales, "too short", length=64)
    with pytest.raises(BadInput):
        rows_of(tales, "Mary was sad " * 99, length=10**6)
    with pytest.raises(BadInput):
        LensTraining(optimizer="lion")
    with pytest.raises(BadInput):
        LensTraining(steps=0)
    with pytest.raises(BadInput):
        compare_lenses(tales, [lens, lens], "Mary was sad " * 99)
    part = AffineLens("part", OutputHead(tales), {1: Translator(torch.eye(128), torch.zeros(128))})
    with pytest.raises(BadInput, match="does not read"):
        read_lens(tales, part, "Mary was sad", layers=[0])
    with pytest.raises(BadInput):
        future_lens(tales, "Mary was sad. " * 40, ahead=0)
    with pytest.raises(SiteUnavailable):
        LogitLens.of(opened("bert"))
    with pytest.raises(SiteUnavailable, match="encoder-decoder"):
        LogitLens.of(opened("t5"))
    with pytest.raises(SiteUnavailable, match="no residual stream"):
        LogitLens.of(cutaway.open(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))))


def test_rows_begin_as_texts_begin(tales: Network) -> None:
    found = rows_of(tales, ["Mary was sad. "] * 50, length=16)
    assert found.special == 1
    assert bool((found.ids[:, 0] == tales.tokenizer.bos_token_id).all())
    assert found.ids.shape[1] == 16
    first, second = found.split(0.5, seed=1)
    assert first.n + second.n == found.n
