"""Fine-tuning through the network: the divergence of the logits falls on text that was not tuned on, and is what it says."""

from __future__ import annotations

import pytest
import torch
from tests.features.training.beds import texts

import cutaway
from cutaway.features.training import DictionaryTraining, train_dictionaries
from cutaway.network import Network


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open("zoo:induction-gpt2")


def train(net: Network, tokens: int) -> DictionaryTraining:
    rows = [[i % (net.d_vocab or 10) for i in row] for row in texts(120, 10)]
    return train_dictionaries(
        net,
        rows,
        at="resid_post.0",
        latents=64,
        k=4,
        tokens=3000,
        batch=64,
        controls=("frozen",),
        lr=4e-2,
        end_to_end=tokens,
    )


@pytest.fixture(scope="module")
def tuned(net: Network) -> DictionaryTraining:
    return train(net, 12_000)


def test_the_divergence_falls_for_a_dictionary_and_its_twin(tuned: DictionaryTraining) -> None:
    for one in tuned:
        told = one.end_to_end
        assert told is not None
        assert told.kl < 0.95 * told.kl_before
        assert told.kl < told.kl_mean
        assert told.tokens >= 12_000
        assert told.fvu == one.held.fvu.value


def test_the_divergence_is_that_of_a_run_with_the_reconstruction_in_place(
    net: Network, tuned: DictionaryTraining
) -> None:
    held = [[i % (net.d_vocab or 10) for i in row] for row in texts(120, 10)][::20]
    made = tuned["resid_post.0"]
    total = count = 0.0
    for row in held:
        plain, value = (net.run([row], keep=["resid_post.0"])[name] for name in ("logits", "resid_post.0"))
        put = value.clone()
        put[:, 1:] = made.reconstruct(value[:, 1:])
        spliced = net.run([row], edits=[cutaway.Apply("resid_post.0", lambda _: put)]).logits  # noqa: B023
        assert spliced is not None
        p, q = (x[0, 1:].double().log_softmax(-1) for x in (plain, spliced))
        total += float((p.exp() * (p - q)).sum())
        count += len(row) - 1
    told = tuned.trained[0].end_to_end
    assert told is not None
    assert told.kl == pytest.approx(total / count, rel=1e-3)
    assert told.held == count


def test_a_frozen_decoder_stays_and_thresholds_do(net: Network, tuned: DictionaryTraining) -> None:
    before = train(net, 0)
    frozen = "resid_post.0-frozen"
    assert torch.equal(tuned[frozen].decoders[0].weight, before[frozen].decoders[0].weight)
    assert not torch.equal(tuned[frozen].encoders[0].weight, before[frozen].encoders[0].weight)
    assert not torch.equal(
        tuned["resid_post.0"].decoders[0].weight, before["resid_post.0"].decoders[0].weight
    )
    one, other = (t[frozen].encoders[0].activation.threshold for t in (tuned, before))  # type: ignore[attr-defined]
    assert torch.equal(one, other)
    assert before.trained[0].end_to_end is None
