from __future__ import annotations

import dataclasses

import pytest
import torch

import cutaway
from cutaway.behaviours import (
    Behaviour,
    answer_log_prob,
    answer_logits,
    behaviour,
    measure,
    performance,
    require_performed,
)
from cutaway.behaviours.generators import GENERATORS, agreement, indirect_object, induction, pronoun
from cutaway.errors import BadBehaviour, BadFormat, BadInput, NotFinite, NotPerformed
from cutaway.network import Network


def test_logits_are_those_of_each_prompt_alone(stories: Network) -> None:
    b = pronoun(stories, n=12)
    assert len(set(b.lengths)) > 1
    together = answer_logits(stories, b, batch=5)
    for row in range(b.n):
        ids = torch.tensor([b.clean_ids[row]])
        with torch.no_grad():
            alone = stories.model(ids).logits[0, -1]
        torch.testing.assert_close(together[row], alone, atol=2e-4, rtol=1e-4)


def test_positions_in_the_middle_of_prompts(stories: Network) -> None:
    b = pronoun(stories, n=6)
    moved = dataclasses.replace(b, answer_pos=(1, 2, -2, 3, 1, -3))
    logits = answer_logits(stories, moved)
    for row in range(b.n):
        with torch.no_grad():
            alone = stories.model(torch.tensor([b.clean_ids[row]])).logits[0, moved.answer_pos[row]]
        torch.testing.assert_close(logits[row], alone, atol=2e-4, rtol=1e-4)


def test_the_story_model_knows_pronouns_and_number_and_not_the_indirect_object(stories: Network) -> None:
    for made in (pronoun(stories, n=96), agreement(stories, n=96)):
        found = performance(stories, made)
        assert found.does_it
        assert found.accuracy.value > 0.9
        assert found.contrast.above(0) is True
        assert str(found) == found.sentence
        assert found.to_dict()["does_it"] is True
    with pytest.raises(
        NotPerformed, match=r"answers \d+ of 96 prompts of 'ioi' right: 0\.\d+ \[.*does not do"
    ):
        require_performed(stories, indirect_object(stories, n=96))
    assert not require_performed(stories, indirect_object(stories, n=32), force=True).does_it


@pytest.mark.parametrize("name", ["pronoun", "ioi", "agreement", "induction"])
def test_the_embedded_network_does_what_it_was_trained_for(tales_net: Network, name: str) -> None:
    made = behaviour(name, tales_net, n=96)
    for part in (made.discovery, made.held_out):
        assert performance(tales_net, part).accuracy.value >= 0.95


@pytest.mark.parametrize("name", ["facts", "docstring", "list-copying"])
def test_the_embedded_network_is_not_said_to_do_what_it_does_not(tales_net: Network, name: str) -> None:
    with pytest.raises(NotPerformed, match="does not do the behaviour"):
        behaviour(name, tales_net, n=64)


@pytest.mark.parametrize("name", ["pronoun", "agreement"])
def test_random_weights_do_nothing(stories: Network, name: str) -> None:
    with pytest.raises(NotPerformed):
        behaviour(name, stories.randomized(0), n=64)
    assert behaviour(name, stories.randomized(0), n=16, force=True).n == 16


def test_kl_is_measured_against_the_clean_prompts(stories: Network) -> None:
    b = pronoun(stories, n=24).with_metric("kl")
    torch.testing.assert_close(measure(stories, b), torch.zeros(24), atol=1e-5, rtol=0)
    assert (measure(stories, b, "corrupted") > 0.01).all()
    assert performance(stories, b).contrast.above(0) is True


def test_whole_answers(stories: Network) -> None:
    b = agreement(stories, n=8)
    assert max(len(full) for full in b.right_full) > 1
    got = answer_log_prob(stories, b, batch=3)
    for row in range(b.n):
        ids = torch.tensor([[*b.clean_ids[row], *b.right_full[row]]])
        with torch.no_grad():
            log_probs = stories.model(ids).logits[0].log_softmax(-1)
        start = len(b.clean_ids[row])
        expected = sum(log_probs[start - 1 + i, t] for i, t in enumerate(b.right_full[row]))
        assert got[row].item() == pytest.approx(float(expected), abs=2e-4)
    one_token = pronoun(stories, n=4)
    torch.testing.assert_close(
        answer_log_prob(stories, one_token),
        measure(stories, one_token.with_metric("log_prob")),
        atol=2e-4,
        rtol=1e-4,
    )
    with pytest.raises(BadBehaviour, match="middle of prompts"):
        answer_log_prob(stories, dataclasses.replace(one_token, answer_pos=(1, 1, 1, 1)))
    with pytest.raises(BadBehaviour, match="no wrong answer"):
        answer_log_prob(stories, dataclasses.replace(one_token, wrong_full=((),) * 4), "wrong")


def test_edits_are_carried_out(stories: Network) -> None:
    b = pronoun(stories, n=8)
    cut = cutaway.Ablate("resid_post", layer=4, how="zero")
    assert not torch.allclose(measure(stories, b), measure(stories, b, edits=[cut]))


def test_a_network_that_gives_nan_is_found_out(wordless: Network) -> None:
    b = induction(wordless, n=4)
    with torch.no_grad():
        wordless.model.get_parameter("transformer.ln_f.weight").fill_(float("nan"))
    with pytest.raises(NotFinite, match="4 of 4 examples"):
        performance(wordless, b)


def test_one_example_is_too_few_to_tell(stories: Network) -> None:
    assert not performance(stories, pronoun(stories, n=8)[0]).does_it


def test_every_generator_runs_on_a_network_without_knowledge(gpt2_net: Network) -> None:
    for name, generate in GENERATORS.items():
        made: Behaviour = generate(gpt2_net, n=8)
        found = performance(gpt2_net, made)
        assert found.accuracy.n == 8, name
        assert not found.does_it or made.metric.name == "prob_diff", name


def test_one_example_is_refused_saying_how_many_are_needed(tales_net: Network) -> None:
    with pytest.raises(NotPerformed, match=r"One example .* too few to tell .*from 4 on"):
        require_performed(tales_net, pronoun(tales_net, n=8)[0])


def test_bad_arguments_are_named(tales_net: Network, tmp_path) -> None:
    for n in (2.5, 0, "many", True):
        with pytest.raises(BadInput, match="whole number"):
            behaviour("pronoun", tales_net, n=n)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="'foo'"):
        pronoun(tales_net, n=8).split("foo")  # type: ignore[arg-type]
    file = tmp_path / "pairs.parquet"
    file.write_text("x")
    with pytest.raises(BadFormat, match=r"pairs.parquet.*type.*\.csv"):
        behaviour(file, tales_net)
